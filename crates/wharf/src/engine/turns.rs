//! How long the workers' turns take, for the sake of time-outs.
//!
//! A worker reads the clock once a turn, and stamps all that happens in the turn with that moment. That
//! is exact enough as long as turns are short. When a callback blocks, or the thread is kept from
//! running, a stamp may be older than what it stands for by as long as the turn took, and a session that
//! was opened just now would be ended for having been silent for minutes. So long turns are written
//! down, and who judges a session's times takes a stamp of such a turn for the moment at which the turn
//! ended. Reading the clock for each completion instead would cost 1 to 2 % of an echo.

use std::time::Duration;

use crate::clock::Moment;
use crate::sync::{AtomicBool, AtomicU64, Mutex, Ordering};
use crate::timer::TICK;

/// Long turns that are remembered, 16 bytes each. When there are more, the shortest are forgotten: a
/// time-out may then come early by no more than one of them took.
const LONG_TURNS_MAX: usize = 1_024;

/// Above every moment: the worker is between two turns.
const NO_TURN: u64 = u64::MAX;

/// When a worker's turn began. Written twice in each of its turns, so no other worker's is near it.
#[derive(Debug)]
#[repr(align(64))]
struct Turn(AtomicU64);

/// The turns of a port's workers.
#[derive(Debug)]
pub(crate) struct Turns {
    /// The one that each worker is in.
    open: Box<[Turn]>,
    has_long: AtomicBool,
    /// When each began, and when it ended; in the order of the beginnings. Its memory is there from the
    /// start, so that a turn that takes long does not allocate.
    long: Mutex<Vec<(Moment, Moment)>>,
}

impl Turns {
    pub(crate) fn new(workers: usize) -> Self {
        let open = (0..workers).map(|_| Turn(AtomicU64::new(NO_TURN))).collect();
        Turns {
            open,
            has_long: AtomicBool::new(false),
            long: Mutex::new(Vec::with_capacity(LONG_TURNS_MAX)),
        }
    }

    pub(crate) fn begin(&self, worker: usize, at: Moment) {
        self.open[worker].0.store(at.nanos(), Ordering::Release);
    }

    pub(crate) fn end(&self, worker: usize, began: Moment, ended: Moment) {
        if began.until(ended) >= TICK {
            let mut long = self.long.lock();
            if long.len() == LONG_TURNS_MAX {
                let length = |at: &usize| long[*at].0.until(long[*at].1);
                let shortest = (0..long.len()).min_by_key(length).unwrap_or_default();
                long.remove(shortest);
            }
            let at = long.partition_point(|(before, _)| *before <= began);
            long.insert(at, (began, ended));
            self.has_long.store(true, Ordering::Release);
        }
        // After it was written down: who does not find it open finds it there.
        self.open[worker].0.store(NO_TURN, Ordering::Release);
    }

    /// For how long the worker has been in the turn that it is in, if there is only this one. `None`: it waits,
    /// asleep or about to run.
    pub(crate) fn has_lasted(&self, now: Moment) -> Option<Duration> {
        let [Turn(began)] = &*self.open else { return None };
        let began = began.load(Ordering::Relaxed);
        (began != NO_TURN).then(|| Moment::of_nanos(began).until(now))
    }

    /// When at the latest that happened which has this stamp: a tick later than it says, or the end of
    /// its turn if that took longer.
    pub(crate) fn latest(&self, stamp: Moment, now: Moment) -> Moment {
        let is_of = |turn: &Turn| turn.0.load(Ordering::Acquire) == stamp.nanos();
        if self.open.iter().any(is_of) {
            // That turn is not over. (Who asks may have looked at the clock before it began.)
            return now.max(stamp.after(TICK));
        }
        if !self.has_long.load(Ordering::Acquire) {
            return stamp.after(TICK);
        }
        let long = self.long.lock();
        let found = long.binary_search_by_key(&stamp, |(began, _)| *began);
        found.map_or(stamp.after(TICK), |at| long[at].1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Moment {
        Moment::at(Duration::from_millis(millis))
    }

    #[test]
    fn a_stamp_of_a_long_turn_stands_for_its_end_and_any_other_for_itself() {
        let turns = Turns::new(2);
        turns.begin(0, at(100));
        turns.begin(1, at(200));
        assert_eq!(turns.latest(at(100), at(250)), at(250), "the turn goes on");
        assert_eq!(turns.latest(at(200), at(150)), at(210), "it began after `now`");
        turns.end(0, at(100), at(5_100));
        turns.end(1, at(200), at(209));
        assert_eq!(turns.latest(at(100), at(9_000)), at(5_100));
        assert_eq!(turns.latest(at(200), at(9_000)), at(210), "that was no long one");
        assert_eq!(turns.latest(at(101), at(9_000)), at(111));
    }

    /// Two servers, or two ports, have theirs wherever the allocator puts them.
    #[test]
    fn what_each_worker_writes_in_each_turn_has_its_cache_line_for_itself() {
        assert_eq!((size_of::<Turn>(), align_of::<Turn>()), (64, 64));
    }

    #[test]
    fn of_too_many_long_turns_the_shortest_are_forgotten() {
        let turns = Turns::new(1);
        let ends = |turn| at(turn * 10_000 + 20 + turn);
        for turn in 0..1_060 {
            turns.end(0, at(turn * 10_000), ends(turn));
        }
        let now = at(1 << 40);
        assert_eq!(turns.latest(at(1_059 * 10_000), now), ends(1_059));
        assert_eq!(turns.latest(at(36 * 10_000), now), ends(36));
        assert_eq!(turns.latest(at(35 * 10_000), now), at(35 * 10_000 + 10), "forgotten");
        assert_eq!(turns.long.lock().len(), LONG_TURNS_MAX);
    }
}
