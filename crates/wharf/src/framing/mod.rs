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

mod custom;
mod cut;
mod delimited;
mod envelope;
mod framings;
mod kind;
mod length;
mod length_field;
mod parts;
#[cfg(test)]
mod tests;
mod varint;
#[cfg(feature = "websocket")]
mod web_socket;

pub use self::custom::CustomFraming;
pub use self::cut::{Cut, FramingError};
#[cfg(test)]
pub(crate) use self::delimited::looked_at;
pub use self::delimited::{Delimiter, LineEnd, Lines};
pub(crate) use self::framings::Framings;
pub use self::kind::Framing;
pub(crate) use self::kind::RAW_FRAME_BYTES_MAX;
pub use self::length::{Endianness, LengthPrefix, LengthWidth};
pub use self::length_field::LengthField;
pub use self::parts::Parts;
pub use self::varint::VarintPrefix;
#[cfg(feature = "websocket")]
pub(crate) use self::web_socket::WebSocketForm;
pub use crate::buffer::Envelope;
