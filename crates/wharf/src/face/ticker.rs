//! A clock for a loop of the program's own.

use std::time::{Duration, Instant};

use crate::histogram::{Histogram, Recorder};

/// So many ticks are made up for, if nothing else is said.
const CATCH_UP_MAX: u64 = 5;

/// Ticks of equal length: tick n is due at the start + n × the period, however long each takes, so it does not drift.
///
/// A loop that is behind catches up: its next ticks come at once. If it is behind by more than
/// [`catch_up_max`](Self::catch_up_max) ticks, the rest are skipped and counted, so that a machine that is too slow has
/// a slower world and not one that never ends. In a `Simulation` the time is virtual.
///
/// ```
/// use std::time::Duration;
///
/// let mut ticker = wharf::Ticker::new(Duration::from_millis(1));
/// for number in 0..3 {
///     let tick = ticker.wait(); // the first comes at once
///     assert_eq!(tick.number, number + tick.skipped);
///     // the world takes a step here
/// }
/// assert_eq!(ticker.lateness_ns().count(), 3);
/// ```
#[derive(Debug)]
pub struct Ticker {
    period: Duration,
    catch_up_max: u64,
    /// Of the clock that it began with.
    start: Start,
    next: u64,
    skipped: u64,
    lateness_ns: Recorder,
}

#[derive(Debug)]
enum Start {
    System(Instant),
    #[cfg(feature = "simulation")]
    Simulated(crate::port::simulated::World, Duration),
}

/// One tick.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Tick {
    /// Its number, from 0. Skipped ticks have numbers too.
    pub number: u64,
    /// How long after its time it comes.
    pub late: Duration,
    /// How many ticks were skipped in all.
    pub skipped: u64,
}

impl Ticker {
    /// A ticker whose first tick is now. A period of 0 is one nanosecond.
    pub fn new(period: Duration) -> Self {
        Ticker {
            period: period.max(Duration::from_nanos(1)),
            catch_up_max: CATCH_UP_MAX,
            start: Start::now(),
            next: 0,
            skipped: 0,
            lateness_ns: Recorder::default(),
        }
    }

    /// How many ticks a loop that is behind makes up for. Default 5. 0: none, so each tick that is missed is skipped.
    #[must_use]
    pub fn catch_up_max(mut self, ticks: u64) -> Self {
        self.catch_up_max = ticks;
        self
    }

    /// Sleeps until the next tick is due. Returns at once if it is.
    pub fn wait(&mut self) -> Tick {
        self.start.sleep(self.left());
        let behind = self.late().as_nanos() / self.period.as_nanos();
        let behind = u64::try_from(behind).unwrap_or(u64::MAX);
        let skipped = behind.saturating_sub(self.catch_up_max);
        self.next += skipped;
        self.skipped += skipped;
        let late = self.late();
        self.lateness_ns.record(u64::try_from(late.as_nanos()).unwrap_or(u64::MAX));
        self.next += 1;
        Tick { number: self.next - 1, late, skipped: self.skipped }
    }

    /// How long it is until the next tick is due: for a loop that waits for something else meanwhile.
    pub fn left(&self) -> Duration {
        self.due().saturating_sub(self.start.elapsed())
    }

    /// How late each tick has come, in nanoseconds.
    pub fn lateness_ns(&self) -> Histogram {
        let mut sum = Histogram::default();
        self.lateness_ns.add_to(&mut sum);
        sum
    }

    /// When the next tick is due, after the start.
    fn due(&self) -> Duration {
        let nanos = self.period.as_nanos().saturating_mul(u128::from(self.next));
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX)) // 584 years
    }

    fn late(&self) -> Duration {
        self.start.elapsed().saturating_sub(self.due())
    }
}

impl Start {
    fn now() -> Start {
        #[cfg(feature = "simulation")]
        if let Some(world) = crate::port::simulated::current() {
            let now = world.now();
            return Start::Simulated(world, now);
        }
        Start::System(Instant::now())
    }

    fn elapsed(&self) -> Duration {
        match self {
            Start::System(start) => start.elapsed(),
            #[cfg(feature = "simulation")]
            Start::Simulated(world, start) => world.now().saturating_sub(*start),
        }
    }

    fn sleep(&self, duration: Duration) {
        match self {
            _ if duration == Duration::ZERO => {}
            Start::System(_) => std::thread::sleep(duration),
            #[cfg(feature = "simulation")]
            Start::Simulated(world, _) => world.sleep(duration),
        }
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;

    #[test]
    fn ticks_keep_their_times_and_come_after_them() {
        let period = Duration::from_millis(2);
        let (start, mut ticker) = (Instant::now(), Ticker::new(period).catch_up_max(u64::MAX));
        for number in 0..20_u64 {
            let tick = ticker.wait();
            assert_eq!((tick.number, tick.skipped), (number, 0));
            assert!(start.elapsed() >= period * number as u32, "it came early");
        }
        assert_eq!(ticker.lateness_ns().count(), 20);
    }

    #[test]
    fn a_loop_that_is_far_behind_makes_up_for_some_and_skips_the_rest() {
        let period = Duration::from_millis(1);
        let mut ticker = Ticker::new(period).catch_up_max(3);
        let behind = ticker.wait();
        assert_eq!(behind.number, 0);
        std::thread::sleep(period * 20); // which is what it is about
        let tick = ticker.wait();
        assert!(tick.skipped >= 16, "{tick:?}");
        assert_eq!(tick.number, tick.skipped + 1);
        assert!(tick.late >= period * 3, "{tick:?}");
        let (before, next) = (tick, ticker.wait());
        assert_eq!(next.number - next.skipped, before.number - before.skipped + 1);
    }
}
