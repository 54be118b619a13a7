//! The halves of all sessions, each in one holder's hand at a time (invariant 2).
//!
//! Whoever takes a receive completion may take that session's half, and gives it back before the
//! next operation is posted. There is nothing to wait for: two takers at once would mean that two
//! operations were outstanding, which is a fault, and taking says so by failing. So this is no
//! lock; it is the check of an ownership that the operations themselves hand on. The check costs
//! one swap of an uncontended byte per completion.

use std::cell::UnsafeCell;
use std::ops::{Deref, DerefMut};

use crate::sync::{AtomicBool, Ordering};

use crate::chunks::Chunks;

#[derive(Debug, Default)]
#[repr(align(64))] // neighbours may belong to different workers
pub(crate) struct Cell<T> {
    in_hand: AtomicBool,
    half: UnsafeCell<T>,
}

// SAFETY: `half` is reached only by the one who turned `in_hand` from false to true, until it is
// turned back with release ordering (invariant 2), so sharing a cell is sharing nothing of T.
unsafe impl<T: Send> Sync for Cell<T> {}

/// One half per slot.
#[derive(Debug)]
pub(crate) struct HalfTable<T> {
    cells: Chunks<Cell<T>>,
}

impl<T: Default + Send> HalfTable<T> {
    pub(crate) fn new(len_max: u32) -> Self {
        HalfTable { cells: Chunks::new(len_max) }
    }

    /// Takes the half of a slot. `None`: it is in another hand, against invariant 2.
    pub(crate) fn take(&self, index: u32) -> Option<HalfInHand<'_, T>> {
        let cell = self.cells.get_or_grow(index);
        let taken = !cell.in_hand.swap(true, Ordering::Acquire);
        taken.then(|| HalfInHand { cell })
    }
}

/// A half in hand; dropping it gives it back.
#[derive(Debug)]
pub(crate) struct HalfInHand<'a, T> {
    cell: &'a Cell<T>,
}

impl<T> Deref for HalfInHand<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: this value exists, so `in_hand` is ours (invariant 2): nobody else has access.
        unsafe { &*self.cell.half.get() }
    }
}

impl<T> DerefMut for HalfInHand<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as in `deref`, and `&mut self` keeps this holder from having two.
        unsafe { &mut *self.cell.half.get() }
    }
}

impl<T> Drop for HalfInHand<'_, T> {
    fn drop(&mut self) {
        self.cell.in_hand.store(false, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_half_is_in_one_hand_at_a_time() {
        let table = HalfTable::<u32>::new(4);
        let mut half = table.take(2).unwrap();
        *half = 7;
        assert!(table.take(2).is_none());
        assert!(table.take(2).is_none(), "failing to take gives nothing back");
        assert!(table.take(1).is_some(), "another slot's");
        drop(half);
        assert_eq!(*table.take(2).unwrap(), 7);
    }

    #[test]
    fn takers_on_many_threads_exclude_each_other() {
        let table = HalfTable::<u64>::new(1);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let mut added = 0;
                    while added < 1_000 {
                        if let Some(mut half) = table.take(0) {
                            *half += 1;
                            added += 1;
                        }
                    }
                });
            }
        });
        assert_eq!(*table.take(0).unwrap(), 4_000);
    }
}
