//! When each message of an open loop is due, and when the run ends.

use std::time::{Duration, Instant};

/// The run's beginning and end, and in the open loop its rate.
///
/// Messages are due evenly, round robin over the sessions: number `n` of all is the message
/// `n / sessions` of session `n % sessions`, and due at `start + n / rate`. Latency counts from
/// there, whenever it could really leave, so a stall of the server shows in full (there is no
/// coordinated omission).
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    start: Instant,
    length: Duration,
    rate_per_s: Option<f64>,
}

impl Pace {
    pub(super) fn new(start: Instant, length: Duration, rate_per_s: Option<f64>) -> Pace {
        Pace { start, length, rate_per_s }
    }

    pub(super) fn start(&self) -> Instant {
        self.start
    }

    pub(super) fn end(&self) -> Instant {
        self.start + self.length
    }

    /// How many are due before the end; without a rate there is no end to them.
    pub(super) fn total(&self) -> u64 {
        match self.rate_per_s {
            Some(rate) => (self.length.as_secs_f64() * rate).ceil() as u64,
            None => u64::MAX,
        }
    }

    /// How many are due in all, or have been by now if the run stops now.
    pub(super) fn due_until(&self, stops_now: bool) -> u64 {
        let elapsed = self.start.elapsed().min(self.length);
        let length = if stops_now { elapsed } else { self.length };
        Pace { length, ..*self }.total()
    }

    /// When number `n` of all is due; without a rate, at once.
    pub(super) fn due(&self, number: u64) -> Instant {
        match self.rate_per_s {
            Some(rate) => self.start + Duration::from_secs_f64(number as f64 / rate),
            None => self.start,
        }
    }

    /// When a session's message is due.
    pub(super) fn due_of(&self, session: usize, sessions: usize, message: u64) -> Instant {
        self.due(message * sessions as u64 + session as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_due_evenly_round_robin_over_the_sessions() {
        let start = Instant::now();
        let pace = Pace::new(start, Duration::from_secs(2), Some(1000.0));
        assert_eq!(pace.total(), 2000);
        assert_eq!(pace.due(0), start);
        assert_eq!(pace.due(1500), start + Duration::from_millis(1500));
        assert_eq!(pace.due_of(3, 10, 7), start + Duration::from_millis(73));
        assert!(pace.due(pace.total() - 1) < pace.end());
        assert!(pace.due(pace.total()) >= pace.end());
        assert_eq!(pace.due_until(false), 2000);
        assert!((1..2000).contains(&pace.due_until(true)), "what is due is due by now");
    }

    #[test]
    fn without_a_rate_everything_is_due_at_once() {
        let pace = Pace::new(Instant::now(), Duration::from_secs(2), None);
        assert_eq!(pace.due(1_000_000), pace.start());
    }
}
