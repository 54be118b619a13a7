//! The next step of a session, from its state: a pure function, [`Life::next`].
//!
//! A [`Life`] is what the holder of the half has done so far: the phase, the receive operation, the pauses.
//! [`Facts`] are everything else. The result is one [`Step`]. The attending worker takes the step, then asks
//! again, until nothing follows.

use crate::close::Close;

/// The phase of a session's life. It only moves down this list.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    /// The slot is free, or its session has not arrived at its worker yet.
    #[default]
    Absent,
    /// A connect is outstanding.
    Connecting,
    /// The connection stands, and the layers of its transport do not yet.
    Establishing,
    /// Frames are delivered and sent.
    Open,
    /// No more frames are delivered. What is queued is being sent.
    Draining,
    /// Everything was sent, then our end of stream. The peer's end is awaited.
    Lingering,
    /// Everything outstanding was asked to end, and the session's own count was given up.
    Closing,
}

/// The state of a session's receive operation.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Receiving {
    /// None is outstanding.
    #[default]
    No,
    Outstanding,
    /// Outstanding, and asked to end.
    Cancelled,
}

/// Why no frames are delivered to a session at present: a set.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Pauses(u8);

impl Pauses {
    pub(crate) const NONE: Pauses = Pauses(0);
    /// Its send queue is too full.
    pub(crate) const FULL: Pauses = Pauses(1);
    /// It had its share of a turn and has more frames. It continues in the next turn.
    pub(crate) const SHARE_USED: Pauses = Pauses(2);
    /// The program asked for it.
    pub(crate) const ASKED: Pauses = Pauses(4);

    pub(crate) fn has(self, other: Pauses) -> bool {
        self.0 & other.0 != 0
    }

    #[must_use]
    pub(crate) fn with(self, other: Pauses) -> Pauses {
        Pauses(self.0 | other.0)
    }

    #[must_use]
    pub(crate) fn without(self, other: Pauses) -> Pauses {
        Pauses(self.0 & !other.0)
    }
}

/// The peer's direction of the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stream {
    Goes,
    /// The peer has finished it.
    Ended,
    Failed,
}

/// What is known of a session besides its life.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Facts {
    pub(crate) stream: Stream,
    /// It was asked to close in this way.
    pub(crate) closing: Option<Close>,
    /// It was asked to close, and all queued bytes have left.
    pub(crate) has_drained: bool,
    /// Its send queue is too full to receive more.
    pub(crate) is_full: bool,
    /// The program wants it paused.
    pub(crate) is_asked_to_pause: bool,
    /// The end of the peer's direction is told to the handler, and does not end the session.
    pub(crate) tells_end: bool,
    /// Our direction is to be ended now: everything has left.
    pub(crate) is_to_finish: bool,
    /// Our direction was ended.
    pub(crate) has_finished: bool,
    /// There is the room in the send queue that the handler waits for.
    pub(crate) has_wanted_room: bool,
    /// There is room that others wait for, or there will be none.
    pub(crate) has_told: bool,
    /// The send queue has room for what the session lacks.
    pub(crate) is_to_refill: bool,
    /// It has missed frames that the handler was not told of, and has room again.
    pub(crate) has_missed: bool,
    /// Something of the program's waits for it: a note, a timer.
    pub(crate) is_due: bool,
    /// A limit ends it, and the handler may give it a last frame.
    pub(crate) is_last_word_due: bool,
    /// Bytes wait to be sent, and no send is outstanding.
    pub(crate) may_send: bool,
    /// Its timer has fired, or a time-out's check can be completed.
    pub(crate) time_came: bool,
    /// A turn has begun since it used up its share.
    pub(crate) turn_came: bool,
}

