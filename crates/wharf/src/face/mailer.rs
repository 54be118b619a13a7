//! Notes: what other threads tell a session, in a callback of its own.

use std::fmt;
use std::sync::{Arc, OnceLock};

use super::handle::Handle;
use super::handler::{Handler, pass_on_callbacks};
use super::session::Session;
use super::tells::{Internal, Tells};
use crate::close::CloseReason;
use crate::engine::{Callback, Job, Notes, Waiting};
use crate::error::{OffloadError, TellError};
use crate::guarded::{self, guarded};
use crate::session::SessionId;

/// Tells sessions notes, from any thread: [`Told::told`] gets each with the session's state.
///
/// What a thread or task of the program's has for a session is a *note*, of a type of the program's: an answer of a
/// database, the word that an account has logged in elsewhere. The state of a session needs no lock then.
///
/// The handler that is started is made by [`with`](Self::with), and may itself keep a clone of the mailer.
///
/// ```
/// use wharf::{Handler, Mailer, Server, Session, SessionId, Told};
///
/// enum Note {
///     LoggedIn { name: String },
/// }
///
/// struct Game {
///     mailer: Mailer<Note>,
/// }
///
/// impl Handler for Game {
///     type State = Option<String>; // its name, once it is known
///
///     fn opened(&self, session: &Session) -> Self::State {
///         let (mailer, id) = (self.mailer.clone(), session.id());
///         std::thread::spawn(move || {
///             let name = "what a database has answered".to_owned();
///             let _ = mailer.tell(id, Note::LoggedIn { name }); // it may be gone
///         });
///         None
///     }
///
///     fn received(&self, _: &Session, _: &mut Self::State, _: &[u8]) {}
/// }
///
/// impl Told<Note> for Game {
///     fn told(&self, session: &Session, state: &mut Self::State, note: Note) {
///         let Note::LoggedIn { name } = note;
///         session.send(format!("hello {name}"));
///         *state = Some(name);
///     }
/// }
///
/// let mailer = Mailer::new();
/// let game = Game { mailer: mailer.clone() };
/// let server = Server::builder().listen("127.0.0.1:0").start(mailer.with(game))?;
/// # drop(server);
/// # Ok::<(), wharf::Error>(())
/// ```
pub struct Mailer<N> {
    shared: Arc<Shared<N>>,
}

struct Shared<N> {
    server: OnceLock<OfServer<N>>,
}

struct OfServer<N> {
    handle: Handle,
    /// Of each port.
    notes: Box<[Notes<N>]>,
}

/// A [`Handler`] that is told notes.
pub trait Told<N>: Handler {
    /// A note for the session, from [`Mailer::tell`]. Called on the session's worker like every callback: after
    /// `opened`, never concurrently with another callback of the session, also while receiving is paused, and not after
    /// a close. The notes that one thread tells a session come in their order.
    fn told(&self, session: &Session, state: &mut Self::State, note: N);
}

impl<N, H: Told<N>> Told<N> for Arc<H> {
    fn told(&self, session: &Session, state: &mut Self::State, note: N) {
        (**self).told(session, state, note);
    }
}

