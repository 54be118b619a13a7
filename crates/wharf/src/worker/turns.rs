//! How long the workers' turns take, for the sake of time-outs.
//!
//! A worker reads the clock once a turn, and stamps all that happens in the turn with that moment. That
//! is exact enough as long as turns are short. When a callback blocks, or the thread is kept from
//! running, a stamp may be older than what it stands for by as long as the turn took, and a session that
//! was opened just now would be ended for having been silent for minutes. So long turns are written
//! down, and who judges a session's times takes a stamp of such a turn for the moment at which the turn
//! ended. Reading the clock for each completion instead would cost 1 to 2 % of an echo.

use crate::clock::Moment;
use crate::sync::{AtomicBool, AtomicU64, Mutex, Ordering};
use crate::timer::TICK;

/// Long turns that are remembered. When there are more, the shortest are forgotten: a time-out may then
/// come early by no more than they took.
const LONG_TURNS_MAX: usize = 64;

/// Above every moment: the worker is between two turns.
const NO_TURN: u64 = u64::MAX;

/// The turns of a port's workers.
#[derive(Debug)]
pub(crate) struct Turns {
    /// When each worker's turn began, the one that it is in.
    open: Box<[AtomicU64]>,
    has_long: AtomicBool,
    /// From when to when.
    long: Mutex<Vec<(Moment, Moment)>>,
}

impl Turns {
    pub(crate) fn new(workers: usize) -> Self {
        let open = (0..workers).map(|_| AtomicU64::new(NO_TURN)).collect();
        Turns { open, has_long: AtomicBool::new(false), long: Mutex::new(Vec::new()) }
    }

    pub(super) fn begin(&self, worker: usize, at: Moment) {
        self.open[worker].store(at.nanos(), Ordering::Release);
    }

    pub(super) fn end(&self, worker: usize, began: Moment, ended: Moment) {
        if began.until(ended) >= TICK {
            let mut long = self.long.lock();
            if long.len() == LONG_TURNS_MAX {
                let shortest =
                    long.iter().enumerate().min_by_key(|(_, (from, to))| from.until(*to));
                let shortest = shortest.map_or(0, |(index, _)| index);
                long.remove(shortest);
            }
            long.push((began, ended));
            self.has_long.store(true, Ordering::Release);
        }
        // After it was written down: who does not find it open finds it there.
        self.open[worker].store(NO_TURN, Ordering::Release);
    }

    /// When at the latest that happened which has this stamp: a tick later than it says, or the end of
    /// its turn if that took longer.
    pub(super) fn latest(&self, stamp: Moment, now: Moment) -> Moment {
        let is_of = |turn: &AtomicU64| turn.load(Ordering::Acquire) == stamp.nanos();
        if self.open.iter().any(is_of) {
            return now; // that turn is not over
        }
        if !self.has_long.load(Ordering::Acquire) {
            return stamp.after(TICK);
        }
        let long = self.long.lock();
        long.iter()
            .find(|(began, _)| *began == stamp)
            .map_or(stamp.after(TICK), |(_, ended)| *ended)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

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
        turns.end(0, at(100), at(5_100));
        turns.end(1, at(200), at(209));
        assert_eq!(turns.latest(at(100), at(9_000)), at(5_100));
        assert_eq!(turns.latest(at(200), at(9_000)), at(210), "that was no long one");
        assert_eq!(turns.latest(at(101), at(9_000)), at(111));
    }

    #[test]
    fn of_too_many_long_turns_the_shortest_are_forgotten() {
        let turns = Turns::new(1);
        for turn in 0..100 {
            turns.end(0, at(turn * 1_000), at(turn * 1_000 + 10 + turn));
        }
        assert_eq!(turns.latest(at(99_000), at(200_000)), at(99_109));
        assert_eq!(turns.latest(at(36_000), at(200_000)), at(36_046));
        assert_eq!(turns.latest(at(35_000), at(200_000)), at(35_010), "forgotten");
        assert_eq!(turns.long.lock().len(), LONG_TURNS_MAX);
    }
}
