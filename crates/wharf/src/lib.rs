//! Servers that hold many long-lived TCP sessions, on completion ports: Linux io_uring, Windows IOCP, and a
//! readiness backend (epoll, kqueue) where neither may be used.
//!
//! ```no_run
//! use wharf::{Handler, Server, Session};
//!
//! struct Echo;
//!
//! impl Handler for Echo {
//!     type State = (); // one per session, `&mut` while a callback runs
//!
//!     fn opened(&self, _session: &Session) {}
//!
//!     fn received(&self, session: &Session, _state: &mut (), frame: &[u8]) {
//!         session.send(frame); // queued, coalesced, bounded
//!     }
//! }
//!
//! fn main() -> wharf::Result<()> {
//!     let server = Server::builder().listen("127.0.0.1:7000").start(Echo)?;
//!     server.wait()
//! }
//! ```
//!
//! # The types to know
//!
//! - A [`Handler`] is one value for the whole server. What belongs to one session is its
//!   [`Handler::State`], which a callback gets as `&mut`.
//! - A [`Session`] is what a callback gets. It has a [`SessionId`].
//! - A [`Handle`] is the server from any thread: it sends to ids, closes them, publishes, drains.
//! - A [`Server`] runs until it is drained, stopped or dropped. A [`Connector`] is the same without listeners.
//! - [`Options`] bound everything. Each has a default and says what happens at its limit.
//! - A [`Framing`] makes frames of bytes: [raw](Framing::raw) or
//!   [length-prefixed](Framing::length_prefixed). Each [`Listener`] may have its own.
//!
//! # Which thread runs what
//!
//! A server has [workers](field@Options::workers), threads of its own. A session stays with one worker (on
//! Windows with the one port that all workers share). All callbacks run on workers: for one session in the
//! order `opened`, `received`, ..., `closed`, and never concurrently. No callback runs on a thread of the
//! program's, or while wharf holds a lock. [`Handle`] may be used from any thread, callbacks included.
//!
//! A session's [`State`](Handler::State) is reached in its callbacks only. Threads of the program's tell it notes
//! ([`Mailer`]), which come in a callback ([`Told::told`]), and a session sets timers ([`Session::set_timer`]), which
//! come in [`Handler::timer`]. What is due for the whole server is done by a thread of the program's and a [`Handle`], as
//! `examples/ticker.rs` does. A program whose own loop owns the world takes what happens from [`events`]; a [`Ticker`]
//! gives it its time (`examples/world`). A handler that needs a [`Handle`] outside of a session's callbacks keeps it in a
//! `OnceLock`, which is set between [`Builder::prepare`] and [`Prepared::start`], as in `examples/gateway.rs`.
//!
//! # What may block
//!
//! No call of [`Session`] or [`Handle`] waits for a peer. Two calls wait for the server, and are refused in
//! its own callbacks: [`Handle::drain`] and [`Server::wait`]. A callback may block, but its worker serves
//! nobody meanwhile: see [`Handler`]. Work that blocks, such as a call of a database, runs on a pool
//! ([`Mailer::offload`]), and its session is told what it returns.
//!
//! # How long an id means something
//!
//! For ever. A [`SessionId`] is never used again, so an id that the program keeps names its session or
//! nothing. Using the id of a session that is over is no error to prepare for: [`Handle::send`] gives the
//! frame back as [`Gone`], and the frame never reaches another session.
//!
//! # How a session ends
//!
//! Every session ends for exactly one [`CloseReason`], which [`Handler::closed`] gets, whoever ended it:
//!
//! | who | how | what is queued for the peer |
//! |---|---|---|
//! | the program | [`close`](Handle::close) with [`Close::Drain`] | leaves first, within `time.drain_timeout`; then our end of the stream; then the peer's is awaited for `time.close_linger` |
//! | the program | [`close`](Handle::close) with [`Close::Stop`] | is lost |
//! | the program | [`Handle::drain`] | leaves first, within the deadline |
//! | the program | [`Handle::stop`], or the server is dropped | is lost |
//! | the program | [`close_with`](Handle::close_with) a [`Farewell`] | as with `Close::Drain`, and the farewell leaves last |
//! | the program | [`finish`](Handle::finish), and the peer ends its stream too | leaves first |
//! | the peer | ends its stream | leaves first; or the program is told, see [`EndOfStream`] |
//! | the peer | resets | is lost |
//! | a limit | a frame that the framing refuses | leaves first |
//! | a limit | a time-out, a full queue | is lost, unless [`Handler::ending`] gives a last frame: then it leaves first |
//! | the handler | a callback panics | is lost |
//!
//! # What back-pressure does
//!
//! Each session has a send queue of [`sending.queue_bytes_max`](field@options::Sending::queue_bytes_max). A
//! peer that reads more slowly than it is sent to fills it. Then [`send`](Handle::send) ends the session as
//! [`CloseReason::SlowConsumer`]; [`try_send`](Handle::try_send) gives the frame back, and the program
//! decides. A handler that answers what it receives, such as an echo, sets
//! [`Backpressure::PauseReceive`]: while its queue is more than half full nothing is received from that peer,
//! and TCP slows the peer down. Other sessions are unaffected in each case.
//!
//! All send queues together have a budget,
//! [`sending.queued_bytes_max`](field@options::Sending::queued_bytes_max). When peers that do not read have
//! used it up, their sessions end as [`CloseReason::SlowConsumer`], those first for which nothing has left for
//! longest.
//!
//! A handler that has more to send than its queue takes uses `try_send`, and goes on in
//! [`Handler::writable`]. While publications wait for a session, it has no room, and a `send` waits behind them.
//!
//! # Memory
//!
//! [`Options::memory`] says what a server takes at most. All that waits to be sent is within
//! [`sending.queued_bytes_max`](field@options::Sending::queued_bytes_max). After a peak wharf frees what it does not
//! need. Whether that memory goes back to the system is up to the program's allocator: glibc's keeps most of it until
//! malloc_trim(3) is called, as the command `wharf echo` does.
//!
//! # Sending to many
//!
//! Sessions [join](Handle::join) [`Group`]s, by number or [by name](Groups). What is [published](Handle::publish) to a group is encoded once,
//! shared by its members, and queued by the workers. A member whose send queue is full does not miss it: it waits,
//! within [`sending.publications_bytes_max`](field@options::Sending::publications_bytes_max) for each port, and then
//! the publisher does ([`Handle::when_room_to_publish`]). What becomes of a member that is too slow its [`Policy`]
//! says. [`Handle::send_many`] sends to a list of ids that changes
//! with every frame, and a [`Frame`] is encoded once for as many calls as the program likes.
//!
//! # Browsers
//!
#![cfg_attr(
    feature = "websocket",
    doc = "Pages talk to a listener with a [`WebSocket`] transport: see [Browser clients](manual::browsers)."
)]
#![cfg_attr(
    not(feature = "websocket"),
    doc = "The feature `websocket` has sessions that speak WebSocket, as pages in browsers do."
)]
//! Their sessions meet those of plain TCP in one handler, and in its groups.
//!
//! # Testing a handler
//!
#![cfg_attr(
    feature = "simulation",
    doc = "The feature `simulation` has [a simulated network, clock and scheduler](simulation)."
)]
#![cfg_attr(
    not(feature = "simulation"),
    doc = "The feature `simulation` has a simulated network, clock and scheduler."
)]
//! A test runs a real server in it, through a thousand networks, in seconds.

