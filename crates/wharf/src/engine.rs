//! What the threads of one server share: the table, the workers' mailboxes, the options.

use std::sync::Condvar;
use std::time::{Duration, Instant};

use crate::Close;
use crate::buffer::BatchPool;
use crate::config::{Backpressure, Options};
use crate::error::{CloseReason, Error, SendError};
use crate::events::{DrainReport, Stats};
use crate::framing::Framing;
use crate::session::{Pushed, Refusal, SessionId, SessionTable, Slot};
use crate::sync::{AtomicBool, AtomicU32, Mutex, Ordering};
use crate::worker::mailbox::{Mail, Mailbox};

/// Empty send batches that one worker keeps at rest.
const BATCHES_AT_REST_MAX: usize = 1024;
/// What they hold, in bytes.
pub(crate) const BATCHES_AT_REST_BYTES: usize = BATCHES_AT_REST_MAX * BatchPool::BATCH_BYTES;

#[derive(Debug)]
pub(crate) struct Engine {
    pub(crate) table: SessionTable,
    pub(crate) workers: Box<[WorkerShare]>,
    pub(crate) framing: Framing,
    pub(crate) options: Options,
    /// Set once, when a drain or stop begins: nothing is admitted any more.
    ending: AtomicBool,
    ended: Mutex<Ended>,
    worker_ended: Condvar,
}

/// What others may touch of a worker.
#[derive(Debug)]
#[repr(align(64))]
pub(crate) struct WorkerShare {
    pub(crate) mailbox: Mailbox,
    pub(crate) pool: BatchPool,
    pub(crate) stats: Mutex<Stats>,
    /// Sessions assigned to it: what "least loaded" means.
    pub(crate) assigned: AtomicU32,
}

impl WorkerShare {
    pub(crate) fn assigned_sessions(&self) -> u32 {
        self.assigned.load(Ordering::Acquire)
    }
}

#[derive(Debug, Default)]
struct Ended {
    workers: usize,
    report: DrainReport,
    error: Option<Error>,
}

impl Engine {
    pub(crate) fn new(workers: usize, framing: Framing, options: Options) -> Self {
        let share = || WorkerShare {
            mailbox: Mailbox::default(),
            pool: BatchPool::new(BATCHES_AT_REST_MAX),
            stats: Mutex::default(),
            assigned: AtomicU32::new(0),
        };
        Engine {
            table: SessionTable::new(options.sessions_max),
            workers: (0..workers).map(|_| share()).collect(),
            framing,
            options,
            ending: AtomicBool::new(false),
            ended: Mutex::default(),
            worker_ended: Condvar::new(),
        }
    }

    pub(crate) fn is_ending(&self) -> bool {
        self.ending.load(Ordering::Acquire)
    }

    /// Takes a slot for a new session and assigns it to the worker with the fewest.
    /// `None`: there are `sessions_max`.
    pub(crate) fn admit(&self) -> Option<SessionId> {
        let loads = self.workers.iter().map(|share| share.assigned.load(Ordering::Relaxed));
        let (worker, _) = loads.enumerate().min_by_key(|(_, load)| *load)?;
        let id = self.table.insert(worker)?;
        self.workers[worker].assigned.fetch_add(1, Ordering::Relaxed);
        Some(id)
    }

    /// Gives up the hold on a session that never came to its worker, because that has ended.
    pub(crate) fn abandon(&self, id: SessionId) {
        if let Some(slot) = self.table.held(id)
            && slot.count.lower()
        {
            self.release(id, slot.worker());
        }
    }

    /// Gives back the slot of a session whose count came to zero.
    pub(crate) fn release(&self, id: SessionId, worker: usize) {
        self.workers[worker].assigned.fetch_sub(1, Ordering::Release);
        self.table.release(id);
    }

    /// The queue length above which receiving pauses, if it ever does.
    pub(crate) fn pause_mark(&self) -> usize {
        match self.options.backpressure {
            Backpressure::PauseReceive => self.options.send_queue_bytes_max / 2,
            Backpressure::CloseSlowConsumer => usize::MAX,
        }
    }

    /// The queue length at or below which it resumes.
    pub(crate) fn resume_mark(&self) -> usize {
        self.options.send_queue_bytes_max / 4
    }

