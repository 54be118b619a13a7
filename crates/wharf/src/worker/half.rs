//! The receive half of a session: what only its holder touches (invariant 2).

use std::io;
#[cfg(feature = "websocket")]
use std::time::Duration;

use crate::clock::Moment;
use crate::close::CloseReason;
use crate::guarded::Guarded;
use crate::peer_address::Peer;
use crate::session::{Life, Pauses, ReceiveQueue};
use crate::stats::Stats;
use crate::timer::TimerId;
#[cfg(feature = "websocket")]
use crate::transport::web_socket::Layer;

/// After a pause a session receives one buffer at a time, so that the next pause finds little that has
/// already come. This ends after so many receives in a row without a pause.
const SINGLE_RECEIVES_AFTER_PAUSE: u8 = 64;

/// A peer that is silent for so long does not flood.
#[cfg(feature = "websocket")]
const FLOOD_PAUSE_MIN: Duration = Duration::from_millis(100);

/// Most of the memory of an idle session, hence kept to two cache lines. Its slot takes one more.
#[derive(Debug)]
pub(crate) struct ReceiveHalf<S> {
    /// The handler's state, from `opened` to `closed`; a large one's box ([`super::large_state`]).
    pub(super) state: Guarded<S>,
    pub(super) queue: ReceiveQueue,
    pub(super) peer: Peer,
    pub(super) timer: Option<TimerId>,
    /// When the current phase began, for its time-out.
    pub(super) phase_since: Moment,
    pub(super) received_at: Moment,
    pub(super) life: Life,
    /// Receives left that take one buffer each, after a pause.
    pub(super) single_receives: u8,
    pub(super) opened: bool,
    pub(super) frame_came: bool,
    /// Frames delivered in the turn of `received_at`.
    pub(super) frames_of_turn: u16,
    /// It seems silent, and its receive was cancelled to find out.
    pub(super) is_suspect: bool,
    /// Bytes were waiting when the time for its first frame was over, so it got that time once more.
    pub(super) has_more_time: bool,
    /// Why the stream has ended. Takes effect when what waits has been delivered.
    pub(super) stream_end: Option<StreamEnd>,
    /// Why its connect failed. The release tells the handler.
    pub(super) connect_error: Option<io::Error>,
    /// What it keeps of its transport, if it has one.
    #[cfg(feature = "websocket")]
    pub(super) layer: Option<Box<Layer>>,
}

/// How the peer's direction of the stream has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StreamEnd {
    /// The peer has finished it.
    Finished,
    Reset,
    /// The operating system reported an error with this number.
    Failed {
        kind: io::ErrorKind,
        code: Option<i32>,
    },
}

impl StreamEnd {
    pub(super) fn of_io(error: &io::Error) -> Self {
        match CloseReason::of_io(error) {
            CloseReason::Io { kind, code } => StreamEnd::Failed { kind, code },
            _ => StreamEnd::Reset,
        }
    }

    pub(super) fn reason(self) -> CloseReason {
        match self {
            StreamEnd::Finished => CloseReason::PeerClosed,
            StreamEnd::Reset => CloseReason::Reset,
            StreamEnd::Failed { kind, code } => CloseReason::Io { kind, code },
        }
    }
}

impl<S> Default for ReceiveHalf<S> {
    fn default() -> Self {
        ReceiveHalf {
            state: Guarded::default(),
            queue: ReceiveQueue::default(),
            peer: Peer::Unknown,
            timer: None,
            phase_since: Moment::default(),
            received_at: Moment::default(),
            life: Life::default(),
            single_receives: 0,
            opened: false,
            frame_came: false,
            frames_of_turn: 0,
            is_suspect: false,
            has_more_time: false,
            stream_end: None,
            connect_error: None,
            #[cfg(feature = "websocket")]
            layer: None,
        }
    }
}

impl<S> ReceiveHalf<S> {
    /// Whether the slot's last session has left nothing in it.
    pub(super) fn is_new(&self) -> bool {
        let ReceiveHalf { queue, timer, life, stream_end, .. } = self;
        *life == Life::default() && queue.is_empty() && timer.is_none() && stream_end.is_none()
    }

    /// Notes that something arrived in the turn that has this moment.
    pub(super) fn heard(&mut self, turn: Moment) {
        if self.received_at != turn {
            #[cfg(feature = "websocket")]
            if let Some(layer) = &mut self.layer
                && self.received_at.until(turn) >= FLOOD_PAUSE_MIN
            {
                layer.cutter.no_flood();
            }
            self.received_at = turn;
            self.frames_of_turn = 0;
        }
    }

    /// Sets the reasons for which it is paused.
    pub(super) fn pause(&mut self, pauses: Pauses, stats: &mut Stats) {
        let before = self.life.pauses();
        let begun = pauses.without(before);
        if before.without(pauses).has(Pauses::SHARE_USED) {
            self.frames_of_turn = 0;
        }
        if begun != Pauses::NONE {
            self.single_receives = SINGLE_RECEIVES_AFTER_PAUSE;
        }
        stats.receive_pauses += u64::from(begun.has(Pauses::FULL));
        self.life.set_pauses(pauses);
    }

    /// Whether the next receive is to take only one buffer.
    pub(super) fn takes_single_receive(&mut self) -> bool {
        let single = self.single_receives > 0;
        self.single_receives -= u8::from(single);
        single
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::{Phase, Slot};

    #[test]
    fn who_was_paused_is_received_from_a_buffer_at_a_time_until_there_was_no_pause_for_long() {
        let (mut half, mut stats) = (ReceiveHalf::<()>::default(), Stats::default());
        half.life.enter(Phase::Open);
        assert!(!half.takes_single_receive());
        for _ in 0..2 {
            half.pause(Pauses::FULL, &mut stats);
            half.pause(Pauses::NONE, &mut stats);
            let singles = (0..1_000).take_while(|_| half.takes_single_receive()).count();
            assert_eq!(singles, usize::from(SINGLE_RECEIVES_AFTER_PAUSE));
        }
        for _ in 0..3 {
            half.pause(Pauses::FULL, &mut stats);
            half.pause(Pauses::NONE, &mut stats);
            assert!((0..63).all(|_| half.takes_single_receive()), "each pause counts anew");
        }
    }

    #[test]
    fn a_half_is_two_cache_lines_and_with_a_small_state_up_to_four() {
        fn of<S>() -> usize {
            size_of::<crate::session::HalfCell<ReceiveHalf<S>>>()
        }
        assert_eq!(of::<()>(), crate::session::SLOT_AND_HALF_BYTES - size_of::<Slot>());
        let large = of::<Box<[u64; 16]>>();
        assert_eq!([of::<()>(), of::<u64>(), of::<[u64; 15]>(), large], [128, 192, 256, 128]);
    }
}
