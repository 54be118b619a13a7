//! A failing case made small: fewer steps, peers and threads, fewer faults, fewer firings, for as long as
//! the same rule is broken.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use wharf::Error;

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
        Ok(Outcome { violation, firings, .. }) if !stop.load(Ordering::Relaxed) => {
            Judged { fails: violation.is_some_and(|broken| broken.rule == rule), firings }
        }
        _ => Judged { fails: false, firings: 0 },
    };
    let begun = Instant::now();
    let is_over = || begun.elapsed() >= patience || stop.load(Ordering::Relaxed);
    let (case, runs) = smallest(case, &is_over, &judge);
    Ok(Shrunk { outcome: run(&case, true)?, case, runs })
}

/// What is to be known of a run.
struct Judged {
    fails: bool,
    firings: u64,
}

/// The smallest case that is found until it is over, and how many were tried.
fn smallest(
    case: &Case,
    is_over: &dyn Fn() -> bool,
    judge: &dyn Fn(&Case) -> Judged,
) -> (Case, u32) {
    let mut search = Search { best: case.clone(), judge, is_over, runs: 0 };
    loop {
        let before = search.best.clone();
        search.fewer_of(|size| &mut size.steps);
        search.fewer_of(|size| &mut size.peers);
        search.fewer_of(|size| &mut size.senders);
        search.fewer_workers();
        search.fewer_faults();
        search.fewer_firings();
        if search.best == before || (search.is_over)() {
            break;
        }
    }
    (search.best, search.runs)
}

struct Search<'a> {
    best: Case,
    judge: &'a dyn Fn(&Case) -> Judged,
    is_over: &'a dyn Fn() -> bool,
    runs: u32,
}

impl Search<'_> {
    /// Keeps the case if it still breaks the rule.
    fn try_case(&mut self, case: Case) -> bool {
        if case == self.best || (self.is_over)() {
            return false;
        }
        self.runs += 1;
        let fails = (self.judge)(&case).fails;
        if fails {
            self.best = case;
        }
        fails
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
        let present: Vec<_> = self.best.faults().present().collect();
        for fault in present {
            let mut case = self.best.clone();
            case.without.push(fault);
            self.try_case(case);
        }
    }

    /// Mutes firings: the larger part of them first, then what is left one by one.
    fn fewer_firings(&mut self) {
        let firings = (self.judge)(&self.best).firings;
        let mut length = firings.next_power_of_two();
        while length > 0 && !(self.is_over)() {
            let mut start = 0;
            while start < firings {
                let mut case = self.best.clone();
                let range = start..(start + length).min(firings);
                let is_muted = case.muted.iter().any(|muted| muted.contains(&start));
                if !is_muted {
                    case.muted.push(range);
                    self.try_case(case);
                }
                start += length;
            }
            if firings / length > 64 {
                break; // as fine as patience allows
            }
            length /= 2;
        }
        self.join_muted();
    }

    fn join_muted(&mut self) {
        let muted = &mut self.best.muted;
        muted.sort_by_key(|range| range.start);
        let mut joined: Vec<std::ops::Range<u64>> = Vec::new();
        for range in muted.drain(..) {
            match joined.last_mut().filter(|last| last.end >= range.start) {
                Some(last) => last.end = last.end.max(range.end),
                None => joined.push(range),
            }
        }
        *muted = joined;
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use wharf::simulation::Fault;

    use super::*;
    use crate::scenario::Scenario;

    /// A run that fails by one firing, of a fault that must be there, and only when it lasts long enough.
    fn judged(case: &Case) -> Judged {
        let is_muted = |firing| case.muted.iter().any(|range| range.contains(&firing));
        let long_enough = case.size.steps >= 77 && case.size.peers >= 3;
        let there = !case.without.contains(&Fault::SendInPart);
        Judged { fails: long_enough && there && !is_muted(19), firings: 64 }
    }

    #[test]
    fn a_case_becomes_as_small_as_what_it_fails_by() {
        let tried = Cell::new(0);
        let judge = |case: &Case| {
            tried.set(tried.get() + 1);
            judged(case)
        };
        let (case, runs) = smallest(&Case::new(Scenario::Mixed, 4), &|| false, &judge);
        assert!(judged(&case).fails, "{case:?}");
        assert_eq!((case.size.steps, case.size.peers), (77, 3));
        assert_eq!((case.size.senders, case.size.workers), (0, 1));
        assert_eq!(case.muted, [0..19, 20..64], "all but the one");
        assert!(!case.without.is_empty() && !case.without.contains(&Fault::SendInPart));
        assert!(runs <= tried.get());
    }

    #[test]
    fn when_there_is_no_time_the_case_stays_as_it_is() {
        let case = Case::new(Scenario::Mixed, 4);
        let (same, runs) = smallest(&case, &|| true, &judged);
        assert_eq!((same, runs), (case, 0));
    }
}
