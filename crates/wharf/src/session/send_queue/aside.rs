//! What few send queues need, or only at their end: an end that was asked for, and who waits for room.

use std::fmt;
use std::task::Waker;

use super::pace::Pace;

use crate::buffer::SharedFrame;
use crate::close::{Close, CloseReason};

/// The most memory of it.
pub(crate) const ASIDE_BYTES_MAX: usize = size_of::<Aside>() + WAITERS_BYTES_MAX;

#[derive(Debug, Default)]
pub(super) struct Aside {
    pub(super) end: End,
    pub(super) wishes: Wishes,
    pub(super) lacks: Option<Lacks>,
    pub(super) pace: Pace,
    /// Bytes that have left since there is this.
    pub(super) left_bytes: u64,
    /// The session misses frames of groups, and was not told of all.
    pub(super) misses: bool,
    /// Bytes of sends that wait among the publications, behind what the session lacks.
    pub(super) placed_bytes: u32,
    /// A frame was refused for the server's budget.
    pub(super) is_short: bool,
    /// The newest control frame for which there was no room: of several only that one need be sent.
    #[cfg(feature = "websocket")]
    pub(super) control: Option<Box<[u8]>>,
}

/// The session lacks publications: it is behind.
#[derive(Debug)]
pub(super) struct Lacks {
    /// Bytes of the first frame that it lacks.
    pub(super) next_bytes: u32,
    /// How far the queue is filled with it.
    pub(super) refill_bytes: u32,
}

/// Why and how a session was asked to close.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Closing {
    pub(crate) reason: CloseReason,
    pub(crate) how: Close,
    /// Earlier publications are not handed over yet. They are still queued, and the queue has not drained
    /// before. Never with [`Close::Stop`].
    pub(crate) takes_published: bool,
}

impl Closing {
    /// A close at once.
    pub(crate) fn stop(reason: CloseReason) -> Self {
        Closing { reason, how: Close::Stop, takes_published: false }
    }

    pub(crate) fn is_stop(self) -> bool {
        self.how == Close::Stop
    }
}

/// The end of our direction of the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Finish {
    /// It waits for earlier publications too.
    AfterPublications,
    WhenEmpty,
    Done,
}

/// Whether the handler is asked for a last frame before a limit ends the session.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum LastWord {
    #[default]
    NotDue,
    Due,
    /// The handler's `ending` runs.
    BeingAsked,
}

/// Control frames may be queued so far beyond the queue's bound.
#[cfg(feature = "websocket")]
pub(crate) const CONTROL_BYTES_MAX: usize = 4 * 1024;

/// What becomes of a control frame for which there is no room.
#[cfg(feature = "websocket")]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum IfFull {
    Drop,
    /// The newest is kept, and queued when there is room: a peer that does not read what it asks for asks for no memory.
    KeepNewest,
}

/// What was asked for the end, so far.
#[derive(Debug, Default)]
pub(super) struct End {
    pub(super) closing: Option<Closing>,
    pub(super) last_word: LastWord,
    /// The last frame of all, header included. It waits for what was published before the close.
    pub(super) farewell: Option<SharedFrame>,
    /// Our direction of the stream ends when everything has left.
    pub(super) finish: Option<Finish>,
    /// A Close frame of the session's transport was queued: nothing follows it.
    #[cfg(feature = "websocket")]
    pub(super) said_close: bool,
}

/// The most tasks and callbacks that wait for room in one send queue.
pub(crate) const WAITERS_MAX: usize = 64;

/// Their memory, without what the program's own callbacks hold.
const WAITERS_BYTES_MAX: usize = WAITERS_MAX * size_of::<Waiter>();

/// Whom to tell of room. Each is code of the program's, and so are their destructors.
pub(crate) enum Wakes {
    Task(Waker),
    /// With whether there is room; if not, the queue takes no more frames.
    Callback(Box<dyn FnOnce(bool) + Send>),
}

/// One that waits for room.
#[derive(Debug)]
pub(crate) struct Waiter {
    pub(super) key: u32,
    pub(super) bytes: u32,
    pub(super) wakes: Wakes,
}

/// Who waits for room.
#[derive(Debug, Default)]
pub(super) struct Wishes {
    /// Room that the handler waits for, in bytes; 0: it waits for none.
    pub(super) handler_bytes: u32,
    pub(super) waiters: Vec<Waiter>,
    pub(super) next_key: u32,
}

/// What a look for room has found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RoomFound {
    Yes,
    /// The queue takes no more frames.
    Never,
    /// Not yet. The waiter has this key.
    Waits(u32),
    /// Not yet, and too many wait already.
    TooManyWait,
}

/// Those who are to be told, outside the lock.
#[derive(Debug, Default)]
pub(crate) struct Told {
    pub(super) waiters: Vec<Waiter>,
    pub(super) has_room: bool,
}

impl Told {
    /// What is to be called, one after the other: each is code of the program's.
    pub(crate) fn calls(self) -> impl Iterator<Item = impl FnOnce()> {
        let Told { waiters, has_room } = self;
        waiters.into_iter().map(move |waiter| move || waiter.wakes.tell(has_room))
    }
}

impl Wakes {
    /// Runs code of the program's: outside of all locks, and guarded.
    pub(crate) fn tell(self, has_room: bool) {
        match self {
            Wakes::Task(waker) => waker.wake(),
            Wakes::Callback(callback) => callback(has_room),
        }
    }
}

impl fmt::Debug for Wakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Wakes::Task(_) => "Task",
            Wakes::Callback(_) => "Callback",
        })
    }
}
