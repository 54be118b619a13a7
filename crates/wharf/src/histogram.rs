//! Histograms of a fixed size: how often each value was recorded.
//!
//! Values below 16 have a bucket each. Above, every power of two has eight buckets of equal width, as in an
//! HdrHistogram. So a bucket's values differ by at most an eighth, from nanoseconds to centuries.

use std::fmt;
use std::iter::zip;
// Not from `crate::sync`: these order and guard nothing, so a checker or a simulated world need not vary
// their order.
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// A power of two has `1 << SPLIT_BITS` buckets.
const SPLIT_BITS: u32 = 3;
const SPLIT: usize = 1 << SPLIT_BITS;
const BUCKETS: usize = (u64::BITS - SPLIT_BITS + 1) as usize * SPLIT;

/// The distribution of what was recorded, at the time of the reading.
///
/// It takes 4 KB. Values are kept in buckets, and a bucket is reported by its highest value: exact below 16,
/// otherwise at most one eighth too high.
#[derive(Clone, PartialEq, Eq)]
pub struct Histogram {
    counts: [u64; BUCKETS],
    sum: u64,
}

impl Histogram {
    /// How many values were recorded.
    pub fn count(&self) -> u64 {
        self.counts.iter().fold(0, |sum, count| sum.wrapping_add(*count))
    }

    /// The exact sum of the values. (It wraps at 2^64, which nanoseconds reach after 584 years.)
    pub fn sum(&self) -> u64 {
        self.sum
    }

    /// The value that this part of all values does not exceed: 0.5 is the median, 1.0 the maximum. At most one
    /// eighth too high, never too low. `None` if nothing was recorded.
    pub fn quantile(&self, part: f64) -> Option<u64> {
        let count = self.count();
        let rank = ((part * count as f64).ceil() as u64).clamp(1, count.max(1));
        let mut below = 0_u64;
        let reaches = |(_, count): &(u64, u64)| {
            below = below.wrapping_add(*count);
            below >= rank
        };
        self.buckets().find(reaches).map(|(highest, _)| highest)
    }

    /// All buckets in ascending order, empty ones included: the highest value of the bucket, and how many values
    /// it holds. The highest value of the last bucket is [`u64::MAX`].
    pub fn buckets(&self) -> impl Iterator<Item = (u64, u64)> {
        self.counts.iter().enumerate().map(|(bucket, count)| (highest(bucket), *count))
    }

    /// Adds the values of another histogram.
    pub fn merge(&mut self, other: &Histogram) {
        for (count, more) in zip(&mut self.counts, other.counts) {
            *count = count.wrapping_add(more);
        }
        self.sum = self.sum.wrapping_add(other.sum);
    }

    /// What was recorded since an earlier reading of the same histogram.
    #[must_use]
    pub fn since(&self, earlier: &Histogram) -> Histogram {
        let mut since = self.clone();
        for (count, before) in zip(&mut since.counts, earlier.counts) {
            *count = count.saturating_sub(before);
        }
        since.sum = self.sum.wrapping_sub(earlier.sum);
        since
    }
}

impl Default for Histogram {
    fn default() -> Self {
        Histogram { counts: [0; BUCKETS], sum: 0 }
    }
}

/// In a line.
impl fmt::Debug for Histogram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Histogram")
            .field("count", &self.count())
            .field("sum", &self.sum)
            .field("p50", &self.quantile(0.5))
            .field("p99", &self.quantile(0.99))
            .field("max", &self.quantile(1.0))
            .finish()
    }
}

/// What one thread records while others read. A reader may see a value in the counts before it is in the sum.
#[derive(Debug)]
pub(crate) struct Recorder {
    counts: Box<[AtomicU64]>, // created in place, because some threads that create one have little stack
    sum: AtomicU64,
}

impl Recorder {
    /// For the one thread that records.
    #[inline]
    pub(crate) fn record(&self, value: u64) {
        add(&self.counts[bucket_of(value)], 1);
        add(&self.sum, value);
    }

    pub(crate) fn add_to(&self, sum: &mut Histogram) {
        for (count, more) in zip(&mut sum.counts, &*self.counts) {
            *count = count.wrapping_add(more.load(Relaxed));
        }
        sum.sum = sum.sum.wrapping_add(self.sum.load(Relaxed));
    }
}

impl Default for Recorder {
    fn default() -> Self {
        let counts = (0..BUCKETS).map(|_| AtomicU64::new(0)).collect();
        Recorder { counts, sum: AtomicU64::new(0) }
    }
}

