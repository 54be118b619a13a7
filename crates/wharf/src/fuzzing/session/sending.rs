//! The send queue, compared with a model that knows bytes only by their number.

use std::io::IoSlice;

use arbitrary::Arbitrary;

use crate::buffer::{BatchPool, Frame, SendBatch};
use crate::fuzzing::{bytes_from, joined};
use crate::session::{Pushed, Refusal, SendQueue};

/// The clock's nanoseconds go on for 584 years, all but the last of them.
const NOW_MAX: u64 = u64::MAX - 1;

#[derive(Debug, Arbitrary)]
pub(super) enum SendStep {
    Push {
        header: u8,
        frame: u16,
        bytes_max: u32,
    },
    HoldBack(bool),
    Take {
        now: u64,
    },
    /// The send that is outstanding was refused.
    PutBack,
    /// It has completed: all of it has left, or no more than so many bytes.
    Sent {
        bytes_max: Option<u16>,
        now: u64,
    },
    Pause {
        mark: u16,
        resume_mark: u16,
    },
}

/// Enough for pieces of every size.
const QUEUE_BYTES_MAX: usize = 256 * 1024;

/// Bytes of frames that are together in one batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Batch {
    bytes: usize,
    frames: u64,
}

#[derive(Debug, Default)]
pub(super) struct Sending {
    outstanding: Option<Box<SendBatch>>,
    leaving: Batch,
    waiting: Batch,
    /// How many bytes were pushed, ever, and how many of them have left.
    pushed: u64,
    sent: u64,
    armed: bool,
    held_back: bool,
    paused: bool,
    progress_at: Option<u64>,
}

impl Sending {
    pub(super) fn is_outstanding(&self) -> bool {
        self.outstanding.is_some()
    }

    pub(super) fn queued_bytes(&self) -> usize {
        (self.pushed - self.sent) as usize
    }

    pub(super) fn take(
        &mut self,
        step: SendStep,
        serial: u64,
        closing: bool,
        queue: &mut SendQueue,
        pool: &BatchPool,
    ) {
        match step {
            SendStep::Push { header, frame, bytes_max } => {
                let header_bytes = usize::from(header % 9);
                let bytes_max = bytes_max as usize % QUEUE_BYTES_MAX;
                let bytes = bytes_from(serial, self.pushed, header_bytes + usize::from(frame));
                let (header, frame) = bytes.split_at(header_bytes);
                let pushed = queue.push(
                    Frame::One {
                        envelope: &crate::buffer::Envelope::of(header, &[]).unwrap(),
                        body: frame,
                    },
                    bytes_max,
                    pool,
                );
                assert_eq!(pushed, self.push(bytes.len(), bytes_max, closing));
            }
            SendStep::HoldBack(held_back) => {
                queue.hold_back(held_back);
                self.held_back = held_back;
            }
            SendStep::Take { now } => self.begin(now.min(NOW_MAX), queue),
            SendStep::PutBack => {
                let Some(batch) = self.outstanding.take() else { return };
                queue.put_back(batch);
            }
            SendStep::Sent { bytes_max, now } => {
                if let Some(batch) = self.outstanding.take() {
                    let now = now.min(NOW_MAX);
                    self.complete(batch, bytes_max, now, serial, closing, queue, pool);
                }
            }
            SendStep::Pause { mark, resume_mark } => {
                let (mark, resume_mark) = (mark.into(), usize::from(resume_mark.min(mark)));
                let before = self.paused;
                self.paused = match self.queued_bytes() {
                    queued if queued > mark => true,
                    queued if queued <= resume_mark => false,
                    _ => before,
                };
                let changes = before != self.paused;
                assert_eq!(queue.pause_is_to_change(mark, resume_mark), changes);
                assert_eq!(queue.is_paused(mark, resume_mark), self.paused);
            }
        }
    }

