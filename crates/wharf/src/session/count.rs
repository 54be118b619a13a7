//! The I/O count: one atomic word per slot. When the count reaches 0, the session is released; nothing else
//! releases it (invariants 3 and 4).
//!
//! ```text
//!  63                    24   23      22 … 0
//!  generation (40 bits)       closing  count (23 bits)
//! ```
//!
//! The count is the sum of
//! - 1 for the session itself, from its insertion until its worker gives it up,
//! - 1 for each operation that the port has accepted and not completed,
//! - 1 for each reference that a look-up took and has not dropped.
//!
//! Legal steps, and who may take them:
//!
//! | step | from | to | who |
//! |---|---|---|---|
//! | begin | count 0 | count 1, same generation (the server's first for a new slot), not closing | the owner of a free slot |
//! | refer | count > 0, the generation asked for | count + 1 | any thread |
//! | raise | count > 0 | count + 1 | a holder of a count |
//! | lower | count > 0 | count - 1 | a holder of a count, which gives it up |
//! | ask to close | count > 0 | closing | a holder of a count |
//! | release | count 0 | generation + 1, not closing | the thread whose `lower` reached 0 |
//!
//! A count of 0 is final for its generation: `refer` refuses it, and no holder is left to raise it. So `lower` returns
//! true exactly once per generation, and the release may be handed to another thread: that thread alone has
//! the slot.

use crate::sync::{AtomicU64, Ordering};

use super::id::SessionId;

const COUNT_BITS: u32 = 23;
const COUNT_MASK: u64 = (1 << COUNT_BITS) - 1;
const CLOSING: u64 = 1 << COUNT_BITS;
const GENERATION_SHIFT: u32 = COUNT_BITS + 1;
/// Far above what threads can hold concurrently, far below the bits above it.
const COUNT_MAX: u64 = COUNT_MASK / 2;

/// The word. A new one is a free slot of generation 0.
#[derive(Debug, Default)]
pub(crate) struct IoCount(AtomicU64);

impl IoCount {
    #[cfg(test)]
    pub(crate) fn set_generation(&self, generation: u64) {
        self.0.store(generation << GENERATION_SHIFT, Ordering::SeqCst);
    }

    pub(crate) fn generation(&self) -> u64 {
        self.0.load(Ordering::Acquire) >> GENERATION_SHIFT
    }

    /// The generation, if its count is above 0.
    pub(crate) fn live_generation(&self) -> Option<u64> {
        let word = self.0.load(Ordering::Acquire);
        (word & COUNT_MASK > 0).then_some(word >> GENERATION_SHIFT)
    }

    /// Takes a free slot into use with a count of 1, and returns its generation. `first`: the generation to
    /// begin with, if the slot had no session yet.
    pub(crate) fn begin(&self, first: Option<u64>) -> u64 {
        let word = self.0.load(Ordering::Relaxed);
        assert_eq!(word & (COUNT_MASK | CLOSING), 0, "invariant 4: a slot in use was handed out");
        let generation = first.unwrap_or(word >> GENERATION_SHIFT);
        // Release: a thread that refers to this generation sees the slot as it was prepared.
        self.0.store(generation << GENERATION_SHIFT | 1, Ordering::Release);
        generation
    }

    /// Takes a reference if the slot has this generation.
    pub(crate) fn refer(&self, generation: u64) -> bool {
        let mut word = self.0.load(Ordering::Relaxed);
        loop {
            if word >> GENERATION_SHIFT != generation || word & COUNT_MASK == 0 {
                return false;
            }
            assert!(word & COUNT_MASK < COUNT_MAX, "references are leaking");
            // Acquire: pairs with `begin`.
            match self.0.compare_exchange_weak(word, word + 1, Ordering::Acquire, Ordering::Relaxed)
            {
                Ok(_) => return true,
                Err(now) => word = now,
            }
        }
    }

