//! The load: one thread, one ring. It speaks to a server, checks every byte that comes back, and
//! says what the server's and its own CPU time were for it. It prints one JSON object.
//!
//! It does less for each message than any server, as it must not be what is measured: the clock is
//! read once for each batch, and a reply is checked in the buffer that the kernel has lent.

mod churn;
mod echo;
mod fleet;
mod idle;
mod members;
mod messages;
mod opening;
mod report;
mod window;

use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use protocol::Form;

use report::{Figures, Report};

/// What a session does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Workload {
    /// Sends messages and checks that they come back; with --stalled some never read.
    Echo,
    /// Connects, sends one message, checks the reply, closes, and again.
    Churn,
    /// Has echoed once, and sits.
    Idle,
    /// Hears what a speaker says to all.
    Broadcast,
    /// Hears what the server's threads send to it.
    SendById,
}

/// Loads a server of this benchmark and checks every byte.
#[derive(Debug, Parser)]
struct Arguments {
    #[arg(long)]
    target: SocketAddr,
    /// The server's process, whose CPU time and memory are read.
    #[arg(long, value_name = "PID")]
    server: u32,
    #[arg(long, value_enum, default_value = "echo")]
    workload: Workload,
    #[arg(long, default_value_t = 50)]
    sessions: usize,
    /// The size of an echoed message.
    #[arg(long, default_value_t = 64)]
    bytes: usize,
    /// How messages and frames lie on the wire: `length` or `web-socket`. Those of an echo have no form of their own if
    /// it is not said, and frames have their length. The last one said counts.
    #[arg(long, overrides_with = "form")]
    form: Option<Form>,
    /// Messages on their way for each session, or frames that a speaker keeps waiting.
    #[arg(long, default_value_t = 1)]
    depth: usize,
    /// Frames a second of the speaker; 0 keeps --depth waiting.
    #[arg(long, default_value_t = 0.0)]
    rate: f64,
    /// Sessions besides that send and never read.
    #[arg(long, default_value_t = 0)]
    stalled: usize,
    #[arg(long, default_value_t = 4.0)]
    secs: f64,
    /// Counts until so many operations are done, and not for --secs, within which they must be.
    #[arg(long, value_name = "N")]
    operations: Option<u64>,
    /// Seconds before it counts.
    #[arg(long, default_value_t = 1.0)]
    warm_secs: f64,
}

impl Arguments {
    fn duration(&self) -> Duration {
        Duration::from_secs_f64(self.secs)
    }

    fn warm_up(&self) -> Duration {
        Duration::from_secs_f64(self.warm_secs)
    }
}

/// Why a run has no figures.
type Failure = Box<dyn std::error::Error>;

fn run(arguments: &Arguments) -> Result<Figures, Failure> {
    if arguments.bytes == 0 || arguments.sessions == 0 || arguments.depth == 0 {
        return Err("--bytes, --sessions and --depth must be at least 1".into());
    }
    let is_raw = arguments.workload == Workload::Churn || arguments.stalled > 0;
    if is_raw && arguments.form.is_some() {
        return Err("--form is for echo without --stalled, idle, broadcast and send-by-id".into());
    }
    match arguments.workload {
        Workload::Echo => echo::run(arguments),
        Workload::Churn => churn::run(arguments),
        Workload::Idle => idle::run(arguments),
        Workload::Broadcast | Workload::SendById => members::run(arguments),
    }
}

fn main() -> ExitCode {
    let result = run(&Arguments::parse());
    let good = result.is_ok();
    let report = match result {
        Ok(figures) => Report { figures: Some(figures), error: None },
        Err(failure) => Report { figures: None, error: Some(failure.to_string()) },
    };
    match serde_json::to_string(&report) {
        Ok(json) => println!("{json}"),
        Err(error) => eprintln!("error: {error}"),
    }
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
