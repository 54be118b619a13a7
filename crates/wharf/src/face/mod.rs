//! What the user touches: the handler that he writes, and what its callbacks and his threads are given. A worker
//! calls it.

mod as_frame;
mod events;
mod farewell;
mod groups_by_name;
mod handle;
mod handler;
mod mailer;
mod session;
mod tells;
mod text;
mod ticker;
#[cfg(feature = "websocket")]
pub(crate) mod upgrade; // named by `pass_on_callbacks`
mod when_room;
mod when_room_to_publish;

pub use self::as_frame::AsFrame;
pub use self::events::{Event, EventHandler, Events, events};
pub use self::farewell::Farewell;
pub use self::groups_by_name::Groups;
pub use self::handle::Handle;
pub use self::handler::Handler;
pub(crate) use self::handler::pass_on_callbacks;
pub use self::mailer::{Mailed, Mailer, Told};
pub(crate) use self::session::Desk;
pub use self::session::Session;
pub(crate) use self::tells::{Internal, Tells};
pub use self::text::Text;
pub use self::ticker::{Tick, Ticker};
#[cfg(feature = "websocket")]
pub use self::upgrade::{Establishment, Upgrade};
pub use self::when_room::WhenRoom;
pub use self::when_room_to_publish::WhenRoomToPublish;
