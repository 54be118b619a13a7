//! The halves of all sessions, each in one holder's hand at a time (invariant 2).
//!
//! A half is *free*, *in a hand*, or *with an operation*:
//!
//! ```text
//!            take                 lend
//!   free ───────────▶ in a hand ─────────▶ with an operation
//!        ◀───────────           ◀─────────
//!          give back             take back
//! ```
//!
//! On a port of its own a worker takes a half only while it works on it; a second taker would be a bug. On a
//! shared port the worker that posts a receive *lends* the half to it, and the worker that takes the
//! completion takes the half back. A thread that wants a half that is not free *asks*: it leaves a mark. The
//! holder finds the mark when it gives the half back or is about to lend it, and attends to the session
//! again. This is not a lock: no thread waits, and no request is lost.
//!
//! All of this is one atomic word, so asking and giving back cannot miss each other.

use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};

use crate::chunks::Chunks;
use crate::sync::{AtomicU32, Ordering, UnsafeCell};

const FREE: u32 = 0;
const IN_A_HAND: u32 = 1;
const WITH_AN_OPERATION: u32 = 2;
/// Another thread wants the half and left this mark.
const ASKED: u32 = 4;

#[derive(Debug, Default)]
#[repr(align(64))] // neighbours may belong to different workers
pub(crate) struct Cell<T> {
    holder: AtomicU32,
    half: UnsafeCell<T>,
}

// SAFETY: `half` is accessed only by the thread that set `holder` to `IN_A_HAND`, until the next change of
// `holder` with release ordering (invariant 2). So sharing a cell does not share the T.
unsafe impl<T: Send> Sync for Cell<T> {}

/// One half per slot.
#[derive(Debug)]
pub(crate) struct HalfTable<T> {
    cells: Chunks<Cell<T>>,
}

/// The half is not free. Its holder will find the mark.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asked {
    /// Another thread is working on it.
    InAHand,
    /// An operation has it. It must end before the half comes back.
    WithAnOperation,
}

impl<T: Default + Send> HalfTable<T> {
    pub(crate) fn new(len_max: u32) -> Self {
        HalfTable { cells: Chunks::new(len_max) }
    }

    /// Takes a free half. Leaves no mark otherwise.
    pub(crate) fn take(&self, index: u32) -> Option<HalfInHand<'_, T>> {
        let cell = self.cells.get_or_grow(index);
        let free =
            cell.holder.compare_exchange(FREE, IN_A_HAND, Ordering::Acquire, Ordering::Relaxed);
        free.is_ok().then(|| HalfInHand::new(cell))
    }

    /// Takes a free half, or leaves a mark.
    pub(crate) fn take_or_ask(&self, index: u32) -> Result<HalfInHand<'_, T>, Asked> {
        let cell = self.cells.get_or_grow(index);
        let mut holder = FREE;
        loop {
            let wanted = if holder == FREE { IN_A_HAND } else { holder | ASKED };
            match cell.holder.compare_exchange(holder, wanted, Ordering::AcqRel, Ordering::Relaxed)
            {
                Ok(FREE) => return Ok(HalfInHand::new(cell)),
                Ok(before) if before & WITH_AN_OPERATION != 0 => {
                    return Err(Asked::WithAnOperation);
                }
                Ok(_) => return Err(Asked::InAHand),
                Err(now) => holder = now,
            }
        }
    }

    /// Takes a half back from the operation that it was lent to. The caller has the operation's completion,
    /// or its post was refused.
    pub(crate) fn take_back(&self, index: u32) -> HalfInHand<'_, T> {
        let cell = self.cells.get_or_grow(index);
        // A mark is answered in any case: after a completion or a refused post the caller attends.
        let before = cell.holder.swap(IN_A_HAND, Ordering::AcqRel);
        assert!(before & WITH_AN_OPERATION != 0, "invariant 2: a half came back from no operation");
        HalfInHand::new(cell)
    }

    /// Takes a half that is free or with an operation that will never complete. For the end of a port.
    pub(crate) fn take_last(&self, index: u32) -> Option<HalfInHand<'_, T>> {
        let cell = self.cells.get_or_grow(index);
        let taken = |holder: u32| (holder & IN_A_HAND == 0).then_some(IN_A_HAND);
        let before = cell.holder.fetch_update(Ordering::AcqRel, Ordering::Relaxed, taken);
        before.is_ok().then(|| HalfInHand::new(cell))
    }

    /// Whether another thread asked for it while it was lent.
    pub(crate) fn is_asked_for(&self, index: u32) -> bool {
        self.cells.get_or_grow(index).holder.load(Ordering::Acquire) & ASKED != 0
    }
}

/// A half in hand. Dropping it gives it back.
#[derive(Debug)]
pub(crate) struct HalfInHand<'a, T> {
    cell: &'a Cell<T>,
    /// Makes it `Sync` only if T is, even though a cell always is.
    _half: PhantomData<&'a mut T>,
}

impl<'a, T> HalfInHand<'a, T> {
    fn new(cell: &'a Cell<T>) -> Self {
        HalfInHand { cell, _half: PhantomData }
    }

