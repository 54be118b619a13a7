//! Whether an operation is outstanding, and whether it was asked to end: without a lock.
//!
//! Three threads may meet here: the one that posts, the one that takes the completion (perhaps before the
//! post's call has returned), and one that cancels. Two errors must not happen. A cancel must not be lost
//! between `begin` and the call that posts. And `CancelIoEx` must not hit a later operation than the intended
//! one. So:
//!
//! - A cancel first leaves its mark, then calls the OS. The poster checks for the mark after its call, and
//!   calls the OS itself if it finds one. So one of the two calls comes after the post.
//! - Cancels in progress are counted. A thread that posts anew waits until there are none.

use crate::port::OperationKind;
use crate::sync::{AtomicU32, Ordering};

const OUTSTANDING: u32 = 1;
/// The caller asked it to end.
pub(super) const CANCELLED: u32 = 2;
/// The direction was shut down.
pub(super) const SHUT: u32 = 4;
/// Part of it failed, and the other parts must end.
pub(super) const FAILED: u32 = 8;
const ASKED: u32 = CANCELLED | SHUT | FAILED;

#[derive(Debug, Default)]
pub(super) struct State {
    marks: AtomicU32,
    /// Cancels in progress.
    cancels: AtomicU32,
}

/// The marks of an operation.
#[derive(Debug, Clone, Copy)]
pub(super) struct Marks(u32);

impl Marks {
    pub(super) fn has(self, mark: u32) -> bool {
        self.0 & mark != 0
    }
}

impl State {
    /// From here on it is outstanding, and the caller fills in what it owns.
    pub(super) fn begin(&self, kind: OperationKind) {
        let begun = self.marks.compare_exchange(0, OUTSTANDING, Ordering::SeqCst, Ordering::SeqCst);
        assert!(
            begun.is_ok(),
            "invariant 1: a second {kind:?} was posted while one is outstanding"
        );
        while self.cancels.load(Ordering::SeqCst) != 0 {
            std::thread::yield_now();
        }
    }

    /// From here on it is not outstanding. What it owned has been taken out.
    pub(super) fn end(&self) -> Marks {
        Marks(self.marks.swap(0, Ordering::SeqCst))
    }

    pub(super) fn is_outstanding(&self) -> bool {
        self.marks.load(Ordering::SeqCst) & OUTSTANDING != 0
    }

    pub(super) fn is_asked_to_end(&self) -> bool {
        self.marks.load(Ordering::SeqCst) & ASKED != 0
    }

    /// Marks it, if it is outstanding, and asks the OS to end it.
    pub(super) fn ask(&self, mark: u32, cancel: impl FnOnce()) {
        self.cancels.fetch_add(1, Ordering::SeqCst);
        let marked = self.marks.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |marks| {
            (marks & OUTSTANDING != 0).then_some(marks | mark)
        });
        if marked.is_ok() {
            cancel();
        }
        self.cancels.fetch_sub(1, Ordering::SeqCst);
    }

    /// After a post's call: an earlier cancel may have found no operation at the OS.
    pub(super) fn cancel_if_asked(&self, cancel: impl FnOnce()) {
        if self.is_asked_to_end() {
            self.cancels.fetch_add(1, Ordering::SeqCst);
            if self.is_asked_to_end() {
                cancel();
            }
            self.cancels.fetch_sub(1, Ordering::SeqCst);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::sync::AtomicBool;

    #[test]
    fn a_mark_is_of_the_operation_that_is_outstanding_and_of_no_other() {
        let (state, cancels) = (State::default(), Cell::new(0));
        let cancel = || cancels.set(cancels.get() + 1);
        state.ask(CANCELLED, cancel);
        assert_eq!(cancels.get(), 0, "nothing was outstanding");
        state.begin(OperationKind::Send);
        state.cancel_if_asked(cancel);
        assert_eq!(cancels.get(), 0, "nobody asked");
        state.ask(CANCELLED, cancel);
        state.cancel_if_asked(cancel);
        assert_eq!(cancels.get(), 2);
        let marks = state.end();
        assert!(marks.has(CANCELLED) && !marks.has(SHUT));
        state.begin(OperationKind::Send);
        assert!(!state.is_asked_to_end());
    }

    #[test]
    fn a_cancel_at_work_never_meets_the_operation_that_comes_after_the_one_it_is_for() {
        let (state, has_begun) = (State::default(), AtomicBool::new(false));
        state.begin(OperationKind::Receive);
        std::thread::scope(|scope| {
            state.ask(CANCELLED, || {
                // It completes at this moment, and is posted anew at once.
                state.end();
                scope.spawn(|| {
                    state.begin(OperationKind::Receive);
                    has_begun.store(true, Ordering::SeqCst);
                });
                while !state.is_outstanding() {
                    std::thread::yield_now();
                }
                for _ in 0..1_000 {
                    assert!(!has_begun.load(Ordering::SeqCst), "it went ahead");
                    std::thread::yield_now();
                }
            });
        });
        assert!(has_begun.load(Ordering::SeqCst) && !state.is_asked_to_end());
    }

    #[test]
    #[should_panic(expected = "outstanding")]
    fn beginning_twice_is_a_fault() {
        let state = State::default();
        state.begin(OperationKind::Receive);
        state.begin(OperationKind::Receive);
    }
}
