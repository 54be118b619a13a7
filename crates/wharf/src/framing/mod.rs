//! Bytes to frames, without I/O: where in a stream one frame ends and the next begins.
//!
//! A framing only looks. [`Framing::cut`] is shown the bytes that are there, from a frame boundary
//! on, and says where the first frame lies or how many bytes to gather before asking again; it
//! copies nothing, keeps nothing and allocates nothing. So a frame can be handed out straight from
//! the buffer that it was received into, and what a peer announces is judged before any memory is
//! spent on it (invariant 9).
//!
//! It keeps nothing, so it is told what it has said before: how many of the bytes it has *scanned*. One
//! that searches for the end of a frame goes on there, and its work is linear in the frame, however many
//! pieces that comes in.

mod cut;
mod length;
#[cfg(test)]
pub(crate) mod line;

use std::fmt;

pub(crate) use self::cut::{Cut, FramingError, TakeOver};
pub use self::length::{Endianness, LengthPrefix, LengthWidth};

/// The most that one raw frame has: what was received at once may be delivered in several.
pub(crate) const RAW_FRAME_BYTES_MAX: usize = 64 * 1024;

/// How a session's bytes are cut into frames: the same in both directions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Framing(Kind);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Raw,
    Length(LengthPrefix),
    #[cfg(test)]
    Line(line::Line),
}

/// The framings that are declared at the start. A session has one of them for its whole life, and its slot
/// that one's index: a byte, for each of whose values there is a place, so none is out of range.
#[derive(Clone, Copy)]
pub(crate) struct Framings {
    places: [Framing; 256],
    declared: usize,
    /// The index of the one that each new session has.
    newcomers: u8,
}

impl Framings {
    /// At least one, and at most as many as there are places.
    pub(crate) fn of(declared: &[Framing]) -> Self {
        let mut places = [Framing::raw(); 256];
        assert!(!declared.is_empty(), "there is a framing");
        places[..declared.len()].copy_from_slice(declared);
        Framings { places, declared: declared.len(), newcomers: 0 }
    }

    pub(crate) fn get(&self, index: u8) -> &Framing {
        &self.places[usize::from(index)]
    }

    pub(crate) fn of_newcomers(&self) -> u8 {
        assert!(usize::from(self.newcomers) < self.declared, "a framing is declared, then used");
        self.newcomers
    }

    #[cfg(test)]
    pub(crate) fn for_newcomers(self, newcomers: u8) -> Self {
        Framings { newcomers, ..self }
    }
}

impl From<Framing> for Framings {
    fn from(only: Framing) -> Self {
        Framings::of(&[only])
    }
}

impl fmt::Debug for Framings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(&self.places[..self.declared]).finish()
    }
}

impl Framing {
    /// No framing: whatever was received at once, up to 64 KiB, is one frame, and a frame is sent as it is.
    pub fn raw() -> Self {
        Framing(Kind::Raw)
    }

    /// Each frame follows a header that says how long it is.
    pub fn length_prefixed(prefix: LengthPrefix) -> Self {
        Framing(Kind::Length(prefix))
    }

    #[cfg(test)]
    pub(crate) fn line(frame_bytes_max: usize) -> Self {
        Framing(Kind::Line(line::Line { frame_bytes_max }))
    }

    pub(crate) fn is_raw(&self) -> bool {
        self.0 == Kind::Raw
    }

    /// The most bytes that a frame and its header have on the wire; raw frames know no bound.
    pub(crate) fn wire_frame_bytes_max(&self) -> Option<usize> {
        match &self.0 {
            Kind::Raw => None,
            Kind::Length(prefix) => Some(prefix.wire_frame_bytes_max()),
            #[cfg(test)]
            Kind::Line(line) => Some(line.wire_frame_bytes_max()),
        }
    }

