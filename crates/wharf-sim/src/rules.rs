//! The rules, and what is said of one that was broken.

use std::fmt;

/// A rule that can be broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    /// An id names one session for ever.
    IdsAreUnique,
    /// `opened`, `received`, `closed`, in this order, and `closed` once.
    CallbacksInOrder,
    /// No two callbacks of a session at once.
    CallbacksExcludeEachOther,
    /// A frame reaches the session that it was sent to.
    FramesReachTheirSession,
    /// Frames arrive whole.
    FramesArriveWhole,
    /// Frames of one sender arrive in order, each once, none left out.
    FramesArriveInOrder,
    /// What was accepted arrives, if nothing explains that it does not.
    FramesArrive,
    /// A session ends for a reason that there is.
    ReasonsAreTrue,
    /// `Gone` is said of sessions that are over or closing, and only of them.
    GoneIsGone,
    /// Every connect is answered, once.
    ConnectsAreAnswered,
    /// opened - closed = live, and all is 0 at the end.
    CountsAreBalanced,
    /// A join and a leave say whether the session was a member.
    MembershipsAreTrue,
    /// Queues keep their bounds.
    BoundsAreKept,
    /// That accepting fails is told, and not too often.
    AcceptFailuresAreTold,
    /// Nothing is outstanding, and no socket open, when the server has ended.
    NothingIsLeft,
    /// A drain's report adds up.
    ReportsAddUp,
    /// A call that would wait for the worker that makes it is refused.
    CallbacksDoNotWait,
    /// Everyone who can be served is served, within a bound of batches.
    NobodyStarves,
    /// No invariant of the engine is broken (a worker ends by a panic of its own).
    WorkersDoNotFail,
    /// A run ends.
    RunsEnd,
}

/// A rule was broken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Which.
    pub rule: Rule,
    /// How.
    pub what: String,
    /// The sessions and peers that it is about, as they stand in the trace.
    pub about: Vec<u64>,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.rule, self.what)
    }
}
