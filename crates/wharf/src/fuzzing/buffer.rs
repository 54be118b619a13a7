//! The ring buffer and the send batch, compared with plain queues of bytes.

use std::io::IoSlice;

use arbitrary::{Arbitrary, Unstructured};

use super::{bytes_from, joined};
use crate::buffer::{BatchPool, Frame, RingBuffer, SendBatch, SharedFrame};

#[derive(Debug, Arbitrary)]
enum Step {
    Write(u16),
    /// As a receive does: into the free segments, which are then said to be filled.
    Fill(u16),
    Consume(u16),
    MakeContiguous,
    Push {
        header: u8,
        frame: u16,
        large: bool,
    },
    Send {
        slices: u8,
        count: u32,
    },
    /// The batch goes back to the pool, whatever is left of it, and another comes out.
    Renew,
}

/// The target.
pub fn buffer(bytes: &[u8]) {
    let mut input = Unstructured::new(bytes);
    let Ok(capacity) = u16::arbitrary(&mut input) else { return };
    let pool = BatchPool::new(1);
    let mut run = Run {
        ring: RingBuffer::with_capacity(capacity.into()),
        waiting: Vec::new(),
        written: 0,
        batch: pool.take(),
        queued: Vec::new(),
        pushed: 0,
        frames: 0,
        begun: false,
        pool,
    };
    assert_eq!(run.ring.capacity(), usize::from(capacity).max(1));
    while let Ok(step) = Step::arbitrary(&mut input)
        && !input.is_empty()
    {
        run.take(step);
        run.check();
    }
}

struct Run {
    ring: RingBuffer,
    waiting: Vec<u8>,
    written: u64,
    batch: Box<SendBatch>,
    queued: Vec<u8>,
    pushed: u64,
    frames: u64,
    /// Some of the batch has left, so it takes no more frames.
    begun: bool,
    pool: BatchPool,
}

const RING: u64 = 1;
const BATCH: u64 = 2;
/// Enough for pieces of every size.
const BATCH_BYTES_MAX: usize = 512 * 1024;

impl Run {
    fn take(&mut self, step: Step) {
        match step {
            Step::Write(count) => {
                let bytes = bytes_from(RING, self.written, count.into());
                let fits = bytes.len().min(self.ring.free());
                assert_eq!(self.ring.write(&bytes), fits);
                self.note_written(&bytes[..fits]);
            }
            Step::Fill(count) => {
                let bytes = bytes_from(RING, self.written, self.ring.free().min(count.into()));
                let mut rest = &bytes[..];
                for segment in self.ring.free_segments() {
                    let (here, further) = rest.split_at(rest.len().min(segment.len()));
                    segment[..here.len()].copy_from_slice(here);
                    rest = further;
                }
                assert!(rest.is_empty(), "what is free is in the two segments");
                self.ring.filled(bytes.len());
                self.note_written(&bytes);
            }
            Step::Consume(count) => {
                let count = usize::from(count).min(self.ring.len());
                self.ring.consume(count);
                self.waiting.drain(..count);
            }
            Step::MakeContiguous => {
                assert!(self.ring.make_contiguous() == self.waiting);
                assert!(self.ring.filled_segments()[1].is_empty());
            }
            Step::Push { header, frame, large } => {
                let frame = usize::from(frame) * if large { 3 } else { 1 };
                if !self.begun && self.queued.len() + frame < BATCH_BYTES_MAX {
                    self.push(usize::from(header % 9), frame);
                }
            }
            Step::Send { slices, count } => self.send(usize::from(slices % 65), count as usize),
            Step::Renew => {
                let batch = std::mem::take(&mut self.batch);
                self.pool.give_back(batch);
                self.batch = self.pool.take();
                self.queued.clear();
                (self.frames, self.begun) = (0, false);
            }
        }
    }

    fn note_written(&mut self, bytes: &[u8]) {
        self.written += bytes.len() as u64;
        self.waiting.extend(bytes);
    }

    fn push(&mut self, header_bytes: usize, frame_bytes: usize) {
        let bytes = bytes_from(BATCH, self.pushed, header_bytes + frame_bytes);
        let (header, frame) = bytes.split_at(header_bytes);
        match header_bytes % 2 {
            0 => self.batch.push_frame([header, frame]),
            _ => self.batch.push(Frame::Shared(&SharedFrame::new([header, frame]))),
        }
        self.pushed += bytes.len() as u64;
        self.queued.extend(bytes);
        self.frames += 1;
    }

    /// As many slices as the port takes at once, of which so many bytes leave.
    fn send(&mut self, slices: usize, count: usize) {
        let mut gathered = vec![IoSlice::new(&[]); slices];
        let filled = self.batch.gather(&mut gathered);
        let bytes = joined(&gathered[..filled]);
        assert!(self.queued.starts_with(&bytes), "they come in order");
        let all = bytes.len() == self.queued.len();
        assert!(all || filled == slices, "no more than the slices hold it back");
        assert!(bytes.is_empty() || gathered[..filled].iter().all(|slice| !slice.is_empty()));
        let count = count.min(bytes.len());
        self.batch.advance(count);
        self.queued.drain(..count);
        self.begun |= count > 0;
    }

    fn check(&self) {
        assert_eq!(self.ring.len(), self.waiting.len());
        assert_eq!(self.ring.free() + self.ring.len(), self.ring.capacity());
        assert!(self.ring.filled_segments().concat() == self.waiting, "in order, each once");
        assert_eq!(self.batch.bytes(), self.queued.len());
        assert_eq!(self.batch.frames(), self.frames);
    }
}
