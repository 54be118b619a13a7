//! What a server takes and can come to take: it adds up the constants of all floors.

use std::fmt;

use crate::chunks;
use crate::engine::{BUDGET_BYTES, LEASE_BYTES, RECEIVE_QUEUES_BYTES};
use crate::options::Options;
use crate::session::{SESSION_BYTES, SLOT_AND_HALF_BYTES, slots_at_first};

/// What a server with certain options takes of user-space memory, in bytes: [`Options::memory`] says it.
///
/// A server with N idle sessions takes at most `at_rest_bytes` + N × `idle_session_bytes`, before it has had
/// much to send. What it takes beyond that depends on what the sessions do, and has the other bounds.
///
/// Not counted are:
///
/// - What the kernel holds: its sockets with their buffers, the rings of io_uring, page tables.
/// - The handler's states. A state of up to 120 bytes makes each slot 64 or 128 bytes larger, including up to
///   1,536 slots that are made before they are needed and count as memory at rest. A larger one makes it 64
///   bytes larger, and has an allocation of its own from `opened` to `closed`.
/// - The own size of [notes](crate::Mailer) that wait, and of jobs; what a job touches of its thread's stack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Memory {
    /// A server that has started and has no session yet: its tables, and what its workers' threads and ports
    /// have touched. Includes the slots that are made together with the first session.
    pub at_rest_bytes: u64,
    /// One more idle session: its slot, its receive half, its port's record and its timer. These are kept when
    /// it ends, for the next one.
    pub idle_session_bytes: u64,
    /// One session whose send queue is full and that is in as many groups and has as many timers as it may.
    pub session_bytes_max: u64,
    /// What one worker adds if it fills its bounds: its sessions' receive queues, what waits to be published,
    /// notes that wait, the buffers that it lends, the batches that it keeps, its stack.
    pub worker_bytes_max: u64,
    /// Everything at once: the memory at rest, with every worker and every session at its maximum, but what
    /// waits to be sent within [`sending.queued_bytes_max`](field@crate::options::Sending::queued_bytes_max), up
    /// to 22 KiB of each session that are not counted there, and 1 MiB of each worker beyond that. Each worker may have
    /// one more session, which is ending. (A worker's receive queues may hold a frame, however small their bound.)
    pub total_bytes_max: u64,
}

/// In one line, as `wharf echo` says it when it starts.
impl fmt::Display for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Memory { at_rest_bytes, idle_session_bytes, total_bytes_max, .. } = *self;
        write!(
            f,
            "{} at rest, {} for each idle session, at most {} if all bounds are filled",
            Bytes(at_rest_bytes),
            Bytes(idle_session_bytes),
            Bytes(total_bytes_max),
        )
    }
}

/// In powers of 1,024: `512 B`, `3.1 MiB`.
struct Bytes(u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
        let power = self.0.max(1).ilog2() / 10;
        match power.checked_sub(1) {
            None => write!(f, "{} B", self.0),
            Some(unit) => {
                let value = self.0 as f64 / (1_u64 << (10 * power)) as f64;
                write!(f, "{value:.1} {}", UNITS[unit as usize])
            }
        }
    }
}

/// What a session with a WebSocket has more than others: its layer, control frames beyond the bound of its queue, one that
/// is kept, and its Close frame.
#[cfg(feature = "websocket")]
const WEB_SOCKET_BYTES: u64 = crate::session::CONTROL_BYTES_MAX as u64 + 512;

impl Options {
    /// What a server with these options takes of user-space memory, and can come to take. Of options outside
    /// their ranges, which no server starts with, it may say `u64::MAX`.
    pub fn memory(&self) -> Memory {
        let workers = self.worker_count() as u64;
        // Each worker may have one more that ends.
        let slots = u64::from(self.sessions.max).saturating_add(workers);
        let at_rest_bytes = sum(&[
            workers.saturating_mul(crate::worker::WORKER_AT_REST_BYTES as u64),
            SERVER_AT_REST_BYTES,
            2 * chunks::directory_bytes(slots), // of slots and of halves
            slots_at_first(slots).saturating_mul(SLOT_AND_HALF_BYTES as u64),
        ]);
        let (session_bytes_max, worker_bytes_max) =
            (self.session_bytes_max(), self.worker_bytes_max());
        Memory {
            at_rest_bytes,
            idle_session_bytes: SESSION_BYTES as u64,
            session_bytes_max,
            worker_bytes_max,
            total_bytes_max: sum(&[
                at_rest_bytes,
                slots.saturating_mul(self.session_bytes_beside_queue()),
                workers.saturating_mul(self.worker_bytes_beside_queues()),
                self.pool_bytes_max(),
                self.waiting_bytes_max(workers, slots),
            ]),
        }
    }

