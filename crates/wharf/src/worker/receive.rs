//! From bytes to the handler: frames are cut from what has come, and what cannot be delivered yet is
//! kept.

use std::time::Duration;

use super::floor::Floor;
use super::half::ReceiveHalf;
use super::held::Held;
use crate::clock::{Clock, Moment};
use crate::close::{Close, CloseReason};
use crate::face::{Handler, Session};
use crate::framing::{Cut, Framing, FramingError};
use crate::session::{Pauses, Phase, Slot};
use crate::stats::Stats;

/// Frames that one session is given in a turn. Then the others of its worker have theirs, and the rest
/// waits for the next turn.
const FRAMES_OF_TURN_MAX: u16 = 128;
/// After so many frames the clock is looked at, and after as many again.
const FRAMES_BETWEEN_LOOKS: u16 = 16;
/// A session whose callbacks have taken so long has had its share of the turn.
const TIME_OF_TURN_MAX: Duration = Duration::from_millis(1);

/// What has come, in memory of the port's that may be written over, and whether it may be answered
/// at once.
#[derive(Debug)]
pub(super) struct Lent<'a> {
    pub(super) bytes: &'a mut [u8],
    pub(super) direct: bool,
}

impl<'e, H: Handler, C: Clock> Floor<'e, H, C> {
    /// Cuts frames from what has come and gives them to the handler: straight from the lent bytes
    /// when nothing waits, else what waits first. What cannot be delivered yet is kept.
    pub(super) fn deliver(
        &mut self,
        held: &mut Held<'e, H::State>,
        Lent { mut bytes, direct }: Lent<'_>,
    ) {
        loop {
            let (done, scanned) = self.deliver_now(held, Lent { bytes, direct });
            bytes = &mut bytes[done..];
            if bytes.is_empty() {
                return held.half.queue.set_scanned(scanned);
            }
            let Held { slot, half, .. } = held;
            let is_kept = half.life.phase() != Phase::Open
                || slot.count.is_closing()
                || half.queue.append(bytes, &self.receive_room);
            if is_kept {
                return half.queue.set_scanned(scanned);
            }
            if !half.life.pauses().has(Pauses::BEHIND) {
                return self.receive_queues_are_full(held, bytes.len());
            }
            // There is no room to wait in for the next turn.
            let pauses = half.life.pauses().without(Pauses::BEHIND);
            half.pause(pauses, &mut self.stats);
            let noted = self.desk.behind.borrow_mut().pop();
            debug_assert_eq!(noted, Some(held.id), "it was the last to fall behind");
        }
    }

    /// Delivers what may be delivered now; how many bytes of those that have come are done with, and how
    /// many of what waits then are scanned.
    fn deliver_now(
        &mut self,
        held: &mut Held<'e, H::State>,
        Lent { bytes, direct }: Lent<'_>,
    ) -> (usize, usize) {
        let (framing, mut done) = (self.engine.framing_of(held.slot), 0);
        // Complete the frame that waits, taking over only what is its own.
        while !held.half.queue.is_empty() && done < bytes.len() && may_deliver(held) {
            let rest = &bytes[done..];
            let queue = &mut held.half.queue;
            let scanned = queue.scanned();
            let taken = framing.take_over(queue.contents(), scanned, rest);
            if !queue.append(&rest[..taken.bytes], &self.receive_room) {
                self.receive_queues_are_full(held, taken.bytes);
                return (done, scanned);
            }
            queue.set_scanned(taken.scanned);
            done += taken.bytes;
            let direct = direct && done == bytes.len();
            self.deliver_waiting(held, direct);
        }
        if !held.half.queue.is_empty() {
            return (done, held.half.queue.scanned());
        }
        let lent = Lent { bytes: &mut bytes[done..], direct };
        let (taken, scanned) = self.deliver_from(held, lent, framing, 0);
        (done + taken, scanned)
    }

    /// Delivers the whole frames that wait in the receive queue.
    pub(super) fn deliver_waiting(&mut self, held: &mut Held<'e, H::State>, direct: bool) {
        if held.half.queue.is_empty() || !may_deliver(held) {
            return;
        }
        let mut queue = std::mem::take(&mut held.half.queue);
        let (framing, scanned) = (self.engine.framing_of(held.slot), queue.scanned());
        let waiting = Lent { bytes: queue.contents(), direct };
        let (taken, scanned) = self.deliver_from(held, waiting, framing, scanned);
        queue.consume(taken, &self.receive_room);
        queue.set_scanned(scanned);
        held.half.queue = queue;
    }

