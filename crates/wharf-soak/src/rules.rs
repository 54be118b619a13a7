//! What may be broken, and how it is told.

use std::fmt;

/// A rule that can be broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Rule {
    /// An id names one session for ever.
    IdsAreUnique,
    /// `opened`, `received`, `closed`, in this order, `closed` once, and only `closed` after a close.
    CallbacksInOrder,
    /// No two callbacks of a session at once.
    CallbacksExcludeEachOther,
    /// A frame reaches those whom it was meant for, and nobody else.
    FramesReachTheirSession,
    /// Frames arrive whole.
    FramesArriveWhole,
    /// Frames of one sender arrive in order, each once, none left out; publications in one order.
    FramesArriveInOrder,
    /// What was accepted arrives, if nothing explains that it does not.
    FramesArrive,
    /// A session ends for a reason that there is.
    ReasonsAreTrue,
    /// What a call is refused with is so.
    RefusalsAreTrue,
    /// Every connect is answered, once.
    ConnectsAreAnswered,
    /// Everything adds up, and nothing is left at the end.
    CountsAreBalanced,
    /// A farewell is the last frame of its session, and arrives; the session ends with its code.
    FarewellsComeLast,
    /// Who is paused gets nothing before it is resumed.
    PausesHold,
    /// Nothing waits for long that nobody holds back: requests, an end, what is queued.
    NothingStaysWaiting,
    /// `writable` runs once for what was asked, if there is room, and not without that.
    RoomIsTold,
    /// The notes that one thread tells a session come in order, each once, none left out.
    NotesComeInOrder,
    /// A timer fires once, not before it is due, and not if it was cancelled.
    TimersFire,
    /// `peer_finished` runs once, after all frames, if the peer has finished and it is to be told.
    EndsAreTold,
    /// A gateway ends each pair, and for no reason of its own.
    GatewaysPassOn,
    /// Every peer sees an end.
    PeersSeeAnEnd,
    /// No worker ends by a fault of the library.
    WorkersDoNotFail,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Violation {
    pub(crate) rule: Rule,
    pub(crate) what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.rule, self.what)
    }
}
