//! As before? wharf of this tree beside wharf of an earlier commit, in pairs, until the median of the
//! pairs' ratios is known well enough.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::Failure;
use crate::build::Built;
use crate::figures::Spread;
use crate::measure::{Found, Outcome, measure_binary};
use crate::order::shuffled;
use crate::peers::Peer;
use crate::provenance::Provenance;
use crate::report::{warn_of_others, write_json};
use crate::rounds::{Plan, Progress, able};
use crate::workloads::{Measure, Workload};

/// What is measured if nothing else is asked for.
pub(crate) const WORKLOADS: [&str; 4] = ["echo-64x50", "echo-64x1000", "broadcast-500", "send-2"];
pub(crate) const ROUNDS_MIN: usize = 10;
/// With more rounds than this, 0.5 to their number is no longer a normal `f64`.
pub(crate) const ROUNDS_MAX: usize = 1000;
/// How far the ends of the interval may lie from the median, as a part of it.
const HALF_WIDTH_MAX: f64 = 0.01;
/// The ratio that the interval must not lie above.
const RATIO_MAX: f64 = 1.01;
/// How likely the interval may miss the median.
const MISS_MAX: f64 = 0.05;

/// The median of some values, and its 95 % interval: within it lies the median of all values that there
/// could be, with that probability or a higher one.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
struct Interval {
    median: f64,
    low: f64,
    high: f64,
}

impl Interval {
    /// None of fewer than six values, which cannot say so much, or of what is no number.
    ///
    /// The ends are two of the sorted values `x(1)..x(n)`. Each value is below the true median with a
    /// probability of 1/2, so how many are is binomial, whatever the values' distribution:
    ///
    /// `P(x(r) <= median <= x(n + 1 - r)) >= 1 - 2 * sum of C(n, i) / 2^n for i = 0..=r - 1`
    ///
    /// and `r` is the largest for which this is 0.95 or more (H. A. David and H. N. Nagaraja, Order
    /// Statistics, 3rd edition, section 7.1).
    fn of(values: &[f64]) -> Option<Interval> {
        let rank = rank(values.len())?;
        let median = Spread::of(values.iter().copied())?.median;
        let mut sorted = values.to_vec();
        sorted.sort_unstable_by(f64::total_cmp);
        Some(Interval { median, low: sorted[rank - 1], high: sorted[sorted.len() - rank] })
    }

    fn is_narrow(&self) -> bool {
        let width_max = HALF_WIDTH_MAX * self.median;
        self.median - self.low <= width_max && self.high - self.median <= width_max
    }

    fn verdict(&self) -> Verdict {
        if self.low <= RATIO_MAX { Verdict::Kept } else { Verdict::Slower }
    }
}

impl fmt::Display for Interval {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>6.3}  {:.3} to {:.3}", self.median, self.low, self.high)
    }
}

/// `r` of [`Interval::of`] for so many values, if there is one.
fn rank(values: usize) -> Option<usize> {
    let mut term = 0.5_f64.powi(i32::try_from(values).ok()?); // C(n, 0) / 2^n
    let (mut sum, mut rank) = (term, 0);
    while 2.0 * sum <= MISS_MAX && rank < values {
        term *= (values - rank) as f64 / (rank + 1) as f64;
        sum += term;
        rank += 1;
    }
    (rank > 0).then_some(rank)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    Kept,
    Slower,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Verdict::Kept => "kept",
            Verdict::Slower => "slower",
        })
    }
}

/// Both servers, measured one right after the other.
#[derive(Debug, Serialize)]
struct Pair {
    before: Found,
    now: Found,
}

impl Pair {
    fn measure(
        before: &Path,
        built: &Built,
        peer: &Peer,
        workload: &Workload,
        secs: f64,
    ) -> Result<Pair, Failure> {
        let now = built.binary(peer.binary());
        let (mut found_before, mut found_now) = (None, None);
        let sides =
            vec![("before", before, &mut found_before), ("now", now.as_path(), &mut found_now)];
        for (side, binary, found) in shuffled(sides) {
            let measured = measure_binary(binary, built, peer, workload, secs);
            *found = Some(measured.map_err(|failure| format!("{side}: {failure}"))?);
        }
        match (found_before, found_now) {
            (Some(before), Some(now)) => Ok(Pair { before, now }),
            _ => Err("a side was not measured".into()),
        }
    }

    /// CPU time for each operation, now : before.
    fn ratio(&self) -> f64 {
        self.now.figure(Measure::Cpu) / self.before.figure(Measure::Cpu)
    }

    fn others_share(&self) -> f64 {
        self.before.others_share().max(self.now.others_share())
    }
}

/// All rounds of one workload on one port.
#[derive(Debug, Serialize)]
struct Pairs {
    #[serde(flatten)]
    interval: Interval,
    verdict: Verdict,
    rounds: usize,
    others_share: f64,
    pairs: Vec<Pair>,
}

