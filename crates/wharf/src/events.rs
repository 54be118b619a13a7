//! The one schema of what happens: counters now; spans, tests and the command's live line read the same.

use crate::close::CloseReason;

/// What has happened since the start, and what is there now.
///
/// Each worker publishes its own part whole, after every batch, so within one reading
/// `opened - closed == live` holds exactly. What a worker has done in a turn that is not over is not in
/// it yet, so for a moment more sessions may seem to live than there can be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Sessions begun: accepted or connected.
    pub opened: u64,
    /// Sessions released.
    pub closed: u64,
    /// Sessions there are now, counted where they are kept.
    pub live: u64,
    /// Connections taken from the listeners, the refused ones included.
    pub accepted: u64,
    /// Peers closed at once because `sessions_max` sessions were there, or the server was ending.
    pub refused: u64,
    /// Times that accepting failed (no descriptor, no memory, the peer gone already).
    pub accept_failures: u64,
    /// Connections asked for that came to nothing.
    pub connect_failures: u64,
    /// Completions that brought bytes.
    pub receives: u64,
    /// Bytes received.
    pub received_bytes: u64,
    /// Frames given to the handler.
    pub received_frames: u64,
    /// Send operations that moved bytes, and large answers that left without one.
    pub sends: u64,
    /// Bytes sent, as far as the kernel has taken them.
    pub sent_bytes: u64,
    /// Frames whose last byte was sent.
    pub sent_frames: u64,
    /// Bytes that wait in send queues now.
    pub queued_bytes: u64,
    /// Times that receiving from a session was paused for backpressure.
    pub receive_pauses: u64,
    /// Receives that had to wait because every lent buffer was out.
    pub buffers_exhausted: u64,
    /// Completions whose session was gone. Always 0: the port and the count see to it.
    pub stale_completions: u64,
    /// Handler callbacks that panicked.
    pub handler_panics: u64,
    closed_by: [u64; CloseReason::KINDS],
}

impl Stats {
    /// Sessions closed, by the kind of their reason, in the order of [`CloseReason`]'s variants.
    pub fn closed_by(&self) -> impl Iterator<Item = (&'static str, u64)> {
        CloseReason::KIND_NAMES.into_iter().zip(self.closed_by)
    }

    /// Sessions closed for reasons of the same kind as `reason`, whatever its facts.
    pub fn closed_like(&self, reason: CloseReason) -> u64 {
        self.closed_by[reason.kind_index()]
    }

    pub(crate) fn count_closed(&mut self, reason: CloseReason) {
        self.closed += 1;
        self.closed_by[reason.kind_index()] += 1;
    }

    pub(crate) fn add(&mut self, other: &Stats) {
        let pairs = [
            (&mut self.opened, other.opened),
            (&mut self.closed, other.closed),
            (&mut self.live, other.live),
            (&mut self.accepted, other.accepted),
            (&mut self.refused, other.refused),
            (&mut self.accept_failures, other.accept_failures),
            (&mut self.connect_failures, other.connect_failures),
            (&mut self.receives, other.receives),
            (&mut self.received_bytes, other.received_bytes),
            (&mut self.received_frames, other.received_frames),
            (&mut self.sends, other.sends),
            (&mut self.sent_bytes, other.sent_bytes),
            (&mut self.sent_frames, other.sent_frames),
            (&mut self.queued_bytes, other.queued_bytes),
            (&mut self.receive_pauses, other.receive_pauses),
            (&mut self.buffers_exhausted, other.buffers_exhausted),
            (&mut self.stale_completions, other.stale_completions),
            (&mut self.handler_panics, other.handler_panics),
        ];
        for (sum, part) in pairs {
            // A session that one worker opened and another closed is one less than none at the latter.
            *sum = sum.wrapping_add(part);
        }
        for (sum, part) in self.closed_by.iter_mut().zip(other.closed_by) {
            *sum += part;
        }
    }
}

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
