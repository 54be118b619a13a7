//! Compares wharf with others: one workload at a time, all peers in random order in each round,
//! server on core 0, load on core 1, every byte checked while it is timed.
#![forbid(unsafe_code)]

mod asked;
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

use build::Built;
use peers::Peer;
use provenance::Provenance;
use rounds::Plan;
use workloads::Workload;

/// Compares wharf with others, byte for byte and microsecond for microsecond.
///
/// Exit code 0: every peer that was asked for has its figures (and with --floor the floors are met,
/// with --table what is asked); 1: a peer failed or could not be built, or a floor or what is asked is not
/// met; 2: the comparison could not be made.
#[derive(Debug, Parser)]
#[command(name = "wharf-bench", bin_name = "cargo run --release --")]
struct Arguments {
    /// Two short rounds: to see that it works.
    #[arg(long)]
    quick: bool,
    /// How many rounds [default: 5, quick 2; of the floor 11, quick 5].
    #[arg(long, value_name = "N")]
    rounds: Option<usize>,
    /// Seconds that each measurement counts [default: 4, quick 1; of the floor 4, quick 2].
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
    #[arg(long, conflicts_with_all = ["peers", "workloads", "floor", "quick", "rounds", "secs"])]
    table: bool,
    /// The speed floor alone: wharf's CPU time for each message against tokio's.
    #[arg(long, conflicts_with_all = ["peers", "workloads"])]
    floor: bool,
    /// Where the figures go.
    #[arg(long, value_name = "DIR", default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/results"))]
    results: PathBuf,
}

/// Why there is no comparison.
type Failure = Box<dyn std::error::Error>;

impl Arguments {
    fn plan(&self) -> Plan {
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
        let mut found = Vec::new();
        for name in &self.workloads {
            let before = found.len();
            found.extend(workloads::ALL.iter().filter(|it| it.name == name || it.group() == name));
            if found.len() == before {
                let message = format!("there is no workload {name}; --list says which there are");
                return Err(message.into());
            }
        }
        Ok(if self.workloads.is_empty() { workloads::ALL.iter().collect() } else { found })
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
            report.write_json(&arguments.results.join("floor.json"))?;
            good &= floor::judge(&report);
        } else {
            report.write_json(&arguments.results.join(format!("{}.json", workload.name)))?;
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
