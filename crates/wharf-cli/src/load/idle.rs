//! `wharf load idle`: sessions that answer once, sit idle, and must still answer afterwards.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use clap::Args;

use super::client::Plan;
use super::fleet::Fleet;
use super::progress::Progress;
use super::report::Report;
use super::{BYTES_MAX, Common, SESSIONS_MAX};
use crate::StartFailure;
use crate::arguments::{seconds, whole};

#[derive(Args)]
pub(crate) struct IdleLoad {
    #[command(flatten)]
    pub(super) common: Common,
    /// How many sessions.
    #[arg(long, value_name = "N", default_value_t = 1000,
        value_parser = whole::<usize>(1..=SESSIONS_MAX))]
    sessions: usize,
    /// The size of a message.
    #[arg(long, value_name = "B", default_value_t = 64, value_parser = whole::<usize>(1..=BYTES_MAX))]
    bytes: usize,
    /// How long to sit.
    #[arg(long, value_name = "S", value_parser = seconds, default_value = "10")]
    secs: Duration,
}

/// The figures are those of the second message: all are sent at once, after the sitting.
pub(super) fn run(load: &IdleLoad, stop: &Arc<AtomicBool>) -> Result<Report, StartFailure> {
    let mut fleet = Fleet::start(&load.common, Plan::Kicked, load.sessions, load.bytes, stop)?;
    let mut report = load.common.report("idle", &fleet.connector, load.sessions, load.bytes);

    if fleet.connect(Fleet::kick) {
        fleet.wait_for_answers();
        fleet.shared.tally.clear();

        let start = Instant::now();
        fleet.sit_until(start + load.secs, Progress::of_time("sitting", load.secs), start);
        report.secs = start.elapsed().as_secs_f64();

        let woken = Instant::now();
        for index in 0..load.sessions {
            fleet.kick(index);
        }
        fleet.wait_for_answers();
        let counts = fleet.shared.tally.sum();
        report.count(&counts, counts.messages, woken.elapsed());
    }
    fleet.finish(report)
}
