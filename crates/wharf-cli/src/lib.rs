//! The `wharf` command: an echo server, a load tester that checks every byte of every reply, and the library
//! under simulation.
//!
//! Exit codes: 0 success; 1 errors occurred while it ran, or its output could not be written; 2 an impossible
//! request, or it could not start. Every failure is one line on stderr: `wharf: …`.
//!
//! This is a library so that the tests can walk over [`definition`].

#![deny(unsafe_code)]

mod allocator;
mod arguments;
mod echo;
mod figures;
mod listen;
mod load;
mod output;
mod process;
mod signals;
mod sim;
mod stats_line;

use std::error::Error;
use std::io;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser, Subcommand};

/// Servers that hold many long-lived TCP sessions, on completion ports.
#[derive(Parser)]
#[command(name = "wharf", version)]
struct Command {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Serve: send back what comes in, until SIGINT or SIGTERM (on Windows Ctrl-C or Ctrl-Break),
    /// then drain. A second one stops at once.
    Echo(echo::EchoArguments),
    /// Load an echo server, and verify every byte of every reply.
    #[command(subcommand)]
    Load(load::Load),
    /// Run the library under simulation: every seed is another order of events, other faults, another
    /// network. What fails once fails again with the same seed.
    Sim(sim::SimArguments),
}

/// How a task that could start went.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Good,
    ErrorsSeen,
}

/// Why a task could not start.
type StartFailure = Box<dyn Error>;

/// Every subcommand and option that there is.
pub fn definition() -> clap::Command {
    Command::command()
}

/// Does what the arguments of this process say.
pub fn main() -> ExitCode {
    let command = match Command::try_parse() {
        Ok(command) => command,
        Err(refusal) => return refuse(&refusal),
    };
    let outcome = match command.task {
        Task::Echo(arguments) => echo::run(arguments),
        Task::Load(load) => load::run(load),
        Task::Sim(arguments) => sim::run(arguments),
    };
    match outcome {
        Ok(Outcome::Good) => ExitCode::SUCCESS,
        Ok(Outcome::ErrorsSeen) => ExitCode::from(1),
        Err(failure) => {
            complain(&with_causes(&*failure));
            ExitCode::from(2)
        }
    }
}

/// Help and version as clap writes them; a mistake in the arguments as one line.
fn refuse(refusal: &clap::Error) -> ExitCode {
    let asked_for = matches!(refusal.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
    let help = ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand;
    if asked_for || refusal.kind() == help {
        let _ = refusal.print();
        return if asked_for { ExitCode::SUCCESS } else { ExitCode::from(2) };
    }
    let text = refusal.render().to_string();
    let lines = text.lines().map(str::trim).take_while(|line| !line.is_empty());
    let line = lines.collect::<Vec<_>>().join(" ");
    complain(&format!("{} (see --help)", line.trim_start_matches("error: ")));
    ExitCode::from(2)
}

/// Starts a thread that nobody waits for.
fn start_thread<T: Send + 'static>(body: impl FnOnce() -> T + Send + 'static) -> io::Result<()> {
    let started = std::thread::Builder::new().spawn(body);
    let told =
        |error: io::Error| io::Error::new(error.kind(), format!("cannot start a thread: {error}"));
    started.map(drop).map_err(told)
}

/// What an error says, and what each says that it came of.
fn with_causes(error: &dyn Error) -> String {
    let causes = std::iter::successors(error.source(), |&cause| cause.source());
    causes.fold(error.to_string(), |said, cause| format!("{said}: {cause}"))
}

/// One line on stderr, whatever is in it; whether anyone can read it makes no difference.
fn complain(line: &str) {
    use std::io::Write;
    let _ = writeln!(std::io::stderr(), "wharf: {}", line.replace(['\n', '\r'], " "));
}
