//! What the servers and the load agree on: the servers' arguments, the frames of the session-layer
//! workloads, and bytes that can be checked wherever they arrive.

mod arguments;
mod clock;
mod form;
mod frame;
mod pattern;
pub mod process;
mod senders;

pub use arguments::{Arguments, Workload, announce};
pub use clock::now_ns;
pub use form::{Form, Head, WrongHead};
pub use frame::{FRAME_BYTES, Frame, FrameCutter, HEADER_BYTES, Hello, PAYLOAD_BYTES};
pub use pattern::Pattern;
pub use senders::{Sent, run_sender};
