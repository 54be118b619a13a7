//! A frame for many, and for whom.

use super::frame::Frame;
use super::members::Group;
use crate::session::{Policy, SessionId};

/// Memory of a waiting request, its frame not counted, in bytes.
pub(crate) const REQUEST_BYTES: usize = 288;

/// A frame for many.
#[derive(Debug, Clone)]
pub(crate) struct Publication {
    pub(crate) to: Audience,
    pub(crate) except: Option<SessionId>,
    /// For members that keep the latest: it takes the place of an earlier one with this key.
    pub(crate) key: Option<u64>,
    pub(crate) frame: Frame,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Audience {
    /// Every session.
    All,
    Group(Group),
    /// A send that waits behind what its session lacks.
    One(SessionId),
}

impl Publication {
    /// What counts for the bound of a port.
    pub(super) fn waiting_bytes(&self) -> usize {
        self.frame.held_bytes() + REQUEST_BYTES
    }

    /// The policy of a session that is no member, but gets it all the same.
    pub(super) fn policy_of_others(&self) -> Policy {
        match (self.to, self.key) {
            (Audience::One(_), Some(_)) => Policy::KeepLatest,
            _ => Policy::Close,
        }
    }
}
