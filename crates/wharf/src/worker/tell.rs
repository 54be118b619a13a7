//! Callbacks that follow from a session's state, not from bytes that came: of room, of the end of the peer's
//! direction, of a last word. And those of other threads that wait for room.

use super::floor::Floor;
use super::held::Held;
use super::receive::{FRAMES_BETWEEN_LOOKS, share_is_used_up};
use crate::clock::Clock;
use crate::engine::Callback;
use crate::face::{Handler, Internal};
use crate::session::Slot;

impl<'e, H: Handler, C: Clock> Floor<'e, H, C> {
    /// Whether the session has had its share of this turn. Then it goes on in the next.
    fn waits_for_its_share(&mut self, held: &mut Held<'e, H::State>) -> bool {
        let Held { id, slot, half } = held;
        let waits = half.has_had_its_share(&self.clock, &mut None);
        if waits {
            half.uses_share_up(slot, &mut self.stats);
            self.session.desk.share_used.borrow_mut().push(*id);
        }
        waits
    }

    /// Tells the handler that there is the room that it waits for. It may wait for more at once, so this too has
    /// its share of a turn.
    pub(super) fn tell_room(&mut self, held: &mut Held<'e, H::State>) {
        if self.waits_for_its_share(held) {
            return;
        }
        let Held { id, slot, half } = held;
        let half = &mut **half;
        slot.send_queue.lock().room_is_told();
        half.frames_of_turn += 1;
        let Some(state) = half.state.as_mut() else { return };
        let (session, framing) = (self.session.be(*id, half.peer), slot.framing());
        let writable = || self.handler.writable(session, state);
        Self::call_of(session, &mut self.stats, Callback::Writable, writable);
        self.cut_anew(held, framing);
    }

    /// After a callback before which the session had this framing: if it has another now, that one cuts what waits, and
    /// says how long the first frame may take.
    fn cut_anew(&mut self, held: &mut Held<'e, H::State>, before: u8) {
        if held.slot.framing() != before {
            self.arm_timer(held);
            self.deliver_waiting(held, false);
        }
    }

    /// Tells the handler how many frames of a group the session has missed. More may be missed at once, so this too
    /// has its share of a turn.
    pub(super) fn tell_missed(&mut self, held: &mut Held<'e, H::State>) {
        if self.waits_for_its_share(held) {
            return;
        }
        let Held { id, slot, half } = held;
        let half = &mut **half;
        let groups = &self.engine.ports[slot.port()].groups;
        let missed = groups.missed(*id, || slot.send_queue.lock().misses_no_more());
        let (Some((group, frames)), Some(state)) = (missed, half.state.as_mut()) else { return };
        half.frames_of_turn += 1;
        self.stats.skipped_frames += frames;
        let (session, framing) = (self.session.be(*id, half.peer), slot.framing());
        let lagged = || self.handler.lagged(session, state, group, frames);
        Self::call_of(session, &mut self.stats, Callback::Lagged, lagged);
        self.cut_anew(held, framing);
    }

    /// Tells the handler what the program has for the session: timers that have fired, then notes. This has a share of
    /// a turn of its own. What is left, and whatever comes meanwhile, waits for the next turn: sessions that tell each
    /// other would make one turn last for ever.
    #[inline(never)] // most sessions have nothing of the kind
    pub(super) fn tell_due(&mut self, held: &mut Held<'e, H::State>) {
        let Held { id, slot, half } = held;
        let half = &mut **half;
        let (engine, handler, framing) = (self.engine, self.handler, slot.framing());
        let timers = &engine.port_of(slot).timers;
        slot.send_queue.lock().take_due();
        let (mut told, mut began) = (0, None);
        while let Some(state) = half.state.as_mut()
            && !slot.count.is_closing()
        {
            if told >= FRAMES_BETWEEN_LOOKS && share_is_used_up(told, &self.clock, &mut began) {
                slot.send_queue.lock().set_due();
                break;
            }
            let timer = timers.lock().take_due(*id);
            let session = self.session.be(*id, half.peer);
            let tells = || match (timer, handler.tells(Internal)) {
                (Some(key), _) => {
                    session.enter(Callback::Timer);
                    handler.timer(session, state, key);
                    true
                }
                (None, Some(tells)) => tells.tell_next(session, state), // it leaves word if there is one
                (None, None) => false,
            };
            let result = Self::guarded(session, &mut self.stats, tells);
            if result == Some(false) {
                break; // there was no callback
            }
            session.desk.leave();
            told += 1;
            self.stats.told_notes += u64::from(timer.is_none()); // also one whose callback has panicked
        }
        if told > 0 {
            slot.send_queue.lock().put_due_off();
            self.session.desk.due_next.borrow_mut().push(*id);
        }
        self.cut_anew(held, framing);
    }

    /// Tells the handler that the peer has finished its direction. The session goes on.
    pub(super) fn tell_end(&mut self, held: &mut Held<'e, H::State>) {
        let Held { id, half, .. } = held;
        let half = &mut **half;
        half.life.tell_end();
        half.received_at = self.now(); // from now on it is idle if it is sent nothing
        let Some(state) = half.state.as_mut() else { return };
        let session = self.session.be(*id, half.peer);
        let finished = || self.handler.peer_finished(session, state);
        Self::call_of(session, &mut self.stats, Callback::PeerFinished, finished);
        self.arm_timer(held);
    }

    /// A limit ends the session. The handler may give it a last frame, with which it drains.
    pub(super) fn ask_last_word(&mut self, held: &mut Held<'e, H::State>) {
        let Held { id, slot, half } = held;
        let reason = slot.send_queue.lock().ask_for_last_word();
        let session = self.session.be(*id, half.peer);
        let frame = half.state.as_mut().zip(reason).and_then(|(state, reason)| {
            let ending = || self.handler.ending(session, state, reason);
            Self::call_of(session, &mut self.stats, Callback::Ending, ending)
        });
        self.engine.answer_last_word(slot, frame.flatten().as_ref());
    }

    /// Tells those who wait to publish that there is room, or that the server ends.
    pub(super) fn tell_publishers(&mut self) {
        for tell in self.engine.take_told_publishers() {
            self.call(Callback::WhenRoomToPublish, |_| tell());
        }
    }

    /// Tells other threads that there is room, or that there will be none. The slot is held.
    pub(super) fn tell_waiters(&mut self, slot: &Slot) {
        let told = slot.send_queue.lock().take_told(self.engine.options.sending.queue_bytes_max);
        for call in told.calls() {
            self.call(Callback::WhenRoom, |_| call());
        }
    }
}
