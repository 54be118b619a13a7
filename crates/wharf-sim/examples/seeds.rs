//! Runs seeds one after another until one breaks a rule. It is what the faults of `lab/` are caught with:
//! `wharf sim` does more at a time, and takes far longer to build.
//!
//! ```text
//! cargo run --profile simulation -p wharf-sim --example seeds -- SCENARIOS FROM SEEDS [SHRINK_SECONDS]
//! ```
//!
//! SCENARIOS is one name or several, joined by commas, which seeds take in turn. Each seed is named before
//! it is run: of a run that ends the whole process, or never ends, it is the last one named.

use std::error::Error;
use std::process::ExitCode;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use wharf_sim::shrink::{Shrunk, shrink};
use wharf_sim::{Case, Scenario, run};

/// Lines of the trace that are shown, its last.
const TRACE_LINES: usize = 60;

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (names, from, seeds, shrink_seconds) = match &arguments[..] {
        [names, from, seeds] => (names, from, seeds, None),
        [names, from, seeds, seconds] => (names, from, seeds, Some(seconds.parse()?)),
        _ => return Err("SCENARIOS FROM SEEDS [SHRINK_SECONDS]".into()),
    };
    let scenarios = names.split(',').map(str::parse).collect::<Result<Vec<Scenario>, _>>()?;
    let (from, seeds): (u64, u64) = (from.parse()?, seeds.parse()?);
    for seed in from..from + seeds {
        println!("seed {seed}");
        let case = Case::new(scenarios[(seed % scenarios.len() as u64) as usize], seed);
        let Some(violation) = run(&case, false)?.violation else { continue };
        println!("violated: {violation}\n{}", case.command());
        if let Some(seconds) = shrink_seconds {
            let (patience, stop) = (Duration::from_secs(seconds), AtomicBool::new(false));
            let Shrunk { case, outcome, runs } = shrink(&case, violation.rule, patience, &stop)?;
            println!("in {runs} runs: {}", outcome.violation.map_or("-".into(), |v| v.to_string()));
            println!("{}", case.command());
            let trace = &outcome.trace;
            println!("the last of {} lines:", trace.len());
            for line in &trace[trace.len().saturating_sub(TRACE_LINES)..] {
                println!("{line}");
            }
        }
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}
