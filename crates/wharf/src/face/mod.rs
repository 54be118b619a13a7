//! What the user touches: the handler that he writes, and what its callbacks and his threads are given. A worker
//! calls it.

mod handle;
mod handler;
mod session;

pub use self::handle::Handle;
pub use self::handler::Handler;
pub(crate) use self::session::Desk;
pub use self::session::Session;
