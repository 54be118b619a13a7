//! What a server's sessions and workers can come to hold: it adds up the constants of all floors.

use crate::options::Options;

impl Options {
    /// Bytes lent by one worker's port at once, the most of all ports.
    fn lent_bytes_max(&self) -> u64 {
        u64::from(self.receive_buffers)
            .saturating_mul(self.receive_buffer_bytes as u64)
            .saturating_add(crate::port::LARGE_BUFFERS_BYTES as u64)
            .max(crate::port::SCRATCH_BYTES as u64)
    }

    /// The most user-space memory that the sessions and workers can come to hold, in bytes, if
    /// every session fills every bound at once. It does not count the handler's own state, nor
    /// what the kernel holds. Of options outside their ranges, which no server starts with, it may say
    /// `u64::MAX`.
    pub fn memory_bytes_max(&self) -> u64 {
        let sum = |parts: &[u64]| parts.iter().fold(0, |sum: u64, part| sum.saturating_add(*part));
        // The ring that the rest of a frame is received into on Windows.
        let own_buffer = if cfg!(windows) { 2 * crate::worker::RECEIVE_ROOM_BYTES_MIN } else { 0 };
        let send_queue = self.send_queue_bytes_max as u64;
        let session = sum(&[
            crate::session::SESSION_BYTES as u64,
            // Two batches, and what refers to the shared frames in them.
            send_queue,
            send_queue / 16,
            2 * crate::buffer::BATCH_SLACK_BYTES as u64,
            u64::from(self.groups_per_session_max) * crate::engine::MEMBERSHIP_BYTES as u64,
            // The places of its close and of its end, and as many of those before it.
            3 * crate::engine::REQUEST_BYTES as u64,
            own_buffer as u64,
        ]);
        let worker = sum(&[
            crate::worker::WORKER_BYTES as u64,
            self.lent_bytes_max(),
            (self.receive_queues_bytes_max as u64).saturating_mul(2), // a ring grows by doubling
            self.publications_bytes_max as u64,
        ]);
        let workers = self.worker_count() as u64;
        // Each worker may have one more that ends.
        let sessions = u64::from(self.sessions_max).saturating_add(workers);
        sessions.saturating_mul(session).saturating_add(workers.saturating_mul(worker))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_memory_of_options_outside_their_ranges_is_announced_too() {
        let options = Options {
            workers: usize::MAX,
            sessions_max: u32::MAX,
            send_queue_bytes_max: usize::MAX,
            receive_queues_bytes_max: usize::MAX,
            groups_per_session_max: u32::MAX,
            publications_bytes_max: usize::MAX,
            receive_buffers: u16::MAX,
            receive_buffer_bytes: usize::MAX,
            ..Options::default()
        };
        assert_eq!(options.memory_bytes_max(), u64::MAX);
        for one in [
            Options { workers: usize::MAX, ..Options::default() },
            Options { send_queue_bytes_max: usize::MAX, ..Options::default() },
            Options { receive_queues_bytes_max: usize::MAX, ..Options::default() },
            Options { publications_bytes_max: usize::MAX, ..Options::default() },
            Options { receive_buffer_bytes: usize::MAX, ..Options::default() },
        ] {
            assert!(one.memory_bytes_max() > Options::default().memory_bytes_max());
        }
    }
}
