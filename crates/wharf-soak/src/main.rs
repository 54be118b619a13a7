//! wharf's real ports under everything at once. A seed draws the options of a round, what its peers and
//! threads do, which failures are provoked, and how it ends. Then everything they saw is judged.
//!
//! Exit codes: 0 success, 1 a rule was broken or the totals could not be written, 2 could not start, 3
//! something hangs.

#![forbid(unsafe_code)]

mod actor;
mod broadcasts;
mod campaign;
mod deeds;
mod due;
mod events;
mod facts;
mod frames;
mod gateway;
mod handler;
mod judge;
mod ledger;
mod odd_frames;
mod panics;
mod pauses;
mod peers;
mod plan;
mod process;
mod quiet;
mod random;
mod reader;
mod round;
mod rules;
mod senders;
mod targets;
mod truth;
mod watch;
mod wires;

use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use wharf::Backend;

/// The real ports under everything at once.
#[derive(Parser)]
#[command(name = "wharf-soak", version)]
struct Command {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Round after round: everything at once, then an end, and everything must add up.
    Run(campaign::RunArguments),
    /// Broadcasts without a pause while sessions come and go.
    Broadcasts(BroadcastsArguments),
    /// A loop that owns the world, takes events, and stands still at times, under load.
    Events(EventsArguments),
}

#[derive(Args)]
struct BroadcastsArguments {
    /// Which port: uring or readiness.
    #[arg(long)]
    backend: Backend,
    #[arg(long, default_value_t = 4)]
    workers: usize,
    #[arg(long, value_name = "N", value_parser = seconds)]
    seconds: Duration,
}

#[derive(Args)]
struct EventsArguments {
    /// Which port: uring or readiness.
    #[arg(long)]
    backend: Backend,
    /// How long the loop stands still each time.
    #[arg(long, default_value = "2", value_name = "SECONDS", value_parser = seconds)]
    stop: Duration,
    /// How often.
    #[arg(long, default_value_t = 3)]
    stops: u32,
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number of seconds".to_owned())?;
    Duration::try_from_secs_f64(seconds).map_err(|_| "not a length of time".to_owned())
}

fn main() -> ExitCode {
    let command = Command::parse();
    panics::keep();
    let done = watch::start().map_err(Into::into).and_then(|()| match command.task {
        Task::Run(arguments) => campaign::run(&arguments),
        Task::Broadcasts(arguments) => {
            let BroadcastsArguments { backend, workers, seconds } = arguments;
            broadcasts::run(backend, workers, seconds)
        }
        Task::Events(arguments) => events::run(arguments.backend, arguments.stop, arguments.stops),
    });
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            let cause = error.source().map_or(String::new(), |cause| format!(": {cause}"));
            eprintln!("wharf-soak: {error}{cause}");
            ExitCode::from(2)
        }
    }
}
