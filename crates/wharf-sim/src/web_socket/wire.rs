//! What a codec reads from and writes to: bytes that have come, and bytes that are to leave. It never blocks.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::rc::Rc;

use oorandom::Rand64;

#[derive(Debug, Default)]
struct Bytes {
    came: VecDeque<u8>,
    is_ended: bool,
    out: Vec<u8>,
}

/// One end of a stream. All clones are the same one.
#[derive(Debug, Clone, Default)]
pub(super) struct Wire(Rc<RefCell<Bytes>>);

impl Wire {
    pub(super) fn comes(&self, bytes: &[u8], is_ended: bool) {
        let mut of = self.0.borrow_mut();
        of.came.extend(bytes);
        of.is_ended = is_ended;
    }

    /// Whether a head has come that is whole.
    pub(super) fn has_head(&self) -> bool {
        let of = self.0.borrow();
        let (first, second) = of.came.as_slices();
        let came = [first, second].concat();
        came.windows(4).any(|four| four == b"\r\n\r\n")
    }

    /// Writes past the codec.
    pub(super) fn push(&self, bytes: &[u8]) {
        self.0.borrow_mut().out.extend(bytes);
    }

    pub(super) fn take_out(&self) -> Vec<u8> {
        std::mem::take(&mut self.0.borrow_mut().out)
    }

    pub(super) fn out_bytes(&self) -> usize {
        self.0.borrow().out.len()
    }

    /// Masks the frames of a client anew that were written behind so many bytes: the codec draws its keys from the
    /// system, and here the seed decides everything.
    pub(super) fn mask_anew(&self, from: usize, random: &mut Rand64) {
        let out = &mut self.0.borrow_mut().out;
        let mut rest = &mut out[from..];
        while let [_, second, ..] = rest {
            let (length_bytes, short) = match *second & 0x7F {
                126 => (2, 0),
                127 => (8, 0),
                short => (0, usize::from(short)),
            };
            let head_bytes = 2 + length_bytes;
            let long =
                rest[2..head_bytes].iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte));
            let end = head_bytes + 4 + short + long;
            let (frame, behind) = std::mem::take(&mut rest).split_at_mut(end);
            let (key, payload) = frame[head_bytes..].split_at_mut(4);
            let new = (random.rand_u64() as u32).to_be_bytes();
            for (at, byte) in payload.iter_mut().enumerate() {
                *byte ^= key[at % 4] ^ new[at % 4];
            }
            key.copy_from_slice(&new);
            rest = behind;
        }
    }
}

impl Read for Wire {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let mut of = self.0.borrow_mut();
        if of.came.is_empty() && !of.is_ended {
            return Err(ErrorKind::WouldBlock.into());
        }
        of.came.read(into)
    }
}

impl Write for Wire {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.push(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
