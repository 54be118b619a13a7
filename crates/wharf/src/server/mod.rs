//! Building and running a server or a connector.

mod builder;
mod listening;
mod memory;
mod plan;
mod running;
mod select;
#[allow(clippy::module_inception, reason = "the room's one type")]
mod server;
mod start;

pub use self::builder::{Builder, Connector};
#[cfg(all(test, unix))]
pub(crate) use self::listening::{Listening, Name};
pub use self::server::Server;
#[cfg(test)]
pub(crate) use self::{plan::Plan, running::Running, start::start_on};
