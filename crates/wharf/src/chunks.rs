//! An array that grows and never moves what it holds (invariant 6).
//!
//! A directory of chunks, each allocated once, when an index in it is first
//! asked for, and kept until the array ends. Reading takes no lock: a chunk is
//! published by a [`OnceLock`].

use crate::sync::OnceLock;

/// Elements per chunk: 32 KiB of slots at a time. A model checker makes all atomics of a chunk anew in
/// each of its millions of executions, so there it is as few as still let an array grow.
const CHUNK_LEN: usize = if cfg!(any(loom, shuttle)) { 2 } else { 512 };

#[derive(Debug)]
pub(crate) struct Chunks<T> {
    directory: Box<[OnceLock<Box<[T]>>]>,
}

impl<T: Default> Chunks<T> {
    /// Room for indices below `len_max`; no element is made yet.
    pub(crate) fn new(len_max: u32) -> Self {
        let chunks = (len_max as usize).div_ceil(CHUNK_LEN);
        Chunks { directory: (0..chunks).map(|_| OnceLock::new()).collect() }
    }

    /// The element, if its chunk has been made.
    pub(crate) fn get(&self, index: u32) -> Option<&T> {
        let chunk = self.directory.get(index as usize / CHUNK_LEN)?.get()?;
        chunk.get(index as usize % CHUNK_LEN)
    }

    /// The element, making its chunk if need be. Panics beyond `len_max`.
    pub(crate) fn get_or_grow(&self, index: u32) -> &T {
        let chunk = self.directory[index as usize / CHUNK_LEN]
            .get_or_init(|| (0..CHUNK_LEN).map(|_| T::default()).collect());
        &chunk[index as usize % CHUNK_LEN]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_stay_where_they_are_while_the_array_grows() {
        let chunks = Chunks::<u64>::new(10_000);
        assert!(chunks.get(0).is_none());
        let first: *const u64 = chunks.get_or_grow(0);
        for index in 0..10_000 {
            chunks.get_or_grow(index);
        }
        assert_eq!(chunks.get(0).unwrap() as *const u64, first);
        assert!(chunks.get(9_999).is_some());
        assert!(chunks.get(u32::MAX).is_none());
    }
}
