//! The progress bar on stderr during a run. Only on a terminal.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::figures::Count;

pub(super) struct Progress {
    bar: ProgressBar,
    last: (Instant, u64),
}

impl Progress {
    /// How often it is worth a call.
    pub(super) const PERIOD: Duration = Duration::from_millis(100);

    /// `length` steps of whatever this counts.
    pub(super) fn new(what: &'static str, length: u64) -> Progress {
        let style = ProgressStyle::with_template("{prefix} [{bar:32}] {percent:>3} %  {msg}");
        let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
        let bar = ProgressBar::new(length).with_style(style).with_prefix(what);
        Progress { bar, last: (Instant::now(), 0) }
    }

    pub(super) fn of_time(what: &'static str, length: Duration) -> Progress {
        Progress::new(what, u64::try_from(length.as_millis()).unwrap_or(u64::MAX))
    }

    pub(super) fn at(&self, position: u64) {
        self.bar.set_position(position);
    }

    /// So long it has run, and so many things are done.
    pub(super) fn at_time(&mut self, elapsed: Duration, done: u64, errors: u64) {
        if self.bar.is_hidden() {
            return;
        }
        let now = Instant::now();
        let (before, done_before) = self.last;
        let period = (now - before).as_secs_f64().max(1e-9);
        self.last = (now, done);
        let rate = (done.saturating_sub(done_before) as f64 / period).round() as u64;
        self.bar.set_position(u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX));
        self.bar.set_message(format!("{}/s, errors {}", Count(rate), Count(errors)));
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
