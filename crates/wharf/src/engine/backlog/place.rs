//! The place of a member among the frames that it lacks.

use super::super::publication::Audience;
use crate::session::Policy;

/// No leave limits the place.
pub(in crate::engine) const OPEN: u64 = u64::MAX;

/// Which frames of an audience a member lacks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) audience: Audience,
    /// Says in which log it is.
    pub(super) policy: Policy,
    /// The number of the frame that it lacks first.
    pub(super) next: u64,
    /// Where it ends, because the member has left.
    pub(super) end: u64,
    /// The order of the frame at `next`, or less.
    pub(super) order: u64,
}

/// What comes of offering a frame to a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Offered {
    Taken,
    /// It has no room for it now.
    NoRoom,
}

/// How many of the frames of a log a member has taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Given {
    /// All that it lacked.
    All,
    /// Those before a frame of another log.
    Some,
    /// Those that it had room for.
    NoRoom,
}
