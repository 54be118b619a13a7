//! `wharf sim`: the library under simulation, by the seed.

use std::ops::Range;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use wharf::simulation::Fault;
use wharf_sim::campaign::{Campaign, Failure, Totals};
use wharf_sim::ledger::{Entry, Ledger, Sums};
use wharf_sim::shrink::{Shrunk, shrink};
use wharf_sim::{Changes, Scenario};

use crate::figures::{Count, Span};
use crate::{Outcome, StartFailure};

/// A line on stdout; whether anyone reads it to its end makes no difference.
macro_rules! say {
    ($($argument:tt)*) => {{
        use std::io::Write;
        let _ = writeln!(std::io::stdout(), $($argument)*);
    }};
}

/// Seeds that are run when nothing else is said.
const SEEDS: u64 = 200;
/// Lines of a failing case's trace that are shown, its last.
const TRACE_LINES: usize = 80;

/// What to simulate.
#[derive(Args)]
pub(crate) struct SimArguments {
    /// How many seeds, at most. Default 200, or without end if --minutes is given.
    #[arg(long, value_name = "N")]
    seeds: Option<u64>,
    /// The first of them.
    #[arg(long, value_name = "SEED", default_value_t = 0)]
    from: u64,
    /// For how long, at most.
    #[arg(long, value_name = "M", value_parser = minutes)]
    minutes: Option<Duration>,
    /// What is played; given several times, seeds take turns. Default: all.
    #[arg(long, value_name = "NAME")]
    scenario: Vec<Scenario>,
    /// Runs at the same time. Default: one for each core.
    #[arg(long, value_name = "N")]
    lanes: Option<usize>,
    /// Peers at once, instead of the scenario's own number.
    #[arg(long, value_name = "N")]
    peers: Option<u32>,
    /// Things that are done, instead of the scenario's own number.
    #[arg(long, value_name = "N")]
    steps: Option<u32>,
    /// Threads that send by id, instead of the scenario's own number.
    #[arg(long, value_name = "N")]
    senders: Option<u32>,
    /// Workers; 0, the default: one to four, as the seed says.
    #[arg(long, value_name = "N")]
    workers: Option<u32>,
    /// Faults that do not happen.
    #[arg(long, value_name = "FAULT", value_delimiter = ',', value_parser = fault)]
    without: Vec<Fault>,
    /// Firings of faults that do not happen, by their numbers in the run: `3..5,9..10`.
    #[arg(long, value_name = "RANGE", value_delimiter = ',', value_parser = range)]
    mute: Vec<Range<u64>>,
    /// How long a failing case may be made smaller for, in minutes.
    #[arg(long, value_name = "M", value_parser = minutes, default_value = "1")]
    shrink_minutes: Duration,
    /// Add the totals to this file, which is made if there is none.
    #[arg(long, value_name = "FILE")]
    ledger: Option<PathBuf>,
    /// Write the totals as JSON to stdout, instead of the table.
    #[arg(long)]
    json: bool,
    /// Print the trace of every case that is run, whether it fails or not.
    #[arg(long)]
    trace: bool,
}

fn minutes(text: &str) -> Result<Duration, String> {
    let minutes: f64 = text.parse().map_err(|_| "not a number of minutes".to_owned())?;
    Duration::try_from_secs_f64(minutes * 60.0).map_err(|_| "not a length of time".to_owned())
}

fn fault(name: &str) -> Result<Fault, String> {
    let found = Fault::ALL.iter().copied().find(|fault| fault.name() == name);
    let names = || Fault::ALL.iter().map(|fault| fault.name()).collect::<Vec<_>>().join(", ");
    found.ok_or_else(|| format!("no fault is named {name}; there are {}", names()))
}

fn range(text: &str) -> Result<Range<u64>, String> {
    let (start, end) = text.split_once("..").ok_or("not of the form 3..5")?;
    let number = |text: &str| text.parse::<u64>().map_err(|error| error.to_string());
    Ok(number(start)?..number(end)?)
}

pub(crate) fn run(arguments: SimArguments) -> Result<Outcome, StartFailure> {
    let campaign = campaign(&arguments);
    let commit = commit(); // what runs, whatever is committed meanwhile
    if arguments.trace {
        for seed in 0..campaign.seeds.min(SEEDS) {
            for line in wharf_sim::run(&campaign.case(arguments.from + seed), true).trace {
                say!("{line}");
            }
        }
    }
    let (totals, failure) = {
        let progress = Progress::new(&arguments, &campaign);
        campaign.run(|totals| progress.at(totals))
    };
    if arguments.json {
        say!("{}", serde_json::to_string(&Report::of(&totals, failure.as_ref()))?);
    } else {
        print_totals(&totals);
    }
    if let Some(path) = &arguments.ledger {
        let entry = Entry {
            date: today(),
            commit: commit.clone(),
            command: std::env::args().skip(1).fold("wharf".to_owned(), |all, one| all + " " + &one),
            violations: u64::from(failure.is_some()),
            sums: Sums::of(&totals),
        };
        Ledger::append(path, entry).map_err(|error| format!("{}: {error}", path.display()))?;
    }
    let Some(failure) = failure else { return Ok(Outcome::Good) };
    explain(&failure, &commit, &arguments);
    Ok(Outcome::ErrorsSeen)
}

