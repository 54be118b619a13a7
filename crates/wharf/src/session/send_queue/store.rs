//! Where a send queue gets memory, and what is counted of it for the server's budget.

#[cfg(any(test, fuzzing))]
use crate::buffer::BatchPool;
use crate::buffer::SendBatch;

/// Where a send queue gets memory.
pub(crate) trait Store: Copy {
    /// An empty batch.
    fn batch(&self) -> Box<SendBatch>;
    /// Counts so many pages more for a queue that has others, and that has been waiting since then without any bytes
    /// leaving. False: there is no room for them.
    fn charge(&self, pages: u32, others: u32, waits_since: Option<u64>) -> bool;
    /// Counts them, whether or not there is room. False: what is counted is beyond all memory.
    fn charge_anyway(&self, pages: u32) -> bool;
    /// What was refused was a send.
    fn refused(&self);
}

/// Without a budget.
#[cfg(any(test, fuzzing))]
impl Store for &BatchPool {
    fn batch(&self) -> Box<SendBatch> {
        self.take()
    }

    fn charge(&self, _: u32, _: u32, _: Option<u64>) -> bool {
        true
    }

    fn charge_anyway(&self, _: u32) -> bool {
        true
    }

    fn refused(&self) {}
}
