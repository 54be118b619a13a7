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
pub(crate) const REQUEST_BYTES: usize = REQUEST_HEAD_BYTES + BODY_BYTES_MIN;
pub(crate) const MESSAGE_BYTES: usize = MESSAGE_HEAD_BYTES + BODY_BYTES_MIN;

impl Request {
    pub(crate) fn write(self, bytes: usize, into: &mut Vec<u8>) {
        let start = into.len();
        into.extend(self.peer.to_be_bytes());
        into.extend(self.number.to_be_bytes());
        into.push(self.action);
        into.extend(self.argument.to_be_bytes());
        fill(into, start + bytes.max(REQUEST_BYTES), self.seed());
    }

    /// `None`: it is no frame of ours, or a torn one.
    pub(crate) fn read(frame: &[u8]) -> Option<Request> {
        let (head, body) = frame.split_at_checked(REQUEST_HEAD_BYTES)?;
        let word = |at: usize| Some(u32::from_be_bytes(head.get(at..at + 4)?.try_into().ok()?));
        let request = Request {
            peer: word(0)?,
            number: word(4)?,
            action: head[8],
            argument: u16::from_be_bytes([head[9], head[10]]),
        };
        is_filled(body, request.seed()).then_some(request)
    }

    fn seed(self) -> u32 {
        let asked = u32::from(self.action) << 16 | u32::from(self.argument);
        self.peer ^ self.number.rotate_left(16) ^ asked.rotate_left(24)
    }
}

impl Message {
    pub(crate) fn write(self, bytes: usize) -> Vec<u8> {
        let mut into = Vec::with_capacity(bytes.max(MESSAGE_BYTES));
        into.extend(self.to.to_bits().to_be_bytes());
        into.extend(self.sender.to_be_bytes());
        into.extend(self.number.to_be_bytes());
        fill(&mut into, bytes.max(MESSAGE_BYTES), self.seed());
        into
    }

    /// `None`: it is no frame of ours, or a torn one.
    pub(crate) fn read(frame: &[u8]) -> Option<Message> {
        let (head, body) = frame.split_at_checked(MESSAGE_HEAD_BYTES)?;
        let message = Message {
            to: SessionId::from_bits(u64::from_be_bytes(head[..8].try_into().ok()?)),
            sender: u32::from_be_bytes(head[8..12].try_into().ok()?),
            number: u32::from_be_bytes(head[12..].try_into().ok()?),
        };
        is_filled(body, message.seed()).then_some(message)
    }

    fn seed(self) -> u32 {
        (self.to.to_bits() as u32) ^ self.sender.rotate_left(8) ^ self.number.rotate_left(16)
    }
}

fn fill(into: &mut Vec<u8>, len: usize, seed: u32) {
    let from = into.len();
    into.extend((0..len - from).map(|at| byte(at, seed)));
}

fn is_filled(body: &[u8], seed: u32) -> bool {
    let mut bytes = body.iter().enumerate();
    body.len() >= BODY_BYTES_MIN && bytes.all(|(at, found)| *found == byte(at, seed))
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
        for bytes in [0, REQUEST_BYTES, 40, 2_000] {
            let mut frame = Vec::new();
            request.write(bytes, &mut frame);
            assert_eq!(frame.len(), bytes.max(REQUEST_BYTES));
            assert_eq!(Request::read(&frame), Some(request));
        }
        let message = Message { to: SessionId::from_bits(0x0300_0001), sender: 9, number: 70_000 };
        let mut frame = message.write(100);
        assert_eq!(Message::read(&frame), Some(message));
        frame[50] ^= 1;
        assert_eq!(Message::read(&frame), None);
        assert_eq!(Message::read(&frame[..10]), None);
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
