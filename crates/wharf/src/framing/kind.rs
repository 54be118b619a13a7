//! The framings there are.

use std::io::IoSlice;

use super::custom::{Custom, CustomFraming};
use super::cut::{Cut, FramingError};
use super::delimited::{Delimiter, Lines};
use super::length::LengthPrefix;
use super::length_field::LengthField;
use super::parts::Parts;
use super::varint::VarintPrefix;
#[cfg(feature = "websocket")]
use super::web_socket::{WebSocketForm, make_text};
use crate::buffer::Envelope;
use crate::error::{Error, Result};

/// The largest raw frame. What arrives at once may be delivered in several.
pub(crate) const RAW_FRAME_BYTES_MAX: usize = 64 * 1024;

/// How the bytes of a session become frames, in both directions.
///
/// A frame is what [`Handler::received`](crate::Handler::received) gets and what a `send` takes. The library adds
/// and removes what stands around it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Framing(pub(super) Kind);

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    Raw,
    Length(LengthPrefix),
    Lines(Lines),
    Delimited(Delimiter),
    Fixed {
        frame_bytes: usize,
    },
    Field(LengthField),
    Varint(VarintPrefix),
    Custom(Custom),
    #[cfg(feature = "websocket")]
    WebSocket(WebSocketForm),
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

    /// Lines of text. As with every framing but raw, a peer has 10 s for its first frame.
    pub fn lines(lines: Lines) -> Self {
        Framing(Kind::Lines(lines))
    }

    /// Each frame ends with a delimiter.
    pub fn delimited(delimiter: Delimiter) -> Self {
        Framing(Kind::Delimited(delimiter))
    }

    /// Each frame has so many bytes, 1 or more. One of another size cannot be sent.
    pub fn fixed(frame_bytes: usize) -> Self {
        Framing(Kind::Fixed { frame_bytes })
    }

    /// Each frame has a header with its length in it.
    pub fn length_field(field: LengthField) -> Self {
        Framing(Kind::Field(field))
    }

    /// Before each frame stands its length, in seven bits of each byte.
    pub fn varint(prefix: VarintPrefix) -> Self {
        Framing(Kind::Varint(prefix))
    }

    /// A framing of the program's own.
    pub fn custom(framing: impl CustomFraming) -> Self {
        Framing(Kind::Custom(Custom::new(framing)))
    }

    /// Messages of a WebSocket.
    #[cfg(feature = "websocket")]
    pub(crate) fn web_socket(form: WebSocketForm) -> Self {
        Framing(Kind::WebSocket(form))
    }

    /// The form of its messages, if it has those of a WebSocket.
    #[cfg(feature = "websocket")]
    pub(crate) fn web_socket_form(&self) -> Option<&WebSocketForm> {
        match &self.0 {
            Kind::WebSocket(form) => Some(form),
            _ => None,
        }
    }

    /// Whether it has peers that may listen for ever.
    pub(crate) fn may_be_silent(&self) -> bool {
        match &self.0 {
            Kind::Raw => true,
            #[cfg(feature = "websocket")]
            Kind::WebSocket(_) => true, // they have shown who they are
            _ => false,
        }
    }

    /// Has an envelope say that its frame is text, if the framing can.
    pub(crate) fn make_text(&self, envelope: &mut Envelope) {
        match &self.0 {
            #[cfg(feature = "websocket")]
            Kind::WebSocket(_) => make_text(envelope),
            _ => {
                let _ = envelope;
            }
        }
    }

    pub(crate) fn is_raw(&self) -> bool {
        self.0 == Kind::Raw
    }

    /// Whether its settings can be had.
    pub(crate) fn check(&self) -> Result<()> {
        let broken = match &self.0 {
            Kind::Raw | Kind::Length(_) | Kind::Lines(_) | Kind::Custom(_) => None,
            Kind::Delimited(delimiter) => delimiter.broken_rule(),
            Kind::Fixed { frame_bytes } => {
                (*frame_bytes == 0).then_some(("frame_bytes", 0, "it must be 1 or more"))
            }
            Kind::Field(field) => field.broken_rule(),
            Kind::Varint(prefix) => prefix.broken_rule(),
            #[cfg(feature = "websocket")]
            Kind::WebSocket(_) => None,
        };
        match broken {
            None => Ok(()),
            Some((name, value, rule)) => Err(Error::Option { name, value, rule }),
        }
    }

    /// The most bytes of a frame with what stands around it. `None` for raw frames.
    pub(crate) fn wire_frame_bytes_max(&self) -> Option<usize> {
        match &self.0 {
            Kind::Raw => None,
            Kind::Length(prefix) => Some(prefix.wire_frame_bytes_max()),
            Kind::Lines(lines) => Some(lines.wire_frame_bytes_max()),
            Kind::Delimited(delimiter) => Some(delimiter.wire_frame_bytes_max()),
            Kind::Fixed { frame_bytes } => Some(*frame_bytes),
            Kind::Field(field) => Some(field.wire_frame_bytes_max()),
            Kind::Varint(prefix) => Some(prefix.wire_frame_bytes_max()),
            Kind::Custom(custom) => Some(custom.wire_frame_bytes_max),
            #[cfg(feature = "websocket")]
            Kind::WebSocket(form) => Some(form.wire_frame_bytes_max()),
        }
    }

    /// The most bytes of a frame that can be sent, if it may have so many on the wire. (What stands around a frame of the
    /// program's own framing is not known: it may have nothing.)
    pub(crate) fn frame_bytes_within(&self, wire_bytes: usize) -> usize {
        match &self.0 {
            Kind::Raw => wire_bytes,
            Kind::Length(prefix) => prefix.frame_bytes_within(wire_bytes),
            Kind::Lines(lines) => lines.frame_bytes_within(wire_bytes),
            Kind::Delimited(delimiter) => delimiter.frame_bytes_within(wire_bytes),
            Kind::Fixed { frame_bytes } => wire_bytes.min(*frame_bytes),
            Kind::Field(field) => field.frame_bytes_within(wire_bytes),
            Kind::Varint(prefix) => prefix.frame_bytes_within(wire_bytes),
            Kind::Custom(_) => wire_bytes,
            #[cfg(feature = "websocket")]
            Kind::WebSocket(form) => form.frame_bytes_within(wire_bytes),
        }
    }

    /// The most bytes that stand before and behind a frame.
    pub(crate) fn envelope_bytes_max(&self) -> usize {
        match &self.0 {
            Kind::Raw | Kind::Fixed { .. } => 0,
            Kind::Length(prefix) => prefix.width.bytes(),
            Kind::Lines(lines) => lines.sent_end_bytes().len(),
            Kind::Delimited(delimiter) => delimiter.envelope_bytes(),
            Kind::Field(field) => field.stripped(),
            Kind::Varint(prefix) => prefix.header_bytes_max(),
            Kind::Custom(_) => 2 * Envelope::BYTES_MAX,
            #[cfg(feature = "websocket")]
            Kind::WebSocket(_) => crate::transport::web_socket::HEAD_BYTES_MAX,
        }
    }

    /// Looks for the frame that begins at the start of `bytes`. `scanned`: what the last look at it has said, or 0.
    #[inline]
    pub(crate) fn cut(&self, bytes: &[u8], scanned: usize) -> Cut {
        match &self.0 {
            Kind::Raw if bytes.is_empty() => Cut::More { bytes_min: 1, scanned: 0 },
            Kind::Raw => {
                let frame_bytes = bytes.len().min(RAW_FRAME_BYTES_MAX);
                Cut::Frame { header_bytes: 0, frame_bytes, trailer_bytes: 0 }
            }
            Kind::Length(prefix) => prefix.cut(bytes),
            _ => self.cut_rarer(bytes, scanned),
        }
    }

    /// Kept apart, so that the others stay short.
    #[inline(never)]
    fn cut_rarer(&self, bytes: &[u8], scanned: usize) -> Cut {
        match &self.0 {
            Kind::Raw | Kind::Length(_) => unreachable!("it is cut at once"),
            Kind::Lines(lines) => lines.cut(bytes, scanned),
            Kind::Delimited(delimiter) => delimiter.cut(bytes, scanned),
            Kind::Fixed { frame_bytes } => match *frame_bytes {
                bytes_min if bytes.len() < bytes_min => Cut::More { bytes_min, scanned: 0 },
                frame_bytes => Cut::Frame { header_bytes: 0, frame_bytes, trailer_bytes: 0 },
            },
            Kind::Field(field) => field.cut(bytes),
            Kind::Varint(prefix) => prefix.cut(bytes),
            Kind::Custom(custom) => custom.cut(bytes, scanned),
            #[cfg(feature = "websocket")]
            Kind::WebSocket(_) => {
                Cut::Refused(FramingError::Refused { reason: "its layer cuts its messages" })
            }
        }
    }

    /// Writes what stands around a frame.
    #[inline]
    pub(crate) fn envelop(
        &self,
        frame: &[u8],
        envelope: &mut Envelope,
    ) -> Result<(), FramingError> {
        match &self.0 {
            Kind::Raw => Ok(()),
            Kind::Length(prefix) => prefix.envelope(frame.len(), envelope),
            #[cfg(feature = "websocket")]
            Kind::WebSocket(form) if !form.sends_text => {
                form.write_head(frame.len(), envelope);
                Ok(())
            }
            _ => self.envelop_one(frame).map(|written| *envelope = written),
        }
    }

    #[inline(never)]
    fn envelop_one(&self, frame: &[u8]) -> Result<Envelope, FramingError> {
        self.envelop_rarer(Parts(&[IoSlice::new(frame)]), frame.len())
    }

    /// The same of a frame in parts, which has so many bytes.
    pub(crate) fn envelop_parts(
        &self,
        frame: Parts<'_>,
        frame_bytes: usize,
        envelope: &mut Envelope,
    ) -> Result<(), FramingError> {
        match &self.0 {
            Kind::Raw => Ok(()),
            Kind::Length(prefix) => prefix.envelope(frame_bytes, envelope),
            _ => self.envelop_rarer(frame, frame_bytes).map(|written| *envelope = written),
        }
    }

    fn envelop_rarer(
        &self,
        frame: Parts<'_>,
        frame_bytes: usize,
    ) -> Result<Envelope, FramingError> {
        match &self.0 {
            Kind::Raw | Kind::Length(_) => unreachable!("it is written at once"),
            Kind::Lines(lines) => lines.envelope(frame_bytes),
            Kind::Delimited(delimiter) => delimiter.envelope(frame_bytes),
            Kind::Fixed { frame_bytes: bytes } if *bytes == frame_bytes => Ok(Envelope::default()),
            Kind::Fixed { .. } => {
                Err(FramingError::Refused { reason: "its framing has frames of another size" })
            }
            Kind::Field(field) => field.envelope(frame),
            Kind::Varint(prefix) => prefix.envelope(frame),
            Kind::Custom(custom) => custom.envelope(frame),
            #[cfg(feature = "websocket")]
            Kind::WebSocket(form) => {
                form.envelope_of(frame_bytes, frame.0.iter().map(|part| &**part))
            }
        }
    }

    /// What stands around a frame.
    #[cfg(any(test, fuzzing, feature = "simulation"))]
    pub(crate) fn envelope(&self, frame: Parts<'_>) -> Result<Envelope, FramingError> {
        let mut envelope = Envelope::default();
        self.envelop_parts(frame, frame.bytes(), &mut envelope)?;
        Ok(envelope)
    }
}

impl Default for Framing {
    fn default() -> Self {
        Framing::raw()
    }
}
