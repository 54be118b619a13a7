//! The shared part of one session, which any thread may reach through a look-up.

use crate::buffer::{SendBatch, SharedFrame};
use crate::close::{Close, CloseReason};
use crate::sync::{AtomicU8, AtomicU16, AtomicU32, Mutex, MutexGuard, Ordering};

use super::count::IoCount;
use super::send_queue::{Closing, PausedBy, SendQueue, Unsent};

/// The session has no registered socket.
const NO_REGISTRATION: u32 = u32::MAX;

/// Flags of a session, one bit each in its slot. In this order: its timer has fired, so its
/// deadlines must be checked; its `opened` has begun; it is a member of groups; it was behind, and a turn has
/// begun since; its place is free.
const TIME_CAME: u8 = 1;
const OPENED: u8 = 2;
const IN_GROUPS: u8 = 4;
const TURN_CAME: u8 = 8;
const PLACE_LEFT: u8 = 16;
const HAS_CONTEXT: u8 = 32;
/// Somebody wants receiving paused; and the holder of the half has done so.
const PAUSE_ASKED: u8 = 64;
const PAUSE_SET: u8 = 128;

/// What is noted about a session, as it was at one moment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Flags(u8);

impl Flags {
    pub(crate) fn time_came(self) -> bool {
        self.0 & TIME_CAME != 0
    }

    pub(crate) fn turn_came(self) -> bool {
        self.0 & TURN_CAME != 0
    }

    pub(crate) fn is_asked_to_pause(self) -> bool {
        self.0 & PAUSE_ASKED != 0
    }
}

/// One slot of the table. Never moved or freed while the server lives (invariant 6).
#[derive(Debug)]
#[repr(align(64))] // neighbours may belong to different workers
pub(crate) struct Slot {
    pub(crate) count: IoCount,
    pub(crate) send_queue: Mutex<SendQueue>,
    port: AtomicU16,
    /// The registration of the session's socket at its port.
    registration: AtomicU32,
    flags: AtomicU8,
    /// The index of the session's framing among those declared at the start.
    framing: AtomicU8,
}

impl Default for Slot {
    fn default() -> Self {
        Slot {
            count: IoCount::default(),
            send_queue: Mutex::default(),
            port: AtomicU16::new(0),
            registration: AtomicU32::new(NO_REGISTRATION),
            flags: AtomicU8::new(0),
            framing: AtomicU8::new(0),
        }
    }
}

impl Slot {
    /// The port that the session belongs to. The caller holds a count, because the slot's next session may
    /// have another port.
    pub(crate) fn port(&self) -> usize {
        // Acquire, pairs with the release in `set_port`: a thread that sees the next session's port sees the
        // end of the previous session.
        self.port.load(Ordering::Acquire).into()
    }

    /// The index of the session's framing. The caller holds a count.
    #[inline]
    pub(crate) fn framing(&self) -> u8 {
        // Relaxed: set before the session's first count (see `IoCount::begin`), and then under the lock of the send
        // queue. Who must not miss a change looks under that lock.
        self.framing.load(Ordering::Relaxed)
    }

    /// From now on the session's frames have this framing: what is cut, and what is queued. False: it is closing, or
    /// something waits for it outside its queue: what would come from there in the new framing may stand before what
    /// was accepted in the old one.
    pub(crate) fn change_framing(&self, framing: u8) -> bool {
        let queue = self.send_queue.lock();
        let changes = queue.closing().is_none() && !queue.has_sends_placed();
        if changes {
            self.set_framing(framing);
        }
        changes
    }