/// One step: first the send, if any, then `next`. (A refused send is a new fact.)
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Step {
    pub(crate) sends: bool,
    pub(crate) next: Next,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    Nothing,
    /// Check its deadlines.
    LookAtTime,
    CancelConnect,
    /// Set the reasons for its pause. If none is left, deliver what waits.
    SetPauses(Pauses),
    /// Tell the handler that there is room.
    TellRoom,
    /// Tell the handler how many frames the session has missed.
    TellMissed,
    /// Tell the handler what the program has for the session.
    TellDue,
    /// Tell others that there is room, or that there will be none.
    TellWaiters,
    /// Ask the handler for a last frame.
    AskLastWord,
    /// Queue what the session lacks.
    Refill,
    /// Tell the handler that the peer has finished its direction.
    TellEnd,
    /// End our direction of the stream.
    Finish,
    /// Ask it to close, because its stream has ended or failed.
    End,
    /// End what was never open.
    GiveUp,
    /// Enter [`Phase::Draining`].
    Drain,
    /// Enter [`Phase::Lingering`].
    Linger,
    /// Enter [`Phase::Closing`].
    Close,
    /// Post a receive.
    Receive,
    CancelReceive,
}

/// What the holder of a session's half has done so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Life {
    phase: Phase,
    receiving: Receiving,
    pauses: Pauses,
    /// The handler was told that the peer has finished its direction.
    end_is_told: bool,
}

impl Life {
    pub(crate) fn phase(self) -> Phase {
        self.phase
    }

    pub(crate) fn receiving(self) -> Receiving {
        self.receiving
    }

    pub(crate) fn pauses(self) -> Pauses {
        self.pauses
    }

    /// Whether frames may be delivered, unless it was asked to close.
    pub(crate) fn hears(self) -> bool {
        self.phase == Phase::Open && self.pauses == Pauses::NONE
    }

    /// Whether it is open and receives: then only a fact that is not the usual one has a next step.
    #[inline]
    pub(crate) fn is_served(self) -> bool {
        let Life { phase, receiving, pauses, end_is_told } = self;
        phase == Phase::Open
            && receiving == Receiving::Outstanding
            && pauses == Pauses::NONE
            && !end_is_told
    }

    pub(crate) fn enter(&mut self, phase: Phase) {
        assert!(phase > self.phase, "a session goes from {:?} to {phase:?}", self.phase);
        self.phase = phase;
    }

    /// Whether the peer has finished its direction, and the session goes on.
    pub(crate) fn end_is_told(self) -> bool {
        self.end_is_told
    }

    pub(crate) fn tell_end(&mut self) {
        assert!(!self.end_is_told, "a peer finishes once");
        self.end_is_told = true;
    }

    pub(crate) fn set_pauses(&mut self, pauses: Pauses) {
        debug_assert_eq!(self.phase, Phase::Open, "only who is given frames can pause");
        self.pauses = pauses;
    }

    pub(crate) fn receive_begins(&mut self) {
        assert_eq!(self.receiving, Receiving::No, "two receives of one session");
        self.receiving = Receiving::Outstanding;
    }

    pub(crate) fn receive_is_cancelled(&mut self) {
        assert_eq!(self.receiving, Receiving::Outstanding, "there is no receive to cancel");
        self.receiving = Receiving::Cancelled;
    }

    /// The receive continues after a completion. True: a cancel was requested and had no effect, so it must
    /// be requested again.
    #[must_use]
    pub(crate) fn receive_goes_on(&mut self) -> bool {
        debug_assert_ne!(self.receiving, Receiving::No, "a receive that is not there goes on");
        let was_cancelled = self.receiving == Receiving::Cancelled;
        self.receiving = Receiving::Outstanding;
        was_cancelled
    }

    pub(crate) fn receive_ends(&mut self) {
        assert_ne!(self.receiving, Receiving::No, "a receive ends that is not there");
        self.receiving = Receiving::No;
    }

