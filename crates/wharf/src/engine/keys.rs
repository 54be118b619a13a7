//! What nobody may guess: the keys that clients mask their frames with, so that no program in a page can choose what
//! bytes go by (RFC 6455, 10.3), and the nonces of their requests.

use std::hash::{BuildHasher, RandomState};

use crate::session::SessionId;
use crate::sync::{AtomicU64, Ordering};

#[derive(Debug)]
pub(crate) struct Keys {
    /// A keyed hash (SipHash), whose key the system has drawn. `None`: in a simulation, where the seed says all.
    hasher: Option<RandomState>,
    seed: u64,
    drawn: AtomicU64,
}

impl Default for Keys {
    fn default() -> Self {
        Keys { hasher: Some(RandomState::new()), seed: 0, drawn: AtomicU64::new(0) }
    }
}

impl Keys {
    /// The same for the same seed.
    #[cfg(feature = "simulation")]
    pub(crate) fn seeded(seed: u64) -> Self {
        Keys { hasher: None, seed, drawn: AtomicU64::new(0) }
    }

    /// A key that nobody can foresee.
    pub(crate) fn draw(&self) -> [u8; 4] {
        let drawn = self.drawn.fetch_add(1, Ordering::Relaxed); // it orders nothing
        let [a, b, c, d, ..] = self.hash((drawn, 0)).to_ne_bytes();
        [a, b, c, d]
    }

    /// The nonce of a session's request: the same at each call.
    pub(crate) fn nonce_of(&self, id: SessionId) -> [u8; 16] {
        let [first, second] = [1, 2].map(|half| self.hash((id.to_bits(), half)).to_ne_bytes());
        let mut nonce = [0; 16];
        nonce[..8].copy_from_slice(&first);
        nonce[8..].copy_from_slice(&second);
        nonce
    }

    fn hash(&self, (value, purpose): (u64, u64)) -> u64 {
        match &self.hasher {
            Some(hasher) => hasher.hash_one((value, purpose)),
            // SplitMix64's finalizer (Steele, Lea, Flood 2014).
            None => {
                let mut mixed = self.seed ^ value.wrapping_mul(3).wrapping_add(purpose);
                mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
                mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
                mixed ^ (mixed >> 31)
            }
        }
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;

    #[test]
    fn keys_differ_and_a_session_keeps_its_nonce() {
        let (keys, others) = (Keys::default(), Keys::default());
        let drawn: std::collections::HashSet<_> = (0..1_000).map(|_| keys.draw()).collect();
        assert!(drawn.len() > 990, "{}", drawn.len());
        let id = SessionId::new(7, 3);
        assert_eq!(keys.nonce_of(id), keys.nonce_of(id));
        assert_ne!(keys.nonce_of(id), others.nonce_of(id));
        assert_ne!(keys.nonce_of(id), keys.nonce_of(SessionId::new(7, 4)));
    }

    #[cfg(feature = "simulation")]
    #[test]
    fn of_a_seed_everything_is_the_same() {
        let draw = |seed| {
            let keys = Keys::seeded(seed);
            ([(); 9].map(|()| keys.draw()), keys.nonce_of(SessionId::new(7, 3)))
        };
        assert_eq!(draw(5), draw(5));
        assert_ne!(draw(5), draw(6));
    }
}
