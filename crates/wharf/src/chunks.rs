//! An array that grows and never moves its elements (invariant 6).
//!
//! A directory of chunks. Each chunk is allocated when one of its indices is first used, and kept until the
//! array ends. Reading takes no lock: a [`OnceLock`] publishes each chunk.

use crate::sync::OnceLock;

/// Elements per chunk: 32 KiB of slots, 64 KiB of halves. A model checker creates all atomics of a chunk in
/// each of its millions of executions, so there it is as small as an array that grows can have.
pub(crate) const CHUNK_LEN: usize = if cfg!(any(loom, shuttle)) { 2 } else { 512 };

#[derive(Debug)]
pub(crate) struct Chunks<T> {
    directory: Box<[OnceLock<Box<[T]>>]>,
}

/// Memory of an array with room for so many elements before it has any.
pub(crate) fn directory_bytes(len_max: u64) -> u64 {
    len_max.div_ceil(CHUNK_LEN as u64).saturating_mul(size_of::<OnceLock<Box<[()]>>>() as u64)
}

impl<T: Default> Chunks<T> {
    /// Room for indices below `len_max`. Makes no element yet.
    pub(crate) fn new(len_max: u32) -> Self {
        let chunks = (len_max as usize).div_ceil(CHUNK_LEN);
        Chunks { directory: (0..chunks).map(|_| OnceLock::new()).collect() }
    }

    /// The element, if its chunk exists.
    pub(crate) fn get(&self, index: u32) -> Option<&T> {
        let chunk = self.directory.get(index as usize / CHUNK_LEN)?.get()?;
        chunk.get(index as usize % CHUNK_LEN)
    }

    /// The element. Makes its chunk if needed. Panics at `len_max` and above.
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