    /// The next step. Steps that let more be sent come before the send, so that all leaves together. The
    /// receive comes last, because on a shared port the half goes with it.
    #[inline(always)] // into attending, where a send alone is the usual case
    pub(crate) fn next(self, facts: &Facts) -> Step {
        let before = self.before_send(facts);
        let stands = !matches!(self.phase, Phase::Absent | Phase::Connecting | Phase::Closing);
        if before != Next::Nothing || !stands {
            return Step { sends: false, next: before };
        }
        let Facts { stream, has_drained, may_send, .. } = *facts;
        let next = match (self.phase, self.wants_to_receive(stream), self.receiving) {
            (Phase::Draining, ..) if has_drained => Next::Linger,
            (Phase::Lingering, ..) if stream != Stream::Goes => Next::Close,
            (_, true, Receiving::No) => Next::Receive,
            (_, false, Receiving::Outstanding) => Next::CancelReceive,
            _ => Next::Nothing,
        };
        Step { sends: may_send, next }
    }

    #[inline(always)]
    fn before_send(self, facts: &Facts) -> Next {
        let Facts { stream, closing, has_drained, time_came, .. } = *facts;
        let is_cut = closing == Some(Close::Stop);
        match self.phase {
            _ if facts.has_told => Next::TellWaiters,
            Phase::Absent | Phase::Closing => Next::Nothing,
            Phase::Open if facts.is_last_word_due => Next::AskLastWord,
            Phase::Connecting if is_cut || has_drained => Next::CancelConnect,
            Phase::Establishing if is_cut || has_drained || stream != Stream::Goes => Next::GiveUp,
            _ if is_cut => Next::Close,
            _ if time_came => Next::LookAtTime,
            Phase::Open | Phase::Draining if facts.is_to_refill => Next::Refill,
            Phase::Connecting | Phase::Establishing | Phase::Draining | Phase::Lingering => {
                Next::Nothing
            }
            Phase::Open => {
                let pauses = self.pauses_after(facts);
                let is_heard_out = closing.is_none() && pauses == Pauses::NONE;
                if pauses != self.pauses {
                    Next::SetPauses(pauses)
                } else if facts.is_due && closing.is_none() {
                    Next::TellDue // with a share of its own
                } else if facts.has_wanted_room
                    && closing.is_none()
                    && !pauses.has(Pauses::SHARE_USED)
                {
                    Next::TellRoom
                } else if facts.has_missed && closing.is_none() && !pauses.has(Pauses::SHARE_USED) {
                    Next::TellMissed
                } else if stream == Stream::Failed {
                    Next::End
                } else if stream == Stream::Ended && is_heard_out && !self.end_is_told {
                    if facts.tells_end { Next::TellEnd } else { Next::End }
                } else if closing.is_some() {
                    Next::Drain
                } else if facts.is_to_finish {
                    Next::Finish
                } else if self.end_is_told && facts.has_finished {
                    Next::End // both directions are
                } else {
                    Next::Nothing
                }
            }
        }
    }

    fn pauses_after(self, facts: &Facts) -> Pauses {
        let waits_for_turn = self.pauses.has(Pauses::SHARE_USED) && !facts.turn_came;
        let when = |holds, pause| if holds { pause } else { Pauses::NONE };
        when(facts.is_full, Pauses::FULL)
            .with(when(waits_for_turn, Pauses::SHARE_USED))
            .with(when(facts.is_asked_to_pause, Pauses::ASKED))
    }

