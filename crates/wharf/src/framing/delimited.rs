//! Frames that end with a delimiter.
//!
//! The delimiter's last byte is searched for, and where it is found, the bytes before it are compared. So a search goes
//! on behind the last byte that it has seen, also in the middle of a delimiter.

use super::cut::{Cut, FramingError};
use crate::buffer::Envelope;
use crate::settings::settings;

settings! {
    /// Lines of text: frames that end with a line feed. The handler gets a line without its end, whether that is
    /// `\n` or `\r\n`.
    ///
    /// A line feed in a frame that is sent ends a line too: the peer gets two. wharf does not look for it.
    ///
    /// ```
    /// use wharf::{Framing, LineEnd, Lines};
    ///
    /// let framing = Framing::lines(Lines::default().sent_end(LineEnd::CrLf).frame_bytes_max(512));
    /// # let _ = framing;
    /// ```
    #[derive(Copy)]
    Lines {
        /// What ends a line that is sent. Default `\n`.
        sent_end: LineEnd = LineEnd::Lf,
        /// The most bytes that a line may have, its end not counted. A peer that sends a longer one ends its session
        /// with [`CloseReason::FrameTooLarge`](crate::CloseReason::FrameTooLarge). Default 64 KiB (65,536).
        frame_bytes_max: usize = 64 * 1024,
    }
}

/// What ends a line that is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LineEnd {
    /// `\n`.
    Lf,
    /// `\r\n`.
    CrLf,
}

/// Frames that end with a delimiter: any bytes, at most [`Delimiter::BYTES_MAX`].
///
/// A delimiter in a frame that is sent ends a frame too: the peer gets two. wharf does not look for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Delimiter {
    bytes: [u8; Delimiter::BYTES_MAX],
    /// More than fit: this delimiter is refused.
    count: usize,
    /// Whether frames have the delimiter at their end. If `true`, the handler gets it with the frame, and sends it with
    /// the frame: wharf adds none. Default `false`.
    pub kept: bool,
    /// The most bytes that a frame may have, its delimiter not counted unless it is kept. Default 64 KiB (65,536).
    pub frame_bytes_max: usize,
}

impl Delimiter {
    /// The most bytes that a delimiter may have.
    pub const BYTES_MAX: usize = 16;

    /// These bytes. None, or too many, are refused when a server is started with them.
    pub fn new(bytes: impl AsRef<[u8]>) -> Self {
        let given = bytes.as_ref();
        let mut bytes = [0; Self::BYTES_MAX];
        let count = given.len().min(Self::BYTES_MAX);
        bytes[..count].copy_from_slice(&given[..count]);
        Delimiter { bytes, count: given.len(), kept: false, frame_bytes_max: 64 * 1024 }
    }

    /// Sets [`kept`](field@Self::kept).
    #[must_use]
    pub fn kept(mut self, kept: bool) -> Self {
        self.kept = kept;
        self
    }

    /// Sets [`frame_bytes_max`](field@Self::frame_bytes_max).
    #[must_use]
    pub fn frame_bytes_max(mut self, bytes: usize) -> Self {
        self.frame_bytes_max = bytes;
        self
    }

