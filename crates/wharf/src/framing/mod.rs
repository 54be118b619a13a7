//! Bytes to frames, without I/O: where in a stream one frame ends and the next begins.
//!
//! A framing only inspects. [`Framing::cut`] gets the available bytes from a frame boundary on, and says
//! where the first frame is, or how many bytes to collect before asking again. It copies, keeps and allocates
//! nothing. So a frame can be delivered straight from the receive buffer, and a peer's announcement is
//! checked before it costs memory (invariant 9).
//!
//! Since it keeps nothing, the caller tells it how many bytes it has *scanned* before. A framing that
//! searches for the end of a frame continues there, so its work is linear in the frame, however many pieces
//! it arrives in.

mod cut;
mod length;
#[cfg(test)]
pub(crate) mod line;

use std::fmt;
use std::sync::Arc;

pub(crate) use self::cut::{Cut, FramingError, TakeOver};
pub use self::length::{Endianness, LengthPrefix, LengthWidth};

/// The largest raw frame. What arrives at once may be delivered in several.
pub(crate) const RAW_FRAME_BYTES_MAX: usize = 64 * 1024;

/// How the bytes of a session become frames, in both directions.
///
/// A frame is what [`Handler::received`](crate::Handler::received) gets and what a `send` takes. The library adds
/// and removes headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Framing(Kind);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Kind {
    Raw,
    Length(LengthPrefix),
    #[cfg(test)]
    Line(line::Line),
}

/// The framings declared at the start. A session has one for its whole life; its slot has the index. The
/// array has a place for each value of the byte, so no index is out of range.
#[derive(Clone)]
pub(crate) struct Framings {
    places: [Framing; 256],
    declared: usize,
    /// Those that differ: what is published is encoded once in each.
    forms: Arc<[Framing]>,
    /// Which of the forms each place has.
    form_of: [u8; 256],
}

impl Framings {
    /// At least one, and at most as many as there are places.
    pub(crate) fn of(declared: &[Framing]) -> Self {
        let mut places = [Framing::raw(); 256];
        assert!(!declared.is_empty(), "there is a framing");
        places[..declared.len()].copy_from_slice(declared);
        let mut forms: Vec<Framing> = Vec::new();
        let mut form_of = [0; 256];
        for (place, framing) in form_of.iter_mut().zip(declared) {
            let known = forms.iter().position(|form| form == framing);
            *place = known.unwrap_or(forms.len()) as u8; // there are no more than places
            if known.is_none() {
                forms.push(*framing);
            }
        }
        Framings { places, declared: declared.len(), forms: forms.into(), form_of }
    }

    /// The framings that differ.
    pub(crate) fn forms(&self) -> &Arc<[Framing]> {
        &self.forms
    }

    /// Which of them a session has whose slot says this index.
    #[inline]
    pub(crate) fn form_of(&self, index: u8) -> u8 {
        self.form_of[usize::from(index)]
    }

    /// The most that may be declared.
    pub(crate) const MAX: usize = 256;

    pub(crate) fn get(&self, index: u8) -> &Framing {
        &self.places[usize::from(index)]
    }

    /// Asserts that this index was declared.
    pub(crate) fn assert_declared(&self, index: u8) {
        assert!(usize::from(index) < self.declared, "a framing is declared, then used");
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
    /// No framing. Bytes are delivered as they come, up to 64 KiB at a time, and sent as they are. Where one
    /// `received` ends and the next begins means nothing: TCP and the kernel decide it.
    pub fn raw() -> Self {
        Framing(Kind::Raw)
    }

    /// Before each frame there is a header that says how long the frame is. A peer has 10 s for its first frame,
    /// unless [`time.first_frame_timeout`](field@crate::options::Time::first_frame_timeout) says otherwise.
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

    /// The most bytes of a frame with its header. `None` for raw frames.
    pub(crate) fn wire_frame_bytes_max(&self) -> Option<usize> {
        match &self.0 {
            Kind::Raw => None,
            Kind::Length(prefix) => Some(prefix.wire_frame_bytes_max()),
            #[cfg(test)]
            Kind::Line(line) => Some(line.wire_frame_bytes_max()),
        }
    }

    /// Looks for the frame that begins at the start of `bytes`, of which `scanned` were scanned before.
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

    /// How an unfinished frame `waiting`, of which `scanned` bytes were scanned, continues with what `came`.
    pub(crate) fn take_over(&self, waiting: &[u8], scanned: usize, came: &[u8]) -> TakeOver {
        match &self.0 {
            // The number of bytes it needs is known.
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

    /// Writes the header of a frame of `frame_bytes`. Returns the header's length.
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
        let framings = Framings::of(&[Framing::raw(), prefixed, Framing::raw()]);
        assert_eq!((framings.get(0), framings.get(1)), (&Framing::raw(), &prefixed));
        assert_eq!([0, 1, 2].map(|index| framings.form_of(index)), [0, 1, 0]);
        assert_eq!(**framings.forms(), [Framing::raw(), prefixed]);
        framings.get(u8::MAX);
        assert!(framings.form_of(u8::MAX) < 2);
    }

    #[test]
    #[should_panic(expected = "a framing is declared")]
    fn no_session_is_given_a_framing_that_was_not_declared() {
        Framings::of(&[Framing::raw()]).assert_declared(1);
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
