//! The gateway: the handler of `crates/wharf/examples/gateway.rs`, which notes what it sees.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};

use wharf::simulation::may_switch;
use wharf::{Close, CloseReason, Handle, Handler, Session, SessionId, Target};

use super::{SharedFacts, Side};
use crate::misbehaviour::may_block;
use crate::rules::Rule;

/// The most bytes of a raw frame: with this much room the next one fits.
const FRAME_BYTES_MAX: usize = 64 * 1024;

pub(super) struct Gateway {
    pub(super) target: SocketAddr,
    pub(super) handle: OnceLock<Handle>,
    pub(super) facts: Arc<SharedFacts>,
}

/// The other half of a pair. `None`: it could not be had.
pub(super) struct Pair(Option<SessionId>);

impl Gateway {
    fn opens(&self, session: &Session, other: Option<SessionId>) {
        let address = session.peer_address().and_then(|address| address.as_tcp());
        let address = address.filter(|_| session.listener().is_some());
        let mut facts = self.facts.lock();
        facts.sides.insert(session.id(), Side { other, closed: None, end_is_told: false });
        if let Some(address) = address {
            facts.by_address.insert(address, session.id());
        }
    }

    fn notes(&self, id: SessionId, other: Option<SessionId>) {
        let mut facts = self.facts.lock();
        if let Some(side) = facts.sides.get_mut(&id) {
            side.other = other;
        }
        if other.is_none() {
            facts.without_target.insert(id);
        }
    }

    fn asks_to_close(&self, handle: &Handle, id: SessionId, how: Close) {
        self.facts.lock().asked.insert(id);
        handle.close(id, how);
    }
}

impl Handler for Gateway {
    type State = Pair;

    fn opened(&self, session: &Session) -> Pair {
        if let Some(accepted) = session.context::<SessionId>() {
            self.opens(session, Some(*accepted));
            may_switch();
            return Pair(Some(*accepted)); // this is the side that we have connected
        }
        self.opens(session, None);
        may_switch();
        let target = Target::new(self.target).context(session.id());
        match session.handle().connect(target) {
            // It may be sent to at once: what is queued waits until the connection stands.
            Ok(connected) => {
                self.notes(session.id(), Some(connected));
                may_block();
                Pair(Some(connected))
            }
            Err(_) => {
                self.notes(session.id(), None);
                self.asks_to_close(session.handle(), session.id(), Close::Drain);
                Pair(None)
            }
        }
    }

    fn received(&self, session: &Session, Pair(other): &mut Pair, frame: &[u8]) {
        self.facts.lock().frames += 1;
        may_switch();
        may_block();
        let Some(other) = *other else { return };
        // There is room: nobody else sends to the other side, and it had room for a whole frame.
        if session.handle().send(other, frame).is_err() {
            self.facts.lock().asked.insert(session.id());
            return session.close(Close::Stop);
        }
        if session.handle().room(other).is_some_and(|room| room < FRAME_BYTES_MAX) {
            session.pause_receiving(); // first, so that it cannot be resumed before
            may_block();
            session.handle().notify_writable(other, 2 * FRAME_BYTES_MAX);
        }
    }

    /// What this side is sent has left: its source may go on.
    fn writable(&self, session: &Session, Pair(other): &mut Pair) {
        may_switch();
        if let Some(other) = *other {
            session.handle().resume_receiving(other);
        }
    }

    fn peer_finished(&self, session: &Session, Pair(other): &mut Pair) {
        let was_told = match self.facts.lock().sides.get_mut(&session.id()) {
            Some(side) => std::mem::replace(&mut side.end_is_told, true),
            None => true,
        };
        if was_told {
            let what = format!("{} was told again that its peer has finished", session.id());
            let about = vec![session.id().to_bits()];
            self.facts.lock().broken(Rule::HalvesEndApart, about, what);
        }
        may_switch();
        may_block();
        if let Some(other) = *other {
            session.handle().finish(other);
        }
    }

    fn closed(&self, session: &Session, Pair(other): Pair, reason: CloseReason) {
        self.facts.lock().closes(session.id(), reason);
        may_switch();
        may_block();
        let Some(other) = other else { return };
        let how = match reason {
            CloseReason::PeerClosed | CloseReason::Local => Close::Drain,
            _ => Close::Stop,
        };
        self.asks_to_close(session.handle(), other, how);
    }

    fn connect_failed(&self, _: SessionId, target: &Target, _: &io::Error) {
        let accepted = target.context.as_deref().and_then(|context| context.downcast_ref());
        if let (Some(accepted), Some(handle)) = (accepted, self.handle.get()) {
            self.facts.lock().without_target.insert(*accepted);
            may_switch();
            self.asks_to_close(handle, *accepted, Close::Drain);
        }
    }
}
