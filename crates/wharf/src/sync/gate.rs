//! What one thread at a time uses and another ends: who uses it enters its gate, who ends it shuts the gate and
//! waits until it has been left.

use super::chosen::{AtomicU32, Ordering, yield_now};

/// Somebody is inside.
const IN_USE: u32 = 1 << 31;
const SHUT: u32 = 0;

/// What is behind it (a number below 2^31 - 1, such as a descriptor) and whether somebody is inside, in one
/// word: so nobody enters unseen by who shuts it. A new one is shut.
#[derive(Debug, Default)]
pub(crate) struct Gate(AtomicU32);

/// Somebody is inside, until this is dropped.
#[derive(Debug)]
pub(crate) struct Inside<'a> {
    gate: &'a Gate,
    number: u32,
}

impl Inside<'_> {
    /// What is behind the gate.
    pub(crate) fn number(&self) -> u32 {
        self.number
    }
}

impl Gate {
    /// Opens it to this.
    pub(crate) fn open(&self, number: u32) {
        assert!(number < IN_USE - 1, "a number too large for a gate");
        self.0.store(number + 1, Ordering::Release);
    }

    /// None if it is shut, or somebody else is inside.
    pub(crate) fn enter(&self) -> Option<Inside<'_>> {
        let word = self.0.load(Ordering::Relaxed);
        if word == SHUT || word & IN_USE != 0 {
            return None;
        }
        // Acquire: what was done before it was opened, and by who was inside before, has been done.
        self.0.compare_exchange(word, word | IN_USE, Ordering::Acquire, Ordering::Relaxed).ok()?;
        Some(Inside { gate: self, number: word - 1 })
    }

    /// Nobody is inside when this returns, nor before it is opened again. Who is inside must not wait for
    /// anything: this thread looks again and again.
    pub(crate) fn shut(&self) {
        let shut = |word| (word & IN_USE == 0).then_some(SHUT);
        // Acquire: all that was done inside has been done.
        while self.0.fetch_update(Ordering::Acquire, Ordering::Relaxed, shut).is_err() {
            yield_now();
        }
    }
}

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        self.gate.0.fetch_and(!IN_USE, Ordering::Release);
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::super::AtomicBool;
    use super::*;

    #[test]
    fn one_at_a_time_enters_what_is_open() {
        let gate = Gate::default();
        assert!(gate.enter().is_none(), "it has not been opened");
        for number in [0, 7, IN_USE - 2] {
            gate.open(number);
            let inside = gate.enter().unwrap();
            assert_eq!(inside.number(), number);
            assert!(gate.enter().is_none());
            drop(inside);
            assert!(gate.enter().is_some());
            gate.shut();
            assert!(gate.enter().is_none());
        }
    }

    #[test]
    fn who_shuts_it_waits_for_who_is_inside() {
        let gate = Gate::default();
        gate.open(1);
        let has_shut = AtomicBool::new(false);
        let inside = gate.enter();
        assert!(inside.is_some());
        std::thread::scope(|scope| {
            let (begun, begins) = std::sync::mpsc::channel();
            let (gate, has_shut) = (&gate, &has_shut);
            scope.spawn(move || {
                begun.send(()).unwrap();
                gate.shut();
                has_shut.store(true, Ordering::SeqCst);
            });
            begins.recv().unwrap();
            for _ in 0..1_000 {
                assert!(!has_shut.load(Ordering::SeqCst));
                yield_now();
            }
            drop(inside);
        });
        assert!(has_shut.load(Ordering::SeqCst) && gate.enter().is_none());
    }
}