impl Pairs {
    /// Takes pairs until the interval is narrow or there are as many as there may be.
    fn take(
        rounds_max: usize,
        mut pair: impl FnMut(usize) -> Result<Pair, Failure>,
        mut progress: impl FnMut(usize, f64, Option<Interval>),
    ) -> Result<Pairs, Failure> {
        let (mut pairs, mut ratios) = (Vec::new(), Vec::new());
        let mut interval = None;
        while pairs.len() < rounds_max {
            let pair = pair(pairs.len() + 1)?;
            let ratio = pair.ratio();
            if !ratio.is_finite() {
                return Err("there is no ratio".into());
            }
            pairs.push(pair);
            ratios.push(ratio);
            interval = Interval::of(&ratios);
            progress(pairs.len(), ratio, interval);
            if pairs.len() >= ROUNDS_MIN && interval.is_some_and(|it| it.is_narrow()) {
                break;
            }
        }
        let interval = interval.ok_or("these are too few rounds for an interval")?;
        let others = Spread::of(pairs.iter().map(Pair::others_share));
        Ok(Pairs {
            interval,
            verdict: interval.verdict(),
            rounds: pairs.len(),
            others_share: others.map_or(0.0, |it| it.median),
            pairs,
        })
    }
}

#[derive(Serialize)]
struct Row {
    workload: &'static str,
    port: &'static str,
    #[serde(flatten)]
    outcome: Outcome<Pairs>,
}

impl Row {
    fn is_kept(&self) -> bool {
        self.outcome.good().is_some_and(|it| it.verdict == Verdict::Kept)
    }
}

#[derive(Serialize)]
struct Report {
    /// What is divided: now : before; less is better.
    figure: &'static str,
    before: PathBuf,
    #[serde(flatten)]
    provenance: Provenance,
    secs: f64,
    rows: Vec<Row>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\n{}, now : before", self.figure)?;
        writeln!(
            f,
            "{:<16} {:<10} {:>6}  {:>6}  {:<15}  verdict",
            "workload", "port", "rounds", "median", "95 % interval"
        )?;
        for Row { workload, port, outcome } in &self.rows {
            write!(f, "{workload:<16} {port:<10} ")?;
            match outcome {
                Outcome::Good(Pairs { rounds, interval, verdict, .. }) => {
                    writeln!(f, "{rounds:>6}  {interval}  {verdict}")?;
                }
                Outcome::Failed { failed } => writeln!(f, "FAILED: {failed}")?,
            }
        }
        let good = self.rows.iter().filter_map(|row| row.outcome.good());
        warn_of_others(f, good.map(|it| it.others_share))
    }
}

/// Measures, prints, and says whether all is as before.
pub(crate) fn run(
    before: &Path,
    plan: Plan,
    workloads: &[&Workload],
    json: Option<&Path>,
) -> Result<bool, Failure> {
    if !before.is_file() {
        return Err(format!("{}: there is no such binary", before.display()).into());
    }
    let provenance = Provenance::of_this_run()?;
    let built = Built::wharf(Path::new(env!("CARGO_MANIFEST_DIR")))?;
    let cells = workloads.iter().map(|workload| able(&built, workload).len()).sum::<usize>();
    let progress = Progress::over(cells * plan.rounds);
    let mut rows = Vec::new();
    for workload in workloads {
        for peer in able(&built, workload) {
            let outcome = Outcome::from(pairs(before, plan, &built, peer, workload, &progress));
            let port = peer.name.trim_start_matches("wharf-");
            rows.push(Row { workload: workload.name, port, outcome });
        }
    }
    drop(progress);
    let figure = Measure::Cpu.what();
    let report = Report { figure, before: before.to_owned(), provenance, secs: plan.secs, rows };
    print!("{report}");
    if let Some(path) = json {
        write_json(&report, path)?;
    }
    Ok(report.rows.iter().all(Row::is_kept))
}

