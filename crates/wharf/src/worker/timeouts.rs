//! Time-outs: when a session's next deadline is, and what is checked before a deadline ends the session.
//!
//! A worker may learn late what happened. While a callback blocks, the process is stopped or a turn is long,
//! bytes wait in the socket or in the port. So the clock alone ends no session:
//!
//! - *Silence* (`idle_timeout`, `first_frame_timeout`). The session's receive is cancelled first. Its last
//!   completion comes after everything that it received, so the port then holds nothing more for the session.
//!   Then the socket is asked whether bytes wait in it. The session ends only if none do.
//! - *A connect* is cancelled, and its own completion says whether it succeeded.
//! - *A stall* (`send_stall_timeout`). The kernel reports room only when a third of its buffer is free, so a
//!   peer that reads slowly seems to stall. The socket is asked when it last sent new data.
//!
//! The other two (`drain_timeout`, `close_linger`) limit wharf's own waiting, and need no check.

use std::io;
use std::time::Duration;

use super::floor::Floor;
use super::half::ReceiveHalf;
use super::held::{AtPort, Held};
use crate::clock::{Clock, Moment};
use crate::close::CloseReason;
use crate::face::Handler;
use crate::port::{CompletionPort, OperationKind};
use crate::session::{Phase, Receiving, SessionId, Slot};

/// The error of a connect that got no answer in time.
pub(super) const CONNECT_TIMED_OUT: io::ErrorKind = io::ErrorKind::TimedOut;

/// Which deadline has passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Limit {
    FirstFrame,
    Idle,
    Heartbeat,
    Connect,
    Establish,
    Ping,
    Pong,
    SendStall,
    Drain,
    Linger,
}

impl<'e, H: Handler, C: Clock> Floor<'e, H, C> {
    /// Sets the session's timer to its next deadline. A send stall needs no timer of its own: the session is
    /// checked at least every `send_stall_timeout`, and a stall that begins meanwhile cannot end sooner.
    pub(super) fn arm_timer(&mut self, held: &mut Held<'e, H::State>) {
        let now = self.now();
        let share = self.share();
        let mut timers = share.timers.lock();
        let own_idle = timers.idle_timeout(held.id);
        let deadline = self.limits(now, held, own_idle).map(|(deadline, _)| deadline).min();
        if let Some(timer) = held.half.timer.take() {
            timers.deadlines.cancel(timer);
        }
        let Some(deadline) = deadline else { return };
        let next_before = timers.next_deadline();
        held.half.timer = Some(timers.deadlines.insert(deadline, held.id));
        drop(timers);
        share.timer_was_set(next_before, deadline);
    }

    fn limits(
        &self,
        now: Moment,
        held: &Held<'e, H::State>,
        own_idle: Option<Option<Duration>>,
    ) -> impl Iterator<Item = (Moment, Limit)> {
        let Held { id, slot, half } = held;
        let time = self.engine.time_of(*id, slot);
        let phase = half.life.phase();
        let turns = &self.share().turns;
        let after = move |from: Moment, limit: Option<Duration>, which| {
            limit.map(|limit| (turns.latest(from, now).after(limit), which))
        };
        let hears = half.life.hears() && !slot.count.is_closing();
        let first_frame = time
            .first_frame_limit(self.engine.framing_of(slot))
            .filter(|_| hears && !half.frame_came && !half.life.end_is_told());
        let idle = own_idle.unwrap_or(time.idle_timeout).filter(|_| hears);
        let connect = time.connect_timeout.filter(|_| phase == Phase::Connecting);
        let establish = (phase == Phase::Establishing).then_some(time.establish_timeout);
        let (ping, pong) = self.pings(held, hears);
        let stall = time.send_stall_timeout.filter(|_| phase != Phase::Connecting);
        let drain = time.drain_timeout.filter(|_| phase == Phase::Draining);
        let linger = (phase == Phase::Lingering).then_some(time.close_linger);
        let (stall_from, sent_at, heartbeat, quiet_since) = {
            let queue = slot.send_queue.lock();
            let sent_at = queue.last_left_at();
            // A session that nothing can be sent to needs none, and one that something waits for neither.
            let is_open = phase == Phase::Open && !queue.is_ending();
            let heartbeat = time.heartbeat.as_ref().filter(|_| is_open);
            let is_sent_to = queue.queued_bytes() > 0 || queue.has_sends_placed();
            let quiet_since = match sent_at {
                _ if is_sent_to => now,
                Some(sent_at) => half.phase_since.max(Moment::of_nanos(sent_at)),
                None => half.phase_since,
            };
            let stall_from = queue.waits_since().map_or(now, Moment::of_nanos);
            (stall_from, sent_at, heartbeat.map(|heartbeat| heartbeat.after), quiet_since)
        };
        // Of a peer that has finished nothing more comes: what it is sent keeps it from being idle.
        let active_at = match sent_at {
            Some(sent_at) if half.life.end_is_told() => {
                half.received_at.max(Moment::of_nanos(sent_at))
            }
            _ => half.received_at,
        };
        [
            after(half.phase_since, first_frame, Limit::FirstFrame),
            after(active_at, idle, Limit::Idle),
            after(quiet_since, heartbeat, Limit::Heartbeat),
            after(half.phase_since, connect, Limit::Connect),
            after(half.phase_since, establish, Limit::Establish),
            after(half.received_at, ping, Limit::Ping),
            after(half.received_at, pong, Limit::Pong),
            after(stall_from, stall, Limit::SendStall),
            after(half.phase_since, drain, Limit::Drain),
            after(half.phase_since, linger, Limit::Linger),
        ]
        .into_iter()
        .flatten()
    }

