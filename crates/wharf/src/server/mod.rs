//! Building and running a server or a connector.

mod builder;
mod connector;
mod listening;
mod memory;
mod plan;
mod pool;
mod prepared;
mod running;
mod select;
#[allow(clippy::module_inception, reason = "the room's one type")]
mod server;
mod start;

pub use self::builder::{Builder, ConnectorBuilder};
pub use self::connector::Connector;
#[cfg(all(test, unix))]
pub(crate) use self::listening::Listening;
pub use self::memory::Memory;
pub use self::prepared::Prepared;
pub use self::server::Server;
#[cfg(test)]
pub(crate) use self::{plan::Plan, running::Running, start::serve_on};
