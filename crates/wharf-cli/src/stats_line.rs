//! The status line, computed from two readings of the server's statistics.

use std::fmt;
use std::iter::zip;
use std::time::Duration;

use serde_json::{Map, Value, json};
use wharf::{
    Handle, Histogram, Histograms, LongTurn, Metric, MetricValue, RunningTurn, Stats, TurnCallbacks,
};

use crate::figures::{Bytes, Span, per_second};

/// How a column shows its metric.
enum Form {
    /// Of a counter how much was counted in the period, of a gauge how much there is.
    Plain,
    Bytes,
    PerSecond,
    MegabytesPerSecond,
    /// How many to each of another metric's.
    PerEach(&'static str),
}

/// The metrics that the line always shows: their names, titles and forms. All others come by themselves, in
/// periods in which there is something to say.
const COLUMNS: [(&str, &str, Form); 10] = [
    ("live", "sessions", Form::Plain),
    ("accepted", "accepts/s", Form::PerSecond),
    ("receives", "receives/s", Form::PerSecond),
    ("sends", "sends/s", Form::PerSecond),
    ("received_bytes", "in", Form::MegabytesPerSecond),
    ("sent_bytes", "out", Form::MegabytesPerSecond),
    ("sent_frames", "frames/send", Form::PerEach("sends")),
    ("queued_bytes", "queued", Form::Bytes),
    ("refused", "refused", Form::Plain),
    ("receive_pauses", "pauses", Form::Plain),
];

/// Of these, columns say enough.
const LEFT_OUT: [&str; 3] = ["opened", "closed", "received_frames"];

/// A worker that has been in one turn for so long is shown.
const RUNNING_FOR: Duration = Duration::from_millis(100);

/// What a server has counted and measured until a moment.
#[derive(Default)]
pub(crate) struct Reading {
    pub(crate) stats: Stats,
    histograms: Histograms,
    long_turns: Vec<LongTurn>,
    running_turns: Vec<RunningTurn>,
}

impl Reading {
    pub(crate) fn of(handle: &Handle) -> Reading {
        let (long_turns, mut running_turns) = (handle.long_turns(), handle.running_turns());
        running_turns.retain(|turn| turn.lasted >= RUNNING_FOR);
        let (stats, histograms) = (handle.stats(), handle.histograms());
        Reading { stats, histograms, long_turns, running_turns }
    }
}

/// What went on between two readings.
pub(crate) struct StatsLine<'a> {
    before: &'a Stats,
    now: &'a Stats,
    /// Of this period.
    histograms: Histograms,
    /// Those that were not known before, of the latest.
    long_turns: Vec<LongTurn>,
    running_turns: &'a [RunningTurn],
    period: Duration,
    resident_bytes: Option<u64>,
}

impl<'a> StatsLine<'a> {
    /// `resident_bytes` is the process's memory at the time of `now`, where it is known.
    pub(crate) fn between(
        before: &'a Reading,
        now: &'a Reading,
        period: Duration,
        resident_bytes: Option<u64>,
    ) -> StatsLine<'a> {
        let histograms = now.histograms.since(&before.histograms);
        let mut long_turns = now.long_turns.clone();
        long_turns.retain(|turn| !before.long_turns.contains(turn));
        let running_turns = &now.running_turns;
        let (before, now) = (&before.stats, &now.stats);
        StatsLine { before, now, histograms, long_turns, running_turns, period, resident_bytes }
    }

    /// Whether `opened - closed == live`, as must always hold.
    pub(crate) fn is_balanced(&self) -> bool {
        self.now.opened.checked_sub(self.now.closed) == Some(self.now.live)
    }

    /// Each counter with what it has counted in the period, each gauge with what it says now.
    fn amounts(&self) -> impl Iterator<Item = (Metric<'_>, u64)> {
        zip(self.before.metrics(), self.now.metrics()).filter_map(|(before, metric)| {
            match (before.value, metric.value) {
                (MetricValue::Counter(before), MetricValue::Counter(now)) => {
                    Some((metric, now.saturating_sub(before)))
                }
                (_, MetricValue::Gauge(now)) => Some((metric, now)),
                _ => None,
            }
        })
    }

    fn amount(&self, name: &str) -> u64 {
        self.amounts().filter(|(metric, _)| metric.name == name).map(|(_, amount)| amount).sum()
    }

    /// All of it for programs: counters since the start, and what they come to in a second of this period; gauges
    /// as they stand; of this period's histograms what is mostly asked.
    pub(crate) fn json(&self) -> Value {
        let (mut line, mut per_s) = (Map::new(), Map::new());
        for (metric, amount) in self.amounts() {
            let (MetricValue::Counter(value) | MetricValue::Gauge(value)) = metric.value else {
                continue;
            };
            if let Some((_, which)) = metric.label {
                line.entry(metric.name).or_insert_with(|| json!({}))[which] = json!(value);
                continue;
            }
            line.insert(metric.name.into(), json!(value));
            if matches!(metric.value, MetricValue::Counter(_)) {
                per_s.insert(metric.name.into(), json!(per_second(amount, self.period)));
            }
        }
        for metric in self.histograms.metrics() {
            if let MetricValue::Histogram(histogram) = metric.value {
                line.insert(metric.name.into(), quantiles(histogram));
            }
        }
        line.insert("per_s".into(), per_s.into());
        let long_turns = self.long_turns.iter().map(long_turn).collect();
        line.insert("latest_long_turns".into(), Value::Array(long_turns));
        let running_turns = self.running_turns.iter().map(running_turn).collect();
        line.insert("running_turns".into(), Value::Array(running_turns));
        if let Some(bytes) = self.resident_bytes {
            line.insert("resident_bytes".into(), json!(bytes));
        }
        line.insert("balanced".into(), json!(self.is_balanced()));
        line.into()
    }
}

