//! Events: a handler for programs whose own loop owns the world.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use futures_core::Stream;

use super::handle::Handle;
use super::handler::Handler;
use super::session::Session;
use crate::close::{Close, CloseReason};
use crate::engine::Group;
use crate::options::Target;
use crate::peer_address::PeerAddress;
use crate::session::{PausedBy, SessionId};
use crate::sync::{Condvar, Mutex, MutexGuard};

/// For so many events memory is kept when none waits.
const AT_REST_MAX: usize = 1024;

/// A handler that passes everything on as [`Event`]s, and the [`Events`] to take them from: for a game's thread, or a
/// task of any runtime, that owns the world and does all that is to be done in one loop.
///
/// Frames of at most `bytes_max` bytes wait, and 32 bytes for each. At that bound the sessions that send more are paused
/// (beside [`Session::pause_receiving`]), and resumed when half has been taken. Beyond the bound wait one frame of each session,
/// and whatever else there is to tell: nothing is lost. The events of one session come in their order. What came from a
/// peer before its session was paused waits in the receive queues, which must have room for it
/// ([`receiving.queues_bytes_max`](field@crate::options::Receiving::queues_bytes_max)).
///
/// ```
/// use std::time::Duration;
/// use wharf::{Event, Server};
///
/// let (handler, mut events) = wharf::events(1 << 20);
/// let server = Server::builder().listen("127.0.0.1:0").start(handler)?;
/// # let stream = std::net::TcpStream::connect(server.addresses()[0]).unwrap();
/// # std::io::Write::write_all(&mut &stream, b"hello").unwrap();
/// # let mut received = Vec::new();
/// # while received.is_empty() {
/// let handle = server.handle();
/// while let Some(event) = events.next_timeout(Duration::from_millis(10)) {
///     match event {
///         Event::Opened { id, .. } => drop(handle.send(id, "welcome")),
///         Event::Frame { id, bytes } => {
///             # received = bytes.clone();
///             drop(handle.send(id, bytes)) // an echo
///         }
///         _ => {}
///     }
/// }
/// # }
/// # assert_eq!(received, b"hello");
/// # Ok::<(), wharf::Error>(())
/// ```
pub fn events(bytes_max: usize) -> (EventHandler, Events) {
    let queue = Queue {
        events: VecDeque::new(),
        bytes: 0,
        bytes_max,
        paused: Vec::new(),
        task: None,
        handler_is_gone: false,
        events_are_gone: false,
    };
    let shared = Arc::new(Shared { queue: Mutex::new(queue), changed: Condvar::new() });
    let events = Events { shared: shared.clone(), taken: VecDeque::new(), taken_bytes: 0 };
    (EventHandler { shared }, events)
}

/// What has happened to a session, or to the server.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event {
    /// As [`Handler::opened`].
    Opened {
        /// Which session.
        id: SessionId,
        /// Its peer.
        peer: Option<PeerAddress>,
    },
    /// As [`Handler::received`].
    Frame {
        /// Which session.
        id: SessionId,
        /// The frame, without its header.
        bytes: Vec<u8>,
    },
    /// As [`Handler::writable`]; see [`Handle::notify_writable`].
    Writable {
        /// Which session.
        id: SessionId,
    },
    /// As [`Handler::lagged`].
    Lagged {
        /// Which session.
        id: SessionId,
        /// Of which group it has missed frames.
        group: Group,
        /// How many.
        frames: u64,
    },
    /// As [`Handler::peer_finished`].
    PeerFinished {
        /// Which session.
        id: SessionId,
    },
    /// As [`Handler::closed`].
    Closed {
        /// Which session.
        id: SessionId,
        /// Why it has ended.
        reason: CloseReason,
    },
    /// As [`Handler::connect_failed`].
    ConnectFailed {
        /// Which session it was to be.
        id: SessionId,
        /// Why.
        error: io::Error,
    },
    /// As [`Handler::draining`]. (The drain does not wait until this has been taken.)
    Draining,
}

impl Event {
    /// What it counts of the bound.
    fn bytes(&self) -> usize {
        match self {
            Event::Frame { bytes, .. } => bytes.len() + 32,
            _ => 0,
        }
    }
}

struct Shared {
    queue: Mutex<Queue>,
    changed: Condvar,
}

struct Queue {
    events: VecDeque<Event>,
    /// Of what waits, and of what the loop has in hand.
    bytes: usize,
    bytes_max: usize,
    /// Sessions that are paused because there is no room. May contain some that are over.
    paused: Vec<(SessionId, Handle)>,
    /// The task that waits for events.
    task: Option<Waker>,
    handler_is_gone: bool,
    events_are_gone: bool,
}