    /// Delivers whole frames from the front of `bytes`, of which so many are scanned, while the session may;
    /// how many bytes they took, and how many of what is left are scanned.
    fn deliver_from(
        &mut self,
        held: &mut Held<'e, H::State>,
        Lent { bytes, direct }: Lent<'_>,
        framing: &Framing,
        mut scanned: usize,
    ) -> (usize, usize) {
        let Held { id, slot, half } = held;
        let session = Session::new(*id, slot, &self.desk, half.peer_address);
        let half = &mut **half;
        let (pause_mark, resume_mark) = (self.engine.pause_mark(), self.engine.resume_mark());
        let Self { stats, handler, clock, .. } = self;
        let (mut taken, mut began) = (0, None);
        while taken < bytes.len() && half.life.hears() && !slot.count.is_closing() {
            let (frame, end) = match framing.cut(&bytes[taken..], scanned) {
                Cut::Frame { header_bytes, frame_bytes, trailer_bytes } => {
                    let start = taken + header_bytes;
                    (start..start + frame_bytes, start + frame_bytes + trailer_bytes)
                }
                Cut::More { scanned: so_far, .. } => {
                    scanned = so_far;
                    break;
                }
                Cut::Refused(error) => {
                    session.ask_to_close(refusal_reason(error), Close::Drain);
                    break;
                }
            };
            if half.frames_of_turn >= FRAMES_BETWEEN_LOOKS
                && half.has_had_its_share(clock, &mut began)
            {
                half.falls_behind(slot, stats);
                self.desk.behind.borrow_mut().push(*id);
                break;
            }
            half.frames_of_turn += 1;
            let Some(state) = half.state.as_mut() else { break };
            stats.received_frames += 1;
            half.frame_came = true;
            (taken, scanned) = (end, 0);
            // What came before it is answered first, and together.
            session.direct.set(direct && end == bytes.len());
            Self::guarded(&session, stats, || {
                handler.received(&session, state, &bytes[frame]);
            });
            if pause_mark < usize::MAX && slot.send_queue.lock().is_paused(pause_mark, resume_mark)
            {
                half.pause(half.life.pauses().with(Pauses::FULL), stats);
                self.desk.attend_later(*id);
            }
        }
        (taken, scanned)
    }

    /// What has come finds no room to wait in: the session ends, rather than lose bytes and go on.
    fn receive_queues_are_full(&mut self, held: &Held<'e, H::State>, bytes: usize) {
        let queued = held.half.queue.len() + bytes;
        held.slot.ask_to_stop(CloseReason::ReceiveQueueFull { queued });
        self.desk.attend_later(held.id);
    }
}

impl<S> ReceiveHalf<S> {
    fn falls_behind(&mut self, slot: &Slot, stats: &mut Stats) {
        slot.take_turn_came(); // of a turn before
        self.pause(self.life.pauses().with(Pauses::BEHIND), stats);
    }

    /// Whether a session that was given some frames in this turn is to be given no more; `began`: when that
    /// was first asked.
    #[cold]
    fn has_had_its_share(&self, clock: &impl Clock, began: &mut Option<Moment>) -> bool {
        if self.frames_of_turn >= FRAMES_OF_TURN_MAX {
            return true;
        }
        if !self.frames_of_turn.is_multiple_of(FRAMES_BETWEEN_LOOKS) {
            return false;
        }
        let now = clock.now();
        began.get_or_insert(now).until(now) >= TIME_OF_TURN_MAX
    }
}

fn may_deliver<S>(held: &Held<'_, S>) -> bool {
    held.half.life.hears() && !held.slot.count.is_closing()
}

fn refusal_reason(error: FramingError) -> CloseReason {
    match error {
        FramingError::FrameTooLarge { bytes, max } => CloseReason::FrameTooLarge { bytes, max },
        FramingError::LengthTooSmall { length, min } => CloseReason::LengthTooSmall { length, min },
    }
}
