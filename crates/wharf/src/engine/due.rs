//! What the program has for a session: notes, timers, an idle time-out of its own.

use std::time::Duration;

use super::engine::Engine;
use super::notes::{NoRoom, Notes, NotesMax};
use super::share::Follows;
use super::timers::TooMany;
use crate::error::{TellError, TimerError};
use crate::session::{SessionId, Slot};

/// The least idle time-out: none at all would mean that there is no limit.
const IDLE_TIMEOUT_MIN: Duration = Duration::from_nanos(1);

impl Engine {
    /// Queues a note for a session among those of its port. The caller holds no count.
    pub(crate) fn tell<N>(
        &self,
        notes: &[Notes<N>],
        id: SessionId,
        note: N,
    ) -> Result<(), TellError<N>> {
        let sessions = &self.options.sessions;
        let max = NotesMax { session: sessions.notes_max, port: sessions.notes_of_port_max };
        let mut note = Some(note);
        let told = self.with_session(id, |slot| {
            // Under one lock: a session closes under it, and forgets its notes afterwards.
            let mut queue = slot.send_queue.lock();
            let Some(note) = note.take_if(|_| queue.closing().is_none()) else {
                return (Ok(()), Follows::default()); // it comes back
            };
            let pushed = notes[slot.port()].push(id, note, max);
            let changed = pushed.is_ok() && queue.set_due();
            (pushed, Follows { changed, ..Follows::default() })
        });
        match (told, note) {
            (_, Some(note)) => Err(TellError::Gone(note)),
            (Some(Err(NoRoom { note, waiting, max })), None) => {
                Err(TellError::Full { note, waiting, max })
            }
            (_, None) => Ok(()),
        }
    }

    /// Sets a timer for a session. Called in one of its callbacks, so its release comes later.
    pub(crate) fn set_timer(
        &self,
        id: SessionId,
        slot: &Slot,
        key: u64,
        after: Duration,
    ) -> Result<(), TimerError> {
        if slot.send_queue.lock().closing().is_some() {
            return Err(TimerError::Closing); // also in `closed`, which comes after all was forgotten
        }
        let (port, max) = (self.port_of(slot), self.options.sessions.timers_max);
        let deadline = self.now().after(after);
        let next_before = {
            let mut timers = port.timers.lock();
            let next_before = timers.next_deadline();
            let set = timers.set(id, key, deadline, max);
            set.map_err(|TooMany| TimerError::TooMany { max })?;
            next_before
        };
        port.timer_was_set(next_before, deadline);
        Ok(())
    }

    /// Cancels a timer of a session's. True: it was set, and its callback does not come.
    pub(crate) fn cancel_timer(&self, id: SessionId, slot: &Slot, key: u64) -> bool {
        self.port_of(slot).timers.lock().cancel(id, key)
    }

    /// Gives a session an idle time-out of its own. Called as [`set_timer`](Self::set_timer). True: its worker must
    /// attend to it.
    pub(crate) fn set_idle_timeout(
        &self,
        id: SessionId,
        slot: &Slot,
        idle_timeout: Option<Duration>,
    ) -> bool {
        if slot.send_queue.lock().closing().is_some() {
            return false;
        }
        let idle_timeout = idle_timeout.map(|after| after.max(IDLE_TIMEOUT_MIN));
        self.port_of(slot).timers.lock().set_idle_timeout(id, idle_timeout);
        slot.note_time_came(); // so that the next deadline is looked for anew
        true
    }
}
