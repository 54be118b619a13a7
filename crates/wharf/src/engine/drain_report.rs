//! What became of the sessions that a drain has ended.

/// How a drain ended. `live == flushed + cut_off + ended + unfinished`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct DrainReport {
    /// Sessions served since the start.
    pub served: u64,
    /// Sessions there were when the drain began, or came before it had reached every worker.
    pub live: u64,
    /// Of these, the ones that ended with everything sent.
    pub flushed: u64,
    /// Of these, the ones cut off at the deadline.
    pub cut_off: u64,
    /// Of these, the ones that ended otherwise meanwhile (the peer left, an error).
    pub ended: u64,
    /// Of these, the ones that had not ended when the call returned, because a callback blocks their worker.
    /// They end when it has returned. (What that worker did in the turn that it is in is not counted yet.)
    pub unfinished: u64,
    /// Workers that had not ended when the call returned: a callback blocks them. Of workers that share a
    /// port (Windows) one that blocks keeps all. 0 unless the deadline came.
    pub workers_blocked: u64,
    /// Bytes that were queued for those cut off, and are lost.
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
