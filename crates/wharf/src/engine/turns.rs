//! How long the workers' turns take, for time-outs.
//!
//! A worker reads the clock once per turn and uses that moment as the time stamp of everything in the turn.
//! This is exact enough while turns are short. But when a callback blocks or the OS does not schedule the
//! thread, a stamp can be wrong by the length of the turn, and a session that was just opened could end as
//! silent for minutes. So long turns are recorded, and time-outs treat a stamp from a long turn as the moment
//! when the turn ended. Reading the clock per completion instead would cost 1 to 2 % of an echo.

use std::time::Duration;

use crate::clock::Moment;
use crate::sync::{AtomicBool, AtomicU64, Mutex, Ordering};
use crate::timer::TICK;

/// Long turns that are remembered, 16 bytes each. Beyond this number the shortest is forgotten, and a
/// time-out may come early by at most its length.
const LONG_TURNS_MAX: usize = 1_024;

/// Above every moment: the worker is between two turns.
const NO_TURN: u64 = u64::MAX;

/// When a worker's turn began. Written twice per turn, hence on its own cache line.
#[derive(Debug)]
#[repr(align(64))]
struct Turn(AtomicU64);

/// The turns of a port's workers.
#[derive(Debug)]
pub(crate) struct Turns {
    /// The current turn of each worker.
    open: Box<[Turn]>,
    has_long: AtomicBool,
    /// The start and end of each long turn, ordered by start. Allocated at the beginning, so that noting a
    /// turn does not allocate.
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
        // Stored after the long turn was recorded: a reader that does not find the turn open finds it in the
        // list.
        self.open[worker].0.store(NO_TURN, Ordering::Release);
    }

    /// The worker has no turn any more.
    pub(crate) fn leave(&self, worker: usize) {
        self.open[worker].0.store(NO_TURN, Ordering::Release);
    }

    /// How long the worker has been in its current turn, if the port has only one worker. `None`: it waits,
    /// asleep or about to run.
    pub(crate) fn has_lasted(&self, now: Moment) -> Option<Duration> {
        let [Turn(began)] = &*self.open else { return None };
        let began = began.load(Ordering::Relaxed);
        (began != NO_TURN).then(|| Moment::of_nanos(began).until(now))
    }

    /// When each worker's current turn began. `None`: it is between two turns.
    pub(super) fn began(&self) -> impl Iterator<Item = Option<Moment>> {
        self.open.iter().map(|Turn(began)| {
            let began = began.load(Ordering::Relaxed);
            (began != NO_TURN).then(|| Moment::of_nanos(began))
        })
    }

    /// Whether a turn has lasted so long, or another since then did.
    pub(crate) fn have_lasted(&self, limit: Duration, since: Moment, now: Moment) -> bool {
        let is_long = |Turn(began): &Turn| {
            let began = began.load(Ordering::Acquire);
            began != NO_TURN && Moment::of_nanos(began).until(now) > limit
        };
        self.open.iter().any(is_long)
            || self.has_long.load(Ordering::Acquire)
                && self
                    .long
                    .lock()
                    .iter()
                    .any(|(began, ended)| *ended > since && began.until(*ended) > limit)
    }

    /// The latest time at which something with this stamp can have happened: one tick after the stamp, or the
    /// end of its turn if that was later.
    pub(crate) fn latest(&self, stamp: Moment, now: Moment) -> Moment {
        let is_of = |turn: &Turn| turn.0.load(Ordering::Acquire) == stamp.nanos();
        if self.open.iter().any(is_of) {
            // That turn is still running. (The caller may have read the clock before it began.)
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

    #[test]
    fn turns_that_last_long_are_seen_while_they_last_and_afterwards() {
        let turns = Turns::new(2);
        let have_lasted =
            |since, now| turns.have_lasted(Duration::from_millis(100), at(since), at(now));
        turns.begin(1, at(1_000));
        assert!(!have_lasted(0, 1_100) && have_lasted(0, 1_101), "it goes on");
        turns.end(1, at(1_000), at(1_101));
        assert!(have_lasted(1_100, 9_000) && !have_lasted(1_101, 9_000), "since then");
        turns.begin(0, at(2_000));
        turns.end(0, at(2_000), at(2_100));
        assert!(!have_lasted(1_101, 9_000), "that was no long one");
    }

    /// Two servers or ports may be adjacent in memory.
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
