//! What the workers count, each in its own part, so that no message waits for another worker's lock.

use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hdrhistogram::Histogram;

/// The counts of one worker, or the sum of all.
#[repr(align(128))] // no two workers' locks on one pair of cache lines
pub(super) struct Counts {
    /// From when a message was due to be sent until its last byte was back, in nanoseconds.
    pub(super) latency_ns: Histogram<u64>,
    /// Messages answered, every byte right.
    pub(super) messages: u64,
    /// Of these, the ones answered before the time was up.
    pub(super) messages_in_time: u64,
}

/// For nanoseconds, with three digits. One hour is more than anything here can take.
pub(super) fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 3_600_000_000_000, 3)
        .unwrap_or_else(|_| unreachable!("constant bounds in order"))
}

/// Adds a length of time.
pub(super) fn record(histogram_ns: &mut Histogram<u64>, time: Duration) {
    histogram_ns.saturating_record(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
}

impl Counts {
    pub(super) fn new() -> Counts {
        Counts { latency_ns: histogram(), messages: 0, messages_in_time: 0 }
    }

    pub(super) fn record(&mut self, latency: Duration, in_time: bool) {
        record(&mut self.latency_ns, latency);
        self.messages += 1;
        self.messages_in_time += u64::from(in_time);
    }
}

/// One part per worker.
pub(super) struct Tally {
    parts: Box<[Mutex<Counts>]>,
}

impl Tally {
    pub(super) fn new(workers: usize) -> Tally {
        Tally { parts: (0..workers.max(1)).map(|_| Mutex::new(Counts::new())).collect() }
    }

    /// The calling worker's part. Uncontended, but for the moments in which it is read.
    pub(super) fn mine(&self) -> MutexGuard<'_, Counts> {
        static THREADS: AtomicUsize = AtomicUsize::new(0);
        thread_local! {
            static THREAD: Cell<usize> = Cell::new(THREADS.fetch_add(1, Ordering::Relaxed));
        }
        lock(&self.parts[THREAD.get() % self.parts.len()])
    }

    pub(super) fn sum(&self) -> Counts {
        let mut sum = Counts::new();
        for part in &self.parts {
            let part = lock(part);
            sum.messages += part.messages;
            sum.messages_in_time += part.messages_in_time;
            if sum.latency_ns.add(&part.latency_ns).is_err() {
                unreachable!("all parts have the same bounds");
            }
        }
        sum
    }

    pub(super) fn messages(&self) -> u64 {
        self.parts.iter().map(|part| lock(part).messages).sum()
    }

    /// Forgets everything so far.
    pub(super) fn clear(&self) {
        for part in &self.parts {
            *lock(part) = Counts::new();
        }
    }
}

/// A worker that panicked left whole counts behind: each is one addition.
fn lock(part: &Mutex<Counts>) -> MutexGuard<'_, Counts> {
    part.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sum_is_what_all_threads_recorded() {
        let tally = Tally::new(2);
        std::thread::scope(|scope| {
            for micros in 1..=3 {
                let tally = &tally;
                scope.spawn(move || {
                    for _ in 0..10 {
                        tally.mine().record(Duration::from_micros(micros), micros < 3);
                    }
                });
            }
        });
        let sum = tally.sum();
        assert_eq!((sum.messages, sum.messages_in_time, sum.latency_ns.len()), (30, 20, 30));
        assert!(sum.latency_ns.max() >= 3_000 && sum.latency_ns.min() <= 1_000);
        tally.clear();
        assert_eq!(tally.messages(), 0);
    }
}
