//! A session in hand, and the one place where own and shared ports differ.
//!
//! On a port of its own a worker alone releases sessions and takes halves, so it needs no hold on a session,
//! and a half is either free or in its hand. On a shared port it takes a hold. There the half goes with the
//! receive or connect, and comes back to the worker that takes the completion.

use super::half::ReceiveHalf;
use crate::engine::{Engine, RECEIVE_QUEUES_BYTES, ReceiveRoom};
use crate::port::{CompletionPort, Operation, OperationKind, Refused, Registration};
use crate::session::{HalfInHand, HalfTable, SessionId, SessionTable, Slot};

/// The least room for a receive into the receive queue.
pub(crate) const RECEIVE_ROOM_BYTES_MIN: usize = 4 * 1024;

/// A session that cannot be released meanwhile, with its half in hand.
pub(super) struct Held<'e, S> {
    pub(super) id: SessionId,
    pub(super) slot: &'e Slot,
    pub(super) half: HalfInHand<'e, ReceiveHalf<S>>,
}

/// A session whose half may be with an operation.
pub(super) struct LentHalf<'e, S> {
    id: SessionId,
    slot: &'e Slot,
    half: Option<HalfInHand<'e, ReceiveHalf<S>>>,
}

/// A worker's port, and the registration of a session's socket at it.
pub(super) struct AtPort<'p, P> {
    pub(super) port: &'p mut P,
    pub(super) registration: Registration,
}

/// Which worker this is, at which port, and whether others serve that port too.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub(super) worker: usize,
    pub(super) port: usize,
    /// Its number among its port's workers.
    pub(super) at_port: usize,
    is_shared: bool,
}

impl Place {
    pub(super) fn of<P: CompletionPort>(worker: usize) -> Place {
        let (port, at_port) = if P::SHARED { (0, worker) } else { (worker, 0) };
        Place { worker, port, at_port, is_shared: P::SHARED }
    }

    /// Whether other workers serve its port too.
    pub(super) fn has_others(self) -> bool {
        self.is_shared
    }

    /// The memory that the receive queues of its port may use.
    pub(super) fn receive_room(self, engine: &Engine) -> ReceiveRoom<'_> {
        let options = &engine.options;
        let workers = if self.is_shared { options.workers } else { 1 };
        let bytes_max = options.receiving.queues_bytes_max.unwrap_or(RECEIVE_QUEUES_BYTES);
        let bytes_max = bytes_max.saturating_mul(workers);
        ReceiveRoom { share: &engine.ports[self.port], bytes_max }
    }
}

impl<P: CompletionPort> AtPort<'_, P> {
    pub(super) fn post(&mut self, operation: Operation) -> Result<(), Refused<Operation>> {
        self.port.post(self.registration, operation)
    }

    pub(super) fn cancel(&mut self, kind: OperationKind) {
        self.port.cancel(self.registration, kind);
    }

    /// Whether another thread may be about to post a send that it has taken.
    pub(super) fn others_may_post(&self) -> bool {
        P::SHARED
    }

    /// The receive to post now.
    pub(super) fn receive_operation<S>(&self, half: &mut ReceiveHalf<S>) -> Operation {
        if !P::SHARED {
            let single = half.takes_single_receive();
            return if single { Operation::ReceiveOnce } else { Operation::Receive };
        }
        if half.queue.is_empty() {
            return Operation::ReceiveOnce;
        }
        Operation::ReceiveInto(half.queue.lend(RECEIVE_ROOM_BYTES_MIN))
    }

    /// Lends the half to the operation that is about to be posted, if halves go with operations on this port.
    /// If another thread has asked for the half, it stays in hand: look again.
    pub(super) fn lend<'e, S>(&self, held: Held<'e, S>) -> Result<LentHalf<'e, S>, Held<'e, S>> {
        let Held { id, slot, half } = held;
        if !P::SHARED {
            return Ok(LentHalf { id, slot, half: Some(half) });
        }
        match half.lend() {
            Ok(()) => Ok(LentHalf { id, slot, half: None }),
            Err(half) => Err(Held { id, slot, half }),
        }
    }
}

/// How a worker takes sessions and their halves, and gives them back.
#[derive(Debug)]
pub(super) struct Hands<'e, S> {
    pub(super) table: &'e SessionTable,
    pub(super) halves: &'e HalfTable<ReceiveHalf<S>>,
    pub(super) place: Place,
}

impl<'e, S: Send> Hands<'e, S> {
    /// Keeps a session from being released before [`let_go`](Self::let_go), if it is not gone.
    #[inline]
    pub(super) fn hold(&self, id: SessionId) -> Option<&'e Slot> {
        if self.place.is_shared { self.table.hold(id) } else { self.table.held(id) }
    }

    /// True: that was the last count, and the session must be released.
    #[inline]
    pub(super) fn let_go(&self, slot: &Slot) -> bool {
        self.place.is_shared && slot.count.lower()
    }

    /// Takes a half that is certainly free.
    pub(super) fn take(&self, id: SessionId, slot: &'e Slot) -> Held<'e, S> {
        match self.halves.take(id.index()) {
            Some(half) => Held { id, slot, half },
            None => panic!("invariant 2: the receive half of {id} is in another hand"),
        }
    }

    /// Takes a half if it is free. On a port of its own it always is.
    #[inline]
    pub(super) fn take_if_free<P: CompletionPort>(
        &self,
        id: SessionId,
        slot: &'e Slot,
    ) -> Option<Held<'e, S>> {
        if P::SHARED {
            return self.halves.take(id.index()).map(|half| Held { id, slot, half });
        }
        Some(self.take(id, slot))
    }

    /// Takes the half of a session whose receive or connect has completed. The completion brings it, or,
    /// between two completions, it is free.
    pub(super) fn take_completed(&self, id: SessionId, slot: &'e Slot) -> Held<'e, S> {
        if self.place.is_shared {
            return Held { id, slot, half: self.halves.take_back(id.index()) };
        }
        self.take(id, slot)
    }

    /// The operation was refused: takes its half back.
    pub(super) fn take_back(&self, lent: LentHalf<'e, S>) -> Held<'e, S> {
        let LentHalf { id, slot, half } = lent;
        Held { id, slot, half: half.unwrap_or_else(|| self.halves.take_back(id.index())) }
    }

    /// The operation was accepted: returns the half if it stayed.
    pub(super) fn take_kept<P: CompletionPort>(
        &self,
        at: &mut AtPort<'_, P>,
        lent: LentHalf<'e, S>,
    ) -> Option<Held<'e, S>> {
        let LentHalf { id, slot, half } = lent;
        let held = half.map(|half| Held { id, slot, half });
        if held.is_none() && self.halves.is_asked_for(id.index()) {
            // Another thread asked for it after it was lent, when no receive was posted that it could have
            // cancelled. If the half has already come back, this cancels a later receive, which is posted
            // again.
            at.cancel(OperationKind::Receive);
        }
        held
    }
}