fn nanos(duration: Duration) -> u64 {
    duration.as_nanos().try_into().unwrap_or(u64::MAX)
}

/// `callback` is there only if it is known which took longest, `callback_took_ns` only if it was measured.
fn long_turn(turn: &LongTurn) -> Value {
    let mut said = json!({
        "worker": turn.worker, "began_ns": nanos(turn.began), "took_ns": nanos(turn.took),
        "said": turn.to_string(),
    });
    if let Some(call) = turn.longest() {
        said["callback"] = json!(call.callback.name());
        said["session"] = json!(call.session.map(|id| id.to_string()));
    }
    if let TurnCallbacks::Measured { took, .. } = turn.callbacks {
        said["callback_took_ns"] = json!(nanos(took));
    }
    said
}

fn running_turn(turn: &RunningTurn) -> Value {
    let session = turn.call.and_then(|call| call.session);
    json!({
        "worker": turn.worker, "lasted_ns": nanos(turn.lasted), "calls": turn.calls,
        "callback": turn.call.map(|call| call.callback.name()),
        "session": session.map(|id| id.to_string()), "said": turn.to_string(),
    })
}

fn quantiles(histogram: &Histogram) -> Value {
    let [p50, p99, max] = [0.5, 0.99, 1.0].map(|part| histogram.quantile(part));
    json!({ "count": histogram.count(), "p50": p50, "p99": p99, "max": max })
}

impl StatsLine<'_> {
    fn write_columns(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut space = "";
        for (name, title, form) in &COLUMNS {
            let amount = self.amount(name);
            write!(f, "{space}{title} ")?;
            match form {
                Form::Plain => write!(f, "{amount}")?,
                Form::Bytes => write!(f, "{}", Bytes(amount))?,
                Form::PerSecond => write!(f, "{:.0}", per_second(amount, self.period))?,
                Form::MegabytesPerSecond => {
                    write!(f, "{:.2} MB/s", per_second(amount, self.period) / 1e6)?;
                }
                Form::PerEach(other) => match self.amount(other) {
                    0 => f.write_str("-")?,
                    others => write!(f, "{:.2}", amount as f64 / others as f64)?,
                },
            }
            space = "  ";
        }
        Ok(())
    }

    fn write_histograms(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for metric in self.histograms.metrics() {
            let MetricValue::Histogram(histogram) = metric.value else { continue };
            let Some(p99) = histogram.quantile(0.99) else { continue };
            write!(f, "  {} p99 ", spoken(metric.name.trim_end_matches("_ns")))?;
            match metric.unit {
                "nanoseconds" => write!(f, "{}", Span(Duration::from_nanos(p99)))?,
                _ => write!(f, "{p99}")?,
            }
        }
        Ok(())
    }

    /// Who keeps others waiting: the longest turn of the period, and those that go on.
    fn write_turns(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(turn) = self.long_turns.iter().max_by_key(|turn| turn.took) {
            write!(f, "  {turn}")?;
        }
        self.running_turns.iter().try_for_each(|turn| write!(f, "  {turn}"))
    }

    /// What has no column, and has something to say.
    fn write_news(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_shown = |name| COLUMNS.iter().any(|column| column.0 == name);
        let is_news = |(metric, amount): &(Metric<'_>, u64)| {
            *amount > 0 && !is_shown(metric.name) && !LEFT_OUT.contains(&metric.name)
        };
        let mut last = "";
        for (metric, amount) in self.amounts().filter(is_news) {
            let name = spoken(metric.name);
            match metric.label {
                None => write!(f, "  {name} {amount}")?,
                Some((_, which)) if metric.name == last => write!(f, ", {which} {amount}")?,
                Some((_, which)) => write!(f, "  {name}: {which} {amount}")?,
            }
            last = metric.name;
        }
        Ok(())
    }
}

