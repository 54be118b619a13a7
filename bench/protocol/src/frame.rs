//! The frames of the session-layer workloads: four bytes of length, big endian, then the payload.
//!
//! | payload | who | what |
//! |---|---|---|
//! | 8 bytes | load → server → load | hello: the session's index, which the server sends back |
//! | 64 bytes | server → load | sender, recipient's index, sequence, time, and 40 bytes that follow from these |

use crate::pattern::mix;

pub const HEADER_BYTES: usize = 4;
pub const PAYLOAD_BYTES: usize = 64;
/// A frame on the wire.
pub const FRAME_BYTES: usize = HEADER_BYTES + PAYLOAD_BYTES;

/// How a session says who it is.
pub struct Hello;

impl Hello {
    pub const PAYLOAD_BYTES: usize = 8;
    const MAGIC: [u8; 4] = *b"HELO";

    /// On the wire.
    pub fn frame(index: u32) -> [u8; HEADER_BYTES + Hello::PAYLOAD_BYTES] {
        let mut bytes = [0; HEADER_BYTES + Hello::PAYLOAD_BYTES];
        bytes[..4].copy_from_slice(&(Hello::PAYLOAD_BYTES as u32).to_be_bytes());
        bytes[4..8].copy_from_slice(&Hello::MAGIC);
        bytes[8..].copy_from_slice(&index.to_le_bytes());
        bytes
    }

    /// The index, if the payload is a hello.
    pub fn read(payload: &[u8]) -> Option<u32> {
        let index = payload.strip_prefix(&Hello::MAGIC)?;
        Some(u32::from_le_bytes(index.try_into().ok()?))
    }
}

/// One frame that is counted and checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame {
    pub sender: u32,
    /// Whom it is for; a broadcast says 0.
    pub recipient: u32,
    /// Which it is, of this sender to this recipient.
    pub sequence: u64,
    /// When it was due to be sent.
    pub due_ns: u64,
}

impl Frame {
    /// On the wire.
    pub fn bytes(&self) -> [u8; FRAME_BYTES] {
        let mut bytes = [0; FRAME_BYTES];
        let (header, payload) = bytes.split_at_mut(HEADER_BYTES);
        header.copy_from_slice(&(PAYLOAD_BYTES as u32).to_be_bytes());
        for (place, word) in payload.chunks_exact_mut(8).zip(self.words()) {
            place.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    /// What a payload says, if every byte of it is right.
    pub fn read(payload: &[u8]) -> Option<Frame> {
        let payload: &[u8; PAYLOAD_BYTES] = payload.try_into().ok()?;
        let word = |index: usize| {
            u64::from_le_bytes(std::array::from_fn(|byte| payload[index * 8 + byte]))
        };
        let frame = Frame {
            sender: word(0) as u32,
            recipient: (word(0) >> 32) as u32,
            sequence: word(1),
            due_ns: word(2),
        };
        let due = frame.words();
        (3..8).all(|index| word(index) == due[index]).then_some(frame)
    }

    fn words(&self) -> [u64; 8] {
        let names = u64::from(self.recipient) << 32 | u64::from(self.sender);
        let seed = mix(names ^ mix(self.sequence) ^ self.due_ns);
        let filling = |index: u64| (seed ^ index).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        [
            names,
            self.sequence,
            self.due_ns,
            filling(3),
            filling(4),
            filling(5),
            filling(6),
            filling(7),
        ]
    }
}

/// Bytes → payloads. Whole frames are handed on where they lie; only an unfinished tail is copied.
#[derive(Debug, Default)]
pub struct FrameCutter {
    tail: Vec<u8>,
}

impl FrameCutter {
    /// Calls `take` with each payload that is complete. An error if a length is senseless.
    pub fn cut(
        &mut self,
        mut bytes: &[u8],
        mut take: impl FnMut(&[u8]),
    ) -> Result<(), FrameTooLarge> {
        while !self.tail.is_empty() && !bytes.is_empty() {
            let want = match frame_bytes(&self.tail)? {
                Some(whole) => whole - self.tail.len(),
                None => HEADER_BYTES - self.tail.len(),
            };
            let (more, rest) = bytes.split_at(want.min(bytes.len()));
            self.tail.extend_from_slice(more);
            bytes = rest;
            if frame_bytes(&self.tail)? == Some(self.tail.len()) {
                take(&self.tail[HEADER_BYTES..]);
                self.tail.clear();
            }
        }
        while let Some(whole) = frame_bytes(bytes)?
            && whole <= bytes.len()
        {
            take(&bytes[HEADER_BYTES..whole]);
            bytes = &bytes[whole..];
        }
        self.tail.extend_from_slice(bytes);
        if self.tail.is_empty() && self.tail.capacity() > 0 {
            self.tail = Vec::new(); // a quiet session holds nothing
        }
        Ok(())
    }
}

#[derive(Debug, Clone, Copy)]
pub struct FrameTooLarge(pub usize);

impl std::fmt::Display for FrameTooLarge {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "a frame of {} bytes", self.0)
    }
}

impl std::error::Error for FrameTooLarge {}

/// How long the frame is that begins here, if its header is here.
fn frame_bytes(bytes: &[u8]) -> Result<Option<usize>, FrameTooLarge> {
    const PAYLOAD_BYTES_MAX: usize = 64 * 1024;
    let Some(header) = bytes.first_chunk::<HEADER_BYTES>() else { return Ok(None) };
    let payload = u32::from_be_bytes(*header) as usize;
    if payload > PAYLOAD_BYTES_MAX {
        return Err(FrameTooLarge(payload));
    }
    Ok(Some(HEADER_BYTES + payload))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_back_whole_wherever_the_bytes_are_cut() {
        let frames: Vec<Frame> = (0..3)
            .map(|n| Frame { sender: 1, recipient: 7, sequence: n, due_ns: 99 * n })
            .collect();
        let mut stream = Hello::frame(7).to_vec();
        stream.extend(frames.iter().flat_map(Frame::bytes));
        for step in 1..stream.len() {
            let (mut cutter, mut got) = (FrameCutter::default(), Vec::new());
            for piece in stream.chunks(step) {
                cutter.cut(piece, |payload| got.push(payload.to_vec())).expect("sensible lengths");
            }
            assert_eq!(Hello::read(&got[0]), Some(7));
            assert!(got[1..].iter().map(|it| Frame::read(it)).eq(frames.iter().copied().map(Some)));
        }
        let mut wrong = frames[0].bytes();
        wrong[FRAME_BYTES - 1] ^= 1;
        assert_eq!(Frame::read(&wrong[HEADER_BYTES..]), None);
    }
}
