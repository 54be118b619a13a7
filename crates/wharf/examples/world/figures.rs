//! What the world says of itself: a line a second.

use std::fs::File;
use std::io::{self, Write};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use wharf::{Handle, Histogram, Tick, Ticker};

use crate::world::PERIOD;

#[derive(Default)]
pub(crate) struct Figures {
    seen: Mutex<Seen>,
}

#[derive(Default, Clone)]
struct Seen {
    ticks: u64,
    /// So many should have come by now.
    due: u64,
    skipped: u64,
    avatars: usize,
    lateness_ns: Histogram,
}

impl Figures {
    pub(crate) fn see(&self, tick: Tick, elapsed: Duration, ticker: &Ticker, avatars: usize) {
        if !tick.number.is_multiple_of(30) {
            return;
        }
        let due = (elapsed.as_nanos() / PERIOD.as_nanos()) as u64 + 1;
        let (ticks, lateness_ns) = (tick.number + 1 - tick.skipped, ticker.lateness_ns());
        let seen = Seen { ticks, due, skipped: tick.skipped, avatars, lateness_ns };
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = seen;
    }

    /// Says it, once a second, for ever. Its own ticker does nothing else: how late that comes is the machine's part.
    pub(crate) fn say(&self, handle: &Handle, json: Option<&str>) -> io::Result<()> {
        let mut json = json.map(File::create).transpose()?;
        // Not the world's period, so that it comes at any moment of a tick.
        let mut control = Ticker::new(Duration::from_millis(29));
        let mut before = Seen::default();
        loop {
            let tick = control.wait();
            if tick.number % 34 != 33 {
                continue;
            }
            let (stats, idle) = (handle.stats(), control.lateness_ns());
            let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let p99_us = |histogram: &Histogram| histogram.quantile(0.99).unwrap_or(0) / 1_000;
            let now_us = p99_us(&seen.lateness_ns.since(&before.lateness_ns));
            let Seen { ticks, due, skipped, avatars, ref lateness_ns } = seen;
            println!(
                "tick {ticks} of {due}, {skipped} skipped, late p99 {now_us} us; sessions {}, avatars {avatars}, sends {}, \
                 superseded {}, slow {}",
                stats.live, stats.sends, stats.superseded_frames, stats.slow_ends,
            );
            if let Some(json) = &mut json {
                writeln!(
                    json,
                    "{{\"world\": {{\"ticks\": {ticks}, \"due\": {due}, \"skipped\": {skipped}, \"avatars\": {avatars}, \
                     \"late_us\": {}, \"idle_late_us\": {}, \"sessions\": {}, \"superseded\": {}, \"slow\": {}, \
                     \"kicked\": {}}}}}",
                    p99_us(lateness_ns),
                    p99_us(&idle),
                    stats.live,
                    stats.superseded_frames,
                    stats.slow_ends,
                    stats.closed_like(wharf::CloseReason::Kicked { code: 0 }),
                )?;
            }
            before = seen;
        }
    }
}
