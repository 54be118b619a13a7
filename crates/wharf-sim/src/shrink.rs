//! Shrinks a failing case: fewer steps, peers, threads, faults and firings, as long as the same rule is
//! broken.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use wharf::Error;
use wharf::simulation::for_wharf_sim::{self, Fired};

use crate::driver::{Outcome, run, run_until};
use crate::rules::Rule;
use crate::scenario::{Case, Size};

/// The smallest case that was found, and how it went.
#[derive(Debug)]
pub struct Shrunk {
    /// The case.
    pub case: Case,
    /// Its outcome, with the trace of what the violation is about.
    pub outcome: Outcome,
    /// How many runs it took.
    pub runs: u32,
}

/// Makes a case smaller in which this rule is broken, for at most so long, or until it is to stop.
///
/// # Errors
/// As [`run`] of the smallest that was found.
pub fn shrink(
    case: &Case,
    rule: Rule,
    patience: Duration,
    stop: &AtomicBool,
) -> Result<Shrunk, Error> {
    // One that cannot be run, or is cut short, breaks nothing.
    let judge = |case: &Case| match run_until(case, false, stop) {
        Ok(Outcome { violation: Some(broken), fired, firings, .. })
            if broken.rule == rule && !stop.load(Ordering::Relaxed) =>
        {
            Some(Fired::new(fired, firings))
        }
        _ => None,
    };
    let begun = Instant::now();
    let is_over = || begun.elapsed() >= patience || stop.load(Ordering::Relaxed);
    let (case, runs) = smallest(case, &is_over, &judge);
    Ok(Shrunk { outcome: run(&case, true)?, case, runs })
}

/// Runs a case, and says which faults happened. `None`: it does not break the rule.
type Judge<'a> = &'a dyn Fn(&Case) -> Option<Fired>;

/// The smallest case that is found until it is over, and how many were tried.
fn smallest(case: &Case, is_over: &dyn Fn() -> bool, judge: Judge<'_>) -> (Case, u32) {
    let mut search = Search { best: case.clone(), judge, is_over, runs: 0 };
    loop {
        let before = search.best.clone();
        search.fewer_of(|size| &mut size.steps);
        search.fewer_of(|size| &mut size.peers);
        search.fewer_of(|size| &mut size.senders);
        search.fewer_workers();
        search.fewer_faults();
        if search.best == before || (search.is_over)() {
            break;
        }
    }
    (search.best, search.runs)
}

struct Search<'a> {
    best: Case,
    judge: Judge<'a>,
    is_over: &'a dyn Fn() -> bool,
    runs: u32,
}

impl Search<'_> {
    /// Keeps the case if it still breaks the rule.
    fn try_case(&mut self, case: Case) -> bool {
        if case == self.best {
            return false;
        }
        let fails = self.judge(&case).is_some();
        if fails {
            self.best = case;
        }
        fails
    }

    fn judge(&mut self, case: &Case) -> Option<Fired> {
        if (self.is_over)() {
            return None;
        }
        self.runs += 1;
        (self.judge)(case)
    }

    /// Halves a number while that works, then takes ever smaller parts off it.
    fn fewer_of(&mut self, number: fn(&mut Size) -> &mut u32) {
        let mut part = 2;
        loop {
            let mut case = self.best.clone();
            let value = number(&mut case.size);
            let less = *value / part;
            if less == 0 {
                break;
            }
            *value -= less;
            if !self.try_case(case) {
                part *= 2;
            }
        }
        let mut case = self.best.clone();
        *number(&mut case.size) = 0;
        self.try_case(case);
    }

    fn fewer_workers(&mut self) {
        for workers in 1..=3 {
            if self.best.size.workers != 0 && workers >= self.best.size.workers {
                break;
            }
            let mut case = self.best.clone();
            case.size.workers = workers;
            if self.try_case(case) {
                break;
            }
        }
    }

    fn fewer_faults(&mut self) {
        let case = self.best.clone();
        let Some(fired) = self.judge(&case) else { return };
        let mut left_out = case.left_out.clone();
        for_wharf_sim::shrink(&mut left_out, fired, &mut |left_out| {
            self.judge(&Case { left_out: left_out.clone(), ..case.clone() })
        });
        self.best.left_out = left_out;
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use wharf::simulation::Fault;
    use wharf::simulation::for_wharf_sim::LeftOut;

    use super::*;
    use crate::scenario::Scenario;

    /// A run that fails by one firing, of a fault that must be there, and only when it lasts long enough.
    fn judged(case: &Case) -> Option<Fired> {
        let LeftOut { without, muted } = &case.left_out;
        let is_muted = |firing| muted.iter().any(|range| range.contains(&firing));
        let long_enough = case.size.steps >= 77 && case.size.peers >= 3;
        let fails = long_enough && !without.contains(&Fault::SendInPart) && !is_muted(19);
        let fired = Fault::ALL.iter().copied().filter(|fault| !without.contains(fault));
        fails.then(|| Fired { faults: fired.collect(), firings: 64 })
    }

    #[test]
    fn a_case_becomes_as_small_as_what_it_fails_by() {
        let tried = Cell::new(0);
        let judge = |case: &Case| {
            tried.set(tried.get() + 1);
            judged(case)
        };
        let (case, runs) = smallest(&Case::new(Scenario::Mixed, 4), &|| false, &judge);
        assert!(judged(&case).is_some(), "{case:?}");
        assert_eq!((case.size.steps, case.size.peers), (77, 3));
        assert_eq!((case.size.senders, case.size.workers), (0, 1));
        assert_eq!(case.left_out.muted, [0..19, 20..64], "all but the one");
        assert_eq!(case.left_out.without.len(), Fault::ALL.len() - 1);
        assert_eq!(runs, tried.get());
    }

    #[test]
    fn when_there_is_no_time_the_case_stays_as_it_is() {
        let case = Case::new(Scenario::Mixed, 4);
        let (same, runs) = smallest(&case, &|| true, &judged);
        assert_eq!((same, runs), (case, 0));
    }
}
