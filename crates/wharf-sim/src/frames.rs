//! Frames that contain their sender, receiver and number. So a receiver notices one that is lost, duplicated,
//! torn or misdirected.

use wharf::SessionId;

/// A frame from a peer to the handler.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) peer: u32,
    pub(crate) number: u32,
    pub(crate) action: u8,
    pub(crate) argument: u16,
}

/// A frame from the server's side to a session's peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) to: SessionId,
    pub(crate) sender: u32,
    pub(crate) number: u32,
}

/// The largest frame that is allowed either way.
pub(crate) const FRAME_BYTES_MAX: usize = 20_000;
/// Before each frame.
pub(crate) const HEADER_BYTES: usize = 4;
/// There are groups 0 to this. A publication to this one is to everyone.
pub(crate) const GROUPS: u64 = 4;

/// The least that a frame has: what it says, and so much of the body that a changed bit shows.
const REQUEST_HEAD_BYTES: usize = 11;
const MESSAGE_HEAD_BYTES: usize = 16;
const BODY_BYTES_MIN: usize = 4;

/// Which bytes frames have.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) enum Shape {
    /// Any.
    #[default]
    Bytes,
    /// Printable ones, with [`TEXT_END`] at the end and nowhere else; and so many of them, if each frame has as many.
    Text { bytes: Option<usize> },
}

/// The last byte of a text, and no other.
pub(crate) const TEXT_END: u8 = b';';
/// A text begins with one of these 16.
pub(crate) const TEXT_BEGINS: std::ops::RangeInclusive<u8> = b'!'..=b'0';
/// More bytes than that range has numbers: so no length of one byte looks like the beginning of a text.
const TEXT_BYTES_MIN: usize = *TEXT_BEGINS.end() as usize + 1;

impl Shape {
    pub(crate) fn is_text(self) -> bool {
        matches!(self, Shape::Text { .. })
    }

    /// A frame of so many bytes, or a few more: a head, and a body that follows from the seed.
    fn write(self, head: &[u8], bytes: usize, seed: u32, into: &mut Vec<u8>) {
        let start = into.len();
        match self {
            Shape::Bytes => {
                into.extend(head);
                let end = start + bytes.max(head.len() + BODY_BYTES_MIN);
                into.extend((0..end - into.len()).map(|at| byte(at, seed)));
            }
            Shape::Text { bytes: exactly } => {
                let halves = head.iter().flat_map(|byte| [byte >> 4, byte & 15]);
                into.extend(halves.map(|half| TEXT_BEGINS.start() + half));
                let last = start + exactly.unwrap_or(bytes.max(TEXT_BYTES_MIN)) - 1;
                into.extend((0..last - into.len()).map(|at| letter(at, seed)));
                into.push(TEXT_END);
            }
        }
    }

    /// The head of a frame and its body, and what the body is made by.
    fn read<const N: usize>(self, frame: &[u8]) -> Option<([u8; N], &[u8], MadeBy)> {
        match self {
            Shape::Bytes => {
                let (head, body) = frame.split_at_checked(N)?;
                Some((head.try_into().ok()?, body, byte))
            }
            Shape::Text { .. } => {
                let (head, body) = frame.strip_suffix(&[TEXT_END])?.split_at_checked(2 * N)?;
                let half =
                    |byte: u8| TEXT_BEGINS.contains(&byte).then(|| byte - TEXT_BEGINS.start());
                let mut read = [0; N];
                for (byte, halves) in read.iter_mut().zip(head.chunks(2)) {
                    *byte = half(halves[0])? << 4 | half(halves[1])?;
                }
                Some((read, body, letter))
            }
        }
    }
}

impl Request {
    pub(crate) fn write(self, bytes: usize, shape: Shape, into: &mut Vec<u8>) {
        let mut head = [0; REQUEST_HEAD_BYTES];
        head[..4].copy_from_slice(&self.peer.to_be_bytes());
        head[4..8].copy_from_slice(&self.number.to_be_bytes());
        head[8] = self.action;
        head[9..].copy_from_slice(&self.argument.to_be_bytes());
        shape.write(&head, bytes, self.seed(), into);
    }

    /// `None`: it is no frame of ours, or a torn one.
    pub(crate) fn read(frame: &[u8], shape: Shape) -> Option<Request> {
        let (head, body, made_by) = shape.read::<REQUEST_HEAD_BYTES>(frame)?;
        let word = |at: usize| Some(u32::from_be_bytes(head.get(at..at + 4)?.try_into().ok()?));
        let request = Request {
            peer: word(0)?,
            number: word(4)?,
            action: head[8],
            argument: u16::from_be_bytes([head[9], head[10]]),
        };
        is_filled(body, request.seed(), made_by).then_some(request)
    }

    fn seed(self) -> u32 {
        let asked = u32::from(self.action) << 16 | u32::from(self.argument);
        self.peer ^ self.number.rotate_left(16) ^ asked.rotate_left(24)
    }
}