    fn push(&mut self, bytes: usize, bytes_max: usize, closing: bool) -> Result<Pushed, Refusal> {
        let queued_bytes = self.queued_bytes();
        if closing {
            return Err(Refusal::Closing);
        }
        if queued_bytes + bytes > bytes_max && bytes > 0 {
            return Err(Refusal::Full { queued_bytes });
        }
        let armed = bytes > 0 && !self.armed;
        if bytes > 0 {
            self.armed = true;
            self.pushed += bytes as u64;
            self.waiting.bytes += bytes;
            self.waiting.frames += 1;
        }
        if armed {
            self.progress_at = None;
        }
        Ok(Pushed { armed, queued_bytes: self.queued_bytes() })
    }

    /// What has left in part goes first; and one send at a time.
    fn begin(&mut self, now: u64, queue: &mut SendQueue) {
        let taken = queue.take(|| now);
        // What has left in part, or is ahead of all, is not held back.
        let is_held_back = self.held_back && self.leaving.bytes == 0;
        if self.outstanding.is_some() || is_held_back || self.queued_bytes() == 0 {
            assert!(taken.is_none());
            return;
        }
        if self.leaving.bytes == 0 {
            self.leaving = std::mem::take(&mut self.waiting);
            self.progress_at = Some(now);
        }
        let batch = taken.expect("bytes wait");
        assert_eq!(Batch { bytes: batch.bytes(), frames: batch.frames() }, self.leaving);
        self.outstanding = Some(batch);
    }

    #[expect(clippy::too_many_arguments, reason = "it is what a completion brings together")]
    fn complete(
        &mut self,
        mut batch: Box<SendBatch>,
        bytes_max: Option<u16>,
        now: u64,
        serial: u64,
        closing: bool,
        queue: &mut SendQueue,
        pool: &BatchPool,
    ) {
        let bytes = unsent(&batch);
        assert!(bytes == bytes_from(serial, self.sent, bytes.len()), "in order, each once");
        let count = bytes_max.map_or(bytes.len(), |most| bytes.len().min(most.into()));
        batch.advance(count);
        let sent = queue.sent(batch, count, now, 0);

        self.sent += count as u64;
        self.leaving.bytes -= count;
        self.progress_at = Some(now);
        let whole = self.leaving.bytes == 0;
        if whole {
            self.leaving = Batch::default();
            self.armed = self.waiting.bytes > 0;
        }
        assert_eq!(sent.goes_on, self.queued_bytes() > 0);
        assert_eq!(sent.queued_bytes, self.queued_bytes());
        assert_eq!((sent.paused, sent.closing), (self.paused, closing));
        assert_eq!(sent.left.is_some(), whole);
        if let Some(batch) = sent.left {
            assert_eq!(batch.bytes(), 0);
            pool.give_back(batch);
        }
    }

    pub(super) fn check(&self, queue: &SendQueue) {
        assert_eq!(queue.queued_bytes(), self.queued_bytes());
        assert_eq!(queue.is_sending(), self.outstanding.is_some());
        let since = self.progress_at.filter(|_| self.queued_bytes() > 0);
        assert_eq!(queue.waits_since(), since);
    }

    /// The session ends: what still waited is given back.
    pub(super) fn end(
        &mut self,
        serial: u64,
        given_back: [Option<Box<SendBatch>>; 2],
        pool: &BatchPool,
    ) {
        assert!(self.outstanding.is_none(), "released under a send");
        let mut rest = Vec::new();
        for batch in given_back.into_iter().flatten() {
            rest.extend(unsent(&batch));
            pool.give_back(batch);
        }
        assert!(rest == bytes_from(serial, self.sent, self.queued_bytes()));
    }
}

fn unsent(batch: &SendBatch) -> Vec<u8> {
    let mut slices = [IoSlice::new(&[]); 64];
    let filled = batch.gather(&mut slices);
    let bytes = joined(&slices[..filled]);
    assert_eq!(bytes.len(), batch.bytes());
    bytes
}
