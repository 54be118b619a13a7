//! Servers that hold many long-lived TCP sessions, on completion ports: io_uring, and a readiness
//! port (epoll, kqueue) where io_uring may not be used.
//!
//! ```no_run
//! use wharf::{Framing, Handler, Server, Session};
//!
//! struct Echo;
//!
//! impl Handler for Echo {
//!     type State = (); // one per session, `&mut` while a callback runs
//!     fn opened(&self, _session: &Session) {}
//!     fn received(&self, session: &Session, _state: &mut (), frame: &[u8]) {
//!         session.send(frame); // queued, coalesced, bounded
//!     }
//! }
//!
//! fn main() -> wharf::Result<()> {
//!     let server = Server::bind("127.0.0.1:7000")?.framing(Framing::raw()).start(Echo)?;
//!     server.wait()
//! }
//! ```
//!
//! # How to think of it
//!
//! - A [`Handler`] is one value for the whole server, shared by its worker threads. What belongs
//!   to one session is its [`Handler::State`], which a callback gets as `&mut`.
//! - A session has a [`SessionId`] that is never used again. Any thread may [`Handle::send`] to an
//!   id or [`Handle::close`] it; if the session is over, the answer is
//!   [`SendError::Gone`] with the frame, never another session.
//! - Sessions [join](Handle::join) [`Group`]s, and what is [published](Handle::publish) to one is encoded
//!   once and handed to its members by the workers, each frame once and in order.
//! - Everything has a bound ([`Options`]), and a named policy for when it is reached:
//!   `sessions_max` refuses newcomers, a full send queue refuses the frame and ends the session as
//!   a [`CloseReason::SlowConsumer`] or pauses its receiving ([`Backpressure`]).
//! - A session ends for exactly one [`CloseReason`], and [`Handler::closed`] gets it.
//! - [`Handle::drain`] ends a server in order and reports what became of the sessions.

#![deny(unsafe_code)]

mod buffer;
mod chunks;
mod clock;
mod close;
mod engine;
mod error;
mod face;
mod framing;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
mod guarded;
mod histogram;
#[cfg(all(test, any(loom, shuttle)))]
#[allow(unsafe_code)]
mod models;
mod options;
#[allow(unsafe_code)]
mod port;
mod server;
#[allow(unsafe_code)]
mod session;
#[cfg(feature = "simulation")]
pub mod simulation;
mod stats;
mod sync;
mod timer;
mod worker;

pub use close::{Close, CloseReason};
pub use engine::{DrainReport, Group};
pub use error::{
    AcceptError, BackendRefusal, ConnectError, Error, JoinError, ListenFailure, PublishError,
    Result, SendError,
};
pub use face::{Handle, Handler, Session};
pub use framing::{Endianness, Framing, LengthPrefix, LengthWidth};
pub use histogram::Histogram;
pub use options::{Backend, BackendChoice, Backpressure, FirstFrameTimeout, Keepalive, Options};
pub use server::{Builder, Connector, Server};
pub use session::{ParseSessionIdError, SessionId};
pub use stats::{Histograms, Metric, MetricValue, Stats};
