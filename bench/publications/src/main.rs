//! A server that publishes in floods and at rates, and its members, each class of which reads in its own way: at
//! once, at a tenth of that rate, or never. `ci/show/publications.sh` runs them. Each prints what it has seen as JSON.
#![forbid(unsafe_code)]

mod frame;
mod load;
mod members;
mod mqtt;
mod serve;

use std::process::ExitCode;

use clap::Parser;

/// Why there are no figures.
type Failure = Box<dyn std::error::Error>;

#[derive(Debug, Parser)]
enum Command {
    /// Waits for members, publishes to them, drains, and says what happened.
    Serve(serve::Arguments),
    /// Connects members and checks every frame that comes.
    Load(load::Arguments),
}

fn main() -> ExitCode {
    let done = match Command::parse() {
        Command::Serve(arguments) => serve::run(&arguments),
        Command::Load(arguments) => load::run(&arguments),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(failure) => {
            eprintln!("error: {failure}");
            ExitCode::from(2)
        }
    }
}
