//! Bringing a session from what is outstanding to what should be: step 5 of a turn, and the only
//! place where a session's operations are posted, cancelled and ended.
//!
//! Attending looks at the session as it stands, not at what happened to it, so it may be done any
//! number of times, and whatever a completion, a callback, a timer or another thread changed needs
//! only to be noted and attended to once.

use std::net::{Shutdown, SocketAddr};
use std::time::Duration;

use socket2::Socket;

use super::completions::pause;
use super::half::{Phase, ReceiveHalf, Receiving};
use super::session::Session;
use super::{Floor, SESSION_OPERATIONS};
use crate::Close;
use crate::acceptor;
use crate::clock::{Clock, Moment};
use crate::error::CloseReason;
use crate::handler::Handler;
use crate::port::{CompletionPort, Operation, OperationKind, Registration, Token};
use crate::session::{Closing, SessionId, Slot};

impl<H: Handler, C: Clock> Floor<'_, H, C> {
    /// An accepted session comes to its worker, and with it the acceptor's hold, which is the
    /// session's own until closing begins.
    pub(super) fn arrive<P: CompletionPort>(
        &mut self,
        port: &mut P,
        id: SessionId,
        socket: Socket,
        peer_address: Option<SocketAddr>,
    ) {
        let engine = self.engine;
        let Some(slot) = engine.table.held(id) else { return };
        let halves = self.halves;
        let mut half = Self::half(halves, id);
        half.peer_address = peer_address.or_else(|| socket.peer_addr().ok()?.as_socket());
        match port.register(socket, Token(id.to_bits())) {
            Ok(registration) => half.registration = Some(registration),
            Err(refused) => {
                slot.ask_to_close(CloseReason::of_io(&refused.error), Close::Stop);
            }
        }
        self.open(id, slot, &mut half);
        if let Some(report) = &mut self.drain {
            // It was on its way when the drain began.
            report.live += 1;
            slot.ask_to_close(CloseReason::Drained, Close::Drain);
        }
    }

    /// Begins a connection that another thread asked for.
    pub(super) fn connect<P: CompletionPort>(
        &mut self,
        port: &mut P,
        id: SessionId,
        socket: Socket,
        to: SocketAddr,
    ) {
        let engine = self.engine;
        let Some(slot) = engine.table.held(id) else { return };
        let halves = self.halves;
        let mut half = Self::half(halves, id);
        half.phase = Phase::Connecting;
        half.peer_address = Some(to);
        acceptor::prepare(&socket, &engine.options, false);
        let error = match port.register(socket, Token(id.to_bits())) {
            Ok(registration) => {
                half.registration = Some(registration);
                slot.count.raise(); // before the post (invariant 3)
                match port.post(registration, Operation::Connect(to)) {
                    Ok(()) => {
                        if self.drain.is_some() {
                            slot.ask_to_close(CloseReason::Drained, Close::Stop);
                            self.desk.attend_later(id);
                        }
                        return;
                    }
                    Err(refused) => {
                        let last = slot.count.lower();
                        debug_assert!(!last, "the session's own count is there");
                        refused.error
                    }
                }
            }
            Err(refused) => refused.error,
        };
        self.connect_failed(id, slot, &mut half, &error);
    }

    /// Tells the handler, and gives up the session's own count.
    pub(super) fn connect_failed(
        &mut self,
        id: SessionId,
        slot: &Slot,
        half: &mut ReceiveHalf<H::State>,
        error: &std::io::Error,
    ) {
        self.stats.connect_failures += 1;
        half.phase = Phase::Closing;
        let session = Session { id, slot, desk: &self.desk, peer_address: half.peer_address };
        if let Some(address) = half.peer_address {
            Self::guarded(&session, &mut self.stats, || {
                self.handler.connect_failed(id, address, error);
            });
        }
        slot.ask_to_close(CloseReason::of_io(error), Close::Stop);
        if slot.count.lower() {
            self.to_release.push(id);
        }
    }

    pub(super) fn attend<P: CompletionPort>(&mut self, port: &mut P, id: SessionId) {
        let engine = self.engine;
        let Some(slot) = engine.table.held(id) else { return }; // released meanwhile
        let halves = self.halves;
        let mut half = Self::half(halves, id);
        let half = &mut *half;
        let Some(registration) = half.registration else {
            // The port refused to register its socket.
            if !matches!(half.phase, Phase::Absent | Phase::Closing) {
                self.begin_closing(port, id, slot, half);
            }
            return;
        };
        match half.phase {
            Phase::Absent | Phase::Closing => return,
            Phase::Connecting => {
                if slot.count.is_closing() {
                    port.cancel(registration, OperationKind::Connect);
                }
                return;
            }
            Phase::Open => self.attend_open(id, slot, half),
            Phase::Draining | Phase::Lingering => {}
        }
        let closing = slot.closing();
        if closing.is_some() {
            half.phase = half.phase.max(Phase::Draining);
        }
        if !closing.is_some_and(stops) {
            self.post_send(port, registration, slot, half);
            if half.phase == Phase::Draining && slot.send_queue.lock().queued_bytes() == 0 {
                self.begin_lingering(port, registration, id, slot, half);
            }
            self.post_receive(port, registration, slot, half);
        }
        let lingered = half.phase == Phase::Lingering && half.stream_end.is_some();
        // Asked anew: a post may have been refused just now.
        if lingered || slot.closing().is_some_and(stops) {
            self.begin_closing(port, id, slot, half);
        }
    }

    /// Pauses and resumes; delivers what waits; sees the stream's end.
    fn attend_open(&mut self, id: SessionId, slot: &Slot, half: &mut ReceiveHalf<H::State>) {
        let queued_bytes = slot.send_queue.lock().queued_bytes();
        if queued_bytes > self.engine.pause_mark() {
            pause(half, &mut self.stats);
        } else if half.paused && queued_bytes <= self.engine.resume_mark() {
            half.paused = false;
            // Not to have been heard meanwhile was not the peer's doing; its time begins anew.
            half.received_at = self.now();
            self.arm_timer(id, slot, half);
        }
        self.deliver_waiting(id, slot, half);
        if let Some(reason) = half.stream_end
            && !half.paused
        {
            // What is left in the queue is no whole frame, and never will be.
            let reason = match (reason, half.queue.len()) {
                (CloseReason::PeerClosed, bytes @ 1..) => CloseReason::PeerClosedInFrame { bytes },
                (reason, _) => reason,
            };
            let how = if reason.peer_may_still_read() { Close::Drain } else { Close::Stop };
            slot.ask_to_close(reason, how);
        } else if let Some(reason @ (CloseReason::Reset | CloseReason::Io { .. })) = half.stream_end
        {
            slot.ask_to_close(reason, Close::Stop);
        }
    }

    fn post_send<P: CompletionPort>(
        &mut self,
        port: &mut P,
        registration: Registration,
        slot: &Slot,
        half: &mut ReceiveHalf<H::State>,
    ) {
        if half.sending {
            return;
        }
        let going_on = half.leaving.take();
        let begins = going_on.is_none();
        let Some(batch) = going_on.or_else(|| slot.send_queue.lock().take()) else { return };
        if begins {
            half.send_progress_at = self.now();
        }
        half.sending = true;
        slot.count.raise(); // before the post (invariant 3)
        if let Err(refused) = port.post(registration, Operation::Send(batch)) {
            half.sending = false;
            if let Operation::Send(batch) = refused.given_back {
                half.leaving = Some(batch);
            }
            let last = slot.count.lower();
            debug_assert!(!last, "the session's own count is there");
            slot.ask_to_close(CloseReason::of_io(&refused.error), Close::Stop);
        }
    }

    /// Receives while there is somebody to deliver to, and while lingering, to see the peer's end.
    fn post_receive<P: CompletionPort>(
        &mut self,
        port: &mut P,
        registration: Registration,
        slot: &Slot,
        half: &mut ReceiveHalf<H::State>,
    ) {
        let wanted = half.stream_end.is_none() && !(half.phase == Phase::Open && half.paused);
        match (wanted, half.receiving) {
            (true, Receiving::No) => {
                half.receiving = Receiving::Outstanding;
                slot.count.raise(); // before the post (invariant 3)
                // From who was paused once no more is taken at a time than one buffer, so that the
                // next pause finds little that has come already.
                let receive =
                    if half.was_paused { Operation::ReceiveOnce } else { Operation::Receive };
                if let Err(refused) = port.post(registration, receive) {
                    half.receiving = Receiving::No;
                    let last = slot.count.lower();
                    debug_assert!(!last, "the session's own count is there");
                    slot.ask_to_close(CloseReason::of_io(&refused.error), Close::Stop);
                }
            }
            (false, Receiving::Outstanding) => {
                half.receiving = Receiving::Cancelled;
                port.cancel(registration, OperationKind::Receive);
            }
            _ => {}
        }
    }

    /// All is sent: end our side of the stream, and wait for the peer to end its own, so that what
    /// it has not read yet is not taken away by a reset.
    fn begin_lingering<P: CompletionPort>(
        &mut self,
        port: &mut P,
        registration: Registration,
        id: SessionId,
        slot: &Slot,
        half: &mut ReceiveHalf<H::State>,
    ) {
        half.phase = Phase::Lingering;
        half.phase_since = self.now();
        if half.stream_end.is_some() {
            return; // over at once: the peer's end has come already
        }
        self.receive_queues_bytes -= half.queue.len();
        half.queue.clear();
        port.shutdown(registration, Shutdown::Write);
        self.arm_timer(id, slot, half);
    }

    /// Asks everything outstanding to end, and gives up the session's own count: the last
    /// completion, or this, brings it to zero.
    fn begin_closing<P: CompletionPort>(
        &mut self,
        port: &mut P,
        id: SessionId,
        slot: &Slot,
        half: &mut ReceiveHalf<H::State>,
    ) {
        half.phase = Phase::Closing;
        let receiving = half.receiving != Receiving::No;
        if let Some(registration) = half.registration
            && (receiving || half.sending)
        {
            port.shutdown(registration, Shutdown::Both);
            for kind in SESSION_OPERATIONS {
                port.cancel(registration, kind);
            }
        }
        if slot.count.lower() {
            self.to_release.push(id);
        }
    }

    /// The end of a session, once its count is zero (invariant 4): buffers back, `closed`, the
    /// socket, the slot.
    pub(super) fn release<P: CompletionPort>(&mut self, port: &mut P, id: SessionId) {
        let registration = self.finish(id);
        if let Some(registration) = registration {
            // Dropping the socket closes it: here and nowhere else (invariant 5).
            drop(port.deregister(registration));
        }
        self.engine.release(id, self.index);
    }

    /// The end of a session but for its socket and slot.
    pub(super) fn finish(&mut self, id: SessionId) -> Option<Registration> {
        let engine = self.engine;
        let slot = engine.table.held(id)?;
        let mut ended = std::mem::take(&mut *Self::half(self.halves, id));
        if let Some(timer) = ended.timer.take() {
            self.timers.cancel(timer);
        }
        self.receive_queues_bytes -= ended.queue.len();
        // It is closing in every case; so nothing that `closed` does can queue or ask anything.
        slot.send_queue.lock().close(Closing { reason: CloseReason::Local, how: Close::Stop });
        let reason = slot.closing().map_or(CloseReason::Local, |closing| closing.reason);
        if ended.opened {
            self.count_closed(reason, slot.send_queue.lock().queued_bytes());
        }
        if let Some(state) = ended.state.take() {
            let session = Session { id, slot, desk: &self.desk, peer_address: ended.peer_address };
            Self::guarded(&session, &mut self.stats, || {
                self.handler.closed(&session, state, reason);
            });
        }
        let waiting = slot.send_queue.lock().end();
        for batch in [waiting, ended.leaving.take()].into_iter().flatten() {
            engine.workers[self.index].pool.give_back(batch);
        }
        ended.registration
    }

    fn count_closed(&mut self, reason: CloseReason, queued_bytes: usize) {
        self.stats.live -= 1;
        self.stats.count_closed(reason);
        if let Some(report) = &mut self.drain {
            match reason {
                CloseReason::Drained if queued_bytes == 0 => report.flushed += 1,
                CloseReason::Stopped => {
                    report.cut_off += 1;
                    report.cut_off_bytes += queued_bytes as u64;
                }
                _ => report.ended += 1,
            }
        }
    }

    /// Sets the session's timer to when one of its time-outs may next come. The send stall needs
    /// no timer of its own: a session is looked at again after `send_stall_timeout` at the latest,
    /// which no stall that begins meanwhile can precede.
    pub(super) fn arm_timer(
        &mut self,
        id: SessionId,
        slot: &Slot,
        half: &mut ReceiveHalf<H::State>,
    ) {
        if let Some(timer) = half.timer.take() {
            self.timers.cancel(timer);
        }
        let now = self.now();
        let deadline = self.timeouts(now, slot, half).map(|(deadline, _)| deadline).min();
        half.timer = deadline.map(|deadline| self.timers.insert(deadline, id));
    }

    fn timeouts(
        &self,
        now: Moment,
        slot: &Slot,
        half: &ReceiveHalf<H::State>,
    ) -> impl Iterator<Item = (Moment, CloseReason)> {
        let options = &self.engine.options;
        let open = half.phase == Phase::Open;
        let after = |from: Moment, limit: Option<Duration>, reason| {
            limit.map(|limit| (from.after(limit), reason))
        };
        let first_frame = options
            .first_frame_limit(&self.engine.framing)
            .filter(|_| open && !half.frame_came && !half.paused);
        let idle = options.idle_timeout.filter(|_| open && !half.paused);
        let stalls = slot.send_queue.lock().queued_bytes() > 0;
        let stall_from = if stalls { half.send_progress_at } else { now };
        let linger = (half.phase == Phase::Lingering).then_some(options.close_linger);
        [
            after(half.phase_since, first_frame, CloseReason::FirstFrameTimeout),
            after(half.received_at, idle, CloseReason::IdleTimeout),
            after(stall_from, options.send_stall_timeout, CloseReason::SendStallTimeout),
            after(half.phase_since, linger, CloseReason::Local),
        ]
        .into_iter()
        .flatten()
    }

    /// A session's timer fired: end it if one of its times has come, else set the timer anew.
    pub(super) fn time_came(&mut self, id: SessionId) {
        let engine = self.engine;
        let Some(slot) = engine.table.held(id) else { return };
        let halves = self.halves;
        let mut half = Self::half(halves, id);
        half.timer = None;
        if matches!(half.phase, Phase::Absent | Phase::Connecting | Phase::Closing) {
            return;
        }
        let now = self.now();
        let due = self.timeouts(now, slot, &half).find(|(deadline, _)| *deadline <= now);
        match due {
            Some((_, reason)) => {
                slot.ask_to_close(reason, Close::Stop);
                self.desk.attend_later(id);
            }
            None => self.arm_timer(id, slot, &mut half),
        }
    }
}

fn stops(closing: Closing) -> bool {
    closing.how == Close::Stop
}
