//! From bytes to the handler: cuts frames, and keeps what cannot be delivered yet.

use std::time::Duration;

use super::floor::Floor;
use super::half::ReceiveHalf;
use super::held::Held;
use crate::clock::{Clock, Moment};
use crate::close::{Close, CloseReason};
use crate::engine::Callback;
use crate::face::Handler;
use crate::framing::{Cut, FramingError};
use crate::session::{Completed, Front, Pauses, Phase, Slot};
use crate::stats::Stats;

/// The most frames delivered to one session in a turn. The rest waits for the next turn.
const FRAMES_OF_TURN_MAX: u16 = 128;
/// The clock is read after every so many frames.
pub(super) const FRAMES_BETWEEN_LOOKS: u16 = 16;
/// Once its callbacks have taken this long, a session has had its share of the turn.
const TIME_OF_TURN_MAX: Duration = Duration::from_millis(1);

/// Bytes that have arrived, in the port's memory, which may be overwritten; and whether they may be answered
/// at once.
#[derive(Debug)]
pub(super) struct Lent<'a> {
    pub(super) bytes: &'a mut [u8],
    pub(super) direct: bool,
}

impl<'e, H: Handler, C: Clock> Floor<'e, H, C> {
    /// Cuts frames and delivers them to the handler: from the receive queue if bytes wait there, then
    /// straight from the lent bytes. Keeps what cannot be delivered yet.
    #[inline]
    pub(super) fn deliver(
        &mut self,
        held: &mut Held<'e, H::State>,
        Lent { mut bytes, direct }: Lent<'_>,
    ) {
        #[cfg(feature = "websocket")]
        if held.half.layer.is_some() {
            return self.deliver_to_layer(held, Lent { bytes, direct });
        }
        loop {
            let (done, scanned) = self.deliver_now(held, Lent { bytes, direct });
            bytes = &mut bytes[done..];
            if bytes.is_empty() {
                return held.half.queue.set_scanned(scanned, held.slot.framing());
            }
            if self.keeps(held, bytes, scanned) {
                return;
            }
        }
    }

    /// Keeps what could not be delivered, of which so many bytes are scanned. `false`: there is no room, so it is to be
    /// delivered now.
    pub(super) fn keeps(
        &mut self,
        held: &mut Held<'e, H::State>,
        bytes: &[u8],
        scanned: usize,
    ) -> bool {
        let Held { slot, half, .. } = held;
        let may_go_on = half.life.pauses().has(Pauses::SHARE_USED);
        let room = if may_go_on { self.receive_room.half() } else { self.receive_room };
        let is_kept = half.life.phase() != Phase::Open
            || slot.count.is_closing()
            || half.queue.append(bytes, &room);
        if is_kept {
            half.queue.set_scanned(scanned, slot.framing());
            return true;
        }
        if !may_go_on {
            self.receive_queues_are_full(held, bytes.len());
            return true;
        }
        // There is no room to keep it until the next turn.
        let pauses = half.life.pauses().without(Pauses::SHARE_USED);
        half.pause(pauses, &mut self.stats);
        // Others may have fallen behind since, and its own turn may have come, but not its step of it.
        let mut noted = self.session.desk.share_used.borrow_mut();
        if let Some(at) = noted.iter().rposition(|id| *id == held.id) {
            noted.remove(at);
        }
        false
    }

    /// Delivers what can be delivered now. Returns how many of the lent bytes are done with, and how many of
    /// the waiting bytes are scanned.
    fn deliver_now(
        &mut self,
        held: &mut Held<'e, H::State>,
        Lent { bytes, direct }: Lent<'_>,
    ) -> (usize, usize) {
        let mut done = 0;
        if !held.half.queue.is_empty() {
            done = match self.complete_waiting(held, Lent { bytes, direct }) {
                Some(done) if held.half.queue.is_empty() => done,
                Some(done) => return (done, held.half.queue.scanned(held.slot.framing())),
                None => return (bytes.len(), 0), // it ends
            };
        }
        let lent = Lent { bytes: &mut bytes[done..], direct };
        let (taken, scanned) = self.deliver_from(held, lent, 0, None);
        (done + taken, scanned)
    }

