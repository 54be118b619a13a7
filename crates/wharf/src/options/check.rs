//! What each option may be.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::{Backpressure, FirstFrameTimeout, Options};
use crate::error::{Error, Result};
use crate::framing::{Envelope, Framing, RAW_FRAME_BYTES_MAX};
use crate::session::SessionId;

/// What Linux takes for TCP_KEEPIDLE and TCP_KEEPINTVL, in seconds, and for TCP_KEEPCNT (tcp(7),
/// `MAX_TCP_KEEPIDLE` and the like); Windows takes more.
const KEEPALIVE_SECONDS_MAX: u64 = 32_767;
const KEEPALIVE_COUNT_MAX: u32 = 127;

const WORKERS_MAX: usize = 1024;
/// Beside so many sessions each worker has one that ends.
const SESSIONS_MAX: u32 = (1 << SessionId::INDEX_BITS) - WORKERS_MAX as u32;

const NOTES_MAX: u32 = 1 << 24;
const JOBS_MAX: u32 = 1 << 20;

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
        if self.thread_name.contains('\0') {
            return Err(Error::ThreadName { name: self.thread_name.clone() });
        }
        self.check_durations()?;
        self.check_counts()?;
        self.check_sizes(framing)?;
        self.check_kernel_sizes()
    }

    /// Whether sessions with this framing can be sent their heartbeat.
    pub(crate) fn check_heartbeat(&self, framing: &Framing) -> Result<()> {
        let Some(heartbeat) = &self.time.heartbeat else { return Ok(()) };
        let is_taken = framing.envelop(&heartbeat.frame, &mut Envelope::default()).is_ok();
        let is_sent = is_taken && !heartbeat.frame.is_empty();
        let bytes = heartbeat.frame.len() as u64;
        let says = "its frame has so many bytes, and the framing must be able to send them";
        rule("time.heartbeat", bytes, is_sent, says)
    }

    fn check_counts(&self) -> Result<()> {
        let (sessions, groups) = (self.sessions.max, self.sessions.groups_max);
        let (buffers, accepts) = (self.uring.receive_buffers, self.iocp.accepts_outstanding);
        let workers = self.workers as u64;
        rule("workers", workers, self.workers <= WORKERS_MAX, "it may be at most 1,024")?;
        let in_range = (1..=SESSIONS_MAX).contains(&sessions);
        rule("sessions.max", sessions.into(), in_range, "it must be 1 to 16,776,192")?;
        let in_range = groups <= 65_536;
        rule("sessions.groups_max", groups.into(), in_range, "it may be at most 65,536")?;
        let timers = self.sessions.timers_max;
        let in_range = timers <= 1_024;
        rule("sessions.timers_max", timers.into(), in_range, "it may be at most 1,024")?;
        for (name, notes) in [
            ("sessions.notes_max", self.sessions.notes_max),
            ("sessions.notes_of_port_max", self.sessions.notes_of_port_max),
        ] {
            let in_range = (1..=NOTES_MAX).contains(&notes);
            rule(name, notes.into(), in_range, "it must be 1 to 16,777,216")?;
        }
        let threads = self.offload.threads;
        let in_range = threads <= WORKERS_MAX;
        rule("offload.threads", threads as u64, in_range, "it may be at most 1,024")?;
        for (name, jobs) in [
            ("offload.jobs_max", self.offload.jobs_max),
            ("offload.jobs_of_session_max", self.offload.jobs_of_session_max),
        ] {
            let in_range = (1..=JOBS_MAX).contains(&jobs);
            rule(name, jobs.into(), in_range, "it must be 1 to 1,048,576")?;
        }
        let in_range = buffers.is_power_of_two() && buffers <= 32_768;
        let says = "it must be a power of two up to 32,768";
        rule("uring.receive_buffers", buffers.into(), in_range, says)?;
        let in_range = (1..=1024).contains(&accepts);
        rule("iocp.accepts_outstanding", accepts.into(), in_range, "it must be 1 to 1,024")
    }

    fn check_sizes(&self, framing: &Framing) -> Result<()> {
        let bytes_rule = |name, bytes: usize, range: RangeInclusive<usize>, says| {
            rule(name, bytes as u64, range.contains(&bytes), says)
        };
        let queue = self.sending.queue_bytes_max;
        let says = "it must be 1 byte to 1 GiB";
        bytes_rule("sending.queue_bytes_max", queue, 1..=1 << 30, says)?;
        let frame_max = framing.wire_frame_bytes_max().unwrap_or(0);
        bytes_rule("frame_bytes_max", frame_max, 0..=1 << 30, "it may be at most 1 GiB")?;
        let says = "it must hold a frame, and may be at most 1 TiB";
        if let Some(queues) = self.receiving.queues_bytes_max {
            bytes_rule("receiving.queues_bytes_max", queues, frame_max..=1 << 40, says)?;
        }
        let publications = self.sending.publications_bytes_max;
        if let Some(queued) = self.sending.queued_bytes_max {
            let says = "it must hold a send queue, and may be at most 1 TiB";
            bytes_rule("sending.queued_bytes_max", queued, queue..=1 << 40, says)?;
        }
        let says = "it must be 4 KiB to 1 TiB";
        bytes_rule("sending.publications_bytes_max", publications, 4 * 1024..=1 << 40, says)?;
        let says = "it must be 1 byte to 1 GiB";
        bytes_rule("sending.slow_bytes", self.sending.slow_bytes, 1..=1 << 30, says)?;
        let lent = self.uring.receive_buffer_bytes;
        bytes_rule(
            "uring.receive_buffer_bytes",
            lent,
            1024..=1 << 20,
            "it must be 1 KiB to 1 MiB",
        )?;
        if self.receiving.backpressure == Backpressure::PauseReceive {
            let largest = framing.wire_frame_bytes_max().unwrap_or(RAW_FRAME_BYTES_MAX);
            let says =
                "with PauseReceive it must hold two of the largest frames that can be received";
            rule("sending.queue_bytes_max", queue as u64, queue / 2 >= largest, says)?;
        }
        Ok(())
    }

    fn check_kernel_sizes(&self) -> Result<()> {
        let (unsent, name) = (self.sending.kernel_unsent_bytes, "sending.kernel_unsent_bytes");
        for (name, bytes, least, says) in [
            ("sending.kernel_bytes", self.sending.kernel_bytes, 1024, "it must be 1 KiB to 1 GiB"),
            (
                "receiving.kernel_bytes",
                self.receiving.kernel_bytes,
                1024,
                "it must be 1 KiB to 1 GiB",
            ),
            (name, unsent, 1, "it must be 1 byte to 1 GiB"),
        ] {
            let Some(bytes) = bytes else { continue };
            rule(name, bytes as u64, (least..=1 << 30).contains(&bytes), says)?;
        }
        match unsent {
            Some(bytes) if !cfg!(target_os = "linux") => {
                rule(name, bytes as u64, false, "this system has no such limit")
            }
            _ => Ok(()),
        }
    }

    pub(crate) fn check_durations(&self) -> Result<()> {
        let first_frame = match self.time.first_frame_timeout {
            FirstFrameTimeout::After(limit) => Some(limit),
            FirstFrameTimeout::ByFraming | FirstFrameTimeout::Never => None,
        };
        for (name, value) in [
            ("time.connect_timeout", self.time.connect_timeout),
            ("time.establish_timeout", Some(self.time.establish_timeout)),
            ("time.idle_timeout", self.time.idle_timeout),
            ("time.first_frame_timeout", first_frame),
            ("time.send_stall_timeout", self.time.send_stall_timeout),
            ("time.drain_timeout", self.time.drain_timeout),
        ] {
            let is_some = |value: Duration| !value.is_zero();
            duration_rule(name, value, is_some, "it must be longer than that, or none")?;
        }
        let in_range = |value: Duration| value.as_millis() >= 1;
        duration_rule("long_turn", self.long_turn, in_range, "it must be 1 ms or more, or none")?;
        let heartbeat = self.time.heartbeat.as_ref().map(|heartbeat| heartbeat.after);
        let in_range = |value: Duration| value.as_millis() >= 10;
        duration_rule("time.heartbeat", heartbeat, in_range, "it must be 10 ms or more")?;
        let in_range = |value: Duration| (1..=60 * 60 * 1_000).contains(&value.as_millis());
        let slow_after = Some(self.sending.slow_after);
        duration_rule("sending.slow_after", slow_after, in_range, "it must be 1 ms to 1 hour")?;
        let within = |max: u64| move |value: Duration| (1..=max).contains(&value.as_secs());
        let peer = self.time.peer_timeout;
        let of_peer = within(PEER_TIMEOUT_DAYS_MAX * 24 * 60 * 60);
        duration_rule("time.peer_timeout", peer, of_peer, "it must be 1 s to 24 days")?;
        let stall = self.time.send_stall_timeout.unwrap_or_default();
        let is_longer = |value| value >= stall;
        duration_rule(
            "time.peer_timeout",
            peer,
            is_longer,
            "it may not be below time.send_stall_timeout",
        )?;
        let has_it = |_| cfg!(any(target_os = "linux", windows));
        duration_rule("time.peer_timeout", peer, has_it, "this system has no such limit")?;
        let Some(keepalive) = self.time.keepalive else { return Ok(()) };
        for (name, value) in [
            ("time.keepalive.idle", keepalive.idle),
            ("time.keepalive.interval", keepalive.interval),
        ] {
            let of_probes = within(KEEPALIVE_SECONDS_MAX);
            duration_rule(name, Some(value), of_probes, "it must be 1 s to 32,767 s")?;
        }
        let count = keepalive.count;
        let is_count = (1..=KEEPALIVE_COUNT_MAX).contains(&count);
        rule("time.keepalive.count", count.into(), is_count, "it must be 1 to 127")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::Keepalive;

    #[test]
    fn the_defaults_are_valid_with_every_framing_and_both_policies() {
        for framing in [Framing::raw(), Framing::length_prefixed(Default::default())] {
            for backpressure in [Backpressure::None, Backpressure::PauseReceive] {
                Options::default()
                    .with(|options| {
                        options.receiving.backpressure = backpressure;
                    })
                    .check(&framing)
                    .unwrap();
            }
        }
    }

    #[test]
    fn an_option_outside_its_range_is_named_in_the_error() {
        let options = Options::default().with(|options| {
            options.sessions.max = 0;
        });
        let error = options.check(&Framing::raw()).unwrap_err().to_string();
        assert_eq!(error, "option sessions.max is 0, but it must be 1 to 16,776,192");
        let options = Options::default().with(|options| {
            options.sending.queue_bytes_max = 1000;
            options.receiving.backpressure = Backpressure::PauseReceive;
        });
        assert!(options.check(&Framing::raw()).is_err(), "an echo could lose a frame");
    }

    #[test]
    fn a_size_of_the_kernels_outside_its_range_is_named_in_the_error() {
        let with = |change: fn(&mut Options)| {
            Options::default()
                .with(change)
                .check(&Framing::raw())
                .map_err(|error| error.to_string())
        };
        let says = |what, rule| Err(format!("option {what}, but it must be {rule} to 1 GiB"));
        let refused = with(|options| options.sending.kernel_bytes = Some(1_023));
        assert_eq!(refused, says("sending.kernel_bytes is 1023", "1 KiB"));
        let refused = with(|options| options.receiving.kernel_bytes = Some((1 << 30) + 1));
        assert_eq!(refused, says("receiving.kernel_bytes is 1073741825", "1 KiB"));
        let refused = with(|options| options.sending.kernel_unsent_bytes = Some(0));
        assert_eq!(refused, says("sending.kernel_unsent_bytes is 0", "1 byte"));
        let taken = with(|options| options.sending.kernel_unsent_bytes = Some(1));
        assert_eq!(taken.is_ok(), cfg!(target_os = "linux"), "{taken:?}");
    }

    #[test]
    fn a_thread_name_that_the_system_cannot_take_is_refused() {
        let options = Options::default().thread_name("game\0".to_owned());
        let error = options.check(&Framing::raw()).unwrap_err().to_string();
        assert_eq!(error, "option thread_name is \"game\\0\", but it may contain no NUL");
    }

    #[test]
    fn a_time_that_means_nothing_or_that_the_system_refuses_is_refused_with_its_name() {
        const MILLIS: fn(u64) -> Duration = Duration::from_millis;
        let with = |change: fn(&mut Options)| {
            let mut options = Options::default();
            change(&mut options);
            options.check(&Framing::raw()).map_err(|error| error.to_string())
        };
        let keepalive = |keepalive| {
            Options::default().with(|options| {
                options.time.keepalive = keepalive;
            })
        };
        type Change = fn(&mut Options);
        let refused: [(&str, Change); 14] = [
            ("long_turn is 999.999µs", |options| {
                options.long_turn = Some(Duration::from_nanos(999_999));
            }),
            ("time.connect_timeout is 0ns", |options| {
                options.time.connect_timeout = Some(MILLIS(0))
            }),
            ("time.idle_timeout is 0ns", |options| options.time.idle_timeout = Some(MILLIS(0))),
            ("time.first_frame_timeout is 0ns", |options| {
                options.time.first_frame_timeout = FirstFrameTimeout::After(MILLIS(0));
            }),
            ("time.send_stall_timeout is 0ns", |options| {
                options.time.send_stall_timeout = Some(MILLIS(0))
            }),
            ("time.drain_timeout is 0ns", |options| options.time.drain_timeout = Some(MILLIS(0))),
            ("time.peer_timeout is 500ms", |options| {
                (options.time.peer_timeout, options.time.send_stall_timeout) =
                    (Some(MILLIS(500)), None);
            }),
            ("time.peer_timeout is 59s", |options| {
                options.time.peer_timeout = Some(MILLIS(59_000))
            }),
            ("time.peer_timeout is 2160000s", |options| {
                options.time.peer_timeout = Some(MILLIS(25 * 24 * 3_600_000));
            }),
            ("time.keepalive.idle is 500ms", |options| {
                options.time.keepalive = Some(Keepalive::default().idle(MILLIS(500)));
            }),
            ("time.keepalive.idle is 32768s", |options| {
                let idle = MILLIS(32_768_000);
                options.time.keepalive = Some(Keepalive::default().idle(idle));
            }),
            ("time.keepalive.interval is 999ms", |options| {
                let interval = MILLIS(999);
                options.time.keepalive = Some(Keepalive::default().interval(interval));
            }),
            ("time.keepalive.count is 0", |options| {
                options.time.keepalive = Some(Keepalive::default().count(0));
            }),
            ("time.keepalive.count is 128", |options| {
                options.time.keepalive = Some(Keepalive::default().count(128));
            }),
        ];
        for (what, change) in refused {
            let error = with(change).unwrap_err();
            assert!(error.starts_with(&format!("option {what}, but it")), "{error}");
        }
        keepalive(Some(Keepalive::default())).check(&Framing::raw()).unwrap();
        let peer_timeout = Some(MILLIS(60_000)).filter(|_| cfg!(any(target_os = "linux", windows)));
        Options::default()
            .with(|options| {
                options.time.peer_timeout = peer_timeout;
            })
            .check(&Framing::raw())
            .unwrap();
    }
}
