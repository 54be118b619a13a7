//! The timing wheel, compared with a map of deadlines.

use std::collections::BTreeMap;
use std::time::Duration;

use arbitrary::{Arbitrary, Unstructured};

use crate::clock::Moment;
use crate::timer::{TICK, TimerId, TimingWheel};

#[derive(Debug, Arbitrary)]
enum Step {
    Insert {
        span: Span,
    },
    /// Which is counted among all there ever were: most have fired.
    Cancel {
        which: u16,
    },
    /// To just where the wheel asks to be called.
    GoToNext,
    Go {
        span: Span,
    },
}

/// A time, small or large with the same chance: 2^exponent of it, and a little more.
#[derive(Clone, Copy, Debug, Arbitrary)]
struct Span {
    exponent: u8,
    more: u16,
    /// Before now instead of after it.
    passed: bool,
}

/// The target.
pub fn timer(bytes: &[u8]) {
    let mut input = Unstructured::new(bytes);
    let mut run = Run {
        wheel: TimingWheel::new(),
        waiting: BTreeMap::new(),
        ids: Vec::new(),
        now: Moment::default(),
    };
    while let Ok(step) = Step::arbitrary(&mut input)
        && !input.is_empty()
    {
        run.take(step);
    }
    run.end();
}

struct Run {
    wheel: TimingWheel<usize>,
    /// The deadlines by key. A key is the place of its id in `ids`.
    waiting: BTreeMap<usize, Moment>,
    ids: Vec<TimerId>,
    now: Moment,
}

impl Run {
    fn take(&mut self, step: Step) {
        match step {
            Step::Insert { span } => {
                let deadline = span.from(self.now);
                let key = self.ids.len();
                self.ids.push(self.wheel.insert(deadline, key));
                self.waiting.insert(key, deadline);
            }
            Step::Cancel { which } if !self.ids.is_empty() => {
                let key = usize::from(which) % self.ids.len();
                let waited = self.waiting.remove(&key).is_some();
                assert_eq!(self.wheel.cancel(self.ids[key]), waited);
            }
            Step::Cancel { .. } => {}
            Step::GoToNext => {
                let Some(next) = self.wheel.next_deadline() else { return };
                self.advance(self.now.max(next));
            }
            Step::Go { span } => self.advance(self.now.max(span.from(self.now))),
        }
        self.check_next_deadline();
    }

    /// No timer is forgotten, and none fires more than a tick late.
    fn check_next_deadline(&self) {
        let earliest = self.waiting.values().min().map(|deadline| self.now.max(*deadline));
        let next = self.wheel.next_deadline();
        assert_eq!(next.is_some(), earliest.is_some());
        if let (Some(next), Some(earliest)) = (next, earliest) {
            assert!(next < earliest.after(TICK), "it would fire late");
        }
    }

    fn advance(&mut self, now: Moment) {
        self.now = now;
        let mut fired = Vec::new();
        self.wheel.advance(now, &mut fired);
        fired.sort_unstable();
        // A tick that is not over yet holds back what is due within it.
        let tick = TICK.as_nanos() as u64;
        let passed = Moment::of_nanos(now.nanos() / tick * tick);
        let mut due: Vec<_> = Vec::new();
        self.waiting.retain(|key, deadline| {
            let is_due = rounded_up(*deadline) <= passed;
            if is_due {
                due.push(*key);
            }
            !is_due
        });
        assert_eq!(fired, due);
        for key in fired {
            assert!(!self.wheel.cancel(self.ids[key]), "its id is stale");
        }
    }

    fn end(mut self) {
        self.advance(Moment::at(Duration::MAX));
        assert!(self.waiting.is_empty() && self.wheel.next_deadline().is_none());
    }
}

/// The tick at which a deadline is due; those of the last tick before the end of time at its begin.
fn rounded_up(deadline: Moment) -> Moment {
    let tick = TICK.as_nanos() as u64;
    let up = u128::from(deadline.nanos()).div_ceil(tick.into()) * u128::from(tick);
    let last = u64::MAX / tick * tick;
    Moment::of_nanos(u64::try_from(up).unwrap_or(last).min(last))
}

impl Span {
    fn from(self, now: Moment) -> Moment {
        let nanos = (1u64 << (self.exponent % 64)).saturating_add(self.more.into());
        if self.passed {
            return Moment::of_nanos(now.nanos().saturating_sub(nanos));
        }
        now.after(Duration::from_nanos(nanos))
    }
}
