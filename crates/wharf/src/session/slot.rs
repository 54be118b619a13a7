//! The shared part of one session: what any thread may reach after a look-up.

use crate::Close;
use crate::buffer::SendBatch;
use crate::error::CloseReason;
use crate::sync::{AtomicU8, AtomicU16, AtomicU32, Mutex, Ordering};

use super::count::IoCount;
use super::send_queue::{Closing, SendQueue};

/// No socket is registered for the session.
const NO_REGISTRATION: u32 = u32::MAX;

/// What is noted of a session, each a bit of its slot's `notes`: its timer has fired, and its times must be
/// looked at; its `opened` has begun; it is a member of groups.
const TIME_CAME: u8 = 1;
const OPENED: u8 = 2;
const IN_GROUPS: u8 = 4;

/// One slot of the table. Never moved or freed while the server lives (invariant 6).
#[derive(Debug)]
#[repr(align(64))] // neighbours may belong to different workers
pub(crate) struct Slot {
    pub(crate) count: IoCount,
    pub(crate) send_queue: Mutex<SendQueue>,
    port: AtomicU16,
    /// The port's name for the session's socket.
    registration: AtomicU32,
    notes: AtomicU8,
}

impl Default for Slot {
    fn default() -> Self {
        Slot {
            count: IoCount::default(),
            send_queue: Mutex::default(),
            port: AtomicU16::new(0),
            registration: AtomicU32::new(NO_REGISTRATION),
            notes: AtomicU8::new(0),
        }
    }
}

impl Slot {
    /// Which port the session stays with.
    pub(crate) fn port(&self) -> usize {
        self.port.load(Ordering::Relaxed).into()
    }

    pub(crate) fn set_port(&self, port: usize) {
        self.port.store(port as u16, Ordering::Relaxed); // there are 1,024 at most
    }

    /// The port's name for its socket. For who holds a count: it is set before the first operation
    /// and unset in the release.
    pub(crate) fn registration(&self) -> Option<u32> {
        let registration = self.registration.load(Ordering::Acquire);
        (registration != NO_REGISTRATION).then_some(registration)
    }

    pub(crate) fn set_registration(&self, registration: Option<u32>) {
        self.registration.store(registration.unwrap_or(NO_REGISTRATION), Ordering::Release);
    }

    pub(crate) fn note_time_came(&self) {
        self.set_note(TIME_CAME, true);
    }

    pub(crate) fn time_came(&self) -> bool {
        self.notes.load(Ordering::Relaxed) & TIME_CAME != 0
    }

    /// Whether its timer has fired since this was last asked.
    pub(crate) fn take_time_came(&self) -> bool {
        self.time_came() && self.notes.fetch_and(!TIME_CAME, Ordering::Acquire) & TIME_CAME != 0
    }

    /// That its `opened` begins, or that the slot becomes free.
    pub(crate) fn set_opened(&self, opened: bool) {
        self.set_note(OPENED, opened);
    }

    pub(crate) fn is_opened(&self) -> bool {
        self.notes.load(Ordering::Acquire) & OPENED != 0
    }

    /// Says whether it is a member of groups. Under the lock of its port's groups.
    pub(crate) fn set_in_groups(&self, in_groups: bool) {
        self.set_note(IN_GROUPS, in_groups);
    }

    /// For its release, when nobody can join any more.
    pub(crate) fn is_in_groups(&self) -> bool {
        self.notes.load(Ordering::Acquire) & IN_GROUPS != 0
    }

    fn set_note(&self, note: u8, holds: bool) {
        if holds {
            self.notes.fetch_or(note, Ordering::Release);
        } else {
            self.notes.fetch_and(!note, Ordering::Release);
        }
    }

    /// Whether and how it was asked to close. For who attends to the session: whoever asks notes it
    /// afterwards, so what is not seen here yet is seen by that.
    pub(crate) fn closing(&self) -> Option<Closing> {
        if !self.count.is_closing() {
            return None;
        }
        self.send_queue.lock().closing()
    }

    /// The next batch to send, if no send is outstanding, and with it the count that its operation
    /// has from before the post on (invariant 3). Who gets one posts it. For who holds a count.
    pub(crate) fn begin_send(&self, now: impl FnOnce() -> u64) -> Option<Box<SendBatch>> {
        let batch = self.send_queue.lock().take(now)?;
        self.count.raise();
        Some(batch)
    }

    /// The post of what was begun was refused: the batch is kept, the session ends for this reason,
    /// and the count goes back.
    pub(crate) fn send_refused(&self, batch: Box<SendBatch>, reason: CloseReason) {
        self.send_queue.lock().put_back(batch);
        self.ask_to_close(reason, Close::Stop);
        let last = self.count.lower();
        debug_assert!(!last, "the caller's own hold is there");
    }

    /// Asks the session to close, which is all that anybody but its worker ever does about it.
    /// For who holds a count. True if this changed anything: its worker must then attend to it.
    pub(crate) fn ask_to_close(&self, reason: CloseReason, how: Close) -> bool {
        let changed = self.send_queue.lock().close(Closing { reason, how });
        if changed {
            self.count.ask_to_close();
        }
        changed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where the standard library's lock is one word.
    #[test]
    #[cfg(all(any(target_os = "linux", windows), not(any(loom, shuttle))))]
    fn a_slot_is_one_cache_line() {
        assert_eq!(size_of::<Slot>(), 64);
    }

    #[test]
    fn what_is_noted_is_noted_apart() {
        let slot = Slot::default();
        slot.set_opened(true);
        slot.note_time_came();
        slot.set_in_groups(true);
        assert!(slot.take_time_came() && !slot.take_time_came());
        assert!(slot.is_opened() && slot.is_in_groups());
        slot.set_opened(false);
        assert!(!slot.is_opened() && slot.is_in_groups() && !slot.time_came());
        slot.set_in_groups(false);
        assert!(!slot.is_in_groups());
    }
}