impl Queue {
    fn is_full(&self) -> bool {
        self.bytes >= self.bytes_max
    }

    fn has_room_again(&self) -> bool {
        self.bytes <= self.bytes_max / 2
    }
}

impl Shared {
    /// Sessions that were paused for want of room go on. Those that are over do not mind.
    fn resume(paused: &[(SessionId, Handle)]) {
        for (id, handle) in paused {
            handle.engine().ask_to_pause(*id, PausedBy::Events, false);
        }
    }

    /// Puts an event to the others. Returns whether there is no room for more frames. `None`: nobody takes it.
    fn push(&self, event: Event) -> Option<bool> {
        let (is_full, task) = {
            let mut queue = self.queue.lock();
            if queue.events_are_gone {
                return None;
            }
            queue.bytes += event.bytes();
            queue.events.push_back(event);
            (queue.is_full(), queue.task.take())
        };
        self.changed.notify_all();
        if let Some(task) = task {
            task.wake();
        }
        Some(is_full)
    }
}

/// The handler of [`events`].
///
/// A handler of the program's may have it, and call its callbacks in its own: then the loop hears what is passed on and
/// nothing else. One that logs sessions in passes on `opened` when somebody has logged in, and from then on frames and the
/// end (`examples/world` does that):
///
/// ```
/// use wharf::{Close, CloseReason, EventHandler, Handler, Session};
///
/// struct Gate {
///     world: EventHandler,
/// }
///
/// impl Handler for Gate {
///     type State = bool; // whether the world knows it
///
///     fn opened(&self, _: &Session) -> bool {
///         false
///     }
///
///     fn received(&self, session: &Session, is_known: &mut bool, frame: &[u8]) {
///         if *is_known {
///             self.world.received(session, &mut (), frame);
///         } else if frame == b"the password" {
///             *is_known = true;
///             self.world.opened(session);
///         } else {
///             session.close(Close::Drain);
///         }
///     }
///
///     fn closed(&self, session: &Session, is_known: bool, reason: CloseReason) {
///         if is_known {
///             self.world.closed(session, (), reason);
///         }
///     }
/// }
///
/// let (world, mut events) = wharf::events(1 << 20);
/// let gate = Gate { world };
/// # let _ = (gate, &mut events);
/// ```
pub struct EventHandler {
    shared: Arc<Shared>,
}

impl EventHandler {
    /// A session is over: whoever took its events has gone.
    fn push(&self, session: &Session, event: Event) -> Option<bool> {
        let pushed = self.shared.push(event);
        if pushed.is_none() {
            session.close(Close::Drain);
        }
        pushed
    }
}

impl Handler for EventHandler {
    type State = ();

    fn opened(&self, session: &Session) {
        let event = Event::Opened { id: session.id(), peer: session.peer_address() };
        self.push(session, event);
    }

    fn received(&self, session: &Session, (): &mut (), frame: &[u8]) {
        let id = session.id();
        if self.push(session, Event::Frame { id, bytes: frame.to_vec() }) != Some(true) {
            return;
        }
        // In this order: whoever makes room resumes it afterwards, or it is seen here that there is.
        session.ask_to_pause(PausedBy::Events, true);
        let mut queue = self.shared.queue.lock();
        if queue.has_room_again() || queue.events_are_gone {
            drop(queue);
            session.ask_to_pause(PausedBy::Events, false);
        } else {
            queue.paused.push((id, session.handle().clone()));
        }
    }

    fn writable(&self, session: &Session, (): &mut ()) {
        self.push(session, Event::Writable { id: session.id() });
    }

    fn lagged(&self, session: &Session, (): &mut (), group: Group, frames: u64) {
        self.push(session, Event::Lagged { id: session.id(), group, frames });
    }

    fn peer_finished(&self, session: &Session, (): &mut ()) {
        self.push(session, Event::PeerFinished { id: session.id() });
    }

    fn closed(&self, session: &Session, (): (), reason: CloseReason) {
        self.shared.push(Event::Closed { id: session.id(), reason });
    }

    fn draining(&self) {
        self.shared.push(Event::Draining);
    }

    fn connect_failed(&self, id: SessionId, _: &Target, error: &io::Error) {
        // What can be copied of it.
        let error = match error.raw_os_error() {
            Some(code) => io::Error::from_raw_os_error(code),
            None => error.kind().into(),
        };
        self.shared.push(Event::ConnectFailed { id, error });
    }
}

impl Drop for EventHandler {
    fn drop(&mut self) {
        let task = {
            let mut queue = self.shared.queue.lock();
            queue.handler_is_gone = true;
            queue.task.take()
        };
        self.shared.changed.notify_all();
        if let Some(task) = task {
            task.wake();
        }
    }
}

