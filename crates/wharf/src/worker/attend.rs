//! Bringing a session from what is outstanding to what should be: step 5 of a turn, and the only
//! place where a session's operations are posted, cancelled and ended.
//!
//! Attending looks at the session as it stands, not at what happened to it, so it may be done any
//! number of times, and whatever a completion, a callback, a timer or another thread changed needs
//! only to be noted and attended to once.
//!
//! On a shared port several workers may attend to one session at the same time. Sends need nothing
//! but the send queue (which holds back while a connect is outstanding). For the rest the half is needed: who finds it free takes it; who finds it
//! taken leaves a mark for its holder; who finds it with an operation, and has a reason to want it,
//! cancels that operation, so that its completion brings the half back.

use std::io;
use std::net::{IpAddr, Shutdown, SocketAddr};

use super::floor::{Floor, RECEIVE_ROOM_BYTES_MIN, SESSION_OPERATIONS};
use super::half::{Phase, ReceiveHalf, Receiving};
use super::receive::pause;
use crate::clock::Clock;
use crate::close::{Close, CloseReason};
use crate::face::Handler;
use crate::port::{CompletionPort, Operation, OperationKind, Refused, Registration, Socket, Token};
use crate::session::{Asked, Closing, HalfInHand, SessionId, Slot};

type InHand<'e, H> = HalfInHand<'e, ReceiveHalf<<H as Handler>::State>>;