fn campaign(arguments: &SimArguments) -> Campaign {
    let cores = || std::thread::available_parallelism().map_or(1, usize::from);
    let default_seeds = if arguments.minutes.is_some() { u64::MAX } else { SEEDS };
    let given = &arguments.scenario;
    Campaign {
        scenarios: if given.is_empty() { Scenario::ALL.to_vec() } else { given.clone() },
        from: arguments.from,
        seeds: arguments.seeds.unwrap_or(default_seeds),
        time: arguments.minutes,
        lanes: arguments.lanes.unwrap_or_else(cores).max(1),
        changes: Changes {
            peers: arguments.peers,
            steps: arguments.steps,
            senders: arguments.senders,
            workers: arguments.workers,
            without: arguments.without.clone(),
            muted: arguments.mute.clone(),
        },
    }
}

/// The bar on stderr; on anything but a terminal there is none.
struct Progress {
    bar: ProgressBar,
    by_time: bool,
}

impl Progress {
    fn new(arguments: &SimArguments, campaign: &Campaign) -> Progress {
        let by_time = arguments.minutes.is_some();
        let length = match arguments.minutes {
            Some(time) => time.as_millis() as u64,
            None => campaign.seeds,
        };
        let style = ProgressStyle::with_template("{prefix} [{bar:32}] {percent:>3} %  {msg}");
        let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
        Progress { bar: ProgressBar::new(length).with_style(style).with_prefix("sim"), by_time }
    }

    fn at(&self, totals: &Totals) {
        let at = if self.by_time { totals.real_time.as_millis() as u64 } else { totals.seeds };
        self.bar.set_position(at);
        let seconds = totals.real_time.as_secs_f64().max(1e-9);
        self.bar.set_message(format!(
            "{} seeds, {:.1}/s, {} operations, {:.0} x real time",
            Count(totals.seeds),
            totals.seeds as f64 / seconds,
            Count(totals.operations()),
            virtual_to_real(totals),
        ));
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// Virtual time to the time that a run took, of one lane.
fn virtual_to_real(totals: &Totals) -> f64 {
    totals.virtual_time.as_secs_f64() / totals.lane_time.as_secs_f64().max(1e-9)
}

fn print_totals(totals: &Totals) {
    let seconds = totals.real_time.as_secs_f64().max(1e-9);
    say!(
        "{} seeds in {} ({:.1}/s), {} sessions, {} frames",
        Count(totals.seeds),
        Span(totals.real_time),
        totals.seeds as f64 / seconds,
        Count(totals.sessions),
        Count(totals.frames),
    );
    say!(
        "{} operations posted, {} sends without one, {} completions in {} batches, {} changes of thread",
        Count(totals.posts),
        Count(totals.direct_sends),
        Count(totals.completions),
        Count(totals.batches),
        Count(totals.switches),
    );
    say!(
        "{:.1} hours of virtual time: {:.0} times as long as a run took",
        totals.virtual_time.as_secs_f64() / 3_600.0,
        virtual_to_real(totals),
    );
    say!("\n{:<28} {:>14}", "fault", "times");
    for (fault, times) in Fault::ALL.iter().zip(&totals.fired) {
        say!("{:<28} {:>14}", fault.name(), Count(*times));
    }
}

/// What was broken, in the smallest case that is found.
fn explain(failure: &Failure, commit: &str, arguments: &SimArguments) {
    say!("\nBROKEN: {}", failure.violation);
    say!("  seed    {}", failure.case.seed);
    say!("  commit  {commit}");
    say!("  again   {}", failure.case.command());
    say!("making it smaller …");
    let Shrunk { case, outcome, runs } =
        shrink(&failure.case, failure.violation.rule, arguments.shrink_minutes);
    let Some(violation) = outcome.violation else {
        say!("  it was not broken again: the run is not the seed's alone, which is a fault too");
        return;
    };
    say!("\nin {runs} runs: {violation}");
    say!("  again   {}", case.command());
    let trace = &outcome.trace;
    say!("\nthe last {} of {} lines about it:", trace.len().min(TRACE_LINES), trace.len());
    for line in &trace[trace.len().saturating_sub(TRACE_LINES)..] {
        say!("{line}");
    }
}

/// The totals, for machines.
#[derive(Serialize)]
struct Report {
    #[serde(flatten)]
    sums: Sums,
    batches_max: u64,
    violation: Option<String>,
    command: Option<String>,
}

impl Report {
    fn of(totals: &Totals, failure: Option<&Failure>) -> Report {
        Report {
            sums: Sums::of(totals),
            batches_max: totals.batches_max,
            violation: failure.map(|failure| failure.violation.to_string()),
            command: failure.map(|failure| failure.case.command()),
        }
    }
}

/// The commit that stands in the directory that this runs in, or the version.
fn commit() -> String {
    let output = Command::new("git").args(["rev-parse", "--short", "HEAD"]).output();
    let hash = output.ok().filter(|output| output.status.success());
    let hash = hash.and_then(|output| String::from_utf8(output.stdout).ok());
    hash.map_or(concat!("version ", env!("CARGO_PKG_VERSION")).to_owned(), |hash| {
        hash.trim().to_owned()
    })
}

/// The day in UTC, by the civil calendar (days to date: Howard Hinnant, "chrono-Compatible Low-Level
/// Date Algorithms", `civil_from_days`).
fn today() -> String {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let days = (since.as_secs() / 86_400) as i64 + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}")
}
