//! Newcomers: which port a new session goes to, and how often the handler is told that accepting fails.

use std::time::Duration;

use super::engine::{Engine, NEVER};
use crate::clock::Moment;
use crate::sync::Ordering;

/// How many sessions a port that accepts for itself may have more than the one with the fewest: so many, plus
/// this part of them. Beyond that the latter gets the new session. This keeps loads within a tenth, while few
/// sessions cross threads, because the kernel distributes by a hash and the loads differ only by about the
/// square root.
pub(super) const AHEAD_SESSIONS: u32 = 8;
pub(super) const AHEAD_PART: u32 = 16;

/// A worker that has been in one turn this long is blocked by a callback or not scheduled, so newcomers would
/// wait. Usual turns take less than a hundredth of it.
const BLOCKED_AFTER: Duration = Duration::from_millis(100);

/// The least time between two reports to the handler that accepting fails.
const TOLD_AGAIN_AFTER: Duration = Duration::from_secs(10);

impl Engine {
    /// The port for a newcomer. It stays at the port that accepted it, unless that port is far ahead of
    /// another or accepts for all. Otherwise it goes to the port with the fewest sessions whose worker is not
    /// blocked.
    pub(super) fn port_of_newcomer(&self, accepted_at: Option<usize>) -> Option<usize> {
        let now = self.clock.as_ref().filter(|_| self.ports.len() > 1).map(|clock| clock.now());
        let is_blocked = |port: &usize| {
            let turns = &self.ports[*port].turns;
            let blocked = |now| turns.has_lasted(now).is_some_and(|time| time >= BLOCKED_AFTER);
            accepted_at != Some(*port) && now.is_some_and(blocked)
        };
        let load = |port: &usize| self.ports[*port].assigned.load(Ordering::Relaxed);
        let ports = 0..self.ports.len();
        let free = ports.clone().filter(|port| !is_blocked(port)).min_by_key(load);
        let least_loaded = free.or_else(|| ports.min_by_key(load))?;
        let least = load(&least_loaded);
        let load_max = least + least / AHEAD_PART + AHEAD_SESSIONS;
        let near = |port: &usize| self.each_port_accepts && load(port) < load_max;
        Some(accepted_at.filter(near).unwrap_or(least_loaded))
    }

    /// Whether to tell the handler that accepting fails. False if it was told recently.
    pub(crate) fn is_accept_failure_to_be_told(&self, now: Moment) -> bool {
        let again = |told: u64| {
            let is_long_ago = Moment::of_nanos(told).until(now) >= TOLD_AGAIN_AFTER;
            (told == NEVER || is_long_ago).then_some(now.nanos())
        };
        let told = &self.accept_failure_told;
        told.fetch_update(Ordering::Relaxed, Ordering::Relaxed, again).is_ok()
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::clock::Clock;
    use crate::framing::Framing;
    use crate::options::Options;
    use crate::port::Sockets;
    use crate::sync::AtomicU64;

    /// A clock that the test sets, in milliseconds.
    #[derive(Debug, Clone, Default)]
    struct SetClock(Arc<AtomicU64>);

    impl SetClock {
        fn set(&self, millis: u64) -> Moment {
            self.0.store(millis, Ordering::Relaxed);
            self.now()
        }
    }

    impl Clock for SetClock {
        fn now(&self) -> Moment {
            Moment::at(Duration::from_millis(self.0.load(Ordering::Relaxed)))
        }
    }

    fn engine(workers: usize, clock: &SetClock) -> Engine {
        let options = Options::default().workers(workers);
        let mut engine = Engine::new(false, Framing::raw(), options, Sockets::Os);
        engine.accept_at_each_port();
        engine.set_clock(clock.clone());
        engine
    }

    #[test]
    fn a_port_whose_worker_is_blocked_gets_only_what_it_has_accepted_itself() {
        let clock = SetClock::default();
        let engine = engine(3, &clock);
        let goes_to = |accepted_at| engine.port_of_newcomer(accepted_at).unwrap();
        let turns = || engine.ports.iter().map(|port| &port.turns);
        let first = turns().next().unwrap();
        first.begin(0, clock.set(1_000));
        clock.set(1_099);
        assert_eq!(goes_to(None), 0, "a turn may take that long");
        clock.set(1_100);
        assert_eq!(goes_to(None), 1);
        for _ in 0..400 {
            let id = engine.admit(Some(1), 0).unwrap();
            assert_ne!(engine.table.held(id).unwrap().port(), 0);
        }
        let loads: Vec<_> = engine.ports.iter().map(|port| port.assigned_sessions()).collect();
        assert_eq!(loads[0], 0);
        assert!(loads[1].abs_diff(loads[2]) <= 200 / AHEAD_PART + AHEAD_SESSIONS, "{loads:?}");
        assert_eq!(goes_to(Some(0)), 0, "it is not, if it has just accepted one");

        // If all are blocked, being blocked makes no difference.
        turns().skip(1).for_each(|turns| turns.begin(0, clock.now()));
        clock.set(1_200);
        assert_eq!(goes_to(None), 0);
        first.end(0, clock.now(), clock.now());
        clock.set(1 << 40);
        assert_eq!(goes_to(Some(1)), 0, "it waits, and has the fewest");
    }

    #[test]
    fn that_accepting_fails_is_told_at_once_and_then_every_ten_seconds() {
        let clock = SetClock::default();
        let engine = engine(2, &clock);
        let told = |millis| engine.is_accept_failure_to_be_told(clock.set(millis));
        let times = [0, 50, 9_999, 10_000, 10_001, 19_999, 50_000, 55_000];
        let all_told: Vec<_> = times.into_iter().filter(|millis| told(*millis)).collect();
        assert_eq!(all_told, [0, 10_000, 50_000]);
    }
}
