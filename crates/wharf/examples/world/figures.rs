//! What the world says of itself: a line a second.

use std::fs::File;
use std::io::{self, Write};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use wharf::{Handle, Histogram, Tick, Ticker};

use crate::world::PERIOD;

#[derive(Default)]
pub(crate) struct Figures {
    seen: Mutex<Seen>,
}

#[derive(Default, Clone)]
struct Seen {
    tick: Option<Tick>,
    /// So many should have come by now.
    due: u64,
    /// How long after its time a tick was due, in this second: the least, because this thread may be interrupted between
    /// its two looks at the clock.
    drift: Option<Duration>,
    avatars: usize,
    lateness_ns: Histogram,
}

impl Figures {
    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A tick has come, so long after the start.
    pub(crate) fn see(&self, tick: Tick, elapsed: Duration) {
        let planned = Duration::from_nanos(PERIOD.as_nanos() as u64 * tick.number);
        let drift = elapsed.saturating_sub(tick.late).abs_diff(planned);
        let mut seen = self.seen();
        seen.tick = Some(tick);
        seen.due = (elapsed.as_nanos() / PERIOD.as_nanos()) as u64 + 1;
        seen.drift = Some(seen.drift.map_or(drift, |least| least.min(drift)));
    }

    pub(crate) fn see_more(&self, ticker: &Ticker, avatars: usize) {
        let lateness_ns = ticker.lateness_ns();
        let mut seen = self.seen();
        (seen.lateness_ns, seen.avatars) = (lateness_ns, avatars);
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
            let seen = {
                let mut seen = self.seen();
                let now = seen.clone();
                seen.drift = None;
                now
            };
            let p99_us = |histogram: &Histogram| histogram.quantile(0.99).unwrap_or(0) / 1_000;
            let now_us = p99_us(&seen.lateness_ns.since(&before.lateness_ns));
            let Seen { due, avatars, ref lateness_ns, .. } = seen;
            let (last, skipped) = seen.tick.map_or((0, 0), |tick| (tick.number + 1, tick.skipped));
            let (ticks, drift_us) = (last - skipped, seen.drift.unwrap_or_default().as_micros());
            println!(
                "tick {ticks} of {due}, {skipped} skipped, late p99 {now_us} us; sessions {}, avatars {avatars}, sends {}, \
                 queued {} B, superseded {}, slow {}",
                stats.live,
                stats.sends,
                stats.queued_bytes,
                stats.superseded_frames,
                stats.slow_ends,
            );
            if let Some(json) = &mut json {
                writeln!(
                    json,
                    "{{\"world\": {{\"ticks\": {ticks}, \"due\": {due}, \"skipped\": {skipped}, \"drift_us\": {drift_us}, \"avatars\": {avatars}, \
                     \"late_us\": {}, \"idle_late_us\": {}, \"sessions\": {}, \"queued_bytes\": {}, \"superseded\": {}, \"slow\": {}, \
                     \"kicked\": {}}}}}",
                    p99_us(lateness_ns),
                    p99_us(&idle),
                    stats.live,
                    stats.queued_bytes,
                    stats.superseded_frames,
                    stats.slow_ends,
                    stats.closed_like(wharf::CloseReason::Kicked { code: 0 }),
                )?;
            }
            before = seen;
        }
    }
}