    /// Locks the send queue for a frame that is in the form of this framing. `None`: the session has another by now.
    #[inline]
    pub(crate) fn lock_for(&self, framing: u8) -> Option<MutexGuard<'_, SendQueue>> {
        let queue = self.send_queue.lock();
        (self.framing() == framing).then_some(queue)
    }

    pub(super) fn set_framing(&self, framing: u8) {
        self.framing.store(framing, Ordering::Relaxed);
    }

    pub(super) fn set_port(&self, port: usize) {
        self.port.store(port as u16, Ordering::Release); // at most 1,024
    }

    /// The generation of the live session in this slot, if it belongs to this port. The caller holds nothing,
    /// so the slot may pass to another session at any time. But a session never changes its port and a
    /// generation never returns, so the answer stays true.
    pub(super) fn live_at(&self, port: usize) -> Option<u64> {
        let generation = self.count.live_generation()?;
        // The port was read between two reads of the same generation, so it belongs to that session.
        (self.port() == port && self.count.generation() == generation).then_some(generation)
    }

    /// The registration of its socket. The caller holds a count. Set before the first operation, cleared in
    /// the release.
    pub(crate) fn registration(&self) -> Option<u32> {
        let registration = self.registration.load(Ordering::Acquire);
        (registration != NO_REGISTRATION).then_some(registration)
    }

    pub(crate) fn set_registration(&self, registration: Option<u32>) {
        self.registration.store(registration.unwrap_or(NO_REGISTRATION), Ordering::Release);
    }

    pub(crate) fn note_time_came(&self) {
        self.set_flag(TIME_CAME, true);
    }

    pub(crate) fn time_came(&self) -> bool {
        self.flags.load(Ordering::Relaxed) & TIME_CAME != 0
    }

    /// Whether its timer has fired since the last call.
    pub(crate) fn take_time_came(&self) -> bool {
        self.time_came() && self.flags.fetch_and(!TIME_CAME, Ordering::Acquire) & TIME_CAME != 0
    }

    /// A turn begins in which a session that was behind may continue.
    pub(crate) fn note_turn_came(&self) {
        self.set_flag(TURN_CAME, true);
    }

    pub(crate) fn turn_came(&self) -> bool {
        self.flags.load(Ordering::Relaxed) & TURN_CAME != 0
    }

    /// Whether such a turn has begun since the last call.
    pub(crate) fn take_turn_came(&self) -> bool {
        self.turn_came() && self.flags.fetch_and(!TURN_CAME, Ordering::Acquire) & TURN_CAME != 0
    }

    /// Notes that its `opened` begins.
    pub(crate) fn set_opened(&self) {
        self.set_flag(OPENED, true);
    }

    pub(crate) fn is_opened(&self) -> bool {
        self.flags.load(Ordering::Acquire) & OPENED != 0
    }

    /// That it was begun with a context.
    pub(crate) fn set_has_context(&self) {
        self.set_flag(HAS_CONTEXT, true);
    }

    pub(crate) fn has_context(&self) -> bool {
        self.flags.load(Ordering::Acquire) & HAS_CONTEXT != 0
    }

    /// Says whether somebody wants receiving paused. True: it is new, and its worker must attend to it. Calls are
    /// not counted: the last one of each counts.
    pub(crate) fn ask_to_pause(&self, by: PausedBy, pause: bool) -> bool {
        self.ask_to_pause_under(&mut self.send_queue.lock(), by, pause)
    }

    /// The same with its lock, under which what each of them wants is put together.
    pub(crate) fn ask_to_pause_under(
        &self,
        queue: &mut SendQueue,
        by: PausedBy,
        pause: bool,
    ) -> bool {
        let pause = queue.ask_to_pause(by, pause);
        let before = if pause {
            self.flags.fetch_or(PAUSE_ASKED, Ordering::AcqRel)
        } else {
            self.flags.fetch_and(!PAUSE_ASKED, Ordering::AcqRel)
        };
        (before & PAUSE_ASKED != 0) != pause
    }

    #[inline]
    pub(crate) fn is_asked_to_pause(&self) -> bool {
        self.flags.load(Ordering::Relaxed) & PAUSE_ASKED != 0
    }

    /// What is noted now, of that which attending asks. Other threads may note more at any time.
    #[inline]
    pub(crate) fn flags(&self) -> Flags {
        Flags(self.flags.load(Ordering::Relaxed))
    }

    /// Notes what the holder of the half has made of it.
    pub(crate) fn set_paused(&self, paused: bool) {
        self.set_flag(PAUSE_SET, paused);
    }

    /// Whether the holder of the half has something to do about it.
    pub(crate) fn pause_is_to_change(&self) -> bool {
        let flags = self.flags.load(Ordering::Acquire);
        (flags & PAUSE_ASKED != 0) != (flags & PAUSE_SET != 0)
    }

    /// Says whether it is a member of groups. Under the lock of its port's groups.
    pub(crate) fn set_in_groups(&self, in_groups: bool) {
        self.set_flag(IN_GROUPS, in_groups);
    }

    /// Called in its release, when no thread can join it any more.
    pub(crate) fn is_in_groups(&self) -> bool {
        self.flags.load(Ordering::Acquire) & IN_GROUPS != 0
    }

    /// Gives its place up. True: it had one until now.
    pub(super) fn leaves_place(&self) -> bool {
        self.flags.fetch_or(PLACE_LEFT, Ordering::AcqRel) & PLACE_LEFT == 0
    }

    pub(super) fn has_place(&self) -> bool {
        self.flags.load(Ordering::Acquire) & PLACE_LEFT == 0
    }

    fn set_flag(&self, flag: u8, holds: bool) {
        if holds {
            self.flags.fetch_or(flag, Ordering::Release);
        } else {
            self.flags.fetch_and(!flag, Ordering::Release);
        }
    }

    /// Whether and how it was asked to close. Called by its worker. A thread that asks notes the session
    /// afterwards, so a request that is missed here is seen by the next attending.
    pub(crate) fn closing(&self) -> Option<Closing> {
        if !self.count.is_closing() {
            return None;
        }
        self.send_queue.lock().closing()
    }

    /// The next batch to send, if no send is outstanding. Also raises the count for the operation (invariant
    /// 3). The caller holds a count, and must post the batch.
    pub(crate) fn begin_send(&self, now: impl FnOnce() -> u64) -> Option<Box<SendBatch>> {
        let batch = self.send_queue.lock().take(now)?;
        self.count.raise();
        Some(batch)
    }

    /// The post was refused: keeps the batch, asks the session to end for this reason, and lowers the count.
    pub(crate) fn send_refused(&self, batch: Box<SendBatch>, reason: CloseReason) {
        self.send_queue.lock().put_back(batch);
        self.ask_to_stop(reason);
        let last = self.count.lower();
        debug_assert!(!last, "the caller's own hold is there");
    }

    /// Asks the session to end at once; only its worker ends it. The caller holds a count. True: this changed
    /// something, so its worker must attend to it.
    pub(crate) fn ask_to_stop(&self, reason: CloseReason) -> bool {
        self.ask_to_close(Closing::stop(reason))
    }

    /// Asks the session to end because its peer does not read as fast as it is sent to.
    pub(crate) fn ask_to_stop_as_slow(&self) -> bool {
        let queued = self.send_queue.lock().queued_bytes();
        self.ask_to_stop(CloseReason::SlowConsumer { queued })
    }

    /// Asks the session to end after what is queued has left. `takes_published`: also after what was
    /// published before, until [`SendQueue::publications_end`]. Otherwise like
    /// [`ask_to_stop`](Self::ask_to_stop).
    pub(crate) fn ask_to_drain(&self, reason: CloseReason, takes_published: bool) -> bool {
        self.ask_to_close(Closing { reason, how: Close::Drain, takes_published })
    }

    /// The same, and this frame, which is in the form of this framing, leaves last. `None`: the session has another by
    /// now.
    pub(crate) fn ask_to_drain_with(
        &self,
        reason: CloseReason,
        takes_published: bool,
        farewell: SharedFrame,
        framing: u8,
    ) -> Option<bool> {
        let closing = Closing { reason, how: Close::Drain, takes_published };
        let changed = self.lock_for(framing)?.close_with(closing, farewell);
        if changed {
            self.count.ask_to_close();
        }
        Some(changed)
    }

    fn ask_to_close(&self, closing: Closing) -> bool {
        let changed = self.send_queue.lock().close(closing);
        if changed {
            self.count.ask_to_close();
        }
        changed
    }

    /// Makes the slot as it was before its first session. Returns what still waited to be sent. Called in the
    /// release.
    pub(super) fn renew(&self) -> Unsent {
        self.flags.store(0, Ordering::Release);
        self.set_framing(0);
        self.set_registration(None);
        self.send_queue.lock().end()
    }

    /// Whether its last session has left nothing.
    pub(super) fn is_new(&self) -> bool {
        let is_noted = self.flags.load(Ordering::Acquire) != 0;
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

    /// On systems where the standard library's lock is one word.
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
