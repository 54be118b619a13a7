//! The order of the peers in a round: random, so that nobody always runs after the same one.

use std::hash::{BuildHasher, RandomState};

/// Fisher and Yates's shuffle; the standard library's hash keys are the randomness.
pub(crate) fn shuffled<T>(mut items: Vec<T>) -> Vec<T> {
    let random = RandomState::new();
    for last in (1..items.len()).rev() {
        let other = random.hash_one(last) as usize % (last + 1);
        items.swap(last, other);
    }
    items
}
