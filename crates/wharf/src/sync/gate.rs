//! What several threads use and one ends: those who use it enter, who ends it shuts the gate and waits until
//! the last of them has left.

use super::{AtomicUsize, Ordering, yield_now};

const SHUT: usize = 1;
const ONE_INSIDE: usize = 2;

/// Whether it is shut and how many are inside, in one word: so nobody enters unseen by who shuts it.
#[derive(Debug, Default)]
pub(crate) struct Gate(AtomicUsize);

/// Somebody is inside, until this is dropped.
#[derive(Debug)]
pub(crate) struct Inside<'a>(&'a Gate);

impl Gate {
    /// None once it is shut.
    pub(crate) fn enter(&self) -> Option<Inside<'_>> {
        // Relaxed: either this comes before the shutting, which then waits for the release in `drop`, or
        // after it, and what is behind the gate is not touched.
        let before = self.0.fetch_add(ONE_INSIDE, Ordering::Relaxed);
        let inside = Inside(self);
        (before & SHUT == 0).then_some(inside)
    }

    /// Nobody is inside when this returns, nor ever again. Those inside must not wait for anything: this
    /// thread looks again and again.
    pub(crate) fn shut(&self) {
        self.0.fetch_or(SHUT, Ordering::Relaxed);
        // Acquire: all that was done inside has been done.
        while self.0.load(Ordering::Acquire) != SHUT {
            yield_now();
        }
    }
}

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        self.0.0.fetch_sub(ONE_INSIDE, Ordering::Release);
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::super::AtomicBool;
    use super::*;

    #[test]
    fn who_shuts_it_waits_for_who_is_inside_and_nobody_enters_any_more() {
        let gate = Gate::default();
        let has_shut = AtomicBool::new(false);
        let inside = gate.enter();
        assert!(inside.is_some());
        std::thread::scope(|scope| {
            scope.spawn(|| {
                gate.shut();
                has_shut.store(true, Ordering::SeqCst);
            });
            while gate.enter().is_some() {
                yield_now();
            }
            assert!(!has_shut.load(Ordering::SeqCst));
            drop(inside);
        });
        assert!(has_shut.load(Ordering::SeqCst) && gate.enter().is_none());
    }
}
