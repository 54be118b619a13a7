//! Jobs of sessions: taking them, running them, and telling what they gave.

use super::engine::Engine;
use super::jobs::{Job, NotTaken, Outcome};
use super::notes::Notes;
use super::share::Follows;
use crate::close::CloseReason;
use crate::error::OffloadError;
use crate::guarded;
use crate::session::{PausedBy, SessionId, Slot};

impl Engine {
    /// Threads of a pool will run jobs.
    pub(crate) fn pool_starts(&self) {
        self.jobs.threads_start();
    }

    /// Takes a job for a session. The caller holds no count.
    pub(crate) fn offload<J: Job + 'static>(
        &self,
        id: SessionId,
        job: Box<J>,
    ) -> Result<(), OffloadError<Box<J>>> {
        if !self.jobs.has_threads() {
            return Err(OffloadError::NoThreads(job));
        }
        let mut job = Some(job);
        let taken = self.with_session(id, |slot| {
            // Under one lock: a session closes under it, and forgets its jobs afterwards.
            let mut queue = slot.send_queue.lock();
            if queue.closing().is_some() {
                return (Err(NotTaken::Over), Follows::default());
            }
            let taken = self.jobs.push(id, &mut job);
            let pauses = taken == Ok(true);
            let changed = pauses && slot.ask_to_pause_under(&mut queue, PausedBy::Jobs, true);
            (taken.map(|_| ()), Follows { changed, ..Follows::default() })
        });
        match (job, taken) {
            (None, _) => Ok(()),
            (Some(work), Some(Err(NotTaken::Full(held)))) => {
                Err(OffloadError::Full { work, held, max: self.options.offload.jobs_max })
            }
            (Some(work), _) => Err(OffloadError::Gone(work)),
        }
    }

    /// The next job, for which a thread of the pool waits. `None`: the server has ended.
    pub(crate) fn next_job(&self) -> Option<Box<dyn Job>> {
        self.jobs.next()
    }

    /// A job has given this note; `None`: it has panicked, which ends its session.
    pub(crate) fn job_has_run<N>(&self, notes: &[Notes<N>], id: SessionId, mut note: Option<N>) {
        let panicked = note.is_none();
        let noted = self.with_session(id, |slot| {
            if panicked {
                let changed = slot.ask_to_stop(CloseReason::HandlerPanicked);
                return (false, Follows { changed, ..Follows::default() });
            }
            let mut queue = slot.send_queue.lock();
            let Some(note) = note.take_if(|_| queue.closing().is_none()) else {
                return (false, Follows::default());
            };
            notes[slot.port()].push_of_job(id, note);
            // Under the same lock: the next job may not run before this note waits, and a session that closes gives
            // back the places of what waits for it.
            self.jobs.has_run(id, Outcome::Noted);
            (true, Follows { changed: queue.set_due(), ..Follows::default() })
        });
        if noted != Some(true) {
            self.jobs.has_run(id, if panicked { Outcome::Panicked } else { Outcome::Untold });
        }
        if let Some(note) = note {
            guarded::end(note);
        }
    }

    /// The session is told what a job gave. On its worker. True: it must attend to it.
    pub(crate) fn job_is_told(&self, id: SessionId, slot: &Slot) -> bool {
        let mut queue = slot.send_queue.lock();
        self.jobs.is_told(id) && slot.ask_to_pause_under(&mut queue, PausedBy::Jobs, false)
    }

    /// The session is closing, and what waited for it among the notes was dropped.
    pub(crate) fn forget_jobs(&self, id: SessionId, slot: &Slot) {
        let forgotten = {
            let _queue = slot.send_queue.lock();
            self.jobs.forget(id)
        };
        forgotten.into_iter().for_each(guarded::end);
    }
}