impl Message {
    pub(crate) fn write(self, bytes: usize, shape: Shape) -> Vec<u8> {
        let mut head = [0; MESSAGE_HEAD_BYTES];
        head[..8].copy_from_slice(&self.to.to_bits().to_be_bytes());
        head[8..12].copy_from_slice(&self.sender.to_be_bytes());
        head[12..].copy_from_slice(&self.number.to_be_bytes());
        let mut into = Vec::with_capacity(bytes);
        shape.write(&head, bytes, self.seed(), &mut into);
        into
    }

    /// `None`: it is no frame of ours, or a torn one.
    pub(crate) fn read(frame: &[u8], shape: Shape) -> Option<Message> {
        let (head, body, made_by) = shape.read::<MESSAGE_HEAD_BYTES>(frame)?;
        let message = Message {
            to: SessionId::from_bits(u64::from_be_bytes(head[..8].try_into().ok()?)),
            sender: u32::from_be_bytes(head[8..12].try_into().ok()?),
            number: u32::from_be_bytes(head[12..].try_into().ok()?),
        };
        is_filled(body, message.seed(), made_by).then_some(message)
    }

    fn seed(self) -> u32 {
        (self.to.to_bits() as u32) ^ self.sender.rotate_left(8) ^ self.number.rotate_left(16)
    }
}

/// What the byte of a body at a place is, of a seed.
type MadeBy = fn(usize, u32) -> u8;

fn is_filled(body: &[u8], seed: u32, made_by: MadeBy) -> bool {
    let mut bytes = body.iter().enumerate();
    body.len() >= BODY_BYTES_MIN && bytes.all(|(at, found)| *found == made_by(at, seed))
}

fn letter(at: usize, seed: u32) -> u8 {
    b'a' + byte(at, seed) % 26
}

fn byte(at: usize, seed: u32) -> u8 {
    (at as u32).wrapping_mul(0x9E37_79B1).wrapping_add(seed.wrapping_mul(0x85EB_CA6B)).to_be_bytes()
        [0]
}

/// Cuts whole frames behind lengths of 4 bytes, big-endian, from the front of what has come.
pub(crate) fn cut_frames(stream: &mut Vec<u8>, mut each: impl FnMut(&[u8])) {
    let mut at = 0;
    while let Some(length) = stream.get(at..at + 4) {
        let length = u32::from_be_bytes([length[0], length[1], length[2], length[3]]) as usize;
        let Some(frame) = stream.get(at + 4..at + 4 + length) else { break };
        each(frame);
        at += 4 + length;
    }
    stream.drain(..at);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_what_is_torn_is_not() {
        let request = Request { peer: 7, number: 300, action: 2, argument: 513 };
        let message = Message { to: SessionId::from_bits(0x0300_0001), sender: 9, number: 70_000 };
        let text = Shape::Text { bytes: None };
        let sized = Shape::Text { bytes: Some(60) };
        for (shape, least, most) in [(Shape::Bytes, 15, 2_000), (text, 49, 2_000), (sized, 60, 60)]
        {
            for bytes in [0, 15, 40, 2_000] {
                let mut frame = Vec::new();
                request.write(bytes, shape, &mut frame);
                assert_eq!(frame.len(), bytes.clamp(least, most), "{shape:?}");
                assert_eq!(Request::read(&frame, shape), Some(request));
            }
            let mut frame = message.write(100, shape);
            assert_eq!(Message::read(&frame, shape), Some(message));
            frame[50] ^= 1;
            assert_eq!(Message::read(&frame, shape), None);
            assert_eq!(Message::read(&frame[..10], shape), None);
        }
    }

    #[test]
    fn a_text_has_its_end_at_its_end_alone_and_begins_as_no_length_does() {
        for number in 0..5_000 {
            let message =
                Message { to: SessionId::from_bits(u64::MAX - 9), sender: number, number };
            let frame = message.write(number as usize, Shape::Text { bytes: None });
            assert_eq!(frame.iter().position(|byte| *byte == TEXT_END), Some(frame.len() - 1));
            assert!(frame.iter().all(|byte| byte.is_ascii_graphic() && *byte != b'|'));
            assert!(
                TEXT_BEGINS.contains(&frame[0]) && frame.len() > usize::from(*TEXT_BEGINS.end())
            );
        }
    }

    #[test]
    fn frames_are_cut_however_they_come() {
        let mut stream = Vec::new();
        let mut seen = Vec::new();
        for byte in *b"\0\0\0\x02hi\0\0\0\0\0\0\0\x01!\0\0" {
            stream.push(byte);
            cut_frames(&mut stream, |frame| seen.push(frame.to_vec()));
        }
        assert_eq!(seen, [&b"hi"[..], b"", b"!"]);
        assert_eq!(stream, b"\0\0");
    }
}