    /// Completes the waiting frame with bytes that came behind it, and delivers it. Takes only bytes that belong to
    /// it; returns how many. `None`: there was no room for them.
    #[inline(never)]
    fn complete_waiting(
        &mut self,
        held: &mut Held<'e, H::State>,
        Lent { bytes, direct }: Lent<'_>,
    ) -> Option<usize> {
        let mut done = 0;
        while !held.half.queue.is_empty() && self.may_deliver(held) {
            let (index, framing) = (held.slot.framing(), self.engine.framing_of(held.slot));
            let (queue, mut cut) = (&mut held.half.queue, None);
            let look =
                |bytes: &[u8], scanned| Front::from(*cut.insert(framing.cut(bytes, scanned)));
            let before = queue.len();
            let (taken, completed) =
                queue.complete(index, &bytes[done..], &self.receive_room, look);
            done += taken;
            match completed {
                Completed::Done => {
                    let direct = direct && done == bytes.len();
                    self.deliver_waiting_from(held, direct, cut);
                    if taken == 0 && held.half.queue.len() == before {
                        break; // it is not delivered now
                    }
                }
                Completed::Unfinished => break,
                Completed::Full { needed } => {
                    self.receive_queues_are_full(held, needed);
                    return None;
                }
            }
        }
        Some(done)
    }

    /// Delivers the whole frames in the receive queue.
    pub(super) fn deliver_waiting(&mut self, held: &mut Held<'e, H::State>, direct: bool) {
        if !held.half.queue.is_empty() && self.may_deliver(held) {
            #[cfg(feature = "websocket")]
            if held.half.layer.is_some() {
                return self.deliver_waiting_messages(held, direct);
            }
            self.deliver_waiting_from(held, direct, None);
        }
    }

    /// The same. `cut`: what has been found at the beginning, if somebody has looked.
    fn deliver_waiting_from(
        &mut self,
        held: &mut Held<'e, H::State>,
        direct: bool,
        cut: Option<Cut>,
    ) {
        let mut queue = std::mem::take(&mut held.half.queue);
        let scanned = queue.scanned(held.slot.framing());
        let waiting = Lent { bytes: queue.contents(), direct };
        let (taken, scanned) = self.deliver_from(held, waiting, scanned, cut);
        queue.consume(taken, &self.receive_room);
        queue.set_scanned(scanned, held.slot.framing());
        held.half.queue = queue;
    }

    /// Delivers whole frames from the front of `bytes`, of which `scanned` are scanned, while the session may
    /// receive. `cut`: what the first of them is known to be. Returns how many bytes they took, and how many of the
    /// rest are scanned.
    fn deliver_from(
        &mut self,
        held: &mut Held<'e, H::State>,
        Lent { bytes, direct }: Lent<'_>,
        mut scanned: usize,
        mut cut: Option<Cut>,
    ) -> (usize, usize) {
        let engine = self.engine;
        let Held { id, slot, half } = held;
        let half = &mut **half;
        let (pause_mark, resume_mark) = (self.engine.pause_mark(), self.engine.resume_mark());
        let Self { stats, handler, clock, session, .. } = self;
        let session = session.be(*id, half.peer);
        session.enter(Callback::Received);
        let (mut taken, mut began) = (0, None);
        while taken < bytes.len() && half.life.hears() && !slot.count.is_closing() {
            if slot.is_asked_to_pause() {
                half.pause_as_asked(slot, stats);
                session.desk.attend_later(*id);
                break;
            }
            // Looked up each time, because the handler may change it.
            let look = || engine.framing_of(slot).cut(&bytes[taken..], scanned);
            let (frame, end) = match cut.take().unwrap_or_else(look) {
                Cut::Frame { header_bytes, frame_bytes, trailer_bytes } => {
                    let start = taken + header_bytes;
                    (start..start + frame_bytes, start + frame_bytes + trailer_bytes)
                }
                Cut::More { scanned: so_far, .. } => {
                    scanned = so_far;
                    break;
                }
                Cut::Refused(error) => {
                    stats.handler_panics += u64::from(error == FramingError::Panicked);
                    session.ask_to_close(refusal_reason(error), Close::Drain);
                    break;
                }
            };
            if half.frames_of_turn >= FRAMES_BETWEEN_LOOKS
                && half.has_had_its_share(clock, &mut began)
            {
                half.uses_share_up(slot, stats);
                session.desk.share_used.borrow_mut().push(*id);
                break;
            }
            half.frames_of_turn += 1;
            let Some(state) = half.state.as_mut() else { break };
            stats.received_frames += 1;
            half.frame_came = true;
            (taken, scanned) = (end, 0);
            // What came before it is answered first, and together.
            session.set_direct(direct && end == bytes.len());
            Self::guarded(session, stats, || {
                handler.received(session, state, &bytes[frame]);
            });
            if pause_mark < usize::MAX && slot.send_queue.lock().is_paused(pause_mark, resume_mark)
            {
                half.pause(half.life.pauses().with(Pauses::FULL), stats);
                session.desk.attend_later(*id);
            }
        }
        session.desk.leave();
        (taken, scanned)
    }

