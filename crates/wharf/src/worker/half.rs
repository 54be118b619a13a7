//! The receive half of a session: what only its holder touches (invariant 2).

use std::io;
use std::net::SocketAddr;

use crate::clock::Moment;
use crate::close::CloseReason;
use crate::guarded::Guarded;
use crate::session::{Life, Pauses, ReceiveQueue};
use crate::stats::Stats;
use crate::timer::TimerId;

/// After a pause a session is received from one buffer at a time, so that the next pause finds little that
/// has come already; until so many receives in a row have met with none.
const SINGLE_RECEIVES_AFTER_PAUSE: u8 = 64;

/// What an idle session costs is mostly this, so it is kept to two cache lines; its slot is one.
#[derive(Debug)]
pub(crate) struct ReceiveHalf<S> {
    /// The handler's, from `opened` to `closed`.
    pub(super) state: Guarded<S>,
    pub(super) queue: ReceiveQueue,
    pub(super) peer_address: Option<SocketAddr>,
    pub(super) timer: Option<TimerId>,
    /// When the phase that it is in began, whose time is limited.
    pub(super) phase_since: Moment,
    pub(super) received_at: Moment,
    pub(super) life: Life,
    /// So many receives more take one buffer each, for it was paused.
    pub(super) single_receives: u8,
    pub(super) opened: bool,
    pub(super) frame_came: bool,
    /// Frames that it was given in the turn of `received_at`.
    pub(super) frames_of_turn: u16,
    /// It seems to be silent: its receive was asked to end, and then it is known.
    pub(super) is_suspect: bool,
    /// When the time of its first frame came, bytes waited: it has the time once more.
    pub(super) has_more_time: bool,
    /// The stream has ended, for this reason, once what waits has been delivered.
    pub(super) stream_end: Option<CloseReason>,
    /// Its connect has failed, of which the handler is told in its release.
    pub(super) connect_error: Option<io::Error>,
}

impl<S> Default for ReceiveHalf<S> {
    fn default() -> Self {
        ReceiveHalf {
            state: Guarded::default(),
            queue: ReceiveQueue::default(),
            peer_address: None,
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
        }
    }
}

impl<S> ReceiveHalf<S> {
    /// Whether nothing is left in it of its slot's last session.
    pub(super) fn is_new(&self) -> bool {
        let ReceiveHalf { queue, timer, life, stream_end, .. } = self;
        *life == Life::default() && queue.is_empty() && timer.is_none() && stream_end.is_none()
    }

    /// Something has come in a turn, which its worker stamps with this moment.
    pub(super) fn heard(&mut self, turn: Moment) {
        if self.received_at != turn {
            self.received_at = turn;
            self.frames_of_turn = 0;
        }
    }

    /// From now on these pause it.
    pub(super) fn pause(&mut self, pauses: Pauses, stats: &mut Stats) {
        let before = self.life.pauses();
        let begun = pauses.without(before);
        if before.without(pauses).has(Pauses::BEHIND) {
            self.frames_of_turn = 0;
        }
        if begun != Pauses::NONE {
            self.single_receives = SINGLE_RECEIVES_AFTER_PAUSE;
        }
        stats.receive_pauses += u64::from(begun.has(Pauses::FULL));
        self.life.set_pauses(pauses);
    }

    /// Whether the receive that is posted now takes one buffer and no more.
    pub(super) fn takes_single_receive(&mut self) -> bool {
        let single = self.single_receives > 0;
        self.single_receives -= u8::from(single);
        single
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::Phase;

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
    fn a_half_with_a_small_state_is_two_cache_lines() {
        assert_eq!(size_of::<crate::session::HalfCell<ReceiveHalf<()>>>(), 128);
    }
}
