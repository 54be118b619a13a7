//! What became of the sessions that a drain has ended.

/// How a drain ended. `live == flushed + cut_off + ended + unfinished`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct DrainReport {
    /// Sessions served since the start.
    pub served: u64,
    /// Sessions that were open when the drain began, or opened before it reached every worker.
    pub live: u64,
    /// Of these, how many ended with everything sent that had been given to `send` or `publish`.
    pub flushed: u64,
    /// Of these, how many were cut off at the deadline.
    pub cut_off: u64,
    /// Of these, how many ended for another reason meanwhile: the peer left, an error.
    pub ended: u64,
    /// Of these, how many had not ended when the call returned, because a callback blocks their worker. They end
    /// when the callback returns. (What that worker did in its present turn is not counted yet.)
    pub unfinished: u64,
    /// Workers that had not ended when the call returned, because a callback blocks them. Of workers that share a
    /// port (Windows) a blocked one keeps all from ending. 0 unless the deadline came.
    pub workers_blocked: u64,
    /// Bytes that were queued for the sessions that were cut off. They are lost.
    pub cut_off_bytes: u64,
}

impl DrainReport {
    /// Adds what another worker has counted.
    pub(crate) fn add(&mut self, other: &DrainReport) {
        self.live = self.live.wrapping_add(other.live); // see `Stats::add`
        self.flushed += other.flushed;
        self.cut_off += other.cut_off;
        self.ended += other.ended;
        self.cut_off_bytes += other.cut_off_bytes;
    }
}