    /// Whether frames may be delivered to the session.
    pub(super) fn may_deliver(&mut self, held: &mut Held<'e, H::State>) -> bool {
        let Held { id, slot, half } = held;
        let hears = half.life.hears() && !slot.count.is_closing();
        if hears && slot.is_asked_to_pause() {
            half.pause_as_asked(slot, &mut self.stats);
            self.session.desk.attend_later(*id);
            return false;
        }
        hears
    }

    /// The bytes do not fit into the receive queue. The session ends, because continuing would lose bytes.
    pub(super) fn receive_queues_are_full(&mut self, held: &Held<'e, H::State>, bytes: usize) {
        let queued = held.half.queue.len() + bytes;
        held.slot.ask_to_stop(CloseReason::ReceiveQueueFull { queued });
        self.session.desk.attend_later(held.id);
    }
}

impl<S> ReceiveHalf<S> {
    /// Sets the pause that the program has asked for, where that is first seen. What has come waits from now on,
    /// so who takes the pause away delivers it, however soon that is.
    #[cold]
    pub(super) fn pause_as_asked(&mut self, slot: &Slot, stats: &mut Stats) {
        self.pause(self.life.pauses().with(Pauses::ASKED), stats);
        slot.set_paused(true);
    }

    pub(super) fn uses_share_up(&mut self, slot: &Slot, stats: &mut Stats) {
        slot.take_turn_came(); // one left from an earlier turn
        self.pause(self.life.pauses().with(Pauses::SHARE_USED), stats);
    }

    /// Whether the session has had its share of this turn. `began`: when this was first asked.
    #[cold]
    pub(super) fn has_had_its_share(&self, clock: &impl Clock, began: &mut Option<Moment>) -> bool {
        share_is_used_up(self.frames_of_turn, clock, began)
    }
}

/// Whether so many callbacks are a session's share of a turn, or have taken as long. `began`: when this was first asked.
pub(super) fn share_is_used_up(
    callbacks: u16,
    clock: &impl Clock,
    began: &mut Option<Moment>,
) -> bool {
    if callbacks >= FRAMES_OF_TURN_MAX {
        return true;
    }
    if !callbacks.is_multiple_of(FRAMES_BETWEEN_LOOKS) {
        return false;
    }
    let now = clock.now();
    began.get_or_insert(now).until(now) >= TIME_OF_TURN_MAX
}

impl From<Cut> for Front {
    fn from(cut: Cut) -> Self {
        match cut {
            Cut::Frame { header_bytes, frame_bytes, trailer_bytes } => {
                Front::Whole { bytes: header_bytes + frame_bytes + trailer_bytes }
            }
            Cut::More { bytes_min, scanned } => Front::Unfinished { bytes_min, scanned },
            Cut::Refused(_) => Front::Refused,
        }
    }
}

fn refusal_reason(error: FramingError) -> CloseReason {
    match error {
        FramingError::Refused { reason } => CloseReason::FrameRefused { reason },
        FramingError::Panicked => CloseReason::HandlerPanicked,
        FramingError::FrameTooLarge { bytes, max } => CloseReason::FrameTooLarge { bytes, max },
        FramingError::LengthTooSmall { length, min } => CloseReason::LengthTooSmall { length, min },
    }
}
