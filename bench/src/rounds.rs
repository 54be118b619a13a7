//! The rounds of one workload: in each, all peers once, in random order.

use std::collections::{BTreeMap, BTreeSet};

use indicatif::{ProgressBar, ProgressStyle};

use crate::build::Built;
use crate::figures::Count;
use crate::measure::{Found, Outcome, measure};
use crate::order::shuffled;
use crate::peers::Peer;
use crate::workloads::Workload;

#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    pub(crate) rounds: usize,
    pub(crate) secs: f64,
}

/// By peer, what was found or why nothing was.
pub(crate) type Round = BTreeMap<&'static str, Outcome<Found>>;

pub(crate) struct Progress {
    bar: ProgressBar,
}

impl Progress {
    pub(crate) fn new(plan: Plan, built: &Built, workloads: &[&Workload]) -> Progress {
        let cells = workloads.iter().map(|workload| able(built, workload).len()).sum::<usize>();
        Progress::over(cells * plan.rounds)
    }

    /// Of so many steps.
    pub(crate) fn over(steps: usize) -> Progress {
        let style = ProgressStyle::with_template("[{bar:32}] {pos}/{len}  {msg}  ({eta} left)");
        let bar = ProgressBar::new(steps as u64)
            .with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        Progress { bar }
    }

    /// So many steps are done, or will not be needed.
    pub(crate) fn skip(&self, steps: usize) {
        self.bar.inc(steps as u64);
    }

    /// Shows what is done next.
    pub(crate) fn say_next(&self, next: String) {
        self.bar.set_message(next);
    }

    /// Prints something that stays.
    pub(crate) fn say(&self, print: impl FnOnce()) {
        self.bar.suspend(print);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// Those that can do this workload.
pub(crate) fn able(built: &Built, workload: &Workload) -> Vec<&'static Peer> {
    built.peers.iter().copied().filter(|peer| peer.faces.contains(&workload.face)).collect()
}

pub(crate) fn run(
    plan: Plan,
    workload: &Workload,
    built: &Built,
    progress: &Progress,
) -> Vec<Round> {
    let mut failed = BTreeSet::new();
    let mut rounds = Vec::new();
    for number in 1..=plan.rounds {
        let mut round = Round::new();
        for peer in shuffled(able(built, workload)) {
            progress.bar.inc(1);
            // Who has failed once has no figure any more.
            if failed.contains(peer.name) {
                continue;
            }
            let place = format!("{} {number}/{}", workload.name, plan.rounds);
            progress.bar.set_message(format!("{place} {}", peer.name));
            let outcome = Outcome::from(measure(built, peer, workload, plan.secs));
            progress.say(|| match &outcome {
                Outcome::Good(found) => {
                    println!("{place:<24} {:<24} {}", peer.name, line(workload, found));
                }
                Outcome::Failed { failed } => {
                    println!("{place:<24} {:<24} FAILED: {failed}", peer.name);
                }
            });
            if outcome.good().is_none() {
                failed.insert(peer.name);
            }
            round.insert(peer.name, outcome);
        }
        rounds.push(round);
    }
    rounds
}

fn line(workload: &Workload, found: &Found) -> String {
    format!(
        "{:>9.2} {:<9}  {:>9}/s  server {:>3.0} %, load {:>3.0} %",
        found.figure(workload.measure),
        workload.measure.unit(),
        Count(found.operations_per_s()),
        found.server_share() * 100.0,
        found.load_share() * 100.0,
    )
}