fn spoken(name: &str) -> String {
    name.replace('_', " ")
}

impl fmt::Display for StatsLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write_columns(f)?;
        if let Some(bytes) = self.resident_bytes {
            write!(f, "  resident {}", Bytes(bytes))?;
        }
        self.write_histograms(f)?;
        self.write_news(f)?;
        self.write_turns(f)?;
        if !self.is_balanced() {
            let Stats { opened, closed, live, .. } = self.now;
            write!(f, "  !! opened - closed != live ({opened} - {closed} != {live})")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn reading(change: impl FnOnce(&mut Stats)) -> Reading {
        let mut reading = Reading::default();
        change(&mut reading.stats);
        reading
    }

    #[test]
    fn rates_are_differences_over_the_period_and_levels_are_as_they_stand() {
        let before = reading(|stats| {
            (stats.accepted, stats.opened, stats.live) = (10, 10, 10);
            (stats.sends, stats.sent_frames, stats.queued_bytes) = (100, 150, 7);
            stats.connect_failures = 4;
        });
        let now = reading(|stats| {
            (stats.accepted, stats.opened, stats.closed, stats.live) = (110, 110, 50, 60);
            (stats.sends, stats.sent_frames, stats.queued_bytes) = (300, 750, 2048);
            (stats.received_bytes, stats.refused) = (5_000_000, 3);
            (stats.connect_failures, stats.handler_panics) = (4, 2);
        });
        let line = StatsLine::between(&before, &now, Duration::from_millis(500), Some(3 << 20));
        assert!(line.is_balanced());
        assert_eq!(
            line.to_string(),
            "sessions 60  accepts/s 200  receives/s 0  sends/s 400  in 10.00 MB/s  \
             out 0.00 MB/s  frames/send 3.00  queued 2.0 KiB  refused 3  pauses 0  \
             resident 3.0 MiB  handler panics 2",
        );
        let json = line.json();
        assert_eq!((&json["accepted"], &json["per_s"]["accepted"]), (&json!(110), &json!(200.0)));
        assert_eq!((&json["live"], &json["balanced"]), (&json!(60), &json!(true)));
        assert_eq!(json["resident_bytes"], 3 << 20);
    }

    /// A server that has served one session, and what it counted before it closed, and after.
    fn served() -> [Reading; 2] {
        use std::io::{Read, Write};
        struct Echo;
        impl wharf::Handler for Echo {
            type State = ();
            fn opened(&self, _: &wharf::Session) {}
            fn received(&self, session: &wharf::Session, (): &mut (), frame: &[u8]) {
                session.send(frame);
            }
        }
        let server = wharf::Server::builder().listen("127.0.0.1:0").workers(1).start(Echo).unwrap();
        let mut peer = std::net::TcpStream::connect(server.addresses()[0]).unwrap();
        peer.write_all(b"x").unwrap();
        peer.read_exact(&mut [0]).unwrap();
        let handle = server.handle();
        let before = Reading::of(&handle);
        handle.drain(Duration::from_secs(30)).unwrap();
        [before, Reading::of(&handle)]
    }

    #[test]
    fn every_metric_is_in_the_json_and_on_the_line_if_it_says_something() {
        let [before, mut after] = served();
        // Of what seldom happens.
        (after.stats.accept_failures, after.stats.connect_failures) = (21, 22);
        (after.stats.buffers_exhausted, after.stats.stale_completions) = (23, 24);
        let since_start = Reading::default();
        let line = StatsLine::between(&since_start, &after, SECOND, None);
        let (text, json) = (line.to_string(), line.json());
        let mut names = HashSet::new();
        for metric in after.stats.metrics().chain(after.histograms.metrics()) {
            names.insert(metric.name);
            match (metric.label, metric.value) {
                (Some((_, which)), MetricValue::Counter(value)) => {
                    assert_eq!(json[metric.name][which], value);
                }
                (None, MetricValue::Counter(value)) => {
                    assert_eq!(json[metric.name], value);
                    assert_eq!(json["per_s"][metric.name], value as f64);
                }
                (None, MetricValue::Gauge(value)) => assert_eq!(json[metric.name], value),
                (None, MetricValue::Histogram(histogram)) => {
                    assert!(histogram.count() > 0);
                    for (name, part) in [("p50", 0.5), ("p99", 0.99), ("max", 1.0)] {
                        assert_eq!(json[metric.name][name], json!(histogram.quantile(part)));
                    }
                    let title = spoken(metric.name.trim_end_matches("_ns"));
                    assert!(text.contains(&format!("  {title} p99 ")), "{title} is not in {text}");
                }
                _ => panic!("{metric:?} is in no line"),
            }
        }
        let others = ["per_s", "balanced", "latest_long_turns", "running_turns"];
        assert_eq!(json.as_object().unwrap().len(), names.len() + others.len());
        assert!(COLUMNS.iter().map(|column| column.0).chain(LEFT_OUT).all(|at| names.contains(at)));
        for (Metric { name, label, .. }, amount) in line.amounts().filter(|(_, amount)| *amount > 0)
        {
            let column = COLUMNS.iter().find(|column| column.0 == name);
            let said = match (column, label) {
                (Some((_, title, _)), _) => format!("  {title} "),
                (None, Some((_, which))) => format!("  {}: {which} {amount}", spoken(name)),
                (None, None) => format!("  {} {amount}", spoken(name)),
            };
            let is_said = format!("  {text}").contains(&said);
            assert!(is_said || LEFT_OUT.contains(&name), "{said} is not in {text}");
        }
        // A period's histograms are of that period.
        let json = StatsLine::between(&before, &after, SECOND, None).json();
        assert_eq!(
            json["completion_to_callback_ns"],
            json!({
                "count": 0, "p50": null, "p99": null, "max": null,
            })
        );
    }

    #[test]
    fn a_session_that_is_neither_live_nor_closed_is_cried_out() {
        let none = Reading::default();
        for (opened, closed, live) in [(10, 3, 8), (3, 10, 0)] {
            let now =
                reading(|stats| (stats.opened, stats.closed, stats.live) = (opened, closed, live));
            let line = StatsLine::between(&none, &now, SECOND, None);
            assert!(!line.is_balanced());
            let cry = format!("!! opened - closed != live ({opened} - {closed} != {live})");
            assert!(line.to_string().ends_with(&cry), "{line}");
        }
    }

    /// A handler that blocks for longer than any machine would, until it has been seen.
    #[test]
    fn a_callback_that_takes_long_is_named_while_it_runs_and_once_afterwards() {
        use std::io::Write;
        use std::sync::Mutex;
        use std::sync::mpsc::{Receiver, channel};
        struct Blocks(Mutex<Receiver<()>>);
        impl wharf::Handler for Blocks {
            type State = ();
            fn opened(&self, _: &wharf::Session) {}
            fn received(&self, _: &wharf::Session, (): &mut (), _: &[u8]) {
                let _ = self.0.lock().unwrap().recv();
            }
        }
        let (release, released) = channel();
        let builder = wharf::Server::builder().listen("127.0.0.1:0").workers(1);
        let server = builder.start(Blocks(Mutex::new(released))).unwrap();
        let mut peer = std::net::TcpStream::connect(server.addresses()[0]).unwrap();
        peer.write_all(b"x").unwrap();
        let handle = server.handle();
        let none = Reading::default();
        let read_until = |is_there: fn(&Reading) -> bool| loop {
            let now = Reading::of(&handle);
            if is_there(&now) {
                return now;
            }
            std::thread::yield_now();
        };
        fn in_received(turn: &RunningTurn) -> bool {
            turn.call.is_some_and(|call| call.callback.name() == "received")
        }
        fn is_long(turn: &LongTurn) -> bool {
            turn.took >= RUNNING_FOR
        }
        let now = read_until(|now| now.running_turns.iter().any(in_received));
        let line = StatsLine::between(&none, &now, SECOND, None);
        let said = line.to_string();
        assert!(
            said.contains("  worker 0: in a turn for ") && said.contains("`received`"),
            "{said}"
        );
        assert_eq!(line.json()["running_turns"][0]["callback"], "received");

        release.send(()).unwrap();
        let now = read_until(|now| now.long_turns.iter().any(is_long));
        let line = StatsLine::between(&none, &now, SECOND, None);
        let (said, json) = (line.to_string(), line.json());
        assert!(
            said.contains("  long turns ") && said.contains("  worker 0: a turn took "),
            "{said}"
        );
        let turns = json["latest_long_turns"].as_array().unwrap();
        assert!(turns.iter().any(|turn| turn["took_ns"].as_u64().unwrap() >= 100_000_000));
        let again = StatsLine::between(&now, &now, SECOND, None);
        assert!(!again.to_string().contains("a turn took"), "{again}");
        assert_eq!(again.json()["latest_long_turns"], json!([]));
    }

    #[test]
    fn a_period_without_sends_has_no_frames_per_send() {
        let none = Reading::default();
        let line = StatsLine::between(&none, &none, SECOND, None);
        assert!(line.to_string().contains("frames/send -"));
    }
}
