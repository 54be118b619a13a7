//! A minimal framing by a delimiter, for tests only. It shows that no byte is scanned twice, and counts
//! scanned bytes for that.

use std::cell::Cell;

use super::cut::{Cut, FramingError, TakeOver};

const DELIMITER: &[u8; 2] = b"\r\n";

thread_local! {
    static LOOKED_AT: Cell<usize> = const { Cell::new(0) };
}

#[cfg_attr(not(unix), allow(dead_code, reason = "asked by a test over a simulated or Unix port"))]
/// How many bytes this thread has scanned since the last call.
pub(crate) fn take_looked_at() -> usize {
    LOOKED_AT.take()
}

/// Frames that end with CR LF.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Line {
    pub(super) frame_bytes_max: usize,
}

impl Line {
    pub(super) fn wire_frame_bytes_max(&self) -> usize {
        self.frame_bytes_max + DELIMITER.len()
    }

    pub(super) fn cut(&self, bytes: &[u8], scanned: usize) -> Cut {
        match find(bytes, scanned) {
            Ok(frame_bytes) if frame_bytes <= self.frame_bytes_max => {
                Cut::Frame { header_bytes: 0, frame_bytes, trailer_bytes: DELIMITER.len() }
            }
            Err(scanned) if scanned <= self.frame_bytes_max => {
                Cut::More { bytes_min: bytes.len() + 1, scanned }
            }
            Ok(bytes) | Err(bytes) => {
                let (bytes, max) = (bytes as u64, self.frame_bytes_max as u64);
                Cut::Refused(FramingError::FrameTooLarge { bytes, max })
            }
        }
    }

    pub(super) fn take_over(&self, waiting: &[u8], scanned: usize, came: &[u8]) -> TakeOver {
        let Cut::More { scanned, .. } = self.cut(waiting, scanned) else {
            return TakeOver { bytes: 0, scanned };
        };
        let has_begun = scanned < waiting.len(); // the last waiting byte may be the delimiter's first
        if has_begun && came.first() == DELIMITER.last() {
            return TakeOver { bytes: 1, scanned };
        }
        let bytes_max = self.wire_frame_bytes_max() - waiting.len();
        let came = &came[..came.len().min(bytes_max)];
        match find(came, 0) {
            Ok(at) => TakeOver { bytes: at + DELIMITER.len(), scanned: waiting.len() + at },
            Err(scanned) => TakeOver { bytes: came.len(), scanned: waiting.len() + scanned },
        }
    }
}

/// The delimiter's position; or else the position from which it may still come.
fn find(bytes: &[u8], scanned: usize) -> Result<usize, usize> {
    let found = bytes[scanned..].windows(2).position(|two| two == DELIMITER);
    let looked_at = found.map_or(bytes.len() - scanned, |at| at + 2);
    LOOKED_AT.set(LOOKED_AT.get() + looked_at);
    let begins = bytes[scanned..].last() == DELIMITER.first();
    found.map(|at| scanned + at).ok_or(bytes.len() - usize::from(begins))
}

#[cfg(test)]
mod tests {
    use super::super::Framing;
    use super::*;

    #[test]
    fn wherever_a_line_is_chopped_it_is_the_same_and_no_byte_of_the_next_is_taken_over() {
        let framing = Framing::line(6);
        let stream = b"line\r\r\nnext\r\n";
        let whole = Cut::Frame { header_bytes: 0, frame_bytes: 5, trailer_bytes: 2 };
        for split in 1..7 {
            let (first, rest) = stream.split_at(split);
            let Cut::More { bytes_min, scanned } = framing.cut(first, 0) else { panic!("{split}") };
            assert_eq!(bytes_min, split + 1);
            let TakeOver { bytes, scanned } = framing.take_over(first, scanned, rest);
            assert_eq!(split + bytes, 7);
            assert_eq!(framing.cut(&stream[..7], scanned), whole);
        }
        assert_eq!(framing.cut(stream, 0), whole);
        assert_eq!(framing.take_over(&stream[..7], 0, b"next"), TakeOver { bytes: 0, scanned: 0 });
    }

    #[test]
    fn what_has_no_end_is_refused_at_the_bound() {
        let framing = Framing::line(6);
        let refusal = Cut::Refused(FramingError::FrameTooLarge { bytes: 8, max: 6 });
        assert_eq!(framing.cut(b"endless!", 0), refusal);
        assert!(matches!(framing.cut(b"endles\r", 0), Cut::More { scanned: 6, .. }));
        assert_eq!(framing.take_over(b"end", 3, b"less and so on").bytes, 5);
    }
}
