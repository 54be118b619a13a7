//! The frames of the session-layer workloads: a head, by default four bytes of length, and then the payload.
//!
//! | payload | who | what |
//! |---|---|---|
//! | 8 bytes | load → server → load | hello: the session's index, which the server sends back |
//! | 64 bytes | server → load | sender, recipient's index, sequence, time, and 40 bytes that follow from these |

use crate::form::{Form, WrongHead};
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

    pub fn payload(index: u32) -> [u8; Hello::PAYLOAD_BYTES] {
        let mut bytes = [0; Hello::PAYLOAD_BYTES];
        bytes[..4].copy_from_slice(&Hello::MAGIC);
        bytes[4..].copy_from_slice(&index.to_le_bytes());
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
    /// On the wire, after its length.
    pub fn bytes(&self) -> [u8; FRAME_BYTES] {
        let mut bytes = [0; FRAME_BYTES];
        let (header, payload) = bytes.split_at_mut(HEADER_BYTES);
        header.copy_from_slice(&(PAYLOAD_BYTES as u32).to_be_bytes());
        payload.copy_from_slice(&self.payload());
        bytes
    }

    pub fn payload(&self) -> [u8; PAYLOAD_BYTES] {
        let mut bytes = [0; PAYLOAD_BYTES];
        for (place, word) in bytes.chunks_exact_mut(8).zip(self.words()) {
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
    form: Form,
    tail: Vec<u8>,
}

impl FrameCutter {
    pub fn new(form: Form) -> FrameCutter {
        FrameCutter { form, tail: Vec::new() }
    }

    /// Calls `take` with each payload that is complete. An error if a head is senseless.
    pub fn cut(&mut self, mut bytes: &[u8], mut take: impl FnMut(&[u8])) -> Result<(), WrongHead> {
        while !self.tail.is_empty() && !bytes.is_empty() {
            let head = self.form.read(&self.tail)?;
            let want = head.map_or(1, |head| head.frame_bytes() - self.tail.len());
            let (more, rest) = bytes.split_at(want.min(bytes.len()));
            self.tail.extend_from_slice(more);
            bytes = rest;
            if let Some(head) = self.form.read(&self.tail)?
                && head.frame_bytes() == self.tail.len()
            {
                take(&self.tail[head.bytes..]);
                self.tail.clear();
            }
        }
        while let Some(head) = self.form.read(bytes)?
            && head.frame_bytes() <= bytes.len()
        {
            let (frame, rest) = bytes.split_at(head.frame_bytes());
            take(&frame[head.bytes..]);
            bytes = rest;
        }
        self.tail.extend_from_slice(bytes);
        if self.tail.is_empty() && self.tail.capacity() > 0 {
            self.tail = Vec::new(); // a quiet session holds nothing
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_back_whole_wherever_the_bytes_are_cut() {
        let frames: Vec<Frame> = (0..3)
            .map(|n| Frame { sender: 1, recipient: 7, sequence: n, due_ns: 99 * n })
            .collect();
        let payloads = || frames.iter().map(Frame::payload);
        for form in [Form::Length, Form::WebSocket] {
            let mut stream = Vec::new();
            form.append_answer(&Hello::payload(7), &mut stream);
            payloads().for_each(|payload| form.append_answer(&payload, &mut stream));
            form.append_answer(&[5; 300], &mut stream);
            for step in 1..stream.len() {
                let (mut cutter, mut got) = (FrameCutter::new(form), Vec::new());
                for piece in stream.chunks(step) {
                    cutter.cut(piece, |payload| got.push(payload.to_vec())).expect("right heads");
                }
                let [hello, said @ .., long] = &got[..] else { panic!("there are five") };
                assert_eq!(Hello::read(hello), Some(7));
                assert!(said.iter().map(|it| Frame::read(it)).eq(frames.iter().copied().map(Some)));
                assert_eq!(*long, [5; 300]);
            }
        }
        let mut wrong = frames[0].bytes();
        wrong[FRAME_BYTES - 1] ^= 1;
        assert_eq!(Frame::read(&wrong[HEADER_BYTES..]), None);
    }
}
