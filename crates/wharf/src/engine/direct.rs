//! Direct sends by threads that serve no port: counters, and a limit.
//!
//! Waking a worker for one frame costs more than the frame. So a thread that finds the worker asleep and the
//! send queue empty gives the frame to the socket itself, under the session's lock. What the socket does not
//! take is queued, and the worker is woken. But many frames are cheaper when a worker gathers them. So after
//! [`SENDS_MAX`] direct sends within [`WINDOW_MILLIS`], all frames are queued for [`REST_MILLIS`].

use crate::clock::Moment;
use crate::stats::Stats;
use crate::sync::{AtomicU64, Ordering};

/// A direct send costs 2 µs; a gathered one 0.25 µs and its share of a wake. So many per millisecond, at most
/// once in 100 ms, cost a flood less than 1 %.
pub(super) const SENDS_MAX: u64 = 128;
const WINDOW_MILLIS: u64 = 1;
const REST_MILLIS: u64 = 100;

/// Belongs to one port. On its own cache line, because the worker does not write it.
#[derive(Debug, Default)]
#[repr(align(64))]
pub(super) struct DirectSends {
    window: Window,
    sends: AtomicU64,
    bytes: AtomicU64,
    frames: AtomicU64,
}

impl DirectSends {
    /// Whether one more frame may leave now. Call only if the frame can leave: nothing is queued before it,
    /// and it has room.
    pub(super) fn may_send(&self, now: Moment) -> bool {
        self.window.may_send(now.since_start().as_millis() as u64)
    }

    /// Counts bytes that left. `is_whole`: the frame left whole. Otherwise its rest was queued, and the frame
    /// is counted when that has left.
    pub(super) fn note(&self, bytes: usize, is_whole: bool) {
        self.sends.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        self.frames.fetch_add(u64::from(is_whole), Ordering::Relaxed);
    }

    pub(super) fn add_to(&self, stats: &mut Stats) {
        stats.sends += self.sends.load(Ordering::Relaxed);
        stats.sent_bytes += self.bytes.load(Ordering::Relaxed);
        stats.sent_frames += self.frames.load(Ordering::Relaxed);
    }
}

/// The direct sends of the current window: the millisecond of the first one, and in the lowest [`COUNT_BITS`]
/// bits their number.
#[derive(Debug, Default)]
struct Window(AtomicU64);

const COUNT_BITS: u32 = 16;

impl Window {
    /// Whether one more may leave now. Counts it if so.
    fn may_send(&self, now_millis: u64) -> bool {
        let next = |word: u64| {
            let (began, count) = (word >> COUNT_BITS, word & ((1 << COUNT_BITS) - 1));
            // Another thread may have read the clock slightly later.
            let passed = now_millis.saturating_sub(began);
            let length = if count < SENDS_MAX { WINDOW_MILLIS } else { REST_MILLIS };
            match (passed >= length, count < SENDS_MAX) {
                (true, _) => Some(now_millis << COUNT_BITS | 1),
                (false, true) => Some(word + 1),
                (false, false) => None,
            }
        };
        // Relaxed: it is statistics, and guards nothing.
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next).is_ok()
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;

    #[test]
    fn so_many_may_leave_in_a_millisecond_and_after_more_none_for_a_while() {
        let window = Window::default();
        for millis in 100..200 {
            assert!((0..SENDS_MAX - 1).all(|_| window.may_send(millis)), "a steady stream");
        }
        assert!(window.may_send(199), "the last that may");
        for millis in 199..199 + REST_MILLIS {
            assert!(!window.may_send(millis));
        }
        assert!(window.may_send(199 + REST_MILLIS));
        assert!(window.may_send(190), "a clock that was looked at before");
    }
}
