//! The results of a run: as text for people, as JSON for programs.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;
use wharf::CloseReason;
use wharf_sim::whole_file::WholeFile;

use super::MAYBE_WEB_SOCKET;
use super::tally::Counts;
use crate::figures::{Count, Span, per_second};
use crate::output::print;
use crate::process::CpuTime;

/// All figures of a run.
#[derive(Serialize)]
pub(super) struct Report {
    /// `echo`, `churn` or `idle`.
    pub(super) mode: &'static str,
    /// The addresses that sessions were connected to.
    pub(super) targets: Vec<String>,
    /// Addresses of the targets' names that could not be reached, and why.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) given_up: Vec<String>,
    pub(super) backend: String,
    pub(super) workers: usize,
    pub(super) framing: &'static str,
    pub(super) sessions: usize,
    pub(super) bytes: usize,
    /// Messages in flight per session, in the closed loop.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) depth: Option<u64>,
    /// What was asked for, in the open loop.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) rate_per_s: Option<f64>,
    /// How long it ran, and what the rates are over.
    pub(super) secs: f64,
    /// Before its time, by a signal.
    pub(super) stopped: bool,
    /// Messages, or in churn whole connections, that went well.
    pub(super) completed: u64,
    /// Of these, the ones within `secs`, per second.
    pub(super) completed_per_s: f64,
    /// Bytes in one direction.
    pub(super) mb_per_s: f64,
    pub(super) latency_us: Latency,
    /// From each connect until its upgrade was answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) upgrade_us: Option<Latency>,
    /// How often the server closed a WebSocket with which code, after its client had.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) close_codes: BTreeMap<u16, u64>,
    /// The server's pings.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) pings_answered: Option<u64>,
    /// How late the load tester itself was with what was due: the machine's part in the latency.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) send_late_us: Option<Latency>,
    /// What was due in an open loop but never left, for want of room or time.
    pub(super) not_sent: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) cpu: Option<CpuTime>,
    #[serde(flatten)]
    pub(super) errors: Errors,
}

impl Report {
    /// What went well, of which so many within this time.
    pub(super) fn count(&mut self, counts: &Counts, in_time: u64, time: Duration) {
        self.completed = counts.messages;
        self.completed_per_s = per_second(in_time, time);
        self.mb_per_s = self.completed_per_s * self.bytes as f64 / 1e6;
        self.latency_us = Latency::of(&counts.latency_ns);
    }
}

/// The usual points of a latency distribution, in microseconds.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub(super) struct Latency {
    count: u64,
    mean: f64,
    p50: f64,
    p90: f64,
    p99: f64,
    p99_9: f64,
    max: f64,
}

impl Latency {
    pub(super) fn of(histogram_ns: &Histogram<u64>) -> Latency {
        let micros = |nanos: u64| nanos as f64 / 1e3;
        let at = |quantile| micros(histogram_ns.value_at_quantile(quantile));
        Latency {
            count: histogram_ns.len(),
            mean: histogram_ns.mean() / 1e3,
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p99_9: at(0.999),
            max: micros(histogram_ns.max()),
        }
    }
}

impl fmt::Display for Latency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.count == 0 {
            return f.write_str("nothing to measure");
        }
        let span = |micros: f64| Span(Duration::from_secs_f64(micros / 1e6));
        write!(
            f,
            "p50 {}  p99 {}  p99.9 {}  max {}",
            span(self.p50),
            span(self.p99),
            span(self.p99_9),
            span(self.max),
        )
    }
}

/// What went wrong: how often by kind, and the first few in full.
#[derive(Default, Serialize)]
pub(super) struct Errors {
    #[serde(rename = "errors")]
    total: u64,
    #[serde(rename = "errors_by_kind")]
    by_kind: BTreeMap<String, u64>,
    #[serde(rename = "first_errors")]
    first: Vec<String>,
}

impl Errors {
    pub(super) fn add(&mut self, kind: impl Into<String>, whole: impl fmt::Display) {
        const FIRST_MAX: usize = 5;
        self.total += 1;
        *self.by_kind.entry(kind.into()).or_default() += 1;
        if self.first.len() < FIRST_MAX {
            self.first.push(whole.to_string());
        }
    }

    /// That something ended, for this reason, when it should not have. `what` ends with which session it was.
    pub(super) fn add_end(&mut self, what: impl fmt::Display, reason: CloseReason) {
        /// The length in a header of four bytes that an answer of HTTP is taken for.
        const HTTP: u64 = u32::from_be_bytes(*b"HTTP") as u64;
        let hint = match reason {
            CloseReason::FrameTooLarge { bytes: HTTP, .. } => MAYBE_WEB_SOCKET,
            CloseReason::PeerClosedInFrame { .. } => " (does the server have this framing?)",
            _ => "",
        };
        let kind = match reason {
            // The code is all that there is to tell.
            CloseReason::PeerClosedWith { .. } => reason.to_string(),
            _ => reason.to_string().split(" (").next().unwrap_or_default().to_owned(),
        };
        self.add(format!("ended early: {kind}"), format_args!("{what}: {reason}{hint}"));
    }