    /// All that can wait to be sent, or to be published: every queue filled, or the budget.
    fn waiting_bytes_max(&self, workers: u64, slots: u64) -> u64 {
        let full = sum(&[
            slots.saturating_mul(self.full_queue_bytes_max()),
            workers.saturating_mul(self.sending.publications_bytes_max as u64),
        ]);
        let budget = sum(&[
            self.queued_bytes_max() as u64,
            crate::buffer::FRAME_SLACK_BYTES as u64,
            workers.saturating_mul(LEASE_BYTES as u64),
        ]);
        let waiting = full.min(budget);
        waiting.saturating_add(waiting / 16) // what refers to shared frames
    }

    /// The budget for what waits to be sent, of a server that is not simulated.
    pub(super) fn queued_bytes_max(&self) -> usize {
        let part = || {
            let part = crate::port::memory_bytes().map(|bytes| bytes / MEMORY_PARTS);
            part.map_or(BUDGET_BYTES, |bytes| usize::try_from(bytes).unwrap_or(usize::MAX))
        };
        // Within the range of the option.
        let within = |bytes: usize| bytes.max(self.sending.queue_bytes_max).min(1 << 40);
        self.sending.queued_bytes_max.unwrap_or_else(|| within(part()))
    }

    /// The bound of one worker's receive queues, of a server that is not simulated.
    pub(super) fn receive_queues_bytes_max(&self) -> usize {
        let part = || {
            let of_worker = |bytes| bytes / RECEIVED_MEMORY_PARTS / self.worker_count() as u64;
            let part = crate::port::memory_bytes().map(of_worker);
            let most = RECEIVE_QUEUES_BYTES;
            part.map_or(most, |bytes| usize::try_from(bytes).unwrap_or(most).min(most))
        };
        self.receiving.queues_bytes_max.unwrap_or_else(part)
    }

    fn session_bytes_max(&self) -> u64 {
        let send_queue = self.full_queue_bytes_max();
        sum(&[self.session_bytes_beside_queue(), send_queue, send_queue / 16])
    }

    /// What is counted of a full send queue, with what is free in its pieces or has left of them.
    fn full_queue_bytes_max(&self) -> u64 {
        let slack = 2 * crate::buffer::BATCH_SLACK_BYTES as u64;
        (self.sending.queue_bytes_max as u64).saturating_add(slack)
    }

    fn session_bytes_beside_queue(&self) -> u64 {
        // The ring that the rest of a frame is received into on Windows.
        let own_buffer = if cfg!(windows) { 2 * crate::worker::RECEIVE_ROOM_BYTES_MIN } else { 0 };
        sum(&[
            SESSION_BYTES as u64,
            // How it ends, and who waits for room in its send queue.
            crate::session::ASIDE_BYTES_MAX as u64,
            // Two batches, without what is counted of them.
            2 * (crate::buffer::BATCH_BYTES + crate::buffer::PAGE_BYTES) as u64,
            // A piece for the last word, beyond the queue's bound.
            crate::buffer::PAGE_BYTES as u64,
            u64::from(self.sessions.groups_max) * crate::engine::MEMBERSHIP_BYTES as u64,
            u64::from(self.sessions.timers_max) * crate::engine::TIMER_BYTES as u64,
            crate::engine::TIMERS_OF_SESSION_BYTES as u64,
            // What says that it lacks publications.
            crate::engine::BEHIND_BYTES as u64,
            // The places of its close and of its end, and as many of those before it.
            3 * crate::engine::REQUEST_BYTES as u64,
            own_buffer as u64,
            #[cfg(feature = "websocket")]
            WEB_SOCKET_BYTES,
        ])
    }