    /// Looks for the frame that begins at the first of `bytes`, of which so many were scanned before.
    pub(crate) fn cut(&self, bytes: &[u8], scanned: usize) -> Cut {
        debug_assert!(scanned <= bytes.len());
        match &self.0 {
            Kind::Raw if bytes.is_empty() => Cut::More { bytes_min: 1, scanned: 0 },
            Kind::Raw => {
                let frame_bytes = bytes.len().min(RAW_FRAME_BYTES_MAX);
                Cut::Frame { header_bytes: 0, frame_bytes, trailer_bytes: 0 }
            }
            Kind::Length(prefix) => prefix.cut(bytes),
            #[cfg(test)]
            Kind::Line(line) => line.cut(bytes, scanned),
        }
    }

    /// How a frame that waits in part, of which so many bytes were scanned, goes on with what `came`.
    pub(crate) fn take_over(&self, waiting: &[u8], scanned: usize, came: &[u8]) -> TakeOver {
        match &self.0 {
            // As many as it needs are known.
            Kind::Raw | Kind::Length(_) => match self.cut(waiting, scanned) {
                Cut::More { bytes_min, scanned } => {
                    TakeOver { bytes: (bytes_min - waiting.len()).min(came.len()), scanned }
                }
                Cut::Frame { .. } | Cut::Refused(_) => TakeOver { bytes: 0, scanned },
            },
            #[cfg(test)]
            Kind::Line(line) => line.take_over(waiting, scanned, came),
        }
    }

    /// Writes what goes before a frame of `frame_bytes`; says how many bytes of `header` that took.
    pub(crate) fn encode_header(
        &self,
        frame_bytes: usize,
        header: &mut [u8; 8],
    ) -> Result<usize, FramingError> {
        match &self.0 {
            Kind::Raw => Ok(0),
            Kind::Length(prefix) => prefix.encode_header(frame_bytes, header),
            #[cfg(test)]
            Kind::Line(_) => Ok(0),
        }
    }
}

impl Default for Framing {
    fn default() -> Self {
        Framing::raw()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn raw_bytes_are_one_frame_as_they_are() {
        let framing = Framing::raw();
        assert!(framing.is_raw());
        assert_eq!(framing.wire_frame_bytes_max(), None);
        assert_eq!(
            framing.cut(b"abc", 0),
            Cut::Frame { header_bytes: 0, frame_bytes: 3, trailer_bytes: 0 }
        );
        assert_eq!(framing.cut(b"", 0), Cut::More { bytes_min: 1, scanned: 0 });
        let largest = Cut::Frame { header_bytes: 0, frame_bytes: 65_536, trailer_bytes: 0 };
        assert_eq!(framing.cut(&[0; 65_537], 0), largest, "the rest is another frame");
        let mut header = [7; 8];
        assert_eq!(framing.encode_header(usize::MAX, &mut header), Ok(0));
        assert_eq!(header, [7; 8]);
    }

    #[test]
    fn a_framing_is_had_by_its_index_and_no_index_is_out_of_range() {
        let prefixed = Framing::length_prefixed(LengthPrefix::default());
        let framings = Framings::of(&[Framing::raw(), prefixed]).for_newcomers(1);
        assert_eq!((framings.get(0), framings.get(1)), (&Framing::raw(), &prefixed));
        assert_eq!(framings.get(framings.of_newcomers()), &prefixed);
        framings.get(u8::MAX);
        assert_eq!(format!("{framings:?}"), format!("{:?}", [Framing::raw(), prefixed]));
    }

    #[test]
    #[should_panic(expected = "a framing is declared")]
    fn no_session_is_given_a_framing_that_was_not_declared() {
        Framings::of(&[Framing::raw()]).for_newcomers(1).of_newcomers();
    }

    #[test]
    fn the_default_prefix_is_four_bytes_big_endian() {
        let framing = Framing::length_prefixed(LengthPrefix::default());
        assert!(!framing.is_raw());
        assert_eq!(framing.wire_frame_bytes_max(), Some(4 + 65_536));
        assert_eq!(
            framing.cut(b"\0\0\0\x02hi!", 0),
            Cut::Frame { header_bytes: 4, frame_bytes: 2, trailer_bytes: 0 }
        );
        let mut header = [0; 8];
        assert_eq!(framing.encode_header(0x0102, &mut header), Ok(4));
        assert_eq!(header[..4], [0, 0, 1, 2]);
    }
}
