//! Repeats rounds for a given time, or until one breaks a rule.

use std::error::Error;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use clap::Args;
use wharf::Backend;
use wharf_sim::ledger::LedgerFile;
use wharf_sim::whole_file::WholeFile;

use crate::ledger::{Ledger, Totals};
use crate::random::Random;
use crate::round::{self, Outcome};
use crate::{pauses, seconds};

#[derive(Args)]
pub(crate) struct RunArguments {
    /// Which port: uring or readiness.
    #[arg(long)]
    backend: Backend,
    /// For how long.
    #[arg(long, value_name = "N", value_parser = seconds, required_unless_present = "round_seed")]
    seconds: Option<Duration>,
    /// What the rounds' seeds are drawn from. Default: the time.
    #[arg(long)]
    seed: Option<u64>,
    /// One round alone.
    #[arg(long, value_name = "SEED")]
    round_seed: Option<u64>,
    /// Threads pause at one in so many steps between them.
    #[arg(long, value_name = "ONE_IN")]
    pauses: Option<u32>,
    /// Go on after a broken rule.
    #[arg(long)]
    keep_going: bool,
    /// Write the totals to this file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Add the totals to those in this file, which is made if there is none.
    #[arg(long, value_name = "FILE")]
    ledger: Option<PathBuf>,
}

/// True: no rule was broken, and the totals were written.
///
/// # Errors
/// If it cannot start.
pub(crate) fn run(arguments: &RunArguments) -> Result<bool, Box<dyn Error>> {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let seed = arguments.seed.unwrap_or(since_1970.as_secs());
    if arguments.round_seed.is_none() {
        println!("campaign seed {seed}, backend {}", arguments.backend);
    }
    // Before anything is run, so that it is not in vain.
    let json = arguments.json.as_deref().map(WholeFile::at).transpose()?;
    let ledger = arguments.ledger.as_deref().map(LedgerFile::<Ledger>::at).transpose()?;
    let (mut totals, started) = (Totals::default(), Instant::now());
    let mut said = Instant::now();
    let time = arguments.seconds.unwrap_or_default();
    loop {
        let drawn = Random::new(seed, totals.rounds).seed() >> 32;
        let round_seed = arguments.round_seed.unwrap_or(drawn);
        if let Some(one_in) = arguments.pauses
            && !pauses::begin(round_seed, one_in)
        {
            return Err("this build cannot pause at steps between threads".into());
        }
        let outcome = round::run(arguments.backend, round_seed)?;
        totals.count(&outcome);
        totals.seconds = started.elapsed().as_secs();
        tell(arguments, round_seed, &outcome);
        let is_over = arguments.round_seed.is_some()
            || started.elapsed() >= time
            || totals.violations > 0 && !arguments.keep_going;
        if is_over || said.elapsed() >= Duration::from_secs(1) {
            println!("{}", line(&totals));
            said = Instant::now();
        }
        if is_over {
            break;
        }
    }
    let text = serde_json::to_string_pretty(&totals)?;
    println!("{text}");
    let json = json.map_or(Ok(()), |file| file.write((text + "\n").as_bytes()));
    let ledger = ledger.map_or(Ok(()), |file| {
        let backend = arguments.backend.to_string();
        file.change(|ledger| ledger.entry(backend).or_default().add(&totals))
    });
    let mut is_good = totals.violations == 0;
    for error in [json, ledger].into_iter().filter_map(Result::err) {
        eprintln!("wharf-soak: {error}");
        is_good = false;
    }
    Ok(is_good)
}

fn tell(arguments: &RunArguments, round_seed: u64, outcome: &Outcome) {
    if outcome.violations.is_empty() {
        return;
    }
    println!("BROKEN in the round of seed {round_seed}:");
    for violation in &outcome.violations {
        println!("  {violation}");
    }
    let pauses = arguments.pauses.map_or(String::new(), |one_in| format!(" --pauses {one_in}"));
    let backend = arguments.backend;
    println!("again: wharf-soak run --backend {backend} --round-seed {round_seed}{pauses}");
}

fn line(totals: &Totals) -> String {
    let closed: Vec<_> =
        totals.closed.iter().map(|(reason, count)| format!("{reason} {count}")).collect();
    format!(
        "{:4} s  {} rounds  {} sessions  {} frames  {} notes  {} timers  {} panics  {} broken  | {}",
        totals.seconds,
        totals.rounds,
        totals.sessions,
        totals.frames,
        totals.notes,
        totals.timers,
        totals.panics,
        totals.violations,
        closed.join(", ")
    )
}