impl fmt::Debug for EventHandler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventHandler").finish_non_exhaustive()
    }
}

/// Takes what happens at a server; see [`events`]. Also a [`Stream`], which ends with the server.
///
/// Once it is dropped, sessions end as by [`Close::Drain`] when something happens to them.
pub struct Events {
    shared: Arc<Shared>,
    /// Taken from the queue, and not given to the loop yet.
    taken: VecDeque<Event>,
    /// Of all that was taken at the last time.
    taken_bytes: usize,
}

impl Events {
    /// All that has happened by now. What is not taken of it stays.
    pub fn drain(&mut self) -> impl Iterator<Item = Event> + '_ {
        let mut has_looked = false;
        std::iter::from_fn(move || match self.taken.pop_front() {
            None if !std::mem::replace(&mut has_looked, true) => self.next_now(),
            next => next,
        })
    }

    /// The next event, for which it waits so long at most. `None`: the time is over, or the server has ended
    /// ([`is_over`](Self::is_over)).
    pub fn next_timeout(&mut self, timeout: Duration) -> Option<Event> {
        #[cfg(feature = "simulation")]
        if let Some(world) = crate::port::simulated::current() {
            let next = self.next_now();
            return next.or_else(|| {
                world.run_until(timeout, || {
                    let queue = self.shared.queue.lock();
                    !queue.events.is_empty() || queue.handler_is_gone
                });
                self.next_now()
            });
        }
        let deadline = Instant::now().checked_add(timeout);
        loop {
            if let Some(event) = self.next_now() {
                return Some(event);
            }
            let queue = self.shared.queue.lock();
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            if queue.handler_is_gone && queue.events.is_empty() || left == Some(Duration::ZERO) {
                return None;
            }
            if queue.events.is_empty() {
                drop(self.wait(queue, left));
            }
        }
    }

    /// Whether the server has ended, and all has been taken.
    pub fn is_over(&self) -> bool {
        let queue = self.shared.queue.lock();
        queue.handler_is_gone && queue.events.is_empty() && self.taken.is_empty()
    }

    fn wait<'a>(
        &self,
        queue: MutexGuard<'a, Queue>,
        left: Option<Duration>,
    ) -> MutexGuard<'a, Queue> {
        // Code under this lock cannot panic, so it is never poisoned.
        match left {
            None => self.shared.changed.wait(queue).unwrap_or_else(|e| e.into_inner()),
            Some(left) => {
                self.shared.changed.wait_timeout(queue, left).unwrap_or_else(|e| e.into_inner()).0
            }
        }
    }

    fn next_now(&mut self) -> Option<Event> {
        self.look(|_| ());
        self.taken.pop_front()
    }

    /// Takes what waits, once all that was taken before has been given to the loop: that is out of the bound now, and
    /// who was paused for it is resumed. `if_none` is called under the lock if nothing has happened.
    fn look<R>(&mut self, if_none: impl FnOnce(&mut Queue) -> R) -> Option<R> {
        if !self.taken.is_empty() {
            return None;
        }
        let (mut none, mut paused) = (None, Vec::new());
        {
            let mut queue = self.shared.queue.lock();
            queue.bytes -= std::mem::take(&mut self.taken_bytes);
            if queue.has_room_again() {
                paused = std::mem::take(&mut queue.paused);
            }
            if queue.events.is_empty() {
                none = Some(if_none(&mut queue));
            } else {
                self.taken_bytes = queue.bytes;
                self.taken.shrink_to(AT_REST_MAX);
                std::mem::swap(&mut queue.events, &mut self.taken);
            }
        }
        Shared::resume(&paused);
        none
    }
}

impl Stream for Events {
    type Item = Event;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Event>> {
        let events = self.get_mut();
        let task = context.waker().clone(); // not under the lock: it is the user's
        let mut unused = None;
        let is_over = events.look(|queue| {
            unused = queue.task.replace(task);
            queue.handler_is_gone
        });
        drop(unused);
        match (events.taken.pop_front(), is_over) {
            (Some(event), _) => Poll::Ready(Some(event)),
            (None, Some(true)) => Poll::Ready(None),
            (None, _) => Poll::Pending,
        }
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        let (left, task, paused) = {
            let mut queue = self.shared.queue.lock();
            queue.events_are_gone = true;
            let paused = std::mem::take(&mut queue.paused);
            (std::mem::take(&mut queue.events), queue.task.take(), paused)
        };
        Shared::resume(&paused);
        drop((left, task)); // the user's
    }
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Events").finish_non_exhaustive()
    }
}