    /// A session receives while its frames can be delivered, and also while draining and lingering: to see
    /// the peer's end, and because a peer may read nothing before it has written everything.
    fn wants_to_receive(self, stream: Stream) -> bool {
        stream == Stream::Goes && (self.phase != Phase::Open || self.pauses == Pauses::NONE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PHASES: [Phase; 7] = [
        Phase::Absent,
        Phase::Connecting,
        Phase::Establishing,
        Phase::Open,
        Phase::Draining,
        Phase::Lingering,
        Phase::Closing,
    ];
    const BOTH: Pauses = Pauses(3);
    const ASKED_AND_FULL: Pauses = Pauses(5);

    /// No fact but that the session exists.
    const QUIET: Facts = Facts {
        stream: Stream::Goes,
        closing: None,
        has_drained: false,
        is_full: false,
        is_asked_to_pause: false,
        has_wanted_room: false,
        has_told: false,
        is_to_refill: false,
        has_missed: false,
        is_due: false,
        is_last_word_due: false,
        tells_end: false,
        is_to_finish: false,
        has_finished: false,
        may_send: false,
        time_came: false,
        turn_came: false,
    };
    const SENDS: Facts = Facts { may_send: true, ..QUIET };
    const IS_FULL: Facts = Facts { is_full: true, ..QUIET };
    const HAS_ROOM: Facts = Facts { has_wanted_room: true, ..QUIET };
    const HAS_MISSED: Facts = Facts { has_missed: true, ..QUIET };
    const LACKS: Facts = Facts { is_to_refill: true, may_send: true, ..QUIET };
    const IS_DUE: Facts = Facts { is_due: true, ..QUIET };
    const ASKED: Facts = Facts { is_asked_to_pause: true, ..QUIET };
    const ENDED: Facts = Facts { stream: Stream::Ended, ..QUIET };
    const FAILED: Facts = Facts { stream: Stream::Failed, ..QUIET };
    const DRAINS: Facts = Facts { closing: Some(Close::Drain), ..QUIET };
    const HAS_DRAINED: Facts = Facts { has_drained: true, ..DRAINS };
    const IS_CUT: Facts = Facts { closing: Some(Close::Stop), ..QUIET };
    const LAST_WORD: Facts = Facts { is_last_word_due: true, ..IS_CUT };
    const TIME_CAME: Facts = Facts { time_came: true, ..QUIET };
    const TURN_CAME: Facts = Facts { turn_came: true, ..QUIET };

    fn life(phase: Phase, receiving: Receiving, pauses: Pauses) -> Life {
        Life { phase, receiving, pauses, end_is_told: false }
    }

    fn open(receiving: Receiving) -> Life {
        life(Phase::Open, receiving, Pauses::NONE)
    }

    /// Its peer has finished, and the handler knows.
    fn told() -> Life {
        Life { end_is_told: true, ..open(Receiving::No) }
    }

    #[test]
    fn what_follows() {
        use Receiving::{Cancelled, No, Outstanding};
        let connecting = life(Phase::Connecting, No, Pauses::NONE);
        let paused = |by| life(Phase::Open, Cancelled, by);
        let draining = life(Phase::Draining, Outstanding, Pauses::NONE);
        let lingering = life(Phase::Lingering, Outstanding, Pauses::NONE);
        let table = [
            // A connect ends by itself or when asked to.
            (connecting, SENDS, false, Next::Nothing),
            (connecting, TIME_CAME, false, Next::LookAtTime),
            (connecting, Facts { may_send: true, ..DRAINS }, false, Next::Nothing),
            (connecting, HAS_DRAINED, false, Next::CancelConnect),
            (connecting, Facts { time_came: true, ..IS_CUT }, false, Next::CancelConnect),
            // It receives and sends.
            (open(Outstanding), QUIET, false, Next::Nothing),
            (open(Outstanding), SENDS, true, Next::Nothing),
            (open(No), QUIET, false, Next::Receive),
            (open(No), SENDS, true, Next::Receive),
            (open(Cancelled), QUIET, false, Next::Nothing),
            (open(Outstanding), Facts { may_send: true, ..TIME_CAME }, false, Next::LookAtTime),
            // Each pause has its own end. The receive ends with the first and begins after the last.
            (open(Outstanding), IS_FULL, false, Next::SetPauses(Pauses::FULL)),
            (life(Phase::Open, Outstanding, Pauses::FULL), IS_FULL, false, Next::CancelReceive),
            (paused(Pauses::FULL), IS_FULL, false, Next::Nothing),
            (paused(Pauses::FULL), Facts { may_send: true, ..IS_FULL }, true, Next::Nothing),
            (paused(Pauses::FULL), SENDS, false, Next::SetPauses(Pauses::NONE)),
            (paused(Pauses::SHARE_USED), SENDS, true, Next::Nothing),
            (paused(Pauses::SHARE_USED), TURN_CAME, false, Next::SetPauses(Pauses::NONE)),
            (paused(BOTH), QUIET, false, Next::SetPauses(Pauses::SHARE_USED)),
            (
                paused(BOTH),
                Facts { is_full: true, ..TURN_CAME },
                false,
                Next::SetPauses(Pauses::FULL),
            ),
            (life(Phase::Open, No, Pauses::SHARE_USED), QUIET, false, Next::Nothing),
            // The handler is told of room whatever pauses its receiving, but in its share of a turn.
            (open(Outstanding), HAS_ROOM, false, Next::TellRoom),
            (open(Outstanding), Facts { may_send: true, ..HAS_ROOM }, false, Next::TellRoom),
            (
                paused(ASKED_AND_FULL),
                Facts { is_full: true, is_asked_to_pause: true, ..HAS_ROOM },
                false,
                Next::TellRoom,
            ),
            (paused(Pauses::SHARE_USED), HAS_ROOM, false, Next::Nothing),
            (open(Outstanding), HAS_MISSED, false, Next::TellMissed),
            (paused(Pauses::SHARE_USED), HAS_MISSED, false, Next::Nothing),
            // It is told what the program has for it, also while it does not receive; not once it is to end.
            (open(Outstanding), Facts { may_send: true, ..IS_DUE }, false, Next::TellDue),
            (paused(Pauses::ASKED), Facts { is_due: true, ..ASKED }, false, Next::TellDue),
            (paused(Pauses::SHARE_USED), IS_DUE, false, Next::TellDue),
            (open(Outstanding), Facts { is_due: true, ..HAS_ROOM }, false, Next::TellDue),
            (open(No), Facts { is_due: true, ..ENDED }, false, Next::TellDue),
            (open(Outstanding), Facts { is_due: true, ..DRAINS }, false, Next::Drain),
            (open(Outstanding), Facts { is_due: true, ..IS_CUT }, false, Next::Close),
            (connecting, IS_DUE, false, Next::Nothing),
            // What it lacks leaves together with what is queued, also while it drains.
            (open(Outstanding), LACKS, false, Next::Refill),
            (draining, LACKS, false, Next::Refill),
            (draining, Facts { closing: Some(Close::Stop), ..LACKS }, false, Next::Close),
            (lingering, LACKS, true, Next::Nothing),
            (open(No), Facts { stream: Stream::Ended, ..HAS_ROOM }, false, Next::TellRoom),
            (
                open(Outstanding),
                Facts { closing: Some(Close::Drain), ..HAS_ROOM },
                false,
                Next::Drain,
            ),
            (draining, Facts { closing: Some(Close::Drain), ..HAS_ROOM }, false, Next::Nothing),
            // Each direction ends by itself, if the program wants that.
            (open(No), Facts { tells_end: true, ..ENDED }, false, Next::TellEnd),
            (told(), Facts { tells_end: true, ..ENDED }, false, Next::Nothing),
            (told(), Facts { tells_end: true, may_send: true, ..ENDED }, true, Next::Nothing),
            (told(), Facts { tells_end: true, is_to_finish: true, ..ENDED }, false, Next::Finish),
            (told(), Facts { tells_end: true, has_finished: true, ..ENDED }, false, Next::End),
            (told(), Facts { tells_end: true, ..FAILED }, false, Next::End),
            (open(Outstanding), Facts { is_to_finish: true, ..QUIET }, false, Next::Finish),
            (open(Outstanding), Facts { has_finished: true, ..QUIET }, false, Next::Nothing),
            (open(No), Facts { has_finished: true, ..ENDED }, false, Next::End),
            (
                open(No),
                Facts { has_finished: true, tells_end: true, ..ENDED },
                false,
                Next::TellEnd,
            ),
            (
                paused(Pauses::ASKED),
                Facts { tells_end: true, is_asked_to_pause: true, ..ENDED },
                false,
                Next::Nothing,
            ),
            (open(Outstanding), Facts { is_to_finish: true, ..DRAINS }, false, Next::Drain),
            (open(Outstanding), ASKED, false, Next::SetPauses(Pauses::ASKED)),
            (paused(Pauses::ASKED), ASKED, false, Next::Nothing),
            (paused(Pauses::ASKED), QUIET, false, Next::SetPauses(Pauses::NONE)),
            (paused(ASKED_AND_FULL), ASKED, false, Next::SetPauses(Pauses::ASKED)),
            (paused(ASKED_AND_FULL), IS_FULL, false, Next::SetPauses(Pauses::FULL)),
            (paused(Pauses::ASKED), Facts { stream: Stream::Ended, ..ASKED }, false, Next::Nothing),
            (
                paused(Pauses::ASKED),
                Facts { closing: Some(Close::Drain), ..ASKED },
                false,
                Next::Drain,
            ),
            // The peer's end takes effect after what came before it was delivered; a failure at once.
            (open(No), ENDED, false, Next::End),
            (paused(Pauses::FULL), Facts { is_full: true, ..ENDED }, false, Next::Nothing),
            (paused(Pauses::SHARE_USED), ENDED, false, Next::Nothing),
            (paused(Pauses::FULL), Facts { is_full: true, ..FAILED }, false, Next::End),
            (open(No), Facts { closing: Some(Close::Drain), ..FAILED }, false, Next::End),
            (open(No), Facts { closing: Some(Close::Drain), ..ENDED }, false, Next::Drain),
            // A limit ends it: the handler may give a last frame, while it is open and not cut otherwise.
            (open(Outstanding), LAST_WORD, false, Next::AskLastWord),
            (
                open(Outstanding),
                Facts { closing: Some(Close::Drain), ..LAST_WORD },
                false,
                Next::AskLastWord,
            ),
            (paused(BOTH), Facts { time_came: true, ..LAST_WORD }, false, Next::AskLastWord),
            (connecting, LAST_WORD, false, Next::CancelConnect),
            (draining, LAST_WORD, false, Next::Close),
            // Others are told of room in every phase.
            (connecting, Facts { has_told: true, ..IS_CUT }, false, Next::TellWaiters),
            (open(Outstanding), Facts { has_told: true, ..LAST_WORD }, false, Next::TellWaiters),
            (
                life(Phase::Closing, No, Pauses::NONE),
                Facts { has_told: true, ..IS_CUT },
                false,
                Next::TellWaiters,
            ),
            // It was asked to close: what is queued leaves first, unless it is cut.
            (open(Outstanding), DRAINS, false, Next::Drain),
            (draining, Facts { may_send: true, ..DRAINS }, true, Next::Nothing),
            (draining, DRAINS, false, Next::Nothing),
            (draining, HAS_DRAINED, false, Next::Linger),
            (life(Phase::Draining, No, Pauses::FULL), DRAINS, false, Next::Receive),
            (life(Phase::Draining, No, Pauses::NONE), ENDED, false, Next::Nothing),
            (lingering, HAS_DRAINED, false, Next::Nothing),
            (lingering, TIME_CAME, false, Next::LookAtTime),
            (lingering, ENDED, false, Next::Close),
            (lingering, FAILED, false, Next::Close),
            (open(Outstanding), Facts { may_send: true, ..IS_CUT }, false, Next::Close),
            (draining, Facts { may_send: true, ..IS_CUT }, false, Next::Close),
            (lingering, Facts { time_came: true, ..IS_CUT }, false, Next::Close),
        ];
        for (life, facts, sends, next) in table {
            assert_eq!(life.next(&facts), Step { sends, next }, "{life:?} {facts:?}");
        }
    }

    /// All combinations of facts.
    fn all_facts() -> impl Iterator<Item = Facts> {
        let streams = [Stream::Goes, Stream::Ended, Stream::Failed];
        let closings = [None, Some(Close::Drain), Some(Close::Stop)];
        streams.into_iter().flat_map(move |stream| {
            closings.into_iter().flat_map(move |closing| {
                (0..2048).filter_map(move |bits| {
                    let is = |bit: u32| bits & (1 << bit) != 0;
                    let facts = Facts {
                        stream,
                        closing,
                        has_drained: is(0),
                        is_full: is(1),
                        may_send: is(2),
                        time_came: is(3),
                        turn_came: is(4),
                        is_asked_to_pause: is(5),
                        has_wanted_room: is(6) && is(7), // is told before what was missed
                        tells_end: is(7),
                        is_to_finish: is(8),
                        has_finished: is(9),
                        is_last_word_due: is(10),
                        has_missed: is(6),
                        is_due: is(6),
                        has_told: false,
                        is_to_refill: false,
                    };
                    let is_possible =
                        closing.is_some() || !facts.has_drained && !facts.is_last_word_due;
                    let finishes_once = !(facts.is_to_finish && facts.has_finished);
                    (is_possible && finishes_once).then_some(facts)
                })
            })
        })
    }

    fn all_lives() -> impl Iterator<Item = Life> {
        PHASES.into_iter().flat_map(|phase| {
            [Receiving::No, Receiving::Outstanding, Receiving::Cancelled].into_iter().flat_map(
                move |receiving| (0..8).map(move |pauses| life(phase, receiving, Pauses(pauses))),
            )
        })
    }

    /// Carries out a step as a worker does. False: nothing follows.
    fn carry_out(life: &mut Life, facts: &mut Facts) -> bool {
        let Step { sends, next } = life.next(facts);
        assert!(
            !sends || facts.may_send && facts.closing != Some(Close::Stop),
            "{life:?} {facts:?}"
        );
        facts.may_send &= !sends;
        match next {
            Next::Nothing | Next::CancelConnect => return sends,
            Next::LookAtTime => facts.time_came = false,
            Next::SetPauses(pauses) => {
                facts.turn_came &=
                    !life.pauses.has(Pauses::SHARE_USED) || pauses.has(Pauses::SHARE_USED);
                life.set_pauses(pauses);
            }
            Next::TellRoom => facts.has_wanted_room = false,
            Next::TellMissed => facts.has_missed = false,
            Next::TellDue => facts.is_due = false,
            Next::TellEnd => life.tell_end(),
            Next::TellWaiters => facts.has_told = false,
            Next::Refill => (facts.is_to_refill, facts.may_send) = (false, true),
            Next::AskLastWord => {
                // With a last frame; without one, it goes on as if there were no such step.
                (facts.is_last_word_due, facts.closing) = (false, Some(Close::Drain));
                (facts.may_send, facts.has_drained) = (true, false);
            }
            Next::Finish => (facts.is_to_finish, facts.has_finished) = (false, true),
            Next::End if facts.stream == Stream::Ended => facts.closing = Some(Close::Drain),
            Next::End => facts.closing = Some(Close::Stop),
            Next::Drain => life.enter(Phase::Draining),
            Next::Linger => life.enter(Phase::Lingering),
            Next::Close | Next::GiveUp => life.enter(Phase::Closing),
            Next::Receive => life.receive_begins(),
            Next::CancelReceive => life.receive_is_cancelled(),
        }
        true
    }

    #[test]
    fn whatever_is_known_of_it_a_session_comes_to_rest_as_it_should_be() {
        let mut looked_at = 0;
        for begun in all_lives().step_by(if cfg!(miri) { 37 } else { 1 }) {
            // Fewer under Miri, which is slow.
            for known in all_facts().step_by(if cfg!(miri) { 61 } else { 1 }) {
                let told = Facts { has_told: true, ..known };
                assert_eq!(begun.next(&told).next, Next::TellWaiters, "{begun:?} {known:?}");
                let (mut life, mut facts) = (begun, known);
                let steps = (0..16).take_while(|_| carry_out(&mut life, &mut facts)).count();
                assert!(steps < 16, "{begun:?} {known:?} never rests");
                looked_at += 1;
                let said = || format!("{begun:?} {known:?} comes to {life:?} {facts:?}");
                let is_cut = facts.closing == Some(Close::Stop);
                match life.phase {
                    Phase::Absent | Phase::Closing => continue,
                    Phase::Connecting => {
                        assert!(!facts.time_came || is_cut || facts.has_drained, "{}", said());
                        continue;
                    }
                    Phase::Open => {
                        assert!(
                            facts.closing.is_none() && facts.stream != Stream::Failed,
                            "{}",
                            said()
                        );
                        assert_eq!(life.pauses.has(Pauses::FULL), facts.is_full, "{}", said());
                        let is_asked = facts.is_asked_to_pause;
                        assert_eq!(life.pauses.has(Pauses::ASKED), is_asked, "{}", said());
                        assert!(!facts.is_due, "{}", said());
                        let waits = facts.has_wanted_room;
                        assert!(!waits || life.pauses.has(Pauses::SHARE_USED), "{}", said());
                        let is_receiving = life.receiving == Receiving::Outstanding;
                        assert!(
                            !is_receiving || life.hears() || facts.stream != Stream::Goes,
                            "{}",
                            said()
                        );
                    }
                    Phase::Establishing => {
                        assert!(!facts.has_drained && facts.stream == Stream::Goes, "{}", said());
                    }
                    Phase::Draining => assert!(!facts.has_drained, "{}", said()),
                    Phase::Lingering => assert_eq!(facts.stream, Stream::Goes, "{}", said()),
                }
                assert!(!is_cut && !facts.may_send && !facts.time_came, "{}", said());
                let is_deaf = life.receiving == Receiving::No && facts.stream == Stream::Goes;
                assert!(!is_deaf || life.phase == Phase::Open && !life.hears(), "{}", said());
            }
        }
        assert!(cfg!(miri) || looked_at == 7 * 3 * 8 * 3 * (64 + 256 + 256) * 6, "{looked_at}");
    }

    #[test]
    fn a_phase_that_was_left_never_comes_again() {
        for (at, from) in PHASES.into_iter().enumerate() {
            for to in PHASES {
                let mut life = life(from, Receiving::No, Pauses::NONE);
                let goes = std::panic::catch_unwind(move || life.enter(to)).is_ok();
                assert_eq!(goes, PHASES[at + 1..].contains(&to), "{from:?} to {to:?}");
            }
        }
    }

    #[test]
    fn a_receive_begins_once_ends_once_and_is_cancelled_once() {
        let may = |change: fn(&mut Life)| {
            [Receiving::No, Receiving::Outstanding, Receiving::Cancelled].map(|receiving| {
                let mut life = open(receiving);
                std::panic::catch_unwind(move || change(&mut life)).is_ok()
            })
        };
        assert_eq!(may(Life::receive_begins), [true, false, false]);
        assert_eq!(may(Life::receive_is_cancelled), [false, true, false]);
        assert_eq!(may(Life::receive_ends), [false, true, true]);
        let mut life = open(Receiving::Cancelled);
        assert!(
            life.receive_goes_on() && !life.receive_goes_on(),
            "it must be cancelled once more"
        );
    }
}
