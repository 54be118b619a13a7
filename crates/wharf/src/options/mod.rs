//! The options of a server or connector, grouped by what they concern.
//!
//! Every option has a default, a reason for that default, and a named policy at its limit. Read
//! [`Options`] first; each of its fields is a group.
//!
//! ```
//! use std::time::Duration;
//! use wharf::{Backpressure, Options};
//!
//! // Assign the fields that you need ...
//! let mut options = Options::default();
//! options.sessions.max = 10_000;
//! options.time.idle_timeout = Some(Duration::from_secs(300));
//!
//! // ... or do the same in one expression.
//! let options = Options::default().workers(2).with(|options| {
//!     options.sending.queue_bytes_max = 1024 * 1024;
//!     options.receiving.backpressure = Backpressure::PauseReceive;
//! });
//! ```

mod backend;
mod check;
#[cfg(feature = "websocket")]
mod fixed_answer;
mod listener;
mod listening;
mod offload;
mod ports;
mod receiving;
mod sending;
mod sessions;
mod target;
mod time;
#[cfg(feature = "websocket")]
mod web_socket;

use std::time::Duration;

pub use self::backend::{Backend, BackendChoice};
#[cfg(feature = "websocket")]
pub use self::fixed_answer::FixedAnswer;
pub use self::listener::Listener;
pub(crate) use self::listener::Source;
pub use self::listening::Listening;
pub use self::offload::Offload;
pub use self::ports::{Iocp, Uring};
pub use self::receiving::{Backpressure, EndOfStream, Receiving};
pub use self::sending::Sending;
pub use self::sessions::Sessions;
pub use self::target::Target;
pub use self::time::{FirstFrameTimeout, Heartbeat, Keepalive, Time};
#[cfg(feature = "deflate")]
pub use self::web_socket::Deflate;
#[cfg(feature = "websocket")]
pub use self::web_socket::{Sends, Transport, WebSocket};
use crate::settings::settings;

settings! {
    /// All options of a server or connector. See the [module](self) for how to set them.
    Options {
        /// Worker threads. 0 means one for each core that the process may use. At most 1,024. Default 0.
        workers: usize = 0,
        /// Which backend serves. Default [`Backend::Auto`]. The library reads no environment variable;
        /// a program that offers the choice reads its own.
        backend: Backend = Backend::Auto,
        /// What the workers' threads are called: this, a hyphen and the worker's number; those of the pool, this, `-job-`
        /// and a number. Linux shows the
        /// first 15 bytes. Without a NUL. Default `wharf`.
        thread_name: String = String::from("wharf"),
        /// A worker's turn that takes longer than this is counted
        /// ([`Stats::long_turns`](crate::Stats::long_turns)) and kept, with what is known of its callbacks
        /// ([`Handle::long_turns`](crate::Handle::long_turns)). 1 ms or more; `None` counts none. Default 10 ms: as
        /// long as a tick of the time-outs.
        long_turn: Option<Duration> = Some(Duration::from_millis(10)),
        /// How many sessions there may be, and in how many groups.
        sessions: Sessions = Sessions::default(),
        /// What waits to be sent.
        sending: Sending = Sending::default(),
        /// What waits to be delivered to the handler.
        receiving: Receiving = Receiving::default(),
        /// Time-outs, and how a silent peer is probed.
        time: Time = Time::default(),
        /// The listening sockets.
        listening: Listening = Listening::default(),
        /// Work that blocks.
        offload: Offload = Offload::default(),
        /// For [`Backend::Uring`] alone.
        uring: Uring = Uring::default(),
        /// For [`Backend::Iocp`] alone.
        iocp: Iocp = Iocp::default(),
    }
}

impl Options {
    /// The same options after `change`: several assignments in one expression.
    #[must_use]
    pub fn with(mut self, change: impl FnOnce(&mut Options)) -> Self {
        change(&mut self);
        self
    }

    /// The same for the sessions of a listener, as far as it says something else.
    pub(crate) fn at(&self, listener: &Listener) -> Options {
        let mut options = self.clone();
        options.time = listener.time.clone().unwrap_or(options.time);
        options.listening.backlog = listener.backlog.unwrap_or(options.listening.backlog);
        options
    }

    /// How many workers there will be.
    pub fn worker_count(&self) -> usize {
        match self.workers {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            count => count,
        }
    }
}