fn pairs(
    before: &Path,
    plan: Plan,
    built: &Built,
    peer: &Peer,
    workload: &Workload,
    progress: &Progress,
) -> Result<Pairs, Failure> {
    let mut done = 0;
    let pairs = Pairs::take(
        plan.rounds,
        |round| {
            progress.say_next(format!("{} {} {round}/{}", workload.name, peer.name, plan.rounds));
            Pair::measure(before, built, peer, workload, plan.secs)
        },
        |round, ratio, interval| {
            done = round;
            progress.skip(1);
            let interval = interval.map_or_else(String::new, |it| format!("median {it}"));
            let place = format!("{} {} {round}/{}", workload.name, peer.name, plan.rounds);
            progress.say(|| println!("{place:<42} {ratio:>6.3}  {interval}"));
        },
    );
    progress.skip(plan.rounds - done);
    pairs
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A pair of which the ratio is this.
    fn pair(ratio: f64) -> Pair {
        let found = |cpu_s| Found { operations: 1, server_cpu_s: cpu_s, ..Found::default() };
        Pair { before: found(1.0), now: found(ratio) }
    }

    /// What is taken of these ratios, over and over.
    fn taken(rounds_max: usize, ratios: &[f64]) -> Pairs {
        let ratio = |round: usize| ratios[(round - 1) % ratios.len()];
        Pairs::take(rounds_max, |round| Ok(pair(ratio(round))), |_, _, _| {}).unwrap()
    }

    fn interval(low: f64, high: f64) -> Interval {
        Interval { median: f64::midpoint(low, high), low, high }
    }

    #[test]
    fn the_ranks_of_the_interval_are_those_of_the_published_tables() {
        let known = [
            (6, 1),
            (8, 1),
            (9, 2),
            (10, 2),
            (12, 3),
            (15, 4),
            (17, 5),
            (20, 6),
            (25, 8),
            (30, 10),
            (40, 14),
            (50, 18),
            (70, 27),
            (100, 40),
        ];
        for (values, expected) in known {
            assert_eq!(rank(values), Some(expected), "of {values} values");
        }
    }

    #[test]
    fn the_interval_holds_the_median_in_95_of_100_cases_and_the_next_narrower_does_not() {
        for values in 6..=30_u64 {
            // Whole numbers: of 2^n equally likely cases, in so many at most r - 1 values are below.
            let choose = |i: u64| (0..i).fold(1_u64, |c, j| c * (values - j) / (j + 1));
            let missed = |rank: u64| 2 * (0..rank).map(choose).sum::<u64>();
            let rank = rank(values as usize).unwrap() as u64;
            let cases = 1_u64 << values;
            assert!(missed(rank) * 20 <= cases, "of {values} values");
            assert!(missed(rank + 1) * 20 > cases, "of {values} values");
        }
    }

    #[test]
    fn fewer_than_six_values_have_no_interval() {
        for values in 0..6 {
            assert_eq!(Interval::of(&vec![1.0; values]), None);
        }
        assert!(rank(ROUNDS_MAX).is_some_and(|rank| (460..500).contains(&rank)));
    }

    #[test]
    fn the_interval_is_between_two_of_the_sorted_values() {
        let values: Vec<f64> = (1..=20).rev().map(f64::from).collect();
        let found = Interval::of(&values);
        assert_eq!(found, Some(Interval { median: 10.5, low: 6.0, high: 15.0 }));
        assert_eq!(Interval::of(&[f64::NAN; 20]), None);
    }

    #[test]
    fn it_stops_after_ten_rounds_if_the_ratios_agree() {
        let pairs = taken(100, &[1.0]);
        assert_eq!((pairs.rounds, pairs.interval), (ROUNDS_MIN, interval(1.0, 1.0)));
        assert_eq!(taken(100, &[0.995, 1.005]).rounds, ROUNDS_MIN);
    }

    #[test]
    fn it_goes_on_until_the_interval_is_narrow() {
        // Up to 14 values it begins at the third at most, from 15 on at the fourth.
        let mut ratios = vec![1.0; 40];
        ratios[..3].fill(0.9);
        let pairs = taken(100, &ratios);
        assert_eq!((pairs.rounds, pairs.interval), (15, interval(1.0, 1.0)));
    }

    #[test]
    fn it_stops_at_the_last_round_if_the_interval_stays_wide() {
        let pairs = taken(30, &[0.9, 1.1]);
        assert_eq!((pairs.rounds, pairs.interval), (30, interval(0.9, 1.1)));
        assert_eq!(pairs.verdict, Verdict::Kept);
    }

    #[test]
    fn the_half_width_is_a_part_of_the_median() {
        assert!(interval(1.981, 2.019).is_narrow());
        assert!(!interval(0.98, 1.02).is_narrow());
        assert!(!Interval { median: 1.0, low: 0.98, high: 1.0 }.is_narrow());
        assert!(!Interval { median: 1.0, low: 1.0, high: 1.02 }.is_narrow());
    }

    #[test]
    fn slower_is_what_lies_above_the_bound_as_a_whole() {
        assert_eq!(interval(0.9, 0.95).verdict(), Verdict::Kept);
        assert_eq!(interval(1.01, 1.2).verdict(), Verdict::Kept);
        assert_eq!(interval(1.0101, 1.0102).verdict(), Verdict::Slower);
    }

    #[test]
    fn a_side_that_fails_leaves_no_figure_and_is_not_as_before() {
        let failed = Pairs::take(100, |_| Err("now: it ended".into()), |_, _, _| {});
        let row = Row { workload: "echo", port: "uring", outcome: Outcome::from(failed) };
        assert!(!row.is_kept());
        let kept =
            Row { workload: "echo", port: "uring", outcome: Outcome::Good(taken(10, &[1.0])) };
        assert!(kept.is_kept());
        let slower =
            Row { workload: "echo", port: "uring", outcome: Outcome::Good(taken(10, &[1.1])) };
        assert!(!slower.is_kept());
    }

    #[test]
    fn a_server_that_took_no_time_before_has_no_ratio() {
        let nothing = || Pair { before: Found::default(), now: Found::default() };
        let taken = Pairs::take(100, |_| Ok(nothing()), |_, _, _| {});
        assert_eq!(taken.unwrap_err().to_string(), "there is no ratio");
    }
}
