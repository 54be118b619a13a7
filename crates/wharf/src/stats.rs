//! The one schema of statistics: every counter, gauge and histogram is declared once, below the macro that
//! makes of the declarations what workers count with, what programs read and what an exporter walks through.

use std::iter::zip;

use crate::close::CloseReason;
use crate::histogram::{Histogram, Recorder};

/// One figure, with what its declaration says of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Metric<'a> {
    /// As the field that has it.
    pub name: &'static str,
    /// What is counted or measured: `"bytes"`, `"nanoseconds"`.
    pub unit: &'static str,
    /// What it says, in a sentence or more.
    pub help: &'static str,
    /// What tells it from the others of the same name, and its value for this one: `("reason", "reset")`.
    pub label: Option<(&'static str, &'static str)>,
    /// Its kind, and the figure.
    pub value: MetricValue<'a>,
}

/// The kinds of metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum MetricValue<'a> {
    /// How often something has happened since the start. It never falls.
    Counter(u64),
    /// How much of something there is now.
    Gauge(u64),
    /// How something is distributed that has been measured since the start.
    Histogram(&'a Histogram),
}

macro_rules! schema {
    (
        stats { $($(#[doc = $help:literal])+ $name:ident: $kind:ident of $unit:literal,)+ }
        stats by reason {
            $($(#[doc = $by_help:literal])+ $by_name:ident: $by_kind:ident of $by_unit:literal,)+
        }
        histograms { $($(#[doc = $of_help:literal])+ $of_name:ident: Histogram of $of_unit:literal,)+ }
    ) => {
        /// What has happened since the start, and what is there now.
        ///
        /// Each worker publishes its part as a whole after every turn, so `opened - closed == live` holds exactly
        /// in every reading. What a worker does in its present turn is not included yet, so for a moment `live`
        /// may exceed the bound on sessions.
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct Stats {
            $($(#[doc = $help])+ pub $name: u64,)+
            $($by_name: [u64; CloseReason::KINDS],)+
        }

        impl Stats {
            /// All of them, each with what its declaration says of it.
            pub fn metrics(&self) -> impl Iterator<Item = Metric<'_>> {
                let plain = [$(Metric {
                    name: stringify!($name),
                    unit: $unit,
                    help: concat!($($help),+).trim_ascii(),
                    label: None,
                    value: MetricValue::$kind(self.$name),
                }),+];
                let by_reason = [$(zip(CloseReason::KIND_NAMES, self.$by_name).map(|(reason, value)| Metric {
                    name: stringify!($by_name),
                    unit: $by_unit,
                    help: concat!($($by_help),+).trim_ascii(),
                    label: Some(("reason", reason)),
                    value: MetricValue::$by_kind(value),
                })),+];
                plain.into_iter().chain(by_reason.into_iter().flatten())
            }

            /// Adds what another worker has counted. It wraps: a session that one worker has opened and another
            /// closed is one less than none at the latter.
            pub(crate) fn add(&mut self, other: &Stats) {
                $(self.$name = self.$name.wrapping_add(other.$name);)+
                $(for (sum, part) in zip(&mut self.$by_name, other.$by_name) {
                    *sum = sum.wrapping_add(part);
                })+
            }

            /// One of which each has a value of its own.
            #[cfg(test)]
            fn of_each(mut next: impl FnMut() -> u64) -> Stats {
                Stats {
                    $($name: next(),)+
                    $($by_name: std::array::from_fn(|_| next()),)+
                }
            }
        }

        /// How long things take, and how many come together, of all workers since the start.
        #[derive(Debug, Clone, Default, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct Histograms {
            $($(#[doc = $of_help])+ pub $of_name: Histogram,)+
        }

        impl Histograms {
            /// All of them, each with what its declaration says of it.
            pub fn metrics(&self) -> impl Iterator<Item = Metric<'_>> {
                [$(Metric {
                    name: stringify!($of_name),
                    unit: $of_unit,
                    help: concat!($($of_help),+).trim_ascii(),
                    label: None,
                    value: MetricValue::Histogram(&self.$of_name),
                }),+].into_iter()
            }

            /// What was recorded since an earlier reading of the same server's.
            #[must_use]
            pub fn since(&self, earlier: &Histograms) -> Histograms {
                Histograms { $($of_name: self.$of_name.since(&earlier.$of_name),)+ }
            }
        }

        /// Where one worker records them.
        #[derive(Debug, Default)]
        pub(crate) struct Recorders {
            $(pub(crate) $of_name: Recorder,)+
        }

        impl Recorders {
            pub(crate) fn add_to(&self, sum: &mut Histograms) {
                $(self.$of_name.add_to(&mut sum.$of_name);)+
            }
        }
    };
}

schema! {
    stats {
        /// Sessions begun: accepted or connected.
        opened: Counter of "sessions",
        /// Sessions released.
        closed: Counter of "sessions",
        /// Sessions that are open now.
        live: Gauge of "sessions",
        /// Sessions whose transport does not stand yet.
        establishing: Gauge of "sessions",
        /// Sessions whose transport was established.
        established: Counter of "sessions",
        /// Sessions that ended before their transport stood, those with an HTTP answer not included.
        establish_failures: Counter of "sessions",
        /// Requests that were no upgrade to WebSocket, or a refused one, and got an HTTP answer.
        refused_upgrades: Counter of "requests",
        /// Pings sent to peers that were not heard for long.
        pings: Counter of "frames",
        /// Pings of peers that were answered.
        pongs: Counter of "frames",
        /// Connections taken from the listeners, the refused ones included.
        accepted: Counter of "connections",
        /// Peers closed at once because `sessions.max` was reached, or the server was ending.
        refused: Counter of "connections",
        /// Times that accepting failed (no descriptor, no memory, the peer gone already).
        accept_failures: Counter of "failures",
        /// Connects that failed.
        connect_failures: Counter of "failures",
        /// Receives that brought bytes.
        receives: Counter of "completions",
        /// Bytes received.
        received_bytes: Counter of "bytes",
        /// Frames given to the handler.
        received_frames: Counter of "frames",
        /// Sends that moved bytes, those that left without an operation included.
        sends: Counter of "sends",
        /// Bytes sent, as far as the kernel has taken them.
        sent_bytes: Counter of "bytes",
        /// Frames whose last byte was sent.
        sent_frames: Counter of "frames",
        /// Bytes that wait in send queues now.
        queued_bytes: Gauge of "bytes",
        /// Members of groups that lack publications now, because their send queues had no room; those with
        /// `Policy::Skip` are not among them.
        members_behind: Gauge of "sessions",
        /// For how long the one of them has lacked some that is behind for longest.
        oldest_place_ns: Gauge of "nanoseconds",
        /// Frames that members with `Policy::Skip` have missed, as far as their handlers were told.
        skipped_frames: Counter of "frames",
        /// Frames that waited for members with `Policy::KeepLatest`, and were replaced by newer ones.
        superseded_frames: Counter of "frames",
        /// Members that were asked to end because they were slow, or lacked too much when a port was full.
        slow_ends: Counter of "sessions",
        /// Sessions that were asked to end because `sending.queued_bytes_max` was used up.
        budget_ends: Counter of "sessions",
        /// Notes that sessions were told, those that jobs gave too.
        told_notes: Counter of "notes",
        /// Notes for sessions that ended before they came to them; those that jobs gave are among the untold jobs.
        untold_notes: Counter of "notes",
        /// Jobs that have places now: those that wait, that run, and whose note waits.
        held_jobs: Gauge of "jobs",
        /// Jobs that were run.
        run_jobs: Counter of "jobs",
        /// Jobs that panicked, and those whose session ended before it was told what they gave; also if they were not
        /// run any more.
        untold_jobs: Counter of "jobs",
        /// Publications that were refused because too much waited at a port.
        publications_refused: Counter of "publications",
        /// Times that receiving from a session was paused for backpressure.
        receive_pauses: Counter of "pauses",
        /// Receives that had to wait because every lent buffer was out.
        buffers_exhausted: Counter of "receives",
        /// Completions for a session that was gone. Always 0, or it is a bug of wharf.
        stale_completions: Counter of "completions",
        /// Turns of workers that took longer than `long_turn`.
        long_turns: Counter of "turns",
        /// Handler callbacks that panicked, and jobs.
        handler_panics: Counter of "panics",
    }
    stats by reason {
        /// Sessions closed, by the kind of their reason.
        closed_by: Counter of "sessions",
    }
    histograms {
        /// How long a worker's turn takes: from its first completion (or the end of its wait, if there was none)
        /// until the worker waits again.
        turn_ns: Histogram of "nanoseconds",
        /// Completions that moved bytes, in one turn of a worker. 0 if something else ended the wait.
        batch_completions: Histogram of "completions",
        /// How long received bytes wait for their callback behind the others of their turn: from the beginning of
        /// the turn until their frames are cut. The time before that turn is not included. One of 61 receives
        /// is measured.
        completion_to_callback_ns: Histogram of "nanoseconds",
    }
}

impl Stats {
    /// Sessions closed, by the kind of their reason.
    pub fn closed_by(&self) -> impl Iterator<Item = (&'static str, u64)> {
        zip(CloseReason::KIND_NAMES, self.closed_by)
    }

    /// Sessions closed for reasons of the same kind as `reason`, whatever its facts.
    pub fn closed_like(&self, reason: CloseReason) -> u64 {
        self.closed_by[reason.kind_index()]
    }

    /// Of a worker's own, before it has added what left without one: those that moved bytes.
    pub(crate) fn completions(&self) -> u64 {
        self.receives + self.sends
    }

    pub(crate) fn count_closed(&mut self, reason: CloseReason) {
        self.closed += 1;
        self.closed_by[reason.kind_index()] += 1;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    /// Their values are one after another.
    fn counted_up_from(first: u64) -> Stats {
        let mut values = first..;
        Stats::of_each(|| values.next().unwrap())
    }

    fn values(stats: &Stats) -> Vec<u64> {
        let value = |metric: Metric<'_>| match metric.value {
            MetricValue::Counter(value) | MetricValue::Gauge(value) => value,
            MetricValue::Histogram(_) => panic!("{metric:?} is in `Stats`"),
        };
        stats.metrics().map(value).collect()
    }

    #[test]
    fn every_figure_that_there_is_memory_for_is_a_metric_once_and_says_what_it_is() {
        let (stats, histograms) = (counted_up_from(1), Histograms::default());
        let figures = size_of::<Stats>() / size_of::<u64>();
        assert_eq!(values(&stats), (1..=figures as u64).collect::<Vec<_>>());
        assert_eq!(histograms.metrics().count(), size_of::<Histograms>() / size_of::<Histogram>());
        let mut names = HashSet::new();
        for metric in stats.metrics().chain(histograms.metrics()) {
            assert!(names.insert((metric.name, metric.label)), "{metric:?} is there twice");
            assert!(!metric.unit.is_empty() && metric.unit.trim() == metric.unit, "{metric:?}");
            assert!(metric.help.ends_with('.') && metric.help.trim() == metric.help, "{metric:?}");
            assert!(!metric.help.contains("  "), "{metric:?}");
        }
    }

    #[test]
    fn a_sum_has_every_part_of_every_figure_and_wraps() {
        let mut sum = counted_up_from(1_000);
        sum.add(&counted_up_from(1));
        let expected = |at: usize| 1_001 + 2 * at as u64;
        assert_eq!(values(&sum), (0..values(&sum).len()).map(expected).collect::<Vec<_>>());
        // Each is one less than none at the one worker, and three at the other.
        let mut sum = Stats::of_each(|| u64::MAX);
        sum.add(&Stats::of_each(|| 3));
        assert_eq!(sum, Stats::of_each(|| 2));
    }

    #[test]
    fn what_every_worker_has_recorded_is_in_the_sum_under_its_own_name() {
        let workers = [Recorders::default(), Recorders::default()];
        let read = || {
            let mut sum = Histograms::default();
            workers.iter().for_each(|recorders| recorders.add_to(&mut sum));
            sum
        };
        let sums = |histograms: &Histograms| {
            let Histograms { turn_ns, batch_completions, completion_to_callback_ns } = histograms;
            [turn_ns, batch_completions, completion_to_callback_ns].map(Histogram::sum)
        };
        for recorders in &workers {
            recorders.turn_ns.record(1);
            recorders.batch_completions.record(10);
            recorders.completion_to_callback_ns.record(100);
        }
        let earlier = read();
        assert_eq!(sums(&earlier), [2, 20, 200]);
        workers[1].turn_ns.record(1_000);
        assert_eq!(sums(&read()), [1_002, 20, 200]);
        assert_eq!(sums(&read().since(&earlier)), [1_000, 0, 0]);
        let names = ["turn_ns", "batch_completions", "completion_to_callback_ns"];
        for ((metric, name), sum) in zip(earlier.metrics(), names).zip(sums(&earlier)) {
            assert_eq!(metric.name, name);
            assert!(matches!(metric.value, MetricValue::Histogram(of) if of.sum() == sum));
        }
    }
}
