//! `wharf load echo`: messages and replies, in a closed or an open loop.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use clap::Args;

use super::client::Plan;
use super::fleet::Fleet;
use super::open_loop::OpenLoop;
use super::pace::Pace;
use super::progress::Progress;
use super::report::{Latency, Report};
use super::{BYTES_MAX, Common, SESSIONS_MAX};
use crate::StartFailure;
use crate::arguments::{rate, seconds, whole};

#[derive(Args)]
pub(crate) struct EchoLoad {
    #[command(flatten)]
    pub(super) common: Common,
    /// How many sessions.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = whole::<usize>(1..=SESSIONS_MAX))]
    sessions: usize,
    /// The size of a message.
    #[arg(long, value_name = "B", default_value_t = 64, value_parser = whole::<usize>(1..=BYTES_MAX))]
    bytes: usize,
    /// Messages in flight per session, in the closed loop.
    #[arg(long, value_name = "D", default_value_t = 1, conflicts_with = "rate",
        value_parser = whole::<u64>(1..=BYTES_MAX))]
    depth: u64,
    /// How long to send.
    #[arg(long, value_name = "S", value_parser = seconds, default_value = "10")]
    secs: Duration,
    /// Messages a second over all sessions, at an even pace (open loop).
    #[arg(long, value_name = "MSGS_PER_S", value_parser = rate)]
    rate: Option<f64>,
}

pub(super) fn run(load: &EchoLoad, stop: &Arc<AtomicBool>) -> Result<Report, StartFailure> {
    let plan = match load.rate {
        Some(_) => Plan::Open,
        None => Plan::Closed { depth: load.depth },
    };
    let mut fleet = Fleet::start(&load.common, plan, load.sessions, load.bytes, stop)?;
    let mut report = load.common.report("echo", &fleet.connector, load.sessions, load.bytes);
    report.depth = load.rate.is_none().then_some(load.depth);
    report.rate_per_s = load.rate;

    if fleet.connect(|_, _| {}) {
        let pace = Pace::new(Instant::now(), load.secs, load.rate);
        // Set here and nowhere else, before the first message.
        let _ = fleet.shared.pace.set(pace);
        let progress = Progress::of_time("sending", load.secs);
        match load.rate {
            None => {
                for index in 0..load.sessions {
                    fleet.kick(index);
                }
                fleet.sit_until(pace.end(), progress, pace.start());
            }
            Some(_) => {
                let result = OpenLoop::new(&mut fleet, pace).run(progress);
                report.not_sent = result.not_sent;
                report.send_late_us = Some(Latency::of(&result.late_ns));
            }
        }
        let lasted = pace.start().elapsed().min(load.secs);
        fleet.wait_for_answers();
        let counts = fleet.shared.tally.sum();
        report.secs = lasted.as_secs_f64();
        report.count(&counts, counts.messages_in_time, lasted);
    }
    fleet.finish(report)
}
