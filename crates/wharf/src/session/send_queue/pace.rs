//! How much is queued for a member that keeps the latest: as much as leaves in a moment.
//!
//! What waits in the queue is not replaced by what is newer. So a member that takes little at a time is given little,
//! and one that takes much is not sent it in small parts.

/// What is queued leaves within so long, at the pace that was seen: about an interval at 60 a second.
const WITHIN_NS: u64 = 16_000_000;
/// The most and the least that is queued, unless one frame has more.
const BYTES_MAX: u32 = 16 * 1024;
const BYTES_MIN: u32 = 512;
/// What is queued while the pace is not known.
const BYTES_AT_FIRST: u32 = 2 * 1024;
/// A pace that was seen so long ago says nothing.
const FORGOTTEN_AFTER_NS: u64 = 5_000_000_000;
/// The pace is an average: acknowledgements come in heaps.
const OF_BEFORE: u64 = 3;

/// How fast the peer of a session that is behind takes bytes, as it was seen at the last looks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    /// When it was looked at last, and how many bytes its peer had taken, since it is behind.
    before: Option<(u64, i64)>,
    looked_at: u64,
    bytes_per_s: Option<u64>,
    /// What may be queued.
    bytes: u32,
}

impl Default for Pace {
    fn default() -> Self {
        Pace { before: None, looked_at: 0, bytes_per_s: None, bytes: BYTES_MAX }
    }
}

impl Pace {
    /// What may be queued for a member that keeps the latest.
    pub(super) fn bytes(&self) -> usize {
        self.bytes as usize
    }

    /// The session falls behind.
    pub(super) fn begins(&mut self) {
        if self.bytes_per_s.is_none() {
            self.bytes = BYTES_AT_FIRST;
        }
    }

    /// A look at a session that is behind.
    pub(super) fn look(&mut self, taken_bytes: i64, now: u64) {
        if let Some((at, taken_before)) = self.before
            && now > at
        {
            let elapsed = now - at;
            let taken = u64::try_from(taken_bytes - taken_before).unwrap_or(0);
            let seen = (u128::from(taken) * 1_000_000_000 / u128::from(elapsed)) as u64;
            let seen = seen.min(u64::from(u32::MAX));
            let average = |before| (before * OF_BEFORE + seen) / (OF_BEFORE + 1);
            let bytes_per_s = self.bytes_per_s.map_or(seen, average);
            self.bytes_per_s = Some(bytes_per_s);
            let bytes = bytes_per_s * WITHIN_NS / 1_000_000_000;
            self.bytes = bytes.clamp(BYTES_MIN.into(), BYTES_MAX.into()) as u32;
        }
        (self.before, self.looked_at) = (Some((now, taken_bytes)), now);
    }

    /// The session is behind no more.
    pub(super) fn ends(&mut self, now: u64) {
        self.before = None; // what it takes from now on may be all there is
        if now.saturating_sub(self.looked_at) > FORGOTTEN_AFTER_NS {
            *self = Pace::default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn who_takes_little_is_given_what_it_takes_in_an_interval() {
        let mut pace = Pace::default();
        assert_eq!(pace.bytes(), 16 * 1024, "who was never behind");
        pace.begins();
        assert_eq!(pace.bytes(), 2 * 1024);
        // 64,000 bytes a second, acknowledged in heaps of two seconds' worth.
        let taken = |look: i64| (look - 1_000_000) / 4 * 128_000;
        (0..40).for_each(|look| pace.look(taken(look), (look as u64 + 1) * SECOND / 2));
        assert!((512..=2_048).contains(&pace.bytes()), "{} of 1,024", pace.bytes());
        pace.begins();
        assert!(pace.bytes() <= 2_048, "it is the same when it falls behind again");
    }

    #[test]
    fn who_takes_nothing_is_given_least_and_who_takes_much_is_given_most() {
        let mut pace = Pace::default();
        for (taken_per_look, bytes) in [(0, 512), (-7, 512), (1 << 40, 16 * 1024)] {
            (1..20).for_each(|look| pace.look(look * taken_per_look, look as u64 * SECOND));
            assert_eq!(pace.bytes(), bytes);
            pace = Pace::default();
        }
    }

    #[test]
    fn who_keeps_up_for_long_is_given_most_again() {
        let mut pace = Pace::default();
        pace.begins();
        pace.ends(0);
        assert_eq!(pace.bytes(), 2 * 1024, "a moment ago");
        (1..9).for_each(|look| pace.look(0, look * SECOND));
        pace.ends(9 * SECOND);
        pace.look(1 << 30, 10 * SECOND);
        assert_eq!(pace.bytes(), 512, "no pace spans a time in which it was not behind");
        pace.look(1 << 30, 11 * SECOND);
        assert_eq!(pace.bytes(), 512);
        pace.ends(16 * SECOND);
        assert_eq!(pace.bytes(), 512);
        pace.ends(17 * SECOND);
        assert_eq!(pace.bytes(), 16 * 1024);
    }
}
