//! Time-outs: when one of a session's times may next come, and what is asked before it ends the session.
//!
//! A worker sees late what has happened: while a callback blocks, the process is stopped or a turn is
//! long, bytes wait in the socket or in the port. So the clock alone ends nobody:
//!
//! - *Silence* (`idle_timeout`, `first_frame_timeout`). The session's receive is ended first. Its last
//!   completion comes after all that it has received, so what the port holds for the session is taken
//!   by then. Then the socket is asked whether bytes wait in it. Only a session of which nothing
//!   was found is ended.
//! - *A connect* is cancelled, and its own completion says whether it stands.
//! - *A stall* (`send_stall_timeout`). The kernel tells of room only when a third of its buffer is free, so
//!   a peer that reads slowly seems to stall. The socket is asked when it last sent something new.
//!
//! The rest (`drain_timeout`, `close_linger`) are bounds of ours.

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

/// How a connect fails that was not answered in its time.
pub(super) const CONNECT_TIMED_OUT: io::ErrorKind = io::ErrorKind::TimedOut;

/// Which time of a session has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Limit {
    FirstFrame,
    Idle,
    Connect,
    SendStall,
    Drain,
    Linger,
}

impl<'e, H: Handler, C: Clock> Floor<'e, H, C> {
    /// Sets the session's timer to when one of its times may next come. The send stall needs
    /// no timer of its own: a session is looked at again after `send_stall_timeout` at the latest,
    /// which no stall that begins meanwhile can precede.
    pub(super) fn arm_timer(&mut self, held: &mut Held<'e, H::State>) {
        let now = self.now();
        let deadline = self.limits(now, held).map(|(deadline, _)| deadline).min();
        let share = self.share();
        let mut timers = share.timers.lock();
        if let Some(timer) = held.half.timer.take() {
            timers.cancel(timer);
        }
        let Some(deadline) = deadline else { return };
        let next_before = timers.next_deadline();
        held.half.timer = Some(timers.insert(deadline, held.id));
        drop(timers);
        if next_before.is_none_or(|next| deadline < next) {
            share.wake_all_others(); // they sleep for longer than that, perhaps
        }
    }

    fn limits(
        &self,
        now: Moment,
        held: &Held<'e, H::State>,
    ) -> impl Iterator<Item = (Moment, Limit)> {
        let options = &self.engine.options;
        let Held { slot, half, .. } = held;
        let phase = half.life.phase();
        let turns = &self.share().turns;
        let after = move |from: Moment, limit: Option<Duration>, which| {
            limit.map(|limit| (turns.latest(from, now).after(limit), which))
        };
        let hears = half.life.hears() && !slot.count.is_closing();
        let first_frame = options
            .first_frame_limit(self.engine.framing_of(slot))
            .filter(|_| hears && !half.frame_came);
        let idle = options.idle_timeout.filter(|_| hears);
        let connect = options.connect_timeout.filter(|_| phase == Phase::Connecting);
        let stall = options.send_stall_timeout.filter(|_| phase != Phase::Connecting);
        let drain = options.drain_timeout.filter(|_| phase == Phase::Draining);
        let linger = (phase == Phase::Lingering).then_some(options.close_linger);
        let stall_from = slot.send_queue.lock().waits_since().map_or(now, Moment::of_nanos);
        [
            after(half.phase_since, first_frame, Limit::FirstFrame),
            after(half.received_at, idle, Limit::Idle),
            after(half.phase_since, connect, Limit::Connect),
            after(stall_from, stall, Limit::SendStall),
            after(half.phase_since, drain, Limit::Drain),
            after(half.phase_since, linger, Limit::Linger),
        ]
        .into_iter()
        .flatten()
    }

    /// A session's timer fired: whoever attends to it looks at its times.
    pub(super) fn time_came(&mut self, id: SessionId) {
        self.with_hold(id, |floor, slot| {
            slot.note_time_came();
            floor.desk.attend_later(id);
        });
    }

    /// Ends the session if one of its times has come and what is asked then agrees; else sets the timer anew.
    #[cold] // beside what else is done for a session
    pub(super) fn look_at_time<P: CompletionPort>(
        &mut self,
        at: &mut AtPort<'_, P>,
        held: &mut Held<'e, H::State>,
    ) {
        held.slot.take_time_came();
        let now = self.now();
        let due = self.limits(now, held).find(|(deadline, _)| *deadline <= now);
        let Held { slot, half, .. } = held;
        half.is_suspect = false;
        let ends = match due.map(|(_, limit)| limit) {
            None => None,
            Some(Limit::Connect) => {
                at.cancel(OperationKind::Connect);
                return; // it is known when that completes
            }
            Some(limit @ (Limit::FirstFrame | Limit::Idle)) => {
                if half.stream_end.is_some() {
                    return; // it ends for that
                }
                if half.life.receiving() != Receiving::No {
                    half.is_suspect = true;
                    if half.life.receiving() == Receiving::Outstanding {
                        half.life.receive_is_cancelled();
                        at.cancel(OperationKind::Receive);
                    }
                    return; // looked at again when that completes
                }
                self.silence(at, half, limit)
            }
            Some(Limit::SendStall) => self.stall(at, slot),
            Some(Limit::Drain) => Some(CloseReason::DrainTimeout),
            Some(Limit::Linger) => Some(CloseReason::Local),
        };
        match ends {
            Some(reason) => {
                slot.ask_to_stop(reason);
            }
            None => self.arm_timer(held),
        }
    }

    /// Why a session ends of whose silence the time has come and that receives nothing just now; `None` if
    /// bytes wait for it after all. These are heard when they are taken. But a first frame that comes in
    /// pieces has its time only once more.
    fn silence<P: CompletionPort>(
        &mut self,
        at: &mut AtPort<'_, P>,
        half: &mut ReceiveHalf<H::State>,
        limit: Limit,
    ) -> Option<CloseReason> {
        let now = self.now();
        let waits = at.port.has_unread(at.registration);
        match limit {
            Limit::Idle if waits => half.received_at = now,
            Limit::Idle => return Some(CloseReason::IdleTimeout),
            _ if waits && !(half.has_more_time && half.received_at > half.phase_since) => {
                (half.has_more_time, half.phase_since) = (true, now);
            }
            _ => return Some(CloseReason::FirstFrameTimeout),
        }
        None
    }

    /// Why a session ends of which nothing has left for so long; `None` if its peer has taken something
    /// meanwhile.
    fn stall<P: CompletionPort>(
        &mut self,
        at: &mut AtPort<'_, P>,
        slot: &Slot,
    ) -> Option<CloseReason> {
        let limit = self.engine.options.send_stall_timeout?;
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