    /// After how much silence the session is sent a ping, and after how much it ends for want of an answer.
    fn pings(
        &self,
        held: &Held<'e, H::State>,
        hears: bool,
    ) -> (Option<Duration>, Option<Duration>) {
        #[cfg(feature = "websocket")]
        if let Some((after, is_pinged)) = self.ping_after(held)
            && hears
            && !held.half.life.end_is_told()
        {
            return ((!is_pinged).then_some(after), Some(after * 2));
        }
        let _ = (held, hears);
        (None, None)
    }

    /// A session's timer fired: notes the session, so that its deadlines are checked.
    pub(super) fn time_came(&mut self, id: SessionId) {
        self.with_hold(id, |floor, slot| {
            slot.note_time_came();
            floor.session.desk.attend_later(id);
        });
    }

    /// Ends the session if a deadline has passed and the check confirms it; else sets the timer anew.
    #[cold] // kept apart from the usual steps
    pub(super) fn look_at_time<P: CompletionPort>(
        &mut self,
        at: &mut AtPort<'_, P>,
        held: &mut Held<'e, H::State>,
    ) {
        held.slot.take_time_came();
        let now = self.now();
        let own_idle = self.share().timers.lock().idle_timeout(held.id);
        let due = self.limits(now, held, own_idle).find(|(deadline, _)| *deadline <= now);
        let Held { id, slot, half } = held;
        half.is_suspect = false;
        let ends = match due.map(|(_, limit)| limit) {
            None => None,
            Some(Limit::Connect) => {
                at.cancel(OperationKind::Connect);
                return; // its completion decides
            }
            Some(Limit::FirstFrame | Limit::Idle | Limit::Pong) if half.life.end_is_told() => {
                Some(CloseReason::IdleTimeout)
            }
            Some(limit @ (Limit::FirstFrame | Limit::Idle | Limit::Pong)) => {
                if half.stream_end.is_some() {
                    return; // it already ends for that
                }
                if half.life.receiving() != Receiving::No {
                    half.is_suspect = true;
                    if half.life.receiving() == Receiving::Outstanding {
                        half.life.receive_is_cancelled();
                        at.cancel(OperationKind::Receive);
                    }
                    return; // checked again when the receive completes
                }
                self.silence(at, half, limit)
            }
            Some(Limit::Heartbeat) => {
                if let Some(heartbeat) = &self.engine.time_of(*id, slot).heartbeat {
                    self.session.be(*id, half.peer).send(&*heartbeat.frame);
                }
                None
            }
            Some(Limit::Establish | Limit::Ping) => {
                #[cfg(feature = "websocket")]
                if due.is_some_and(|(_, limit)| limit == Limit::Ping) {
                    self.ping(held);
                } else {
                    self.establishing_took_too_long(held);
                    return;
                }
                None
            }
            Some(Limit::SendStall) => self.stall(at, *id, slot),
            Some(Limit::Drain) => Some(CloseReason::DrainTimeout),
            Some(Limit::Linger) => Some(CloseReason::Local),
        };
        match ends {
            #[cfg(feature = "websocket")]
            Some(
                reason @ (CloseReason::IdleTimeout
                | CloseReason::FirstFrameTimeout
                | CloseReason::PingTimeout),
            ) => self.end_for_silence(held.id, held.slot, reason),
            Some(reason) => {
                held.slot.ask_to_stop(reason);
            }
            None => self.arm_timer(held),
        }
    }

    /// Checks a session whose silence deadline has passed and that has no receive outstanding. Returns the
    /// reason to end it, or `None` if bytes wait in the socket; they count when they are received. A first
    /// frame that arrives in pieces gets its time only once more.
    fn silence<P: CompletionPort>(
        &mut self,
        at: &mut AtPort<'_, P>,
        half: &mut ReceiveHalf<H::State>,
        limit: Limit,
    ) -> Option<CloseReason> {
        let now = self.now();
        let waits = at.port.has_unread(at.registration);
        match limit {
            Limit::Idle | Limit::Pong if waits => half.received_at = now,
            Limit::Idle => return Some(CloseReason::IdleTimeout),
            Limit::Pong => return Some(CloseReason::PingTimeout),
            _ if waits && !(half.has_more_time && half.received_at > half.phase_since) => {
                (half.has_more_time, half.phase_since) = (true, now);
            }
            _ => return Some(CloseReason::FirstFrameTimeout),
        }
        None
    }

    /// Checks a session from which nothing has left for so long. Returns the reason to end it, or `None` if
    /// its peer has taken something meanwhile.
    fn stall<P: CompletionPort>(
        &mut self,
        at: &mut AtPort<'_, P>,
        id: SessionId,
        slot: &Slot,
    ) -> Option<CloseReason> {
        let limit = self.engine.time_of(id, slot).send_stall_timeout?;
        match at.port.stalled_for(at.registration) {
            Some(stalled) if stalled < limit => {
                let since = self.clock.now().before(stalled);
                slot.send_queue.lock().note_progress(since.nanos());
                None
            }
            _ => Some(CloseReason::SendStallTimeout),
        }
    }
}
