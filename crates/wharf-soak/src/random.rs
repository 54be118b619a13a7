//! Random numbers that a seed decides.

use std::ops::Range;
use std::time::Duration;

use oorandom::Rand64;

#[derive(Debug)]
pub(crate) struct Random(Rand64);

impl Random {
    /// A sequence of its own for each `purpose`, such as a thread or a session.
    pub(crate) fn new(seed: u64, purpose: u64) -> Random {
        Random(Rand64::new(u128::from(seed) << 64 | u128::from(purpose)))
    }

    pub(crate) fn seed(&mut self) -> u64 {
        self.0.rand_u64()
    }

    pub(crate) fn within(&mut self, range: Range<u64>) -> u64 {
        self.0.rand_range(range)
    }

    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.0.rand_range(0..end)
    }

    /// True once in so many times; never if that is 0.
    pub(crate) fn one_in(&mut self, times: u64) -> bool {
        times > 0 && self.below(times) == 0
    }

    pub(crate) fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize]
    }

    pub(crate) fn millis(&mut self, range: Range<u64>) -> Duration {
        Duration::from_millis(self.within(range))
    }

    /// The bytes of a frame: mostly few.
    pub(crate) fn frame_bytes(&mut self) -> usize {
        let range = match self.below(40) {
            0 => 16_000..60_000,
            1..4 => 1_000..9_000,
            _ => 0..200,
        };
        self.within(range) as usize
    }
}
