//! What the threads of one server share: the table, the workers' mailboxes, the options.

mod acceptor;
mod backlog;
mod budget;
mod calls;
mod changed_framings;
#[cfg(all(test, not(any(loom, shuttle))))]
mod charges;
mod connect;
mod contexts;
#[cfg(feature = "deflate")]
mod deflaters;
mod direct;
mod drain_report;
mod due;
mod encode;
mod ending;
#[allow(clippy::module_inception, reason = "the room's one type")]
mod engine;
mod farewell;
mod frame;
mod gather;
mod groups;
mod jobs;
#[cfg(feature = "websocket")]
mod keys;
mod lag;
mod long_turns;
mod mailbox;
mod members;
mod membership;
mod newcomers;
mod notes;
mod offload;
mod outside;
mod publication;
mod publish;
mod publish_room;
mod publishers;
mod push;
mod room;
mod share;
mod timers;
mod turns;
mod watch;
#[cfg(feature = "websocket")]
mod web_socket;
#[cfg(all(test, not(any(loom, shuttle))))]
mod wire_bytes;

pub(crate) use self::acceptor::Acceptor;
pub(crate) use self::backlog::{BEHIND_BYTES, Offered, Seen};
pub(crate) use self::budget::{BUDGET_BYTES, LEASE_BYTES};
#[cfg(all(test, loom))]
pub(crate) use self::budget::{Budget, PortBudget};
pub(crate) use self::calls::NO_SESSION;
pub use self::calls::{Call, Callback};
pub use self::drain_report::DrainReport;
pub(crate) use self::engine::Engine;
pub(crate) use self::farewell::FAREWELL_BYTES_MAX;
pub(crate) use self::frame::Content;
pub use self::frame::Frame;
pub(crate) use self::groups::{Due, MEMBERSHIP_BYTES, Recipients, Share};
pub(crate) use self::jobs::{JOB_BYTES, Job};
pub use self::long_turns::{LongTurn, RunningTurn, TurnCallbacks};
pub(crate) use self::mailbox::Mail;
#[cfg(all(test, loom))]
pub(crate) use self::mailbox::Mailbox;
pub use self::members::Group;
pub(crate) use self::notes::{NOTE_BYTES, Notes, Waiting};
pub(crate) use self::publication::{Audience, Publication, REQUEST_BYTES};
pub(crate) use self::publish::HandedOver;
pub(crate) use self::push::AtOnce;
pub(crate) use self::share::{
    BATCHES_AT_REST_BYTES, Follows, PortShare, RECEIVE_QUEUES_BYTES, ReceiveRoom,
};
pub(crate) use self::timers::{TIMER_BYTES, TIMERS_OF_SESSION_BYTES};
pub(crate) use self::watch::Watch;