    /// Adds one. The caller holds one already.
    pub(crate) fn raise(&self) {
        // Relaxed: the caller's count keeps the slot, and this step publishes nothing.
        let before = self.0.fetch_add(1, Ordering::Relaxed);
        assert!((1..COUNT_MAX).contains(&(before & COUNT_MASK)), "invariant 3: raised from zero");
    }

    /// Gives one up. True for the one call that reached 0: its caller must start the release.
    #[must_use = "the count may have come to zero, and then the session must be released"]
    pub(crate) fn lower(&self) -> bool {
        // Release this holder's actions, acquire those of all others: the releasing thread sees them all.
        let before = self.0.fetch_sub(1, Ordering::AcqRel);
        assert!(before & COUNT_MASK > 0, "invariant 3: lowered below zero");
        before & COUNT_MASK == 1
    }

    /// Marks the session as closing. True for the first call. The caller holds a count.
    pub(crate) fn ask_to_close(&self) -> bool {
        let before = self.0.fetch_or(CLOSING, Ordering::AcqRel);
        debug_assert!(before & COUNT_MASK > 0, "closing a slot that nobody holds");
        before & CLOSING == 0
    }

    pub(crate) fn is_closing(&self) -> bool {
        self.0.load(Ordering::Relaxed) & CLOSING != 0
    }

    /// Ends this generation. False: it was the slot's last, and the slot is retired.
    #[must_use]
    pub(crate) fn release(&self) -> bool {
        let word = self.0.load(Ordering::Acquire);
        assert_eq!(word & COUNT_MASK, 0, "invariant 4: released while held");
        let generation = word >> GENERATION_SHIFT;
        if generation == SessionId::GENERATION_MAX {
            // The count stays 0 for good, so look-ups of this generation fail too.
            return false;
        }
        self.0.store((generation + 1) << GENERATION_SHIFT, Ordering::Release);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_count_reaches_zero_once_and_then_nothing_refers_to_that_generation() {
        let count = IoCount::default();
        let generation = count.begin(None);
        assert!(count.refer(generation));
        count.raise();
        assert!(!count.lower());
        assert!(!count.lower());
        assert!(count.lower(), "the third of three");
        assert!(!count.refer(generation), "zero is final");
        assert!(count.release());
        assert!(!count.refer(generation));
        assert!(!count.refer(generation + 1), "not begun yet");
        assert_eq!(count.begin(None), generation + 1);
        assert!(count.refer(generation + 1));
        assert!(!count.refer(generation));
    }

    #[test]
    fn closing_is_asked_once_and_ends_with_the_generation() {
        let count = IoCount::default();
        count.begin(None);
        assert!(count.ask_to_close());
        assert!(!count.ask_to_close());
        assert!(count.lower());
        assert!(count.release());
        count.begin(None);
        assert!(!count.is_closing());
    }

    #[test]
    fn a_slot_whose_generation_would_wrap_is_retired_for_good() {
        let count = IoCount::default();
        count.set_generation(SessionId::GENERATION_MAX);
        let generation = count.begin(None);
        assert!(count.lower());
        assert!(!count.release(), "retired");
        assert!(!count.refer(generation));
        assert!(!count.refer(0));
    }

    #[test]
    #[should_panic(expected = "lowered below zero")]
    fn lowering_below_zero_is_caught() {
        let _ = IoCount::default().lower();
    }

    #[test]
    #[should_panic(expected = "raised from zero")]
    fn raising_from_zero_is_caught() {
        IoCount::default().raise();
    }

    #[test]
    #[should_panic(expected = "references are leaking")]
    fn references_that_leak_are_caught_long_before_they_reach_the_bits_above() {
        let count = IoCount::default();
        let generation = count.begin(None);
        count.0.fetch_add((1 << 22) - 3, Ordering::Relaxed); // as if so many held it
        assert!(count.refer(generation), "it is not too many yet");
        count.refer(generation);
    }

    #[test]
    #[should_panic(expected = "released while held")]
    fn releasing_what_is_held_is_caught() {
        let count = IoCount::default();
        count.begin(None);
        let _ = count.release();
    }
}
