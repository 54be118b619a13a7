//! What each option may be.

use std::time::Duration;

use super::{Backpressure, FirstFrameTimeout, Options};
use crate::error::{Error, Result};
use crate::framing::{Framing, RAW_FRAME_BYTES_MAX};
use crate::session::SessionId;

/// What Linux takes for TCP_KEEPIDLE and TCP_KEEPINTVL, in seconds, and for TCP_KEEPCNT (tcp(7),
/// `MAX_TCP_KEEPIDLE` and the like); Windows takes more.
const KEEPALIVE_SECONDS_MAX: u64 = 32_767;
const KEEPALIVE_COUNT_MAX: u32 = 127;

const WORKERS_MAX: usize = 1024;
/// Beside so many sessions each worker has one that ends.
const SESSIONS_MAX: u32 = (1 << SessionId::INDEX_BITS) - WORKERS_MAX as u32;

/// TCP_USER_TIMEOUT is an int of milliseconds.
const PEER_TIMEOUT_DAYS_MAX: u64 = 24;

fn rule(name: &'static str, value: u64, holds: bool, rule: &'static str) -> Result<()> {
    if holds { Ok(()) } else { Err(Error::Option { name, value, rule }) }
}

fn duration_rule(
    name: &'static str,
    value: Option<Duration>,
    holds: impl FnOnce(Duration) -> bool,
    rule: &'static str,
) -> Result<()> {
    match value {
        Some(value) if !holds(value) => Err(Error::OptionDuration { name, value, rule }),
        _ => Ok(()),
    }
}

impl Options {
    pub(crate) fn check(&self, framing: &Framing) -> Result<()> {
        self.check_durations()?;
        let queue = self.send_queue_bytes_max;
        let workers_in_range = self.workers <= WORKERS_MAX;
        rule("workers", self.workers as u64, workers_in_range, "it may be at most 1,024")?;
        rule(
            "sessions_max",
            self.sessions_max.into(),
            (1..=SESSIONS_MAX).contains(&self.sessions_max),
            "it must be 1 to 16,776,192",
        )?;
        rule(
            "send_queue_bytes_max",
            queue as u64,
            (1..=1 << 30).contains(&queue),
            "it must be 1 byte to 1 GiB",
        )?;
        let frame_max = framing.wire_frame_bytes_max().unwrap_or(0);
        rule("frame_bytes_max", frame_max as u64, frame_max <= 1 << 30, "it may be at most 1 GiB")?;
        let queues = self.receive_queues_bytes_max;
        rule(
            "receive_queues_bytes_max",
            queues as u64,
            queues >= frame_max && queues <= 1 << 40,
            "it must hold a frame, and may be at most 1 TiB",
        )?;
        rule(
            "groups_per_session_max",
            self.groups_per_session_max.into(),
            self.groups_per_session_max <= 65_536,
            "it may be at most 65,536",
        )?;
        rule(
            "publications_bytes_max",
            self.publications_bytes_max as u64,
            (4 * 1024..=1 << 40).contains(&self.publications_bytes_max),
            "it must be 4 KiB to 1 TiB",
        )?;
        rule(
            "receive_buffers",
            self.receive_buffers.into(),
            self.receive_buffers.is_power_of_two() && self.receive_buffers <= 32_768,
            "it must be a power of two up to 32,768",
        )?;
        rule(
            "receive_buffer_bytes",
            self.receive_buffer_bytes as u64,
            (1024..=1 << 20).contains(&self.receive_buffer_bytes),
            "it must be 1 KiB to 1 MiB",
        )?;
        rule(
            "accepts_outstanding",
            self.accepts_outstanding.into(),
            (1..=1024).contains(&self.accepts_outstanding),
            "it must be 1 to 1,024",
        )?;
        if self.backpressure == Backpressure::PauseReceive {
            let largest = framing.wire_frame_bytes_max().unwrap_or(RAW_FRAME_BYTES_MAX);
            rule(
                "send_queue_bytes_max",
                queue as u64,
                queue / 2 >= largest,
                "with PauseReceive it must hold two of the largest frames that can be received",
            )?;
        }
        Ok(())
    }

