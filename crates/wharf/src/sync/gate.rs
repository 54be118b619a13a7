//! A gate protects something that one thread at a time uses and another ends. The user enters the gate. The
//! ending thread shuts it and waits until the user has left.

use super::chosen::{AtomicU32, Ordering, yield_now};

/// A thread is inside.
const IN_USE: u32 = 1 << 31;
const SHUT: u32 = 0;

/// What is behind the gate (a number below 2^31 - 1, such as a descriptor) and whether a thread is inside.
/// Both are in one word, so the thread that shuts it misses none. A new gate is shut.
#[derive(Debug, Default)]
pub(crate) struct Gate(AtomicU32);

/// A thread is inside until this is dropped.
#[derive(Debug)]
pub(crate) struct Inside<'a> {
    gate: &'a Gate,
    number: u32,
}

impl Inside<'_> {
    /// The number behind the gate.
    pub(crate) fn number(&self) -> u32 {
        self.number
    }
}

impl Gate {
    /// Opens it, with this number behind it.
    pub(crate) fn open(&self, number: u32) {
        assert!(number < IN_USE - 1, "a number too large for a gate");
        self.0.store(number + 1, Ordering::Release);
    }

    /// `None`: it is shut, or another thread is inside.
    pub(crate) fn enter(&self) -> Option<Inside<'_>> {
        let word = self.0.load(Ordering::Relaxed);
        if word == SHUT || word & IN_USE != 0 {
            return None;
        }
        // Acquire: sees what was done before it was opened, and what the previous threads did inside.
        self.0.compare_exchange(word, word | IN_USE, Ordering::Acquire, Ordering::Relaxed).ok()?;
        Some(Inside { gate: self, number: word - 1 })
    }

    /// No thread is inside when this returns, until it is opened again. A thread inside must not block,
    /// because this one spins.
    pub(crate) fn shut(&self) {
        let shut = |word| (word & IN_USE == 0).then_some(SHUT);
        // Acquire: sees everything that was done inside.
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