    /// Queues a frame for a session on which the caller holds a count. The second of the pair says
    /// whether its worker must attend to it (it was armed, passed the pause mark, or closes now).
    pub(crate) fn push<B: AsRef<[u8]>>(
        &self,
        slot: &Slot,
        bytes: B,
    ) -> (Result<usize, SendError<B>>, bool) {
        let frame = bytes.as_ref();
        let queue_max = self.options.send_queue_bytes_max;
        let mut header = [0; 8];
        let header_bytes = match self.framing.encode_header(frame.len(), &mut header) {
            Ok(header_bytes) => header_bytes,
            Err(_) => {
                let wire_max = self.framing.wire_frame_bytes_max().unwrap_or(queue_max);
                return (Err(SendError::TooLarge { bytes, max: wire_max.min(queue_max) }), false);
            }
        };
        if header_bytes + frame.len() > queue_max {
            return (Err(SendError::TooLarge { bytes, max: queue_max - header_bytes }), false);
        }
        let pool = &self.workers[slot.worker()].pool;
        let pushed = slot.send_queue.lock().push([&header[..header_bytes], frame], queue_max, pool);
        match pushed {
            Ok(Pushed { armed, queued_bytes }) => {
                (Ok(queued_bytes), armed || queued_bytes > self.pause_mark())
            }
            Err(Refusal::Closing) => (Err(SendError::Gone(bytes)), false),
            Err(Refusal::Full { queued_bytes: queued }) => {
                let closes = self.options.backpressure == Backpressure::CloseSlowConsumer
                    && slot.ask_to_close(CloseReason::SlowConsumer { queued }, Close::Stop);
                (Err(SendError::Full { bytes, queued, max: queue_max }), closes)
            }
        }
    }

    /// Runs `act` with a hold on the session, from a thread that is not its worker's; what `act`
    /// says second is whether the worker must attend to it. `None`: the session is gone.
    pub(crate) fn with_session<R>(
        &self,
        id: SessionId,
        act: impl FnOnce(&Slot) -> (R, bool),
    ) -> Option<R> {
        let reference = self.table.look_up(id)?;
        let slot = reference.slot();
        let (result, attend) = act(slot);
        let mailbox = &self.workers[slot.worker()].mailbox;
        if attend {
            // A worker that has ended has nothing left to attend to.
            let _ = mailbox.post(Mail::Attend(id));
        }
        // The release runs on the session's worker (invariant 4).
        if reference.end() && mailbox.post(Mail::Release(id)).is_err() {
            self.release(id, slot.worker());
        }
        Some(result)
    }

    pub(crate) fn stats(&self) -> Stats {
        let mut sum = Stats::default();
        for share in &self.workers {
            sum.add(&share.stats.lock());
        }
        for (_, slot) in self.table.touched_slots() {
            sum.queued_bytes += slot.send_queue.lock().queued_bytes() as u64;
        }
        sum
    }

    pub(crate) fn drain(&self) {
        self.ending.store(true, Ordering::Release);
        for share in &self.workers {
            let _ = share.mailbox.post(Mail::Drain); // has it ended already, so much the better
        }
    }

    pub(crate) fn stop(&self) {
        self.ending.store(true, Ordering::Release);
        for share in &self.workers {
            let _ = share.mailbox.post(Mail::Stop); // has it ended already, so much the better
        }
    }

    /// Says that a worker has ended, and what it has to report. One that failed stops the others:
    /// a server that is whole but for some of its sessions would look well, and not be.
    pub(crate) fn worker_ended(&self, report: DrainReport, error: Option<Error>) {
        if error.is_some() {
            self.stop();
        }
        let mut ended = self.ended.lock();
        ended.workers += 1;
        ended.report.add(&report);
        ended.error = ended.error.take().or(error);
        self.worker_ended.notify_all();
    }

    /// Waits until every worker has ended, at most `timeout`; the report if they have.
    pub(crate) fn wait_ended(&self, timeout: Option<Duration>) -> Option<DrainReport> {
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let mut ended = self.ended.lock();
        while ended.workers < self.workers.len() {
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            if left == Some(Duration::ZERO) {
                return None;
            }
            // Nothing that can panic runs under this lock, so it is never poisoned.
            ended = match left {
                None => self.worker_ended.wait(ended).unwrap_or_else(|e| e.into_inner()),
                Some(left) => {
                    self.worker_ended.wait_timeout(ended, left).unwrap_or_else(|e| e.into_inner()).0
                }
            };
        }
        Some(ended.report)
    }

    /// The first error that ended a worker, once.
    pub(crate) fn take_error(&self) -> Option<Error> {
        self.ended.lock().error.take()
    }
}