    fn check_durations(&self) -> Result<()> {
        let first_frame = match self.first_frame_timeout {
            FirstFrameTimeout::After(limit) => Some(limit),
            FirstFrameTimeout::ByFraming | FirstFrameTimeout::Never => None,
        };
        for (name, value) in [
            ("connect_timeout", self.connect_timeout),
            ("idle_timeout", self.idle_timeout),
            ("first_frame_timeout", first_frame),
            ("send_stall_timeout", self.send_stall_timeout),
            ("drain_timeout", self.drain_timeout),
        ] {
            let is_some = |value: Duration| !value.is_zero();
            duration_rule(name, value, is_some, "it must be longer than that, or none")?;
        }
        let within = |max: u64| move |value: Duration| (1..=max).contains(&value.as_secs());
        let peer = self.peer_timeout;
        let of_peer = within(PEER_TIMEOUT_DAYS_MAX * 24 * 60 * 60);
        duration_rule("peer_timeout", peer, of_peer, "it must be 1 s to 24 days")?;
        let stall = self.send_stall_timeout.unwrap_or_default();
        let is_longer = |value| value >= stall;
        duration_rule("peer_timeout", peer, is_longer, "it may not be below send_stall_timeout")?;
        let has_it = |_| cfg!(any(target_os = "linux", windows));
        duration_rule("peer_timeout", peer, has_it, "this system has no such limit")?;
        let Some(keepalive) = self.keepalive else { return Ok(()) };
        for (name, value) in
            [("keepalive.idle", keepalive.idle), ("keepalive.interval", keepalive.interval)]
        {
            let of_probes = within(KEEPALIVE_SECONDS_MAX);
            duration_rule(name, Some(value), of_probes, "it must be 1 s to 32,767 s")?;
        }
        let count = keepalive.count;
        let is_count = (1..=KEEPALIVE_COUNT_MAX).contains(&count);
        rule("keepalive.count", count.into(), is_count, "it must be 1 to 127")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::Keepalive;

    #[test]
    fn the_defaults_are_valid_with_every_framing_and_both_policies() {
        for framing in [Framing::raw(), Framing::length_prefixed(Default::default())] {
            for backpressure in [Backpressure::CloseSlowConsumer, Backpressure::PauseReceive] {
                Options { backpressure, ..Options::default() }.check(&framing).unwrap();
            }
        }
    }

    #[test]
    fn an_option_outside_its_range_is_named_in_the_error() {
        let options = Options { sessions_max: 0, ..Options::default() };
        let error = options.check(&Framing::raw()).unwrap_err().to_string();
        assert_eq!(error, "option sessions_max is 0, but it must be 1 to 16,776,192");
        let options = Options {
            send_queue_bytes_max: 1000,
            backpressure: Backpressure::PauseReceive,
            ..Options::default()
        };
        assert!(options.check(&Framing::raw()).is_err(), "an echo could lose a frame");
    }

    #[test]
    fn a_time_that_means_nothing_or_that_the_system_refuses_is_refused_with_its_name() {
        const MILLIS: fn(u64) -> Duration = Duration::from_millis;
        let with = |change: fn(&mut Options)| {
            let mut options = Options::default();
            change(&mut options);
            options.check(&Framing::raw()).map_err(|error| error.to_string())
        };
        let keepalive = |keepalive| Options { keepalive, ..Options::default() };
        type Change = fn(&mut Options);
        let refused: [(&str, Change); 13] = [
            ("connect_timeout is 0ns", |options| options.connect_timeout = Some(MILLIS(0))),
            ("idle_timeout is 0ns", |options| options.idle_timeout = Some(MILLIS(0))),
            ("first_frame_timeout is 0ns", |options| {
                options.first_frame_timeout = FirstFrameTimeout::After(MILLIS(0));
            }),
            ("send_stall_timeout is 0ns", |options| options.send_stall_timeout = Some(MILLIS(0))),
            ("drain_timeout is 0ns", |options| options.drain_timeout = Some(MILLIS(0))),
            ("peer_timeout is 500ms", |options| {
                (options.peer_timeout, options.send_stall_timeout) = (Some(MILLIS(500)), None);
            }),
            ("peer_timeout is 59s", |options| options.peer_timeout = Some(MILLIS(59_000))),
            ("peer_timeout is 2160000s", |options| {
                options.peer_timeout = Some(MILLIS(25 * 24 * 3_600_000));
            }),
            ("keepalive.idle is 500ms", |options| {
                options.keepalive = Some(Keepalive { idle: MILLIS(500), ..Keepalive::default() });
            }),
            ("keepalive.idle is 32768s", |options| {
                let idle = MILLIS(32_768_000);
                options.keepalive = Some(Keepalive { idle, ..Keepalive::default() });
            }),
            ("keepalive.interval is 999ms", |options| {
                let interval = MILLIS(999);
                options.keepalive = Some(Keepalive { interval, ..Keepalive::default() });
            }),
            ("keepalive.count is 0", |options| {
                options.keepalive = Some(Keepalive { count: 0, ..Keepalive::default() });
            }),
            ("keepalive.count is 128", |options| {
                options.keepalive = Some(Keepalive { count: 128, ..Keepalive::default() });
            }),
        ];
        for (what, change) in refused {
            let error = with(change).unwrap_err();
            assert!(error.starts_with(&format!("option {what}, but it")), "{error}");
        }
        keepalive(Some(Keepalive::default())).check(&Framing::raw()).unwrap();
        let peer_timeout = Some(MILLIS(60_000)).filter(|_| cfg!(any(target_os = "linux", windows)));
        Options { peer_timeout, ..Options::default() }.check(&Framing::raw()).unwrap();
    }
}