    fn worker_bytes_max(&self) -> u64 {
        let publications = self.sending.publications_bytes_max as u64;
        self.worker_bytes_beside_queues().saturating_add(publications)
    }

    fn worker_bytes_beside_queues(&self) -> u64 {
        sum(&[
            crate::worker::WORKER_BYTES as u64,
            self.lent_bytes_max(),
            u64::from(self.sessions.notes_of_port_max) * crate::engine::NOTE_BYTES as u64,
            (self.receive_queues_bytes_max() as u64).saturating_mul(2), // a ring grows by doubling
        ])
    }

    /// The threads that run jobs, and the jobs with the notes that they have given.
    fn pool_bytes_max(&self) -> u64 {
        let threads = (self.offload.threads as u64).saturating_mul(POOL_THREAD_BYTES);
        let job_bytes = (crate::engine::JOB_BYTES + crate::engine::NOTE_BYTES) as u64;
        threads.saturating_add(u64::from(self.offload.jobs_max) * job_bytes)
    }

    /// Bytes lent by one worker's port at once, the most of all ports.
    fn lent_bytes_max(&self) -> u64 {
        u64::from(self.uring.receive_buffers)
            .saturating_mul(self.uring.receive_buffer_bytes as u64)
            .saturating_add(crate::port::LARGE_BUFFERS_BYTES as u64)
            .max(crate::port::SCRATCH_BYTES as u64)
    }
}

/// What a thread that runs jobs has touched of its stack before it runs one, and what the allocator keeps for it.
const POOL_THREAD_BYTES: u64 = 32 * 1024;

/// So many parts has the memory that the process may use; one is for what waits to be sent.
const MEMORY_PARTS: u64 = 4;

/// And so many for what one worker's receive queues hold, times the workers.
const RECEIVED_MEMORY_PARTS: u64 = 8;

/// What a server has once: its engine, the names of its threads; on Windows also the directory of its port's
/// records.
const SERVER_AT_REST_BYTES: u64 = if cfg!(windows) { 256 * 1024 } else { 32 * 1024 };

fn sum(parts: &[u64]) -> u64 {
    parts.iter().fold(0, |sum, part| sum.saturating_add(*part))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_memory_of_options_outside_their_ranges_is_announced_too() {
        let options = Options::default().workers(usize::MAX).with(|options| {
            options.sessions.max = u32::MAX;
            options.sending.queue_bytes_max = usize::MAX;
            options.receiving.queues_bytes_max = Some(usize::MAX);
            options.sessions.groups_max = u32::MAX;
            options.sending.publications_bytes_max = usize::MAX;
            options.uring.receive_buffers = u16::MAX;
            options.uring.receive_buffer_bytes = usize::MAX;
        });
        assert_eq!(options.memory().total_bytes_max, u64::MAX);
        for one in [
            Options::default().workers(usize::MAX),
            Options::default().with(|options| {
                options.sending.queue_bytes_max = usize::MAX;
            }),
            Options::default().with(|options| {
                options.receiving.queues_bytes_max = Some(usize::MAX);
            }),
            Options::default().with(|options| {
                options.sending.queue_bytes_max = usize::MAX;
                options.sending.publications_bytes_max = usize::MAX;
                options.sending.queued_bytes_max = Some(usize::MAX);
            }),
            Options::default().with(|options| {
                options.uring.receive_buffer_bytes = usize::MAX;
            }),
        ] {
            let total = one.memory().total_bytes_max;
            assert!(total > Options::default().memory().total_bytes_max);
        }
    }

    #[test]
    fn the_report_is_a_line_that_people_can_read() {
        let memory = Memory {
            at_rest_bytes: 640 << 10,
            idle_session_bytes: 512,
            session_bytes_max: 1 << 20,
            worker_bytes_max: 9 << 20,
            total_bytes_max: (45 << 30) + (103 << 20),
        };
        assert_eq!(
            memory.to_string(),
            "640.0 KiB at rest, 512 B for each idle session, at most 45.1 GiB if all bounds are \
             filled"
        );
        let said = [0, 1023, 1024, 1 << 20, u64::MAX].map(|bytes| Bytes(bytes).to_string());
        assert_eq!(said, ["0 B", "1023 B", "1.0 KiB", "1.0 MiB", "16.0 EiB"]);
    }
}
