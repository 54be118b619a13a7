//! What follows for a session, from what is known of it: a pure function, [`Life::next`].
//!
//! A [`Life`] is what the holder of the session's half has made of it so far: its phase, its receive operation,
//! and what pauses it. [`Facts`] are what has come about besides. The answer is one [`Step`]. Who attends to the
//! session takes it, looks again, and so on until nothing follows.

use crate::close::Close;

/// Where a session is in its life. It only goes down this list.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    /// The slot is free, or its session has not arrived at its worker yet.
    #[default]
    Absent,
    /// A connect is outstanding.
    Connecting,
    /// Frames are delivered and sent.
    Open,
    /// No frame is delivered any more; what is queued is being sent.
    Draining,
    /// All is sent, and our end of the stream with it; the peer's end is awaited.
    Lingering,
    /// Cut: everything outstanding was asked to end. The session's own count is given up.
    Closing,
}

/// The receive operation of a session.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Receiving {
    /// None is outstanding.
    #[default]
    No,
    Outstanding,
    /// Outstanding, and asked to end.
    Cancelled,
}

/// Why a session is given no frames just now: a set.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Pauses(u8);

impl Pauses {
    pub(crate) const NONE: Pauses = Pauses(0);
    /// Its send queue is too full.
    pub(crate) const FULL: Pauses = Pauses(1);
    /// It had its share of a turn, and more waits: it is next in the next turn.
    pub(crate) const BEHIND: Pauses = Pauses(2);

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
    /// It was asked to close, and so.
    pub(crate) closing: Option<Close>,
    /// It was asked to close, and all that was accepted for it has left.
    pub(crate) has_drained: bool,
    /// Its send queue is too full to receive more.
    pub(crate) is_full: bool,
    /// Bytes wait to be sent, and no send is outstanding.
    pub(crate) may_send: bool,
    /// Its timer has fired, or what its time was waiting for has come.
    pub(crate) time_came: bool,
    /// A turn has begun since it fell behind.
    pub(crate) turn_came: bool,
}

/// The one step that follows: a send is posted, if there is one, and then the next thing is done. (A send that is
/// refused is a new fact.)
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Step {
    pub(crate) sends: bool,
    pub(crate) next: Next,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    Nothing,
    /// Look whether one of its times has come.
    LookAtTime,
    CancelConnect,
    /// From now on these pause it. If none does any more, deliver what waits.
    SetPauses(Pauses),
    /// Ask it to close, since its stream has ended or failed.
    End,
    /// Go on to [`Phase::Draining`].
    Drain,
    /// Go on to [`Phase::Lingering`].
    Linger,
    /// Go on to [`Phase::Closing`].
    Close,
    /// Post a receive.
    Receive,
    CancelReceive,
}

