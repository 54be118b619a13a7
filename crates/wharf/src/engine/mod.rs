//! What the threads of one server share: the table, the workers' mailboxes, the options.

mod acceptor;
mod direct;
mod drain_report;
mod ending;
#[allow(clippy::module_inception, reason = "the room's one type")]
mod engine;
mod groups;
mod mailbox;
mod members;
mod newcomers;
mod outside;
mod publish;
mod push;
mod share;
mod turns;

pub(crate) use self::acceptor::Acceptor;
pub use self::drain_report::DrainReport;
pub(crate) use self::engine::Engine;
pub(crate) use self::groups::{
    Audience, Due, MEMBERSHIP_BYTES, Publication, REQUEST_BYTES, Share, Taken,
};
pub(crate) use self::mailbox::Mail;
#[cfg(all(test, loom))]
pub(crate) use self::mailbox::Mailbox;
pub use self::members::Group;
pub(crate) use self::push::AtOnce;
pub(crate) use self::share::{BATCHES_AT_REST_BYTES, Follows, PortShare, ReceiveRoom};