    pub(super) fn total(&self) -> u64 {
        self.total
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "load {}: {} sessions, {} B",
            self.mode,
            Count(self.sessions as u64),
            self.bytes
        )?;
        match (self.depth, self.rate_per_s) {
            (Some(depth), _) => write!(f, ", {depth} in flight each")?,
            (_, Some(rate)) => write!(f, ", {rate} due a second")?,
            _ => {}
        }
        let plural = if self.workers == 1 { "" } else { "s" };
        writeln!(
            f,
            ", framing {}, {:.1} s{}; backend {}; {} worker{plural}",
            self.framing,
            self.secs,
            if self.stopped { " until it was stopped" } else { "" },
            self.backend,
            self.workers,
        )?;
        for cause in &self.given_up {
            writeln!(f, "not used     {cause}")?;
        }
        let things = if self.mode == "churn" { "connections" } else { "messages" };
        writeln!(
            f,
            "{things:<12} {}, {}/s, {:.2} MB/s each way",
            Count(self.completed),
            Count(self.completed_per_s.round() as u64),
            self.mb_per_s,
        )?;
        writeln!(f, "latency      {}", self.latency_us)?;
        if let Some(upgrade) = &self.upgrade_us {
            writeln!(f, "upgrade      {upgrade}")?;
        }
        if !self.close_codes.is_empty() {
            let said = |(code, count): (&u16, &u64)| format!("{code}: {}", Count(*count));
            let codes: Vec<_> = self.close_codes.iter().map(said).collect();
            writeln!(f, "close codes  {}", codes.join(", "))?;
        }
        if let Some(pings @ 1..) = self.pings_answered {
            writeln!(f, "pings        {} answered", Count(pings))?;
        }
        if let Some(late) = &self.send_late_us {
            writeln!(f, "sent late    {late}")?;
        }
        if self.not_sent > 0 {
            writeln!(f, "not sent     {} that were due", Count(self.not_sent))?;
        }
        if let Some(cpu) = &self.cpu {
            writeln!(f, "cpu          {:.2} s user, {:.2} s system", cpu.user_s, cpu.system_s)?;
        }
        write!(f, "errors       {}", Count(self.errors.total))?;
        for (kind, count) in &self.errors.by_kind {
            write!(f, "\n  {kind}: {}", Count(*count))?;
        }
        for first in &self.errors.first {
            write!(f, "\n  e.g. {first}")?;
        }
        Ok(())
    }
}

/// Where the JSON goes.
pub(super) enum JsonSink {
    Nowhere,
    Stdout,
    File(WholeFile),
}

impl JsonSink {
    /// Checks that it can be written.
    pub(super) fn open(path: Option<&Path>) -> io::Result<JsonSink> {
        match path {
            None => Ok(JsonSink::Nowhere),
            Some(path) if path == Path::new("-") => Ok(JsonSink::Stdout),
            Some(path) => WholeFile::at(path).map(JsonSink::File),
        }
    }

    /// The text goes to stdout, unless the JSON does.
    pub(super) fn write(self, report: &Report) -> io::Result<()> {
        let json = || serde_json::to_string_pretty(report).map_err(io::Error::from);
        match self {
            JsonSink::Nowhere => print(report),
            JsonSink::Stdout => {
                let _ = writeln!(io::stderr(), "{report}");
                print(json()?)
            }
            JsonSink::File(file) => {
                let text = print(report);
                file.write((json()? + "\n").as_bytes()).and(text)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tally::Counts;
    use super::*;

    fn report() -> Report {
        let mut counts = Counts::new();
        for micros in 1..=1000 {
            counts.record(Duration::from_micros(micros), true);
        }
        let mut errors = Errors::default();
        for session in 0..7 {
            errors.add("wrong byte", format_args!("session {session}: wrong byte"));
        }
        errors.add("unanswered", "session 9: 1 message");
        Report {
            mode: "echo",
            targets: vec!["127.0.0.1:7000".into()],
            given_up: Vec::new(),
            backend: "uring".into(),
            workers: 1,
            framing: "raw",
            sessions: 1000,
            bytes: 64,
            depth: Some(2),
            rate_per_s: None,
            secs: 1.0,
            stopped: false,
            completed: counts.messages,
            completed_per_s: 1000.0,
            mb_per_s: 0.064,
            latency_us: Latency::of(&counts.latency_ns),
            upgrade_us: None,
            close_codes: BTreeMap::new(),
            pings_answered: None,
            send_late_us: None,
            not_sent: 0,
            cpu: None,
            errors,
        }
    }

    #[test]
    fn the_json_has_all_figures_under_plain_names() {
        let json = serde_json::to_value(report()).unwrap();
        assert_eq!(json["mode"], "echo");
        assert_eq!(json["completed"], 1000);
        assert_eq!(json["errors"], 8);
        assert_eq!(json["errors_by_kind"]["wrong byte"], 7);
        assert_eq!(json["errors_by_kind"]["unanswered"], 1);
        assert_eq!(json["first_errors"].as_array().unwrap().len(), 5);
        let near = |name: &str, micros: f64| {
            let value = json["latency_us"][name].as_f64().unwrap();
            assert!((value - micros).abs() <= micros / 500.0, "{name} {value}");
        };
        near("p50", 500.0);
        near("p99", 990.0);
        near("p99_9", 999.0);
        near("max", 1000.0);
        assert!(json.get("rate_per_s").is_none());
    }

    #[test]
    fn the_text_says_what_went_wrong_and_gives_examples() {
        let text = report().to_string();
        assert!(text.contains("messages     1,000, 1,000/s"), "{text}");
        assert!(text.contains("errors       8\n  unanswered: 1\n  wrong byte: 7\n"), "{text}");
        assert!(text.contains("e.g. session 0: wrong byte"), "{text}");
    }
}