/// A load and a store, because no other thread writes.
#[inline]
fn add(to: &AtomicU64, value: u64) {
    to.store(to.load(Relaxed).wrapping_add(value), Relaxed);
}

#[inline]
fn bucket_of(value: u64) -> usize {
    let shift = u64::BITS - 1 - SPLIT_BITS - (value | SPLIT as u64).leading_zeros();
    shift as usize * SPLIT + (value >> shift) as usize
}

fn highest(bucket: usize) -> u64 {
    let shift = bucket.saturating_sub(SPLIT) / SPLIT;
    let lowest = ((bucket - shift * SPLIT) as u64) << shift;
    lowest + ((1 << shift) - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Around every power of two, and at both ends.
    fn values() -> impl Iterator<Item = u64> {
        let powers = (0..u64::BITS).map(|power| 1_u64 << power);
        let around = |power: u64| {
            [
                power - 1,
                power,
                power + 1,
                power | power >> 1,
                power | power >> 3,
                power | power >> 5,
            ]
        };
        powers.flat_map(around).chain([0, u64::MAX - 1, u64::MAX])
    }

    fn recorded(values: impl IntoIterator<Item = u64>) -> Histogram {
        let recorder = Recorder::default();
        values.into_iter().for_each(|value| recorder.record(value));
        let mut histogram = Histogram::default();
        recorder.add_to(&mut histogram);
        histogram
    }

    #[test]
    fn a_value_is_told_exactly_below_sixteen_and_else_at_most_an_eighth_too_high() {
        for value in values().chain(0..5_000) {
            let told = recorded([value]).quantile(1.0).unwrap();
            assert!(told >= value, "{value} was told as {told}");
            assert!(told - value <= value / 8, "{value} was told as {told}");
            assert!(value >= 16 || told == value, "{value} was told as {told}");
        }
    }

    #[test]
    fn the_buckets_follow_each_other_without_gap_or_overlap_and_reach_the_largest_value() {
        let empty = Histogram::default();
        let mut lowest = 0;
        for (bucket, (highest, _)) in empty.buckets().enumerate() {
            assert_eq!((bucket_of(lowest), bucket_of(highest)), (bucket, bucket));
            lowest = highest.wrapping_add(1);
        }
        assert_eq!(lowest, 0, "the last one ends with the largest");
    }

    #[test]
    fn quantiles_are_of_the_values_in_their_order() {
        let histogram = recorded((0..10).chain([1 << 40]).rev());
        assert_eq!((histogram.count(), histogram.sum()), (11, 45 + (1 << 40)));
        let asked = [0.0, 1.0 / 11.0, 0.5, 10.0 / 11.0, 1.0];
        let told = asked.map(|part| histogram.quantile(part).unwrap());
        assert_eq!(told[..4], [0, 0, 5, 9]);
        assert!(told[4] >= 1 << 40);
        // A quantile outside 0 to 1 counts as the nearest.
        assert_eq!([-1.0, f64::NAN].map(|part| histogram.quantile(part)), [Some(0); 2]);
        assert_eq!(histogram.quantile(f64::INFINITY), Some(told[4]));
        assert_eq!(Histogram::default().quantile(0.5), None);
    }

    #[test]
    fn what_was_merged_is_as_if_one_had_recorded_all_and_what_came_since_is_the_rest() {
        let (some, others): (Vec<_>, Vec<_>) = values().partition(|value| value % 3 == 0);
        let all = recorded(some.iter().chain(&others).copied());
        assert_eq!(all.count(), (some.len() + others.len()) as u64);
        let (some, others) = (recorded(some), recorded(others));
        let mut merged = some.clone();
        merged.merge(&others);
        assert!(merged == all, "{merged:?} is not {all:?}");
        assert!(all.since(&some) == others && all.since(&all) == Histogram::default());
    }

    #[test]
    fn counts_and_sums_at_their_ends_are_no_panic() {
        let mut histogram = recorded([u64::MAX; 3]);
        assert_eq!((histogram.count(), histogram.sum()), (3, u64::MAX.wrapping_mul(3)));
        assert_eq!(histogram.quantile(0.1), Some(u64::MAX));
        histogram.counts = [u64::MAX; BUCKETS];
        histogram.merge(&histogram.clone());
        let _ = (histogram.quantile(0.5), format!("{histogram:?}"));
    }
}
