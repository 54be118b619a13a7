//! What a workload showed: as text for a person, as JSON for a program.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::Path;

use serde::Serialize;

use crate::Failure;
use crate::build::Built;
use crate::figures::{Count, Spread};
use crate::measure::{Found, Outcome};
use crate::peers::{RING, TOKIO, WHARF};
use crate::provenance::Provenance;
use crate::rounds::{Plan, Round, able};
use crate::workloads::{Measure, Workload};

/// More of a core than this, taken by others, makes figures doubtful.
const OTHERS_SHARE_MAX: f64 = 0.1;

#[derive(Serialize)]
pub(crate) struct Report<'a> {
    pub(crate) workload: &'static str,
    pub(crate) what: &'static str,
    /// What `figure` is; less is better.
    pub(crate) figure: &'static str,
    pub(crate) operation: &'static str,
    #[serde(flatten)]
    pub(crate) provenance: &'a Provenance,
    rounds: usize,
    secs: f64,
    server: &'static str,
    load: &'static str,
    /// In the order of their figures, the best first.
    pub(crate) peers: Vec<Row>,
    left_out: BTreeMap<&'static str, String>,
    measurements: &'a [Round],
    #[serde(skip)]
    measure: Measure,
}

/// One peer over all rounds.
#[derive(Serialize)]
pub(crate) struct Row {
    pub(crate) peer: &'static str,
    #[serde(flatten)]
    pub(crate) outcome: Outcome<Summary>,
}

#[derive(Serialize)]
pub(crate) struct Summary {
    pub(crate) figure: Spread,
    /// Within each round.
    pub(crate) ratio_to_wharf: Option<Spread>,
    pub(crate) ratio_to_ring: Option<Spread>,
    pub(crate) ratio_to_tokio: Option<Spread>,
    operations_per_s: f64,
    server_cpu_us_per_operation: f64,
    latency_p50_us: f64,
    latency_p99_us: f64,
    /// Parts of a core, medians.
    server_share: f64,
    load_share: f64,
    /// What the rest of the machine was doing: with more than a little, figures mean nothing.
    others_share: f64,
    limit: &'static str,
}

impl Report<'_> {
    pub(crate) fn new<'a>(
        workload: &Workload,
        plan: Plan,
        provenance: &'a Provenance,
        built: &Built,
        rounds: &'a [Round],
    ) -> Report<'a> {
        let mut peers: Vec<Row> = able(built, workload)
            .iter()
            .map(|peer| Row { peer: peer.name, outcome: outcome(peer.name, workload, rounds) })
            .collect();
        let key = |row: &Row| row.outcome.good().map_or(f64::INFINITY, |it| it.figure.median);
        peers.sort_by(|one, other| key(one).total_cmp(&key(other)));
        Report {
            workload: workload.name,
            what: workload.what,
            figure: workload.measure.what(),
            operation: workload.operation,
            provenance,
            rounds: plan.rounds,
            secs: plan.secs,
            server: workload.server,
            load: workload.load,
            peers,
            left_out: built.left_out.iter().cloned().collect(),
            measurements: rounds,
            measure: workload.measure,
        }
    }

    pub(crate) fn all_have_figures(&self) -> bool {
        self.peers.iter().all(|row| row.outcome.good().is_some())
    }

    pub(crate) fn ratio_to_tokio(&self, peer: &str) -> Option<Spread> {
        let row = self.peers.iter().find(|row| row.peer == peer)?;
        row.outcome.good()?.ratio_to_tokio
    }
}

pub(crate) fn write_json(report: &impl Serialize, path: &Path) -> Result<(), Failure> {
    let mut json = serde_json::to_string_pretty(report)?;
    json.push('\n');
    fs::write(path, json).map_err(|error| format!("{}: {error}", path.display()).into())
}

