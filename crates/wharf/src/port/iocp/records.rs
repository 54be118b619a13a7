//! All records of a port: they grow, and never move or end while the port lives (invariant 6).

use std::collections::VecDeque;

use super::record::Record;
use crate::chunks::Chunks;
use crate::sync::{AtomicU32, Mutex, Ordering};

/// The most sockets of a port. Its directory of chunks has 24 bytes for each 512 of them.
pub(super) const RECORDS_MAX: u32 = 1 << 22;

#[derive(Debug)]
pub(super) struct Records {
    records: Chunks<Record>,
    /// Records that were ever used: those with an index below this.
    used: AtomicU32,
    /// The vacant ones among them, longest rest first.
    vacant: Mutex<VecDeque<u32>>,
}

impl Records {
    pub(super) fn new() -> Self {
        Records {
            records: Chunks::new(RECORDS_MAX),
            used: AtomicU32::new(0),
            vacant: Mutex::new(VecDeque::new()),
        }
    }

    /// Gives the caller exclusive use of a vacant record, if there is room for one more.
    pub(super) fn occupy(&self) -> Option<(u32, &Record)> {
        let mut vacant = self.vacant.lock();
        if let Some(index) = vacant.pop_front() {
            return Some((index, self.records.get_or_grow(index)));
        }
        let index = self.used.load(Ordering::Relaxed);
        if index == RECORDS_MAX {
            return None;
        }
        let record = self.records.get_or_grow(index);
        self.used.store(index + 1, Ordering::Release);
        Some((index, record))
    }

    /// No thread uses the record any more.
    pub(super) fn vacate(&self, index: u32) {
        self.vacant.lock().push_back(index);
    }

    pub(super) fn get(&self, index: u32) -> Option<&Record> {
        self.records.get(index)
    }

    /// Every record that was ever used.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Record> {
        (0..self.used.load(Ordering::Acquire)).filter_map(|index| self.get(index))
    }
}
