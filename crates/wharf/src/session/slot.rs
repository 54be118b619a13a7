//! The shared part of one session: what any thread may reach after a look-up.

use crate::buffer::SendBatch;
use crate::close::{Close, CloseReason};
use crate::sync::{AtomicU8, AtomicU16, AtomicU32, Mutex, Ordering};

use super::count::IoCount;
use super::send_queue::{Closing, SendQueue};

/// No socket is registered for the session.
const NO_REGISTRATION: u32 = u32::MAX;

/// What is noted of a session, each a bit of its slot's `notes`: its timer has fired, and its times must be
/// looked at; its `opened` has begun; it is a member of groups; it was behind, and a turn has begun since;
/// its place is free for another.
const TIME_CAME: u8 = 1;
const OPENED: u8 = 2;
const IN_GROUPS: u8 = 4;
const TURN_CAME: u8 = 8;
const PLACE_LEFT: u8 = 16;

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
    /// Which of the framings that were declared at the start is the session's.
    framing: AtomicU8,
}

impl Default for Slot {
    fn default() -> Self {
        Slot {
            count: IoCount::default(),
            send_queue: Mutex::default(),
            port: AtomicU16::new(0),
            registration: AtomicU32::new(NO_REGISTRATION),
            notes: AtomicU8::new(0),
            framing: AtomicU8::new(0),
        }
    }
}

impl Slot {
    /// Which port the session stays with. For who holds a count: the slot's next session may have
    /// another.
    pub(crate) fn port(&self) -> usize {
        // Acquire, with the release in `set_port`: who sees the next session's port sees that the one
        // before has ended.
        self.port.load(Ordering::Acquire).into()
    }

    /// Which framing is the session's, for its whole life. For who holds a count.
    pub(crate) fn framing(&self) -> u8 {
        // Relaxed: it was set before the session's first count (see `IoCount::begin`).
        self.framing.load(Ordering::Relaxed)
    }

    pub(super) fn set_framing(&self, framing: u8) {
        self.framing.store(framing, Ordering::Relaxed);
    }

    pub(super) fn set_port(&self, port: usize) {
        self.port.store(port as u16, Ordering::Release); // there are 1,024 at most
    }

    /// The generation of the session that is live in this slot, if it is one of this port's. For who
    /// holds nothing: the slot may pass to another session at any time, but a session never changes its
    /// port and a generation never comes again, so what this says stays true.
    pub(super) fn live_at(&self, port: usize) -> Option<u64> {
        let generation = self.count.live_generation()?;
        // Looked at between two looks at the generation: then it is this session's port.
        (self.port() == port && self.count.generation() == generation).then_some(generation)
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

    /// That a turn begins in which a session that was behind may go on.
    pub(crate) fn note_turn_came(&self) {
        self.set_note(TURN_CAME, true);
    }

    pub(crate) fn turn_came(&self) -> bool {
        self.notes.load(Ordering::Relaxed) & TURN_CAME != 0
    }

    /// Whether such a turn has begun since this was last asked.
    pub(crate) fn take_turn_came(&self) -> bool {
        self.turn_came() && self.notes.fetch_and(!TURN_CAME, Ordering::Acquire) & TURN_CAME != 0
    }

    /// That its `opened` begins.
    pub(crate) fn set_opened(&self) {
        self.set_note(OPENED, true);
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

    /// Notes that its place is free. True: it was its own until now.
    pub(super) fn leaves_place(&self) -> bool {
        self.notes.fetch_or(PLACE_LEFT, Ordering::AcqRel) & PLACE_LEFT == 0
    }

    pub(super) fn has_place(&self) -> bool {
        self.notes.load(Ordering::Acquire) & PLACE_LEFT == 0
    }

    fn set_note(&self, note: u8, holds: bool) {
        if holds {
            self.notes.fetch_or(note, Ordering::Release);
        } else {
            self.notes.fetch_and(!note, Ordering::Release);
        }
    }

    /// Whether and how it was asked to close. For the worker: whoever asks notes it
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
        self.ask_to_stop(reason);
        let last = self.count.lower();
        debug_assert!(!last, "the caller's own hold is there");
    }

    /// Asks the session to end at once. To ask is all that anybody but its worker ever does about it.
    /// For who holds a count. True if this changed anything: its worker must then attend to it.
    pub(crate) fn ask_to_stop(&self, reason: CloseReason) -> bool {
        self.ask_to_close(Closing::stop(reason))
    }

    /// Asks the session to end when what is queued has left; `takes_published`: and what was published
    /// before, until [`SendQueue::publications_end`]. As [`ask_to_stop`](Self::ask_to_stop).
    pub(crate) fn ask_to_drain(&self, reason: CloseReason, takes_published: bool) -> bool {
        self.ask_to_close(Closing { reason, how: Close::Drain, takes_published })
    }

    fn ask_to_close(&self, closing: Closing) -> bool {
        let changed = self.send_queue.lock().close(closing);
        if changed {
            self.count.ask_to_close();
        }
        changed
    }

    /// Makes it as it was before its first session; gives what still waited to be sent. For its
    /// release.
    pub(super) fn renew(&self) -> [Option<Box<SendBatch>>; 2] {
        self.notes.store(0, Ordering::Release);
        self.set_framing(0);
        self.set_registration(None);
        self.send_queue.lock().end()
    }

    /// Whether nothing is left of its last session.
    pub(super) fn is_new(&self) -> bool {
        let is_noted = self.notes.load(Ordering::Acquire) != 0;
        let has_framing = self.framing() != 0;
        !is_noted
            && !has_framing
            && self.registration().is_none()
            && self.send_queue.lock().is_new()
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
        slot.set_opened();
        slot.note_time_came();
        slot.set_in_groups(true);
        assert!(slot.take_time_came() && !slot.take_time_came());
        assert!(slot.is_opened() && slot.is_in_groups());
        slot.set_in_groups(false);
        assert!(slot.is_opened() && !slot.is_in_groups() && !slot.time_came());
    }

    #[test]
    fn whatever_was_noted_of_a_session_a_renewed_slot_is_new() {
        let leave_behind: [fn(&Slot); 8] = [
            |slot| assert!(slot.leaves_place()),
            |slot| slot.set_opened(),
            |slot| slot.note_time_came(),
            |slot| slot.set_in_groups(true),
            |slot| slot.set_framing(1),
            |slot| slot.set_registration(Some(0)),
            |slot| assert!(slot.ask_to_drain(CloseReason::Local, true)),
            |slot| slot.send_queue.lock().hold_back(true),
        ];
        let slot = Slot::default();
        for leave_behind in leave_behind {
            slot.count.begin(None);
            leave_behind(&slot);
            assert!(!slot.is_new());
            slot.renew();
            assert!(slot.is_new() && slot.count.lower() && slot.count.release());
        }
    }
}
