//! WebSocket (RFC 6455): bytes to messages and back. Everything works in the memory that the bytes came in.
//!
//! - `head`: the head of a frame, read and written.
//! - `mask`: what a client's frames are masked with.
//! - `cut`: frames to messages, in place; what a peer may not send ends here.
//! - `deflate`: messages compressed and inflated.
//! - `close`: codes, and what a Close frame has in it.
//! - `control`: control frames, written.
//! - `upgrade`: the HTTP request that begins it, and its answer; `request`: the same as a client.
//! - `layer`: what a session keeps; `rules`: what a peer may not do.

mod base64;
mod close;
mod control;
mod cut;
#[cfg(feature = "deflate")]
mod deflate;
mod head;
mod layer;
mod mask;
mod request;
mod rules;
#[cfg(test)]
mod table;
mod upgrade;

pub(crate) use self::close::code_of;
pub(crate) use self::control::ControlFrame;
#[cfg(any(test, fuzzing))]
pub(crate) use self::cut::Cutter;
pub(crate) use self::cut::Found;
#[cfg(feature = "deflate")]
pub(crate) use self::deflate::{Agreed, Deflater, InflateError, Inflater};
pub(crate) use self::head::{HEAD_BYTES_MAX, Head, Opcode};
pub(crate) use self::layer::Layer;
pub(crate) use self::mask::apply as mask;
pub(crate) use self::request::{Answer, Asked};
pub(crate) use self::rules::codes::NO_CODE;
pub(crate) use self::rules::{Role, Violation};
pub(crate) use self::upgrade::{HEAD_BYTES_MAX as UPGRADE_BYTES_MAX, Refusal, Request, read};
pub use self::upgrade::{Origins, UpgradeRequest};
