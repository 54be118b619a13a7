//! Time as a parameter (invariant 11): monotonic, passed in, and read only by workers.

use std::fmt;
use std::time::{Duration, Instant};

/// A moment, in nanoseconds since the clock was made: 8 bytes reach 584 years. Every session stores several.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Moment(u64);

impl Moment {
    pub(crate) const fn at(since_start: Duration) -> Moment {
        let nanos = since_start.as_nanos();
        Moment(if nanos > u64::MAX as u128 { u64::MAX } else { nanos as u64 })
    }

    /// The nanoseconds, for storing a moment in rooms that know no clock.
    pub(crate) fn nanos(self) -> u64 {
        self.0
    }

    pub(crate) fn of_nanos(nanos: u64) -> Moment {
        Moment(nanos)
    }

    pub(crate) fn since_start(self) -> Duration {
        Duration::from_nanos(self.0)
    }

    pub(crate) fn after(self, duration: Duration) -> Moment {
        Moment(self.0.saturating_add(Moment::at(duration).0))
    }

    pub(crate) fn before(self, duration: Duration) -> Moment {
        Moment(self.0.saturating_sub(Moment::at(duration).0))
    }

    /// The time until `later`. Zero if that has passed.
    pub(crate) fn until(self, later: Moment) -> Duration {
        Duration::from_nanos(self.nanos_until(later))
    }

    pub(crate) fn nanos_until(self, later: Moment) -> u64 {
        later.0.saturating_sub(self.0)
    }
}

/// Where a worker reads the time.
pub(crate) trait Clock: Clone + Send + Sync + 'static {
    fn now(&self) -> Moment;
}

/// The machine's monotonic clock.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SystemClock {
    started: Instant,
}

impl SystemClock {
    pub(crate) fn start() -> Self {
        SystemClock { started: Instant::now() }
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Moment {
        Moment::at(self.started.elapsed())
    }
}

/// Any clock.
pub(crate) struct AnyClock(Box<dyn Fn() -> Moment + Send + Sync>);

impl AnyClock {
    pub(crate) fn new(clock: impl Clock) -> Self {
        AnyClock(Box::new(move || clock.now()))
    }

    pub(crate) fn now(&self) -> Moment {
        (self.0)()
    }
}

impl fmt::Debug for AnyClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AnyClock")
    }
}
