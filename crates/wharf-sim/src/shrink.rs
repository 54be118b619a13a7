//! A failing case made small: fewer steps, peers and threads, fewer faults, fewer firings, for as long as
//! the same rule is broken.

use std::time::{Duration, Instant};

use crate::driver::{Outcome, run};
use crate::scenario::{Case, Size};
use crate::truth::Rule;

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

/// Makes a case smaller in which this rule is broken, for at most so long.
pub fn shrink(case: &Case, rule: Rule, patience: Duration) -> Shrunk {
    let mut search = Search { best: case.clone(), rule, end: Instant::now() + patience, runs: 0 };
    loop {
        let before = search.best.clone();
        search.fewer_of(|size| &mut size.steps);
        search.fewer_of(|size| &mut size.peers);
        search.fewer_of(|size| &mut size.senders);
        search.fewer_workers();
        search.fewer_faults();
        search.fewer_firings();
        if search.best == before || search.is_over() {
            break;
        }
    }
    let outcome = run(&search.best, true);
    Shrunk { case: search.best, outcome, runs: search.runs }
}

struct Search {
    best: Case,
    rule: Rule,
    end: Instant,
    runs: u32,
}

impl Search {
    fn is_over(&self) -> bool {
        Instant::now() >= self.end
    }

    /// Keeps the case if it still breaks the rule.
    fn try_case(&mut self, case: Case) -> bool {
        if case == self.best || self.is_over() {
            return false;
        }
        self.runs += 1;
        let outcome = run(&case, false);
        let fails = outcome.violation.is_some_and(|violation| violation.rule == self.rule);
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
        let firings = run(&self.best, false).firings;
        let mut length = firings.next_power_of_two();
        while length > 0 && !self.is_over() {
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
