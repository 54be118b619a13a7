//! The line an operator reads once per period: rates from two readings of the counters.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::Serialize;
use wharf::Stats;

use crate::figures::{Bytes, per_second};

/// What went on between two readings. Rates are per second, counts are of this period.
#[derive(Serialize)]
pub(crate) struct StatsLine {
    sessions: u64,
    accepts_per_s: f64,
    receives_per_s: f64,
    sends_per_s: f64,
    in_mb_per_s: f64,
    out_mb_per_s: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    frames_per_send: Option<f64>,
    queued_bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    resident_bytes: Option<u64>,
    refused: u64,
    accept_failures: u64,
    pauses: u64,
    handler_panics: u64,
    closed: BTreeMap<&'static str, u64>,
    opened_total: u64,
    closed_total: u64,
    /// Whether `opened - closed == live`, as must always hold.
    balanced: bool,
}

impl StatsLine {
    /// `resident_bytes` is the process's memory at the time of `now`, where it is known.
    pub(crate) fn between(
        before: &Stats,
        now: &Stats,
        period: Duration,
        resident_bytes: Option<u64>,
    ) -> StatsLine {
        let rate = |now: u64, before: u64| per_second(now.saturating_sub(before), period);
        let sends = now.sends.saturating_sub(before.sends);
        let frames = now.sent_frames.saturating_sub(before.sent_frames);
        let closed_before: BTreeMap<_, _> = before.closed_by().collect();
        let closed_since = now.closed_by().map(|(kind, count)| (kind, count - closed_before[kind]));
        StatsLine {
            sessions: now.live,
            accepts_per_s: rate(now.accepted, before.accepted),
            receives_per_s: rate(now.receives, before.receives),
            sends_per_s: rate(now.sends, before.sends),
            in_mb_per_s: rate(now.received_bytes, before.received_bytes) / 1e6,
            out_mb_per_s: rate(now.sent_bytes, before.sent_bytes) / 1e6,
            frames_per_send: (sends > 0).then(|| frames as f64 / sends as f64),
            queued_bytes: now.queued_bytes,
            resident_bytes,
            refused: now.refused.saturating_sub(before.refused),
            accept_failures: now.accept_failures.saturating_sub(before.accept_failures),
            pauses: now.receive_pauses.saturating_sub(before.receive_pauses),
            handler_panics: now.handler_panics.saturating_sub(before.handler_panics),
            closed: closed_since.filter(|(_, count)| *count > 0).collect(),
            opened_total: now.opened,
            closed_total: now.closed,
            balanced: now.opened.checked_sub(now.closed) == Some(now.live),
        }
    }

    /// Whether `opened - closed == live`.
    pub(crate) fn is_balanced(&self) -> bool {
        self.balanced
    }
}

impl fmt::Display for StatsLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "sessions {}  accepts/s {:.0}  receives/s {:.0}  sends/s {:.0}  in {:.2} MB/s  \
             out {:.2} MB/s",
            self.sessions,
            self.accepts_per_s,
            self.receives_per_s,
            self.sends_per_s,
            self.in_mb_per_s,
            self.out_mb_per_s,
        )?;
        match self.frames_per_send {
            Some(frames) => write!(f, "  frames/send {frames:.2}")?,
            None => f.write_str("  frames/send -")?,
        }
        write!(f, "  queued {}", Bytes(self.queued_bytes))?;
        if let Some(bytes) = self.resident_bytes {
            write!(f, "  resident {}", Bytes(bytes))?;
        }
        write!(f, "  refused {}  pauses {}", self.refused, self.pauses)?;
        if self.accept_failures > 0 {
            write!(f, "  accept failures {}", self.accept_failures)?;
        }
        if self.handler_panics > 0 {
            write!(f, "  handler panics {}", self.handler_panics)?;
        }
        for (index, (kind, count)) in self.closed.iter().enumerate() {
            write!(f, "{}{kind} {count}", if index == 0 { "  closed: " } else { ", " })?;
        }
        if !self.balanced {
            let (opened, closed) = (self.opened_total, self.closed_total);
            write!(f, "  !! opened - closed != live ({opened} - {closed} != {})", self.sessions)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(change: impl FnOnce(&mut Stats)) -> Stats {
        let mut stats = Stats::default();
        change(&mut stats);
        stats
    }

    #[test]
    fn rates_are_differences_over_the_period_and_levels_are_as_they_stand() {
        let before = reading(|stats| {
            (stats.accepted, stats.opened, stats.live) = (10, 10, 10);
            (stats.sends, stats.sent_frames, stats.queued_bytes) = (100, 150, 7);
        });
        let now = reading(|stats| {
            (stats.accepted, stats.opened, stats.closed, stats.live) = (110, 110, 50, 60);
            (stats.sends, stats.sent_frames, stats.queued_bytes) = (300, 750, 2048);
            (stats.received_bytes, stats.refused) = (5_000_000, 3);
        });
        let line = StatsLine::between(&before, &now, Duration::from_millis(500), Some(3 << 20));
        assert!(line.is_balanced());
        assert_eq!(
            line.to_string(),
            "sessions 60  accepts/s 200  receives/s 0  sends/s 400  in 10.00 MB/s  \
             out 0.00 MB/s  frames/send 3.00  queued 2.0 KiB  resident 3.0 MiB  refused 3  pauses 0",
        );
        let json = serde_json::to_value(&line).unwrap();
        assert_eq!(json["accepts_per_s"], 200.0);
        assert_eq!(json["balanced"], true);
    }

    #[test]
    fn a_session_that_is_neither_live_nor_closed_is_cried_out() {
        for (opened, closed, live) in [(10, 3, 8), (3, 10, 0)] {
            let now =
                reading(|stats| (stats.opened, stats.closed, stats.live) = (opened, closed, live));
            let line = StatsLine::between(&Stats::default(), &now, Duration::from_secs(1), None);
            assert!(!line.is_balanced());
            let cry = format!("!! opened - closed != live ({opened} - {closed} != {live})");
            assert!(line.to_string().ends_with(&cry), "{line}");
        }
    }

    #[test]
    fn a_period_without_sends_has_no_frames_per_send() {
        let line =
            StatsLine::between(&Stats::default(), &Stats::default(), Duration::from_secs(1), None);
        assert!(line.to_string().contains("frames/send -"));
        assert!(serde_json::to_value(&line).unwrap().get("frames_per_send").is_none());
    }
}
