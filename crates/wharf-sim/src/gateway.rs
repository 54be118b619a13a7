//! A gateway under simulation: clients on one side, targets on the other, and what must hold between them.
//!
//! `handler`: the gateway. `ends`: what clients and targets send and get. `play`: plays them, and judges.

mod ends;
mod handler;
mod play;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use wharf::{CloseReason, SessionId};

pub(crate) use self::play::play;
use crate::rules::{Rule, Violation};

/// What the handler has seen.
#[derive(Debug, Default)]
pub(crate) struct Facts {
    sides: BTreeMap<SessionId, Side>,
    /// The accepted session of each client, by the client's address.
    by_address: HashMap<SocketAddr, SessionId>,
    /// The accepted sessions for which no target could be had.
    without_target: BTreeSet<SessionId>,
    /// Sessions that the gateway has asked to close.
    asked: BTreeSet<SessionId>,
    pub(crate) frames: u64,
    /// The program has asked the server to end, or something may have ended it.
    ending: bool,
    /// Some operations fail in this run.
    fails: bool,
    pub(crate) violations: Vec<Violation>,
}

/// A session of the gateway's.
#[derive(Debug)]
struct Side {
    /// The other half of its pair.
    other: Option<SessionId>,
    closed: Option<CloseReason>,
    end_is_told: bool,
}

#[derive(Debug, Default)]
pub(crate) struct SharedFacts(Mutex<Facts>);

impl SharedFacts {
    /// Never held while time passes, or while the gateway calls in.
    pub(crate) fn lock(&self) -> MutexGuard<'_, Facts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Facts {
    fn broken(&mut self, rule: Rule, about: Vec<u64>, what: String) {
        if self.violations.len() < 20 {
            self.violations.push(Violation { rule, what, about });
        }
    }

    pub(crate) fn sessions(&self) -> u64 {
        self.sides.len() as u64
    }

    fn is_open(&self, id: SessionId) -> bool {
        self.sides.get(&id).is_some_and(|side| side.closed.is_none())
    }

    fn closes(&mut self, id: SessionId, reason: CloseReason) {
        let Some(side) = self.sides.get_mut(&id) else { return };
        let (was_closed, end_is_told) = (side.closed.replace(reason).is_some(), side.end_is_told);
        let other = side.other.and_then(|other| self.sides.get(&other));
        let is_right = match reason {
            // Ours was finished when the other side's peer had.
            CloseReason::PeerClosed => end_is_told && other.is_some_and(|other| other.end_is_told),
            CloseReason::Local => self.asked.contains(&id),
            CloseReason::Reset => true, // of which peers, the ends know
            CloseReason::Io { .. } => self.fails,
            CloseReason::Drained | CloseReason::Stopped => self.ending,
            // There are no such limits, and the gateway sends only what there is room for.
            _ => false,
        };
        if was_closed || !is_right {
            let what = format!("a side of a gateway, {id}, closed as {reason}");
            self.broken(Rule::GatewaysPassOn, vec![id.to_bits()], what);
        }
    }
}