    /// Its bytes, as far as there are no more than it may have.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.count.min(Self::BYTES_MAX)]
    }

    /// Bytes that stand behind a frame.
    pub(super) fn envelope_bytes(&self) -> usize {
        if self.kept { 0 } else { self.count }
    }

    /// The rule that its settings break, if any.
    pub(super) fn broken_rule(&self) -> Option<(&'static str, u64, &'static str)> {
        if !(1..=Self::BYTES_MAX).contains(&self.count) {
            return Some(("delimiter", self.count as u64, "it must have 1 to 16 bytes"));
        }
        if self.kept && self.frame_bytes_max < self.count {
            let says = "it must hold the delimiter";
            return Some(("frame_bytes_max", self.frame_bytes_max as u64, says));
        }
        None
    }

    pub(super) fn wire_frame_bytes_max(&self) -> usize {
        self.frame_bytes_max.saturating_add(self.envelope_bytes())
    }

    /// The most bytes of a frame that has at most so many on the wire.
    pub(super) fn frame_bytes_within(&self, wire_bytes: usize) -> usize {
        wire_bytes.saturating_sub(self.envelope_bytes()).min(self.frame_bytes_max)
    }

    pub(super) fn cut(&self, bytes: &[u8], scanned: usize) -> Cut {
        let delimiter = self.as_bytes();
        let Some((last, before)) = delimiter.split_last() else {
            return Cut::Refused(FramingError::Refused { reason: "an empty delimiter" });
        };
        // No further than the largest frame reaches.
        let bytes = &bytes[..bytes.len().min(self.wire_frame_bytes_max())];
        let mut at = scanned;
        while let Some(found) = find(*last, &bytes[at..]) {
            let end = at + found + 1;
            if bytes[..end - 1].ends_with(before) {
                let frame_bytes = if self.kept { end } else { end - delimiter.len() };
                return match frame_bytes <= self.frame_bytes_max {
                    true => Cut::Frame {
                        header_bytes: 0,
                        frame_bytes,
                        trailer_bytes: end - frame_bytes,
                    },
                    false => self.too_large(frame_bytes),
                };
            }
            at = end;
        }
        let unfinished_max = self.wire_frame_bytes_max() - 1;
        if bytes.len() > unfinished_max {
            return self.too_large(self.frame_bytes_max + 1);
        }
        Cut::More { bytes_min: bytes.len() + 1, scanned: bytes.len() }
    }

    fn too_large(&self, frame_bytes: usize) -> Cut {
        let (bytes, max) = (frame_bytes as u64, self.frame_bytes_max as u64);
        Cut::Refused(FramingError::FrameTooLarge { bytes, max })
    }

    pub(super) fn envelope(&self, frame_bytes: usize) -> Result<Envelope, FramingError> {
        within(frame_bytes, self.frame_bytes_max)?;
        Envelope::new(b"", if self.kept { b"" } else { self.as_bytes() })
    }
}

impl Lines {
    const END_BYTES_MAX: usize = 2;

    pub(super) fn wire_frame_bytes_max(&self) -> usize {
        self.frame_bytes_max.saturating_add(Self::END_BYTES_MAX)
    }

    pub(super) fn sent_end_bytes(&self) -> &'static [u8] {
        match self.sent_end {
            LineEnd::Lf => b"\n",
            LineEnd::CrLf => b"\r\n",
        }
    }

    pub(super) fn frame_bytes_within(&self, wire_bytes: usize) -> usize {
        wire_bytes.saturating_sub(self.sent_end_bytes().len()).min(self.frame_bytes_max)
    }

    pub(super) fn cut(&self, bytes: &[u8], scanned: usize) -> Cut {
        // No further than the largest line reaches.
        let bytes = &bytes[..bytes.len().min(self.wire_frame_bytes_max())];
        let found = find(b'\n', &bytes[scanned..]);
        let line = &bytes[..found.map_or(bytes.len(), |found| scanned + found)];
        // A carriage return at the end may be the first half of it.
        let frame = line.strip_suffix(b"\r").unwrap_or(line);
        if frame.len() > self.frame_bytes_max {
            let (bytes, max) = (frame.len() as u64, self.frame_bytes_max as u64);
            return Cut::Refused(FramingError::FrameTooLarge { bytes, max });
        }
        if found.is_none() {
            return Cut::More { bytes_min: bytes.len() + 1, scanned: bytes.len() };
        }
        let (frame_bytes, trailer_bytes) = (frame.len(), line.len() + 1 - frame.len());
        Cut::Frame { header_bytes: 0, frame_bytes, trailer_bytes }
    }

    pub(super) fn envelope(&self, frame_bytes: usize) -> Result<Envelope, FramingError> {
        within(frame_bytes, self.frame_bytes_max)?;
        Envelope::new(b"", self.sent_end_bytes())
    }
}

pub(super) fn within(bytes: usize, max: usize) -> Result<(), FramingError> {
    let (bytes, max) = (bytes as u64, max as u64);
    if bytes <= max { Ok(()) } else { Err(FramingError::FrameTooLarge { bytes, max }) }
}

fn find(byte: u8, bytes: &[u8]) -> Option<usize> {
    let found = memchr::memchr(byte, bytes);
    #[cfg(test)]
    looked_at::note(found.map_or(bytes.len(), |at| at + 1));
    found
}

/// Counts scanned bytes, for tests.
#[cfg(test)]
pub(crate) mod looked_at {
    use std::cell::Cell;

    thread_local! {
        static BYTES: Cell<usize> = const { Cell::new(0) };
    }

    pub(super) fn note(bytes: usize) {
        BYTES.set(BYTES.get() + bytes);
    }

    #[cfg_attr(not(unix), allow(dead_code, reason = "asked by a test over a Unix port"))]
    /// How many bytes this thread has scanned since the last call.
    pub(crate) fn take() -> usize {
        BYTES.take()
    }
}
