//! What a port's workers and publishers note of members that are behind, for the statistics.

use crate::clock::Moment;
use crate::stats::Stats;
use crate::sync::{AtomicU64, Ordering};

/// Written only when a member falls behind, catches up or is looked at.
#[derive(Debug, Default)]
pub(super) struct Lag {
    pub(super) members_behind: AtomicU64,
    /// When the first of them fell behind, in nanoseconds.
    pub(super) oldest_at: AtomicU64,
    pub(super) superseded_frames: AtomicU64,
    pub(super) slow_ends: AtomicU64,
    pub(super) publications_refused: AtomicU64,
}

impl Lag {
    pub(super) fn add_to(&self, sum: &mut Stats, now: Moment) {
        let of = |figure: &AtomicU64| figure.load(Ordering::Relaxed);
        let behind = of(&self.members_behind);
        if behind > 0 {
            let age = Moment::of_nanos(of(&self.oldest_at)).nanos_until(now);
            sum.oldest_place_ns = sum.oldest_place_ns.max(age);
        }
        sum.members_behind += behind;
        sum.superseded_frames += of(&self.superseded_frames);
        sum.slow_ends += of(&self.slow_ends);
        sum.publications_refused += of(&self.publications_refused);
    }

    pub(super) fn count(figure: &AtomicU64, by: usize) {
        figure.fetch_add(by as u64, Ordering::Relaxed);
    }
}