#![cfg_attr(docsrs, feature(doc_cfg))]
#![deny(unsafe_code)]
#![warn(clippy::missing_errors_doc, clippy::missing_panics_doc)]

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
#[cfg(feature = "websocket")]
pub mod manual;
#[cfg(all(test, any(loom, shuttle)))]
#[allow(unsafe_code)]
mod models;
pub mod options;
mod peer_address;
#[allow(unsafe_code)]
mod port;
mod server;
#[allow(unsafe_code)]
mod session;
mod settings;
#[cfg(feature = "simulation")]
pub mod simulation;
mod stats;
mod sync;
mod timer;
#[cfg(feature = "websocket")]
mod transport;
mod worker;

pub use close::{Close, CloseReason};
pub use engine::{Call, Callback, DrainReport, Frame, Group, LongTurn, RunningTurn, TurnCallbacks};
#[cfg(feature = "websocket")]
pub use error::EstablishError;
pub use error::{
    AcceptError, BackendRefusal, ConnectError, EncodeError, Error, Gone, JoinError, ListenError,
    OffloadError, PublishError, Result, RoomError, SendError, TellError, TimerError,
};
pub use face::{
    AsFrame, Event, EventHandler, Events, Farewell, Groups, Handle, Handler, Mailed, Mailer,
    Session, Text, Tick, Ticker, Told, WhenRoom, WhenRoomToPublish, events,
};
#[cfg(feature = "websocket")]
pub use face::{Establishment, Upgrade};
pub use framing::{
    CustomFraming, Cut, Delimiter, Endianness, Envelope, Framing, FramingError, LengthField,
    LengthPrefix, LengthWidth, LineEnd, Lines, Parts, VarintPrefix,
};
pub use histogram::Histogram;
#[cfg(feature = "deflate")]
pub use options::Deflate;
pub use options::{
    Backend, BackendChoice, Backpressure, EndOfStream, FirstFrameTimeout, Heartbeat, Keepalive,
    Listener, Options, Target,
};
#[cfg(feature = "websocket")]
pub use options::{FixedAnswer, Sends, Transport, WebSocket};
pub use peer_address::{PeerAddress, PeerCredentials};
pub use server::{Builder, Connector, ConnectorBuilder, Memory, Prepared, Server};
pub use session::{ParseSessionIdError, Policy, SessionId};
pub use stats::{Histograms, Metric, MetricValue, Stats};
#[cfg(feature = "websocket")]
pub use transport::web_socket::{Origins, UpgradeRequest};
