//! `wharf sim`: the library under simulation, one run per seed.

use std::io::{self, Write};
use std::ops::Range;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use wharf::simulation::Fault;
use wharf::simulation::for_wharf_sim::LeftOut;
use wharf_sim::campaign::{Campaign, Ending, Failure, Totals};
use wharf_sim::ledger::{Entry, Ledger, LedgerFile, Sums};
use wharf_sim::shrink::{Shrunk, shrink};
use wharf_sim::{Changes, Scenario, Size};

use crate::arguments::{minutes, whole};
use crate::figures::{Count, Span};
use crate::output::{print, print_to};
use crate::{Outcome, StartFailure, complain, signals, with_causes};

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
    /// Runs at the same time, at most 256; 0, the default: one for each core.
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = whole::<usize>(0..=256))]
    lanes: usize,
    /// Peers at once, instead of the scenario's own number; at most 100,000.
    #[arg(long, value_name = "N", value_parser = whole::<u32>(0..=Size::PEERS_MAX.into()))]
    peers: Option<u32>,
    /// Things that are done, instead of the scenario's own number.
    #[arg(long, value_name = "N")]
    steps: Option<u32>,
    /// Threads that send by id, instead of the scenario's own number; at most 256.
    #[arg(long, value_name = "N", value_parser = whole::<u32>(0..=Size::SENDERS_MAX.into()))]
    senders: Option<u32>,
    /// Workers, at most 256; 0, the default: one to four, as the seed says.
    #[arg(long, value_name = "N", value_parser = whole::<u32>(0..=Size::WORKERS_MAX.into()))]
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
    // Before anything is run, so that it is not in vain.
    let ledger = arguments.ledger.as_deref().map(LedgerFile::at).transpose()?;
    let stop = signals::stop()?;
    if arguments.trace && !print_traces(&campaign, &stop)? {
        return Ok(Outcome::ErrorsSeen);
    }
    let (totals, ending) = {
        let progress = Progress::new(&arguments, &campaign);
        campaign.run(&stop, |totals| progress.at(totals))
    };
    let refusal = match &ending {
        Ending::CannotRun(case, error) => {
            Some(format!("{}: {}", with_causes(error), case.command()))
        }
        Ending::NoThread(error) => Some(format!("cannot start a lane's thread: {error}")),
        Ending::Over | Ending::Stopped | Ending::Broken(_) | Ending::Endless(_) => None,
    };
    match refusal {
        Some(refusal) if totals.seeds == 0 => return Err(refusal.into()),
        Some(refusal) => complain(&refusal),
        None => {}
    }
    let is_good = matches!(ending, Ending::Over | Ending::Stopped);
    let ran = Ran { arguments, commit, totals, ending };
    let has_told = ran.tell(&mut io::stdout(), ledger.as_ref(), &stop);
    Ok(if is_good && has_told { Outcome::Good } else { Outcome::ErrorsSeen })
}

