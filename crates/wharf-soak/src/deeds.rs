//! What an actor has done. It knows the order of its requests, and so what must follow from them.

use std::collections::HashMap;

use wharf::{Policy, SessionId};

/// Every session joins this group in `opened`, and none leaves it.
pub(crate) const TOWN: u64 = 0;
/// What is published to all is said to be to this group.
pub(crate) const ALL: u64 = u64::MAX;

/// To whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum To {
    Members(u64),
    MembersBut(u64, SessionId),
    All,
}

impl To {
    pub(crate) fn group(self) -> u64 {
        match self {
            To::Members(group) | To::MembersBut(group, _) => group,
            To::All => ALL,
        }
    }
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Publication {
    pub(crate) to: To,
    pub(crate) began: u64,
    pub(crate) returned: u64,
    pub(crate) accepted: bool,
}

/// A session in a group of the actor's own, which nobody else changes: so its own order of things decides.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Membership {
    pub(crate) group: u64,
    pub(crate) policy: Policy,
    /// When the join was asked for. It counts only if the session has joined.
    pub(crate) joins: u64,
    /// When it was asked to leave; `u64::MAX`: not yet.
    pub(crate) leaves: u64,
}

/// A farewell that was to close a session.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Said {
    pub(crate) id: u64,
    pub(crate) code: u32,
    pub(crate) has_frame: bool,
    /// The call said that the session ends with it.
    pub(crate) accepted: bool,
}

#[derive(Debug, Default)]
pub(crate) struct Deeds {
    pub(crate) from: u64,
    /// Frames that were accepted, by session.
    pub(crate) accepted: HashMap<u64, u32>,
    pub(crate) publications: Vec<Publication>,
    pub(crate) memberships: HashMap<u64, Vec<Membership>>,
    /// When it had first asked a session to drain or to finish.
    pub(crate) drains: HashMap<u64, u64>,
    pub(crate) farewells: Vec<Said>,
}