impl<N: Send + 'static> Mailer<N> {
    /// A mailer for one server, or connector, which is not started yet.
    pub fn new() -> Self {
        Mailer { shared: Arc::new(Shared { server: OnceLock::new() }) }
    }

    /// The handler to start: this one, which is told what the mailer tells. It is started as it is: a handler of the
    /// program's that wraps it would not be told.
    pub fn with<H: Told<N>>(&self, handler: H) -> Mailed<H, N> {
        Mailed { handler, shared: self.shared.clone() }
    }

    /// Tells a session a note. It waits until the session's worker comes to it, within
    /// [`sessions.notes_max`](field@crate::options::Sessions::notes_max) and
    /// [`sessions.notes_of_port_max`](field@crate::options::Sessions::notes_of_port_max). A session that is being
    /// connected is told after its `opened`. A note for a session that is asked to close before it comes to it,
    /// as by a drain of the server, is dropped, on its worker, and counted
    /// ([`Stats::untold_notes`](crate::Stats::untold_notes)). While no more than 1,024 notes wait at a port, it allocates
    /// nothing once as many have waited. On Windows, where workers share a port, a note for a session that waits for its peer
    /// costs a cancelled receive: one operation and one completion more.
    ///
    /// # Errors
    /// Gives the note back if the session is gone, as many notes wait as may, or no server was started yet.
    pub fn tell(&self, id: SessionId, note: N) -> Result<(), TellError<N>> {
        match self.shared.server.get() {
            Some(OfServer { handle, notes }) => handle.engine().tell(notes, id, note),
            None => Err(TellError::NotStarted(note)),
        }
    }

    /// Has work that blocks, such as a call of a database, run on a thread of a pool, and tells the session the note that
    /// it returns. A callback must not block: it would keep all other sessions of its worker waiting.
    ///
    /// A session's jobs run one after another, in the order in which they were offloaded; those of different sessions run
    /// beside each other, on [`offload.threads`](field@crate::options::Offload::threads) threads. A session with
    /// [`offload.jobs_of_session_max`](field@crate::options::Offload::jobs_of_session_max) jobs is not received from,
    /// until it has half as many: its peer cannot fill the pool. What a job returns always has room among the notes, where it
    /// counts like others. If the job panics, its session ends with
    /// [`CloseReason::HandlerPanicked`].
    ///
    /// A session that closes has its jobs dropped, when its worker comes to it; the one that runs is not interrupted, and
    /// what it returns is dropped. Both are counted ([`Stats::untold_jobs`](crate::Stats::untold_jobs)). A peer that ends
    /// its stream ends its session, unless [`EndOfStream::Told`](crate::EndOfStream::Told) is asked for.
    ///
    /// A job that never returns keeps its thread, and its session paused if that has its share; a paused session is not
    /// idle, and does not see that its peer has gone. [`Server::wait`](crate::Server::wait), and whoever drops the server,
    /// wait for the jobs that run; a drain does not. So a job has a time-out of its own. It must not wait for its server,
    /// as callbacks must not ([`Error::InCallback`](crate::Error::InCallback)).
    ///
    /// ```
    /// # use wharf::{Handler, Mailer, Session, Told};
    /// struct Shop {
    ///     mailer: Mailer<Price>,
    /// }
    ///
    /// struct Price(Option<u32>);
    ///
    /// # fn price_of(article: &str) -> Option<u32> { Some(article.len() as u32) }
    /// impl Handler for Shop {
    ///     type State = ();
    ///
    ///     fn opened(&self, _: &Session) {}
    ///
    ///     fn received(&self, session: &Session, (): &mut (), frame: &[u8]) {
    ///         let article = String::from_utf8_lossy(frame).into_owned();
    ///         let work = move || Price(price_of(&article)); // asks a database
    ///         if self.mailer.offload(session.id(), work).is_err() {
    ///             session.send(b"try again later");
    ///         }
    ///     }
    /// }
    ///
    /// impl Told<Price> for Shop {
    ///     fn told(&self, session: &Session, (): &mut (), Price(price): Price) {
    ///         session.send(format!("{price:?}"));
    ///     }
    /// }
    /// ```
    ///
    /// # Errors
    /// Gives the work back if the session is gone, the pool is full or has no threads, or no server was started yet.
    pub fn offload<F>(&self, id: SessionId, work: F) -> Result<(), OffloadError<F>>
    where
        F: FnOnce() -> N + Send + 'static,
    {
        let Some(OfServer { handle, .. }) = self.shared.server.get() else {
            return Err(OffloadError::NotStarted(work));
        };
        let job = Box::new(Work { work, id, shared: self.shared.clone() });
        handle.engine().offload(id, job).map_err(|refused| refused.map(|job| job.work))
    }
}

/// Work of a session's.
struct Work<F, N> {
    work: F,
    id: SessionId,
    shared: Arc<Shared<N>>,
}

impl<N: Send, F: FnOnce() -> N + Send> Job for Work<F, N> {
    fn run(self: Box<Self>) {
        let Work { work, id, shared } = *self;
        let note = guarded(work);
        if let Some(OfServer { handle, notes }) = shared.server.get() {
            handle.engine().job_has_run(notes, id, note);
        }
        guarded::end(shared); // it may be the last that holds notes
    }
}

impl<N: Send + 'static> Default for Mailer<N> {
    fn default() -> Self {
        Mailer::new()
    }
}

impl<N> Clone for Mailer<N> {
    fn clone(&self) -> Self {
        Mailer { shared: self.shared.clone() }
    }
}

impl<N> fmt::Debug for Mailer<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_started = self.shared.server.get().is_some();
        f.debug_struct("Mailer").field("is_started", &is_started).finish_non_exhaustive()
    }
}

/// A handler and its [`Mailer`]; see [`Mailer::with`].
pub struct Mailed<H, N> {
    handler: H,
    shared: Arc<Shared<N>>,
}

impl<H: fmt::Debug, N> fmt::Debug for Mailed<H, N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mailed").field("handler", &self.handler).finish_non_exhaustive()
    }
}

impl<N: Send + 'static, H: Told<N>> Tells<H::State> for Mailed<H, N> {
    fn begin(&self, handle: Handle) -> bool {
        let notes = handle.engine().ports.iter().map(|_| Notes::default()).collect();
        self.shared.server.set(OfServer { handle, notes }).is_ok()
    }

    fn tell_next(&self, session: &Session, state: &mut H::State) -> bool {
        let Some(OfServer { notes, .. }) = self.shared.server.get() else { return false };
        let waiting = notes[session.port()].pop(session.id());
        let Some(Waiting { note, is_of_job }) = waiting else { return false };
        if is_of_job {
            session.job_is_told();
        }
        session.enter(Callback::Told);
        self.handler.told(session, state, note);
        true
    }

    fn forget(&self, id: SessionId, port: usize) -> u64 {
        let Some(OfServer { notes, .. }) = self.shared.server.get() else { return 0 };
        let mut forgotten = 0;
        while let Some(Waiting { note, is_of_job }) = notes[port].pop(id) {
            guarded::end(note); // not under the lock: it is the user's
            forgotten += u64::from(!is_of_job);
        }
        forgotten
    }
}

#[deny(clippy::missing_trait_methods, reason = "each callback is passed on")]
impl<N: Send + 'static, H: Told<N>> Handler for Mailed<H, N> {
    type State = H::State;

    fn opened(&self, session: &Session) -> Self::State {
        self.handler.opened(session)
    }

    fn closed(&self, session: &Session, state: Self::State, reason: CloseReason) {
        self.handler.closed(session, state, reason);
    }

    fn tells(&self, _: Internal) -> Option<&dyn Tells<Self::State>> {
        Some(self)
    }

    pass_on_callbacks!(self => self.handler);
}
