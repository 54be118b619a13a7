//! The rules, and the report of a broken one.

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
    /// Whose peer reads as fast as the rule wants is not cut as slow, and nobody is cut sooner than it says.
    ReadersAreKept,
    /// A member that misses frames is told how many, before what comes next; and of one that keeps the latest only
    /// frames are left out that a newer one of their key follows.
    MissedIsTold,
    /// A frame that was accepted before something was published comes before that.
    SendsAreNotOvertaken,
    /// `Gone` is said of sessions that are over or closing, and only of them.
    GoneIsGone,
    /// Every connect is answered, once.
    ConnectsAreAnswered,
    /// opened - closed = live, and all is 0 at the end.
    CountsAreBalanced,
    /// A join and a leave say whether the session was a member, and a group has the members that it is said to
    /// have.
    MembershipsAreTrue,
    /// A session has its own context in each callback, if it was given one, and each is dropped once.
    ContextsAreKept,
    /// A drain is told once, before any session is drained; a stop is not told.
    DrainsAreTold,
    /// Who was paused by the program gets nothing before it is resumed.
    PausesHold,
    /// The handler is told of room that it waits for, once, and not in vain.
    RoomIsTold,
    /// A note that was taken comes to its session, once, in the order of who tells it, unless the session ends before.
    NotesAreTold,
    /// Jobs of a session run one at a time, in the order of who offloads them.
    JobsRunInOrder,
    /// A timer that is set fires once, never early, in the order of the deadlines, unless its session ends before.
    TimersFire,
    /// Each direction of a stream ends by itself. All of both arrives, the handler is told once that the peer
    /// has finished, after its last frame; and when both have ended, so has the session.
    HalvesEndApart,
    /// A farewell that was accepted comes last, after all that was accepted before, unless something cut it.
    FarewellsAreLast,
    /// What reaches a gateway arrives on its other side, whole and in order; so do ends; and it keeps nothing
    /// beyond its queues.
    GatewaysPassOn,
    /// A frame comes in the framing that was in force when it was accepted, and no listener's sessions in another's.
    FramesHaveTheirForm,
    /// A WebSocket is spoken as its peers understand it: nothing before it stands, nothing behind a Close frame, text
    /// where text is due, and the code of the Close frame fits the reason.
    WebSocketsKeepTheirRules,
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
