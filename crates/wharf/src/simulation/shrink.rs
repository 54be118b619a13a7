//! Makes a failing run small: leaves out faults, and firings of the others, as long as it still fails.

use std::ops::Range;

use crate::port::simulated::{Fault, LeftOut};

/// The faults that happened in a run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fired {
    /// Of which kinds.
    pub faults: Vec<Fault>,
    /// How many in all, those included that were left out.
    pub firings: u64,
}

impl Fired {
    /// `times`: how often each fault has happened.
    pub fn new(times: impl IntoIterator<Item = (Fault, u64)>, firings: u64) -> Self {
        let faults = times.into_iter().filter(|(_, times)| *times > 0).map(|(fault, _)| fault);
        Fired { faults: faults.collect(), firings }
    }
}

/// A round of the search stops splitting ranges of firings when there are more than this.
const RANGES_MAX: usize = 128;

/// Leaves out more and more of a run that fails with `fired`, until nothing more can be left out. `run` tries
/// one. `None`: it does not fail, or there is no time left for it.
pub fn shrink(
    left_out: &mut LeftOut,
    fired: Fired,
    run: &mut dyn FnMut(&LeftOut) -> Option<Fired>,
) {
    let mut search = Search { left_out, fired, run };
    loop {
        let before = search.left_out.clone();
        search.leave_out_faults();
        search.mute_firings();
        if *search.left_out == before {
            break;
        }
    }
}

struct Search<'a> {
    left_out: &'a mut LeftOut,
    fired: Fired,
    run: &'a mut dyn FnMut(&LeftOut) -> Option<Fired>,
}

impl Search<'_> {
    /// Keeps what is left out if the run still fails.
    fn try_one(&mut self, left_out: LeftOut) -> bool {
        let Some(fired) = (self.run)(&left_out) else { return false };
        (*self.left_out, self.fired) = (left_out, fired);
        true
    }

    fn leave_out_faults(&mut self) {
        let faults = self.fired.faults.clone();
        let mut all = self.left_out.clone();
        all.without.extend(&faults);
        if faults.is_empty() || self.try_one(all) {
            return;
        }
        for fault in faults {
            let mut left_out = self.left_out.clone();
            left_out.without.push(fault);
            self.try_one(left_out);
        }
    }

    /// Mutes all firings at once, else each half of them, and so on.
    fn mute_firings(&mut self) {
        let whole = 0..self.fired.firings;
        let mut ranges = vec![whole];
        while !ranges.is_empty() && ranges.len() <= RANGES_MAX {
            ranges.retain(|range| !range.is_empty() && !self.mutes(range));
            let needed: Vec<_> = ranges.into_iter().filter(|range| !self.mute(range)).collect();
            let large = needed.into_iter().filter(|range| range.end - range.start > 1);
            ranges = large.flat_map(halves).collect();
        }
    }

    fn mutes(&self, range: &Range<u64>) -> bool {
        let contains = |muted: &Range<u64>| muted.start <= range.start && range.end <= muted.end;
        self.left_out.muted.iter().any(contains)
    }

    fn mute(&mut self, range: &Range<u64>) -> bool {
        let mut left_out = self.left_out.clone();
        left_out.muted.push(range.clone());
        left_out.muted = joined(left_out.muted);
        self.try_one(left_out)
    }
}

fn halves(range: Range<u64>) -> [Range<u64>; 2] {
    let middle = range.start + (range.end - range.start) / 2;
    [range.start..middle, middle..range.end]
}

/// The same numbers in as few ranges as possible, in order.
fn joined(mut ranges: Vec<Range<u64>>) -> Vec<Range<u64>> {
    ranges.sort_by_key(|range| range.start);
    let mut joined: Vec<Range<u64>> = Vec::new();
    for range in ranges {
        match joined.last_mut().filter(|last| last.end >= range.start) {
            Some(last) => last.end = last.end.max(range.end),
            None => joined.push(range),
        }
    }
    joined
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A run of many firings, which fails only if these happen and these faults are there.
    fn smallest(needed: &[u64], faults: &[Fault]) -> (LeftOut, u32) {
        let fired = |left_out: &LeftOut| Fired {
            faults: Fault::ALL
                .iter()
                .copied()
                .filter(|one| !left_out.without.contains(one))
                .collect(),
            firings: 1_000,
        };
        let (mut left_out, mut runs) = (LeftOut::default(), 0);
        let mut run = |left_out: &LeftOut| {
            runs += 1;
            let is_muted = |firing| left_out.muted.iter().any(|range| range.contains(firing));
            let is_without = faults.iter().any(|fault| left_out.without.contains(fault));
            (!is_without && !needed.iter().any(is_muted)).then(|| fired(left_out))
        };
        let all = fired(&left_out);
        shrink(&mut left_out, all, &mut run);
        (left_out, runs)
    }

    #[test]
    fn all_is_left_out_but_what_a_run_fails_by() {
        let (left_out, _) = smallest(&[19, 700], &[Fault::SendInPart]);
        assert_eq!(left_out.muted, [0..19, 20..700, 701..1_000]);
        assert_eq!(left_out.without.len(), Fault::ALL.len() - 1);
        assert!(!left_out.without.contains(&Fault::SendInPart));
    }

    #[test]
    fn a_run_that_fails_by_itself_is_found_out_in_a_few_runs() {
        let (left_out, runs) = smallest(&[], &[]);
        assert_eq!(left_out.without, Fault::ALL);
        assert!(runs < 5, "{runs}");
    }

    #[test]
    fn nothing_is_left_out_of_a_run_that_fails_no_more() {
        let mut left_out = LeftOut::default();
        let fired = Fired { faults: Fault::ALL.to_vec(), firings: 1_000 };
        shrink(&mut left_out, fired, &mut |_| None);
        assert_eq!(left_out, LeftOut::default());
    }
}