/// What the holder of a session's half has made of it so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Life {
    phase: Phase,
    receiving: Receiving,
    pauses: Pauses,
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

    pub(crate) fn enter(&mut self, phase: Phase) {
        assert!(phase > self.phase, "a session goes from {:?} to {phase:?}", self.phase);
        self.phase = phase;
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

    /// A cancel is only a request: something came in spite of it, and the receive goes on. True: it must be
    /// asked to end once more.
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

    /// The one step that follows. What lets more be sent comes before the send, so that all leaves
    /// together; the receive comes last, because on some ports the half goes with it.
    #[inline(always)] // into attending, which most often finds that a send is all that follows
    pub(crate) fn next(self, facts: &Facts) -> Step {
        let before = self.before_send(facts);
        let stands = matches!(self.phase, Phase::Open | Phase::Draining | Phase::Lingering);
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
            Phase::Absent | Phase::Closing => Next::Nothing,
            Phase::Connecting if is_cut || has_drained => Next::CancelConnect,
            _ if is_cut => Next::Close,
            _ if time_came => Next::LookAtTime,
            Phase::Connecting | Phase::Draining | Phase::Lingering => Next::Nothing,
            Phase::Open => {
                let pauses = self.pauses_after(facts);
                let is_heard_out = closing.is_none() && pauses == Pauses::NONE;
                if pauses != self.pauses {
                    Next::SetPauses(pauses)
                } else if stream == Stream::Failed || stream == Stream::Ended && is_heard_out {
                    Next::End
                } else if closing.is_some() {
                    Next::Drain
                } else {
                    Next::Nothing
                }
            }
        }
    }

    fn pauses_after(self, facts: &Facts) -> Pauses {
        let stays_behind = self.pauses.has(Pauses::BEHIND) && !facts.turn_came;
        let full = if facts.is_full { Pauses::FULL } else { Pauses::NONE };
        full.with(if stays_behind { Pauses::BEHIND } else { Pauses::NONE })
    }

    /// Receives while there is somebody to deliver to. While draining and lingering too: to see the
    /// peer's end, and because a peer may read nothing before it has written all.
    fn wants_to_receive(self, stream: Stream) -> bool {
        stream == Stream::Goes && (self.phase != Phase::Open || self.pauses == Pauses::NONE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PHASES: [Phase; 6] = [
        Phase::Absent,
        Phase::Connecting,
        Phase::Open,
        Phase::Draining,
        Phase::Lingering,
        Phase::Closing,
    ];
    const BOTH: Pauses = Pauses(3);

    /// Nothing is known of it but that it stands.
    const QUIET: Facts = Facts {
        stream: Stream::Goes,
        closing: None,
        has_drained: false,
        is_full: false,
        may_send: false,
        time_came: false,
        turn_came: false,
    };
    const SENDS: Facts = Facts { may_send: true, ..QUIET };
    const IS_FULL: Facts = Facts { is_full: true, ..QUIET };
    const ENDED: Facts = Facts { stream: Stream::Ended, ..QUIET };
    const FAILED: Facts = Facts { stream: Stream::Failed, ..QUIET };
    const DRAINS: Facts = Facts { closing: Some(Close::Drain), ..QUIET };
    const HAS_DRAINED: Facts = Facts { has_drained: true, ..DRAINS };
    const IS_CUT: Facts = Facts { closing: Some(Close::Stop), ..QUIET };
    const TIME_CAME: Facts = Facts { time_came: true, ..QUIET };
    const TURN_CAME: Facts = Facts { turn_came: true, ..QUIET };

    fn life(phase: Phase, receiving: Receiving, pauses: Pauses) -> Life {
        Life { phase, receiving, pauses }
    }

    fn open(receiving: Receiving) -> Life {
        life(Phase::Open, receiving, Pauses::NONE)
    }

    #[test]
    fn what_follows() {
        use Receiving::{Cancelled, No, Outstanding};
        let connecting = life(Phase::Connecting, No, Pauses::NONE);
        let paused = |by| life(Phase::Open, Cancelled, by);
        let draining = life(Phase::Draining, Outstanding, Pauses::NONE);
        let lingering = life(Phase::Lingering, Outstanding, Pauses::NONE);
        let table = [
            // A connect: nothing but its end, of its own or when it is asked for.
            (connecting, SENDS, false, Next::Nothing),
            (connecting, TIME_CAME, false, Next::LookAtTime),
            (connecting, Facts { may_send: true, ..DRAINS }, false, Next::Nothing),
            (connecting, HAS_DRAINED, false, Next::CancelConnect),
            (connecting, Facts { time_came: true, ..IS_CUT }, false, Next::CancelConnect),
            // It receives, and sends.
            (open(Outstanding), QUIET, false, Next::Nothing),
            (open(Outstanding), SENDS, true, Next::Nothing),
            (open(No), QUIET, false, Next::Receive),
            (open(No), SENDS, true, Next::Receive),
            (open(Cancelled), QUIET, false, Next::Nothing),
            (open(Outstanding), Facts { may_send: true, ..TIME_CAME }, false, Next::LookAtTime),
            // Pauses: each has its own end, and the receive ends with the first and begins after the last.
            (open(Outstanding), IS_FULL, false, Next::SetPauses(Pauses::FULL)),
            (life(Phase::Open, Outstanding, Pauses::FULL), IS_FULL, false, Next::CancelReceive),
            (paused(Pauses::FULL), IS_FULL, false, Next::Nothing),
            (paused(Pauses::FULL), Facts { may_send: true, ..IS_FULL }, true, Next::Nothing),
            (paused(Pauses::FULL), SENDS, false, Next::SetPauses(Pauses::NONE)),
            (paused(Pauses::BEHIND), SENDS, true, Next::Nothing),
            (paused(Pauses::BEHIND), TURN_CAME, false, Next::SetPauses(Pauses::NONE)),
            (paused(BOTH), QUIET, false, Next::SetPauses(Pauses::BEHIND)),
            (
                paused(BOTH),
                Facts { is_full: true, ..TURN_CAME },
                false,
                Next::SetPauses(Pauses::FULL),
            ),
            (life(Phase::Open, No, Pauses::BEHIND), QUIET, false, Next::Nothing),
            // The peer's end waits until what came before it has been delivered; a failure does not.
            (open(No), ENDED, false, Next::End),
            (paused(Pauses::FULL), Facts { is_full: true, ..ENDED }, false, Next::Nothing),
            (paused(Pauses::BEHIND), ENDED, false, Next::Nothing),
            (paused(Pauses::FULL), Facts { is_full: true, ..FAILED }, false, Next::End),
            (open(No), Facts { closing: Some(Close::Drain), ..FAILED }, false, Next::End),
            (open(No), Facts { closing: Some(Close::Drain), ..ENDED }, false, Next::Drain),
            // It is asked to close: what is queued leaves, unless it is cut.
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

    /// Every fact as it can be.
    fn all_facts() -> impl Iterator<Item = Facts> {
        let streams = [Stream::Goes, Stream::Ended, Stream::Failed];
        let closings = [None, Some(Close::Drain), Some(Close::Stop)];
        streams.into_iter().flat_map(move |stream| {
            closings.into_iter().flat_map(move |closing| {
                (0..32).filter_map(move |bits| {
                    let is = |bit: u32| bits & (1 << bit) != 0;
                    let facts = Facts {
                        stream,
                        closing,
                        has_drained: is(0),
                        is_full: is(1),
                        may_send: is(2),
                        time_came: is(3),
                        turn_came: is(4),
                    };
                    (closing.is_some() || !facts.has_drained).then_some(facts)
                })
            })
        })
    }

    fn all_lives() -> impl Iterator<Item = Life> {
        PHASES.into_iter().flat_map(|phase| {
            [Receiving::No, Receiving::Outstanding, Receiving::Cancelled].into_iter().flat_map(
                move |receiving| {
                    [Pauses::NONE, Pauses::FULL, Pauses::BEHIND, BOTH]
                        .into_iter()
                        .map(move |pauses| life(phase, receiving, pauses))
                },
            )
        })
    }

    /// What a worker makes of it. False: it rests.
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
                facts.turn_came &= !life.pauses.has(Pauses::BEHIND) || pauses.has(Pauses::BEHIND);
                life.set_pauses(pauses);
            }
            Next::End if facts.stream == Stream::Ended => facts.closing = Some(Close::Drain),
            Next::End => facts.closing = Some(Close::Stop),
            Next::Drain => life.enter(Phase::Draining),
            Next::Linger => life.enter(Phase::Lingering),
            Next::Close => life.enter(Phase::Closing),
            Next::Receive => life.receive_begins(),
            Next::CancelReceive => life.receive_is_cancelled(),
        }
        true
    }

    #[test]
    fn whatever_is_known_of_it_a_session_comes_to_rest_as_it_should_be() {
        let mut looked_at = 0;
        for begun in all_lives() {
            // Miri is slow; the rest is looked at without it.
            for known in all_facts().step_by(if cfg!(miri) { 13 } else { 1 }) {
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
                        let is_receiving = life.receiving == Receiving::Outstanding;
                        assert!(
                            !is_receiving || life.hears() || facts.stream != Stream::Goes,
                            "{}",
                            said()
                        );
                    }
                    Phase::Draining => assert!(!facts.has_drained, "{}", said()),
                    Phase::Lingering => assert_eq!(facts.stream, Stream::Goes, "{}", said()),
                }
                assert!(!is_cut && !facts.may_send && !facts.time_came, "{}", said());
                let is_deaf = life.receiving == Receiving::No && facts.stream == Stream::Goes;
                assert!(!is_deaf || life.phase == Phase::Open && !life.hears(), "{}", said());
            }
        }
        assert!(cfg!(miri) || looked_at == 6 * 3 * 4 * 3 * (16 + 32 + 32), "{looked_at}");
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