/// False: they could not be printed.
fn print_traces(campaign: &Campaign, stop: &AtomicBool) -> wharf::Result<bool> {
    for seed in 0..campaign.seeds.min(SEEDS) {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let case = campaign.case(campaign.from.wrapping_add(seed));
        let trace = wharf_sim::run(&case, true)?.trace;
        if let Err(error) = trace.iter().try_for_each(print) {
            complain(&error.to_string());
            return Ok(false);
        }
    }
    Ok(true)
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
        lanes: if arguments.lanes == 0 { cores() } else { arguments.lanes },
        changes: Changes {
            peers: arguments.peers,
            steps: arguments.steps,
            senders: arguments.senders,
            workers: arguments.workers,
            left_out: LeftOut { without: arguments.without.clone(), muted: arguments.mute.clone() },
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
            Some(time) => u64::try_from(time.as_millis()).unwrap_or(u64::MAX),
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

/// What was run, and what came of it.
struct Ran {
    arguments: SimArguments,
    commit: String,
    totals: Totals,
    ending: Ending,
}

impl Ran {
    /// Says all of it, the worst before anything that could fail. False: some of it could not be written.
    fn tell(
        &self,
        output: &mut dyn Write,
        ledger: Option<&LedgerFile<Ledger>>,
        stop: &AtomicBool,
    ) -> bool {
        let failure = match &self.ending {
            Ending::Broken(failure) | Ending::Endless(failure) => Some(failure),
            _ => None,
        };
        let mut all_written = true;
        let mut is_written = |result: io::Result<()>| {
            if let Err(error) = &result {
                complain(&error.to_string());
                all_written = false;
            }
            result.is_ok()
        };
        let said = self.say_totals(output, failure).and_then(|()| match failure {
            Some(failure) => self.say_failure(output, failure),
            None => Ok(()),
        });
        let has_said = is_written(said);
        is_written(ledger.map_or(Ok(()), |ledger| {
            ledger.change(|ledger| ledger.add(self.entry(failure.is_some())))
        }));
        match failure {
            Some(failure) if has_said => is_written(self.say_smaller(output, failure, stop)),
            // Whoever cannot read it there may read it here.
            Some(Failure { case, violation }) => {
                complain(&format!("BROKEN: {violation}; again: {}", case.command()));
                false
            }
            None => true,
        };
        all_written
    }

    fn say_totals(&self, output: &mut dyn Write, failure: Option<&Failure>) -> io::Result<()> {
        let is_stopped = matches!(self.ending, Ending::Stopped);
        if self.arguments.json {
            let report = Report::of(&self.totals, is_stopped, failure);
            return print_to(output, serde_json::to_string(&report)?);
        }
        print_totals(output, &self.totals)?;
        if is_stopped { print_to(output, "\nstopped before its end") } else { Ok(()) }
    }

    fn entry(&self, is_broken: bool) -> Entry {
        let words = std::env::args_os().skip(1);
        let command = words.fold("wharf".to_owned(), |all, one| all + " " + &one.to_string_lossy());
        Entry {
            date: today(),
            commit: self.commit.clone(),
            command,
            violations: u64::from(is_broken),
            sums: Sums::of(&self.totals),
        }
    }

    /// What was broken.
    fn say_failure(&self, output: &mut dyn Write, failure: &Failure) -> io::Result<()> {
        print_to(output, format_args!("\nBROKEN: {}", failure.violation))?;
        print_to(output, format_args!("  seed    {}", failure.case.seed))?;
        print_to(output, format_args!("  commit  {}", self.commit))?;
        print_to(output, format_args!("  again   {}", failure.case.command()))
    }

    /// The smallest case that is found in which it is broken.
    fn say_smaller(
        &self,
        output: &mut dyn Write,
        failure: &Failure,
        stop: &AtomicBool,
    ) -> io::Result<()> {
        // One that does not end cannot be tried again and again.
        if matches!(self.ending, Ending::Endless(_)) || stop.load(Ordering::Relaxed) {
            return Ok(());
        }
        print_to(output, "making it smaller …")?;
        let (rule, patience) = (failure.violation.rule, self.arguments.shrink_minutes);
        let Shrunk { case, outcome, runs } =
            shrink(&failure.case, rule, patience, stop).map_err(io::Error::other)?;
        let Some(violation) = outcome.violation else {
            let what =
                "it was not broken again: the run is not the seed's alone, which is a fault too";
            return print_to(output, format_args!("  {what}"));
        };
        print_to(output, format_args!("\nin {runs} runs: {violation}"))?;
        print_to(output, format_args!("  again   {}", case.command()))?;
        let trace = &outcome.trace;
        let shown = &trace[trace.len().saturating_sub(TRACE_LINES)..];
        let count = (shown.len(), trace.len());
        print_to(output, format_args!("\nthe last {} of {} lines about it:", count.0, count.1))?;
        shown.iter().try_for_each(|line| print_to(output, line))
    }
}

fn print_totals(output: &mut dyn Write, totals: &Totals) -> io::Result<()> {
    let seconds = totals.real_time.as_secs_f64().max(1e-9);
    let Totals { posts, direct_sends, completions, batches, switches, .. } = *totals;
    print_to(
        output,
        format_args!(
            "{} seeds in {} ({:.1}/s), {} sessions, {} frames\n\
             {} operations posted, {} sends without one, {} completions in {} batches, {} changes of \
             thread\n\
             {:.1} hours of virtual time: {:.0} times as long as a run took\n\n\
             {:<28} {:>14}",
            Count(totals.seeds),
            Span(totals.real_time),
            totals.seeds as f64 / seconds,
            Count(totals.sessions),
            Count(totals.frames),
            Count(posts),
            Count(direct_sends),
            Count(completions),
            Count(batches),
            Count(switches),
            totals.virtual_time.as_secs_f64() / 3_600.0,
            virtual_to_real(totals),
            "fault",
            "times",
        ),
    )?;
    Fault::ALL.iter().zip(&totals.fired).try_for_each(|(fault, times)| {
        print_to(output, format_args!("{:<28} {:>14}", fault.name(), Count(*times)))
    })
}

/// The totals, for machines.
#[derive(Serialize)]
struct Report {
    #[serde(flatten)]
    sums: Sums,
    batches_max: u64,
    /// Before its end, by a signal.
    stopped: bool,
    violation: Option<String>,
    command: Option<String>,
}

impl Report {
    fn of(totals: &Totals, stopped: bool, failure: Option<&Failure>) -> Report {
        Report {
            stopped,
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

#[cfg(test)]
mod tests {
    use clap::Parser;
    use wharf_sim::{Case, Rule, Violation};

    use super::*;
    use crate::{Command, Task};

    /// A campaign that found this.
    fn ran(options: &[&str]) -> Ran {
        let words = [&["wharf", "sim", "--shrink-minutes", "0"], options].concat();
        let Task::Sim(arguments) = Command::try_parse_from(words).unwrap().task else {
            panic!("it is a simulation");
        };
        let case = Case::new(Scenario::Echo, 4_711);
        let case = case.changed(&Changes { steps: Some(5), ..Changes::default() });
        let what = "something that cannot be".to_owned();
        let violation = Violation { rule: Rule::ReportsAddUp, what, about: Vec::new() };
        let ending = Ending::Broken(Failure { case, violation });
        Ran { arguments, commit: "abc".to_owned(), totals: Totals::default(), ending }
    }

    #[test]
    fn what_was_broken_is_told_though_the_ledger_cannot_be_written() {
        let folder = std::env::temp_dir().join(format!("wharf-sim-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let ledger = LedgerFile::at(&folder.join("x.json")).unwrap();
        std::fs::remove_dir_all(&folder).unwrap();
        for options in [&[][..], &["--json"]] {
            let mut output = Vec::new();
            let has_told = ran(options).tell(&mut output, Some(&ledger), &AtomicBool::new(false));
            assert!(!has_told);
            let text = String::from_utf8(output).unwrap();
            assert!(text.contains("BROKEN: ReportsAddUp: something that cannot be"), "{text}");
            assert!(text.contains("seed    4711") && text.contains("--from 4711"), "{text}");
            assert!(text.contains("it was not broken again"), "{text}");
        }
    }

    /// Takes so many bytes, and then there is no room.
    struct Full(usize);

    impl Write for Full {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if bytes.len() > self.0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.0 -= bytes.len();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn what_could_not_be_told_is_an_error() {
        let stop = AtomicBool::new(true);
        let mut all = Vec::new();
        assert!(ran(&[]).tell(&mut all, None, &stop));
        for bytes in [0, all.len() / 2, all.len() - 1] {
            assert!(!ran(&[]).tell(&mut Full(bytes), None, &stop), "{bytes}");
        }
    }
}