    /// Frees it. True: another thread asked for it meanwhile, so the session must be attended to.
    #[must_use]
    pub(crate) fn give_back(self) -> bool {
        let before = self.cell.holder.swap(FREE, Ordering::AcqRel);
        debug_assert!(before & IN_A_HAND != 0, "invariant 2: a half was given back twice");
        std::mem::forget(self);
        before & ASKED != 0
    }

    /// Lends it to an operation that is about to be posted. If another thread asked for it, it stays in hand
    /// and the mark is cleared: attend to the session once more first.
    pub(crate) fn lend(self) -> Result<(), Self> {
        let holder = &self.cell.holder;
        match holder.compare_exchange(
            IN_A_HAND,
            WITH_AN_OPERATION,
            Ordering::AcqRel,
            Ordering::Relaxed,
        ) {
            Ok(_) => {
                std::mem::forget(self);
                Ok(())
            }
            Err(_) => {
                holder.fetch_and(!ASKED, Ordering::AcqRel);
                Err(self)
            }
        }
    }
}

impl<T> Deref for HalfInHand<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: this value exists, so the half is in this hand (invariant 2), and no other thread has
        // access.
        unsafe { &*self.cell.half.get() }
    }
}

impl<T> DerefMut for HalfInHand<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as in `deref`; `&mut self` makes the access exclusive for this holder.
        unsafe { &mut *self.cell.half.get() }
    }
}

impl<T> Drop for HalfInHand<'_, T> {
    fn drop(&mut self) {
        self.cell.holder.store(FREE, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_half_is_in_one_hand_at_a_time() {
        let table = HalfTable::<u32>::new(4);
        let mut half = table.take_or_ask(2).unwrap();
        *half = 7;
        assert_eq!(table.take_or_ask(2).unwrap_err(), Asked::InAHand);
        assert_eq!(table.take_or_ask(2).unwrap_err(), Asked::InAHand, "asking gives nothing back");
        assert!(table.take_or_ask(1).is_ok(), "another slot's");
        assert!(half.give_back(), "it was asked for");
        let half = table.take_or_ask(2).unwrap();
        assert_eq!(*half, 7);
        assert!(!half.give_back(), "the mark is gone");
    }

    #[test]
    fn a_half_that_was_lent_comes_back_only_from_the_operation() {
        let table = HalfTable::<u32>::new(1);
        assert!(table.take_or_ask(0).unwrap().lend().is_ok());
        assert!(!table.is_asked_for(0));
        assert_eq!(table.take_or_ask(0).unwrap_err(), Asked::WithAnOperation);
        assert!(table.is_asked_for(0));
        let half = table.take_back(0);
        assert!(!half.give_back(), "who takes it back attends anyway");
    }

    #[test]
    fn a_half_that_is_asked_for_is_not_lent_before_that_was_looked_at() {
        let table = HalfTable::<u32>::new(1);
        let half = table.take_or_ask(0).unwrap();
        assert!(table.take_or_ask(0).is_err());
        let half = half.lend().unwrap_err();
        assert!(half.lend().is_ok());
    }

    #[test]
    fn the_end_of_the_port_takes_what_an_operation_has_and_nothing_out_of_a_hand() {
        let table = HalfTable::<u32>::new(1);
        drop(table.take_last(0).expect("it is free"));
        assert!(table.take(0).unwrap().lend().is_ok());
        assert!(table.take_or_ask(0).is_err());
        let half = table.take_last(0).expect("the operation does not come back");
        assert!(table.take_last(0).is_none(), "it is in a hand");
        assert!(!half.give_back(), "who asked for it is gone too");
    }

    #[test]
    #[should_panic(expected = "came back from no operation")]
    fn taking_back_what_was_not_lent_is_caught() {
        HalfTable::<u32>::new(1).take_back(0);
    }

    #[test]
    fn a_half_in_hand_is_shared_by_threads_only_if_what_is_in_it_may_be() {
        /// Ambiguous for a type that is `Sync`, so the test would not compile.
        trait IsNotSync<A> {
            fn holds() {}
        }
        impl<T: ?Sized> IsNotSync<()> for T {}
        impl<T: ?Sized + Sync> IsNotSync<u8> for T {}

        <HalfInHand<'_, std::cell::Cell<u8>> as IsNotSync<_>>::holds();
        fn is_sync<T: Sync>() {}
        fn is_send<T: Send>() {}
        is_sync::<HalfInHand<'_, u8>>();
        is_send::<HalfInHand<'_, std::cell::Cell<u8>>>();
    }

    #[test]
    fn takers_on_many_threads_exclude_each_other_and_no_request_is_lost() {
        let table = HalfTable::<u64>::new(1);
        let rounds = if cfg!(miri) { 50 } else { 2_000 };
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..rounds {
                        // A thread that does not get it leaves the work to the holder, as attending does.
                        let mut half = table.take_or_ask(0);
                        while let Ok(mut mine) = half {
                            *mine += 1;
                            if !mine.give_back() {
                                break;
                            }
                            half = table.take_or_ask(0);
                        }
                    }
                });
            }
        });
        let half = table.take_or_ask(0).expect("nobody holds it");
        assert!((rounds..=4 * rounds).contains(&*half));
        assert!(!half.give_back(), "a request was left unanswered");
    }
}