impl<'e, H: Handler, C: Clock> Floor<'e, H, C> {
    /// Does something to a session that cannot be released meanwhile, if it is not gone. On a shared
    /// port this takes a hold, since another worker may bring the count to zero. On a port of its own a
    /// worker needs none: nobody else releases its sessions.
    #[inline]
    pub(super) fn with_hold(&mut self, id: SessionId, act: impl FnOnce(&mut Self, &'e Slot)) {
        let table = &self.engine.table;
        let found = if self.is_shared { table.hold(id) } else { table.held(id) };
        let Some(slot) = found else { return };
        act(self, slot);
        if self.is_shared && slot.count.lower() {
            self.to_release.push(id);
        }
    }

    pub(super) fn give_back(&self, id: SessionId, half: InHand<'_, H>) {
        if half.give_back() {
            self.desk.attend_later(id);
        }
    }

    /// An accepted session comes to its worker, and with it the acceptor's hold, which is the
    /// session's own until closing begins.
    pub(super) fn arrive<P: CompletionPort>(
        &mut self,
        port: &mut P,
        id: SessionId,
        socket: Socket,
        peer_address: Option<SocketAddr>,
    ) {
        self.with_hold(id, |floor, slot| {
            let mut half = floor.own_half(id);
            assert!(half.is_new(), "invariant 4: something is left of the slot's last session");
            let address = peer_address.or_else(|| socket.peer_address());
            half.peer_address = address.map(as_of_its_family);
            let registered = port.register(socket, Token(id.to_bits()));
            if let Ok(registration) = registered {
                slot.set_registration(Some(registration.0));
            }
            floor.open(id, slot, &mut half);
            if let Err(refused) = registered {
                slot.ask_to_stop(CloseReason::of_io(&refused.error));
                floor.begin_closing(port, id, slot, None, &mut half);
            }
            floor.give_back(id, half);
        });
    }

    /// Begins a connection that another thread asked for.
    pub(super) fn connect<P: CompletionPort>(
        &mut self,
        port: &mut P,
        id: SessionId,
        socket: Socket,
        to: SocketAddr,
    ) {
        self.with_hold(id, |floor, slot| {
            if let Err((mut half, error)) = floor.post_connect(port, id, slot, socket, to) {
                floor.connect_failed(id, slot, &mut half, error);
                floor.give_back(id, half);
                return;
            }
            if let Some((reason, how)) = floor.engine.ending() {
                floor.engine.ask_to_close(id, slot, reason, how);
            }
            // Who asked it to close before there was a registration could do no more than ask.
            floor.desk.attend_later(id);
        });
    }

    /// The half goes with the operation on a shared port, and comes back here if it is refused.
    fn post_connect<P: CompletionPort>(
        &mut self,
        port: &mut P,
        id: SessionId,
        slot: &Slot,
        socket: Socket,
        to: SocketAddr,
    ) -> Result<(), (InHand<'e, H>, io::Error)> {
        let mut half = self.own_half(id);
        assert!(half.is_new(), "invariant 4: something is left of the slot's last session");
        // Not the turn's moment, which may be long ago: on a shared port nobody can ask how long.
        (half.phase, half.phase_since) = (Phase::Connecting, self.clock.now());
        half.peer_address = Some(to);
        socket.prepare(&self.engine.options, false);
        let registration = match port.register(socket, Token(id.to_bits())) {
            Ok(registration) => registration,
            Err(refused) => return Err((half, refused.error)),
        };
        self.arm_timer(id, slot, &mut half);
        slot.count.raise(); // before the post (invariant 3)
        slot.send_queue.lock().hold_back(true);
        if P::SHARED {
            // Nobody can ask for it: nobody attends to a session without a registration.
            let lent = half.lend();
            debug_assert!(lent.is_ok(), "a half without a registration was asked for");
        } else {
            drop(half);
        }
        slot.set_registration(Some(registration.0));
        let Err(refused) = port.post(registration, Operation::Connect(to)) else {
            return Ok(());
        };
        let last = slot.count.lower();
        debug_assert!(!last, "the session's own count is there");
        let half = if P::SHARED { self.halves.take_back(id.index()) } else { self.own_half(id) };
        Err((half, refused.error))
    }

    /// Gives up the session's own count; the handler is told in its release, as of every end.
    pub(super) fn connect_failed(
        &mut self,
        id: SessionId,
        slot: &Slot,
        half: &mut ReceiveHalf<H::State>,
        error: io::Error,
    ) {
        (half.phase, half.connect_error) = (Phase::Closing, Some(error));
        slot.count.ask_to_close();
        if slot.count.lower() {
            self.to_release.push(id);
        }
    }

    pub(super) fn attend<P: CompletionPort>(&mut self, port: &mut P, id: SessionId) {
        self.with_hold(id, |floor, slot| {
            if let Some(registration) = slot.registration() {
                floor.attend_to(port, id, slot, Registration(registration));
            }
        });
    }

    fn attend_to<P: CompletionPort>(
        &mut self,
        port: &mut P,
        id: SessionId,
        slot: &Slot,
        registration: Registration,
    ) {
        if let Some(half) = self.halves.take(id.index()) {
            return self.attend_with(port, id, slot, registration, half);
        }
        assert!(P::SHARED, "invariant 2: the receive half of {id} is in another hand");
        if !slot.closing().is_some_and(Closing::is_stop) {
            self.post_send(port, registration, slot);
        }
        if !self.wants_half(slot) {
            return;
        }
        match self.halves.take_or_ask(id.index()) {
            Ok(half) => self.attend_with(port, id, slot, registration, half),
            Err(Asked::InAHand) => {}
            Err(Asked::WithAnOperation) => {
                port.cancel(registration, OperationKind::Receive);
                // The only time of a session whose half is with a connect is that of the connect.
                if gives_up_connect(slot) || slot.time_came() {
                    port.cancel(registration, OperationKind::Connect);
                }
            }
        }
    }

    /// Whether something is to be done that only the holder of the half can do.
    fn wants_half(&self, slot: &Slot) -> bool {
        let queue = slot.send_queue.lock();
        queue.closing().is_some()
            || queue.pause_is_to_change(self.engine.pause_mark(), self.engine.resume_mark())
            || slot.time_came()
    }

    /// With the half in hand: does what is to be done, and goes on receiving.
    pub(super) fn attend_with<P: CompletionPort>(
        &mut self,
        port: &mut P,
        id: SessionId,
        slot: &Slot,
        registration: Registration,
        mut half: InHand<'e, H>,
    ) {
        while self.look_after(port, id, slot, registration, &mut half) {
            let operation = self.receive_operation(&mut half);
            half.receiving = Receiving::Outstanding;
            slot.count.raise(); // before the post (invariant 3)
            if !P::SHARED {
                match port.post(registration, operation) {
                    Ok(()) => break,
                    Err(refused) => {
                        self.not_receiving(slot, &mut half, refused.given_back);
                        slot.ask_to_stop(CloseReason::of_io(&refused.error));
                    }
                }
                continue;
            }
            if let Err(in_hand) = half.lend() {
                half = in_hand; // it was asked for: look once more
                self.not_receiving(slot, &mut half, operation);
                continue;
            }
            match port.post(registration, operation) {
                Ok(()) => {
                    if self.halves.is_asked_for(id.index()) {
                        // Asked for after it was lent, when there was nothing to cancel yet. If it
                        // has come back already, a later receive is cancelled, and posted again.
                        port.cancel(registration, OperationKind::Receive);
                    }
                    return;
                }
                Err(Refused { given_back, error }) => {
                    half = self.halves.take_back(id.index());
                    self.not_receiving(slot, &mut half, given_back);
                    slot.ask_to_stop(CloseReason::of_io(&error));
                }
            }
        }
        self.give_back(id, half);
    }

    /// Does all that is to be done but receiving. True: a receive is to be posted.
    fn look_after<P: CompletionPort>(
        &mut self,
        port: &mut P,
        id: SessionId,
        slot: &Slot,
        registration: Registration,
        half: &mut ReceiveHalf<H::State>,
    ) -> bool {
        if slot.take_time_came() || half.is_suspect {
            self.look_at_time(port, registration, id, slot, half);
        }
        match half.phase {
            Phase::Absent | Phase::Closing => return false,
            Phase::Connecting => {
                if gives_up_connect(slot) {
                    port.cancel(registration, OperationKind::Connect);
                }
                return false;
            }
            Phase::Open => self.attend_open(id, slot, half),
            Phase::Draining | Phase::Lingering => {}
        }
        let closing = slot.closing();
        if closing.is_some() && half.phase == Phase::Open {
            (half.phase, half.phase_since) = (Phase::Draining, self.now());
            self.arm_timer(id, slot, half);
        }
        if !closing.is_some_and(Closing::is_stop) {
            self.post_send(port, registration, slot);
            if half.phase == Phase::Draining && slot.send_queue.lock().has_drained() {
                self.begin_lingering(port, registration, id, slot, half);
            }
        }
        let lingered = half.phase == Phase::Lingering && half.stream_end.is_some();
        // Asked anew: a post may have been refused just now.
        if lingered || slot.closing().is_some_and(Closing::is_stop) {
            self.begin_closing(port, id, slot, Some(registration), half);
            return false;
        }
        match (wants_to_receive(half), half.receiving) {
            (true, Receiving::No) => return true,
            (false, Receiving::Outstanding) => {
                half.receiving = Receiving::Cancelled;
                port.cancel(registration, OperationKind::Receive);
            }
            _ => {}
        }
        false
    }

    fn receive_operation(&self, half: &mut ReceiveHalf<H::State>) -> Operation {
        if !self.is_shared {
            let single = half.takes_single_receive();
            return if single { Operation::ReceiveOnce } else { Operation::Receive };
        }
        if half.queue.is_empty() {
            return Operation::ReceiveOnce;
        }
        Operation::ReceiveInto(half.queue.lend(RECEIVE_ROOM_BYTES_MIN))
    }

    /// Pauses and resumes; delivers what waits; sees the stream's end.
    fn attend_open(&mut self, id: SessionId, slot: &Slot, half: &mut ReceiveHalf<H::State>) {
        let (pause_mark, resume_mark) = (self.engine.pause_mark(), self.engine.resume_mark());
        let pauses =
            pause_mark < usize::MAX && slot.send_queue.lock().is_paused(pause_mark, resume_mark);
        if pauses {
            pause(half, &mut self.stats);
        } else if half.paused {
            half.paused = false;
            // Not to have been heard meanwhile was not the peer's doing; its time begins anew.
            half.heard(self.now());
            self.arm_timer(id, slot, half);
        }
        if half.is_behind && slot.take_turn_came() {
            half.goes_on();
        }
        self.deliver_waiting(id, slot, half, None);
        if let Some(reason) = half.stream_end
            && !half.paused
            && !half.is_behind
        {
            // What is left in the queue is no whole frame, and never will be.
            let reason = match (reason, half.queue.len()) {
                (CloseReason::PeerClosed, bytes @ 1..) => CloseReason::PeerClosedInFrame { bytes },
                (reason, _) => reason,
            };
            let how = if reason.peer_may_still_read() { Close::Drain } else { Close::Stop };
            self.engine.ask_to_close(id, slot, reason, how);
        } else if let Some(reason @ (CloseReason::Reset | CloseReason::Io { .. })) = half.stream_end
        {
            slot.ask_to_stop(reason);
        }
    }

    fn post_send<P: CompletionPort>(
        &mut self,
        port: &mut P,
        registration: Registration,
        slot: &Slot,
    ) {
        let now = self.now().nanos();
        let Some(batch) = slot.begin_send(|| now) else { return };
        if let Err(Refused { given_back: Operation::Send(batch), error }) =
            port.post(registration, Operation::Send(batch))
        {
            slot.send_refused(batch, CloseReason::of_io(&error));
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
        half.queue.clear(&self.receive_room());
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
        registration: Option<Registration>,
        half: &mut ReceiveHalf<H::State>,
    ) {
        half.phase = Phase::Closing;
        let outstanding = half.receiving != Receiving::No || slot.send_queue.lock().is_sending();
        // On a shared port another thread may be about to post a send that it has taken.
        if let Some(registration) = registration
            && (outstanding || P::SHARED)
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

    /// A receive that was to be posted is not outstanding after all.
    fn not_receiving(&self, slot: &Slot, half: &mut ReceiveHalf<H::State>, operation: Operation) {
        half.receiving = Receiving::No;
        if let Operation::ReceiveInto(ring) = operation {
            // It has what it had.
            let has_room = half.queue.take_back(ring, &self.receive_room());
            debug_assert!(has_room, "what waited had room before");
        }
        let last = slot.count.lower();
        debug_assert!(!last, "the session's own count is there");
    }
}

/// An IPv4 peer of a socket that takes both families has an address like any other.
fn as_of_its_family(address: SocketAddr) -> SocketAddr {
    match address.ip().to_canonical() {
        ip @ IpAddr::V4(_) => SocketAddr::new(ip, address.port()),
        IpAddr::V6(_) => address,
    }
}

/// Receives while there is somebody to deliver to. While draining and lingering too: to see the
/// peer's end, and because a peer may read nothing before it has written all.
fn wants_to_receive<S>(half: &ReceiveHalf<S>) -> bool {
    half.stream_end.is_none() && !(half.phase == Phase::Open && (half.paused || half.is_behind))
}

/// Whether a session that is asked to close need not connect any more: nothing was accepted for it that
/// would have to leave, or it is cut.
fn gives_up_connect(slot: &Slot) -> bool {
    let queue = slot.send_queue.lock();
    queue.closing().is_some_and(Closing::is_stop) || queue.has_drained()
}