fn outcome(peer: &str, workload: &Workload, rounds: &[Round]) -> Outcome<Summary> {
    let mut found = Vec::new();
    for round in rounds {
        match round.get(peer) {
            Some(Outcome::Good(one)) => found.push(one),
            Some(Outcome::Failed { failed }) => return Outcome::Failed { failed: failed.clone() },
            None => {}
        }
    }
    match summary(peer, workload, rounds, &found) {
        Some(summary) => Outcome::Good(summary),
        None => Outcome::Failed { failed: "there is no figure".to_owned() },
    }
}

fn summary(peer: &str, workload: &Workload, rounds: &[Round], found: &[&Found]) -> Option<Summary> {
    let figure = Spread::of(found.iter().map(|one| one.figure(workload.measure)))?;
    let median = |value: fn(&Found) -> f64| {
        Spread::of(found.iter().map(|one| value(one))).map_or(0.0, |spread| spread.median)
    };
    let ratio_to = |base: &str| {
        Spread::of(rounds.iter().filter_map(|round| {
            let figure = |name| Some(round.get(name)?.good()?.figure(workload.measure));
            Some(figure(peer)? / figure(base)?)
        }))
    };
    let (server_share, load_share) = (median(Found::server_share), median(Found::load_share));
    Some(Summary {
        figure,
        ratio_to_wharf: ratio_to(WHARF),
        ratio_to_ring: ratio_to(RING),
        ratio_to_tokio: ratio_to(TOKIO),
        operations_per_s: median(Found::operations_per_s),
        server_cpu_us_per_operation: median(|one| one.figure(Measure::Cpu)),
        latency_p50_us: median(|one| one.latency_us.p50),
        latency_p99_us: median(|one| one.latency_us.p99),
        server_share,
        load_share,
        others_share: median(Found::others_share),
        limit: limit(server_share, load_share),
    })
}

/// Whose core was full.
fn limit(server_share: f64, load_share: f64) -> &'static str {
    const FULL: f64 = 0.95;
    match (server_share >= FULL, load_share >= FULL) {
        (true, true) => "both",
        (true, false) => "server",
        (false, true) => "load",
        (false, false) => "neither",
    }
}

impl fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\n{}: {}", self.workload, self.what)?;
        writeln!(f, "{}; medians of {} rounds (and quartiles)", self.figure, self.rounds)?;
        writeln!(
            f,
            "{:<24} {:>9}  {:>22}  {:>22}  {:>15}  limit",
            "",
            self.measure.unit(),
            "x wharf",
            "x ring",
            format!("{} / s", self.operation),
        )?;
        for row in &self.peers {
            match &row.outcome {
                Outcome::Good(it) => writeln!(
                    f,
                    "{:<24} {:>9.2}  {:>22}  {:>22}  {:>15}  {} (server {:.0} %, load {:.0} %)",
                    row.peer,
                    it.figure.median,
                    shown(it.ratio_to_wharf),
                    shown(it.ratio_to_ring),
                    Count(it.operations_per_s),
                    it.limit,
                    it.server_share * 100.0,
                    it.load_share * 100.0,
                )?,
                Outcome::Failed { failed } => writeln!(f, "{:<24}    FAILED: {failed}", row.peer)?,
            }
        }
        let good = self.peers.iter().filter_map(|row| row.outcome.good());
        warn_of_others(f, good.map(|it| it.others_share))
    }
}

/// If others took more of the machine than may be, in one of these parts of a core.
pub(crate) fn warn_of_others(
    f: &mut fmt::Formatter<'_>,
    shares: impl Iterator<Item = f64>,
) -> fmt::Result {
    let others = shares.fold(0.0, f64::max);
    if others > OTHERS_SHARE_MAX {
        writeln!(
            f,
            "WARNING: others took {:.0} % of a core meanwhile: these figures mean little",
            others * 100.0,
        )?;
    }
    Ok(())
}

fn shown(ratio: Option<Spread>) -> String {
    ratio.map_or_else(String::new, |it| {
        format!("{:.2} ({:.2} to {:.2})", it.median, it.quartile_1, it.quartile_3)
    })
}
