//! Compares wharf with others: one workload at a time, all peers in random order in each round,
//! server on core 0, load on core 1, every byte checked while it is timed.
#![forbid(unsafe_code)]

mod asked;
mod before;
mod build;
mod chart;
mod figures;
mod floor;
mod measure;
mod order;
mod peers;
mod provenance;
mod report;
mod rounds;
mod workloads;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use clap::builder::RangedU64ValueParser;

use build::Built;
use peers::Peer;
use provenance::Provenance;
use rounds::Plan;
use workloads::Workload;

/// Compares wharf with others, byte for byte and microsecond for microsecond.
///
/// Exit code 0: every peer that was asked for has its figures (and with --floor the floors are met,
/// with --table what is asked, with --before all is as fast); 1: a peer failed or could not be built, or a
/// floor or what is asked is not met, or something is slower; 2: the comparison could not be made.
#[derive(Debug, Parser)]
#[command(name = "wharf-bench", bin_name = "cargo run --release --")]
struct Arguments {
    /// Two short rounds: to see that it works.
    #[arg(long)]
    quick: bool,
    /// How many rounds [default: 5, quick 2; of the floor 11, quick 5].
    #[arg(long, value_name = "N")]
    rounds: Option<usize>,
    /// Seconds that each measurement counts [default: 4, quick 1; of the floor 4, quick 2; --before 0.7].
    #[arg(long, value_name = "S")]
    secs: Option<f64>,
    /// Only these peers [default: all].
    #[arg(long, value_name = "A,B", value_delimiter = ',')]
    peers: Vec<String>,
    /// Only these workloads, or groups of them that begin so [default: all].
    #[arg(long, value_name = "X,Y", value_delimiter = ',')]
    workloads: Vec<String>,
    /// Say what peers and workloads there are.
    #[arg(long)]
    list: bool,
    /// Measure nothing: print what is asked of wharf beside what the results show, as a table.
    #[arg(long, conflicts_with_all = ["peers", "workloads", "floor", "quick", "rounds", "secs", "before"])]
    table: bool,
    /// The speed floor alone: wharf's CPU time for each message against tokio's.
    #[arg(long, conflicts_with_all = ["peers", "workloads"])]
    floor: bool,
    /// Is wharf as fast as before? BINARY is `peer-wharf` of an earlier commit: `before.sh` builds it.
    #[arg(long, value_name = "BINARY", conflicts_with_all = ["peers", "floor", "quick", "rounds"])]
    before: Option<PathBuf>,
    /// With --before: how many rounds for each workload and port, if the figures stay vague.
    #[arg(long, value_name = "N", default_value_t = 100, requires = "before", value_parser = rounds_max())]
    rounds_max: usize,
    /// With --before: where the figures go.
    #[arg(long, value_name = "FILE", requires = "before")]
    json: Option<PathBuf>,
    /// Where the figures go.
    #[arg(long, value_name = "DIR", default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/results"))]
    results: PathBuf,
}

fn rounds_max() -> RangedU64ValueParser<usize> {
    RangedU64ValueParser::new().range(before::ROUNDS_MIN as u64..=before::ROUNDS_MAX as u64)
}

/// Why there is no comparison.
type Failure = Box<dyn std::error::Error>;

impl Arguments {
    fn plan(&self) -> Plan {
        if self.before.is_some() {
            return Plan { rounds: self.rounds_max, secs: self.secs.unwrap_or(0.7) };
        }
        let (rounds, secs) = match (self.floor, self.quick) {
            (true, true) => (5, 2.0),
            (true, false) => (11, 4.0),
            (false, true) => (2, 1.0),
            (false, false) => (5, 4.0),
        };
        Plan { rounds: self.rounds.unwrap_or(rounds), secs: self.secs.unwrap_or(secs) }
    }

    fn peers(&self) -> Result<Vec<&'static Peer>, Failure> {
        if self.floor {
            return Ok(floor::peers());
        }
        let known = |name: &String| peers::ALL.iter().any(|peer| peer.name == *name);
        if let Some(name) = self.peers.iter().find(|name| !known(name)) {
            return Err(format!("there is no peer {name}; --list says which there are").into());
        }
        let asked =
            |peer: &&Peer| self.peers.is_empty() || self.peers.iter().any(|it| it == peer.name);
        Ok(peers::ALL.iter().filter(asked).collect())
    }

    fn workloads(&self) -> Result<Vec<&'static Workload>, Failure> {
        if self.floor {
            return Ok(vec![floor::workload()]);
        }
        let mut asked: Vec<&str> = self.workloads.iter().map(String::as_str).collect();
        if asked.is_empty() {
            if self.before.is_none() {
                return Ok(workloads::ALL.iter().collect());
            }
            asked.extend(before::WORKLOADS);
        }
        let mut found = Vec::new();
        for name in asked {
            let before = found.len();
            found.extend(workloads::ALL.iter().filter(|it| it.name == name || it.group() == name));
            if found.len() == before {
                let message = format!("there is no workload {name}; --list says which there are");
                return Err(message.into());
            }
        }
        Ok(found)
    }
}

fn run(arguments: &Arguments) -> Result<bool, Failure> {
    if arguments.list {
        list();
        return Ok(true);
    }
    if arguments.table {
        return asked::print(&arguments.results);
    }
    let plan = arguments.plan();
    let (peers, workloads) = (arguments.peers()?, arguments.workloads()?);
    if plan.rounds == 0 || plan.secs.is_nan() || plan.secs <= 0.0 {
        return Err("there must be a round, and it must take some time".into());
    }
    if let Some(before) = &arguments.before {
        measure::raise_descriptor_limit();
        return before::run(before, plan, &workloads, arguments.json.as_deref());
    }
    let provenance = Provenance::of_this_run()?;
    std::fs::create_dir_all(&arguments.results)?;
    measure::raise_descriptor_limit();

    let home = Path::new(env!("CARGO_MANIFEST_DIR"));
    let built = Built::all(home, &peers)?;
    for (peer, reason) in &built.left_out {
        eprintln!("left out: {peer}: {reason}");
    }
    let mut good = built.left_out.is_empty();
    let progress = rounds::Progress::new(plan, &built, &workloads);
    for workload in workloads {
        let rounds = rounds::run(plan, workload, &built, &progress);
        let report = report::Report::new(workload, plan, &provenance, &built, &rounds);
        progress.say(|| println!("{report}"));
        good &= report.all_have_figures();
        if arguments.floor {
            report::write_json(&report, &arguments.results.join("floor.json"))?;
            good &= floor::judge(&report);
        } else {
            let file = format!("{}.json", workload.name);
            report::write_json(&report, &arguments.results.join(file))?;
            chart::draw(&report, &arguments.results.join(format!("{}.svg", workload.name)))?;
        }
    }
    Ok(good)
}

fn list() {
    println!("peers:");
    for peer in peers::ALL {
        println!("  {:<24} {}", peer.name, peer.what);
    }
    println!("workloads:");
    for workload in workloads::ALL {
        println!("  {:<24} {}", workload.name, workload.what);
    }
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(failure) => {
            eprintln!("error: {failure}");
            ExitCode::from(2)
        }
    }
}
