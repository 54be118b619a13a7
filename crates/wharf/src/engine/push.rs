//! A frame's way into a send queue, and past it: what may leave at once, and finds nothing before it, does.

use super::engine::Engine;
use super::share::Follows;
use crate::buffer::Frame;
use crate::close::CloseReason;
use crate::error::SendError;
use crate::framing::Framing;
use crate::options::Backpressure;
use crate::port::Anywhere;
use crate::session::{Pushed, Refusal, Slot};

/// Whether a frame may leave at once, if nothing is before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AtOnce {
    No,
    /// By its worker: it answers what has just come.
    Answer,
    /// By another thread while its worker sleeps, unless [too many have](super::direct).
    WhileItSleeps,
}

impl Engine {
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

    /// Writes the header of a frame, and says how many bytes it has; or else how many bytes a frame may
    /// have that can be sent at all.
    pub(super) fn encode_header(
        &self,
        framing: &Framing,
        frame_bytes: usize,
        header: &mut [u8; 8],
    ) -> Result<usize, usize> {
        let queue_max = self.options.send_queue_bytes_max;
        match framing.encode_header(frame_bytes, header) {
            Ok(header_bytes) if header_bytes + frame_bytes <= queue_max => Ok(header_bytes),
            _ => Err(self.frame_bytes_max(framing)),
        }
    }

    /// The most bytes of a frame that can be sent, its header not counted.
    #[cold]
    fn frame_bytes_max(&self, framing: &Framing) -> usize {
        let queue_max = self.options.send_queue_bytes_max;
        let wire_max = framing.wire_frame_bytes_max().unwrap_or(queue_max).min(queue_max);
        wire_max.saturating_sub(framing.encode_header(0, &mut [0; 8]).unwrap_or(0))
    }

    /// Queues a frame for a session on which the caller holds a count; how many bytes of it have left already
    /// (none, if it may not), and what follows (the queue was armed, the pause mark was
    /// passed, the session closes now). The frame is plain bytes: no code of the user's runs under a hold.
    #[inline] // into `Session::send`, which is compiled in the user's crate
    pub(crate) fn push(
        &self,
        slot: &Slot,
        frame: &[u8],
        at_once: AtOnce,
    ) -> (Result<usize, SendError<()>>, Follows) {
        let mut header = [0; 8];
        let framing = self.framing_of(slot);
        let header_bytes = match self.encode_header(framing, frame.len(), &mut header) {
            Ok(header_bytes) => header_bytes,
            Err(max) => return (Err(SendError::TooLarge { bytes: (), max }), Follows::default()),
        };
        let closes = self.options.backpressure == Backpressure::CloseSlowConsumer;
        let frame = Frame::Own([&header[..header_bytes], frame]);
        let (pushed, follows) = if at_once != AtOnce::No {
            self.push_past(slot, frame, closes, at_once)
        } else {
            let (pushed, follows) = self.push_frame(slot, frame, closes);
            (pushed.map(|()| 0), follows)
        };
        let result = pushed.map_err(|refusal| match refusal {
            Refusal::Closing | Refusal::Failed => SendError::Gone(()),
            Refusal::Full { queued_bytes: queued } => {
                SendError::Full { bytes: (), queued, max: self.options.send_queue_bytes_max }
            }
        });
        (result, follows)
    }

    /// Queues a frame, header and all; `closes`: a session without room for it.
    pub(super) fn push_frame(
        &self,
        slot: &Slot,
        frame: Frame<'_>,
        closes: bool,
    ) -> (Result<(), Refusal>, Follows) {
        let (pool, queue_max) = (&self.port_of(slot).pool, self.options.send_queue_bytes_max);
        let pushed = slot.send_queue.lock().push(frame, queue_max, pool);
        self.follow(slot, frame, pushed, closes)
    }

    /// Lets the front of a frame leave, if the session's port has a way for that, and queues the rest.
    #[cold] // beside the call of the system's that it is for
    fn push_past(
        &self,
        slot: &Slot,
        mut frame: Frame<'_>,
        closes: bool,
        at_once: AtOnce,
    ) -> (Result<usize, Refusal>, Follows) {
        let (port, queue_max) = (self.port_of(slot), self.options.send_queue_bytes_max);
        let mut queue = slot.send_queue.lock();
        let left = match (port.anywhere.get(), slot.registration()) {
            (Some(Anywhere::Sends(direct)), Some(registration))
                if queue.has_nothing_before(&frame, queue_max)
                    && (at_once == AtOnce::Answer || port.direct_sends.may_send(self.now())) =>
            {
                queue.send_at_once(&mut frame, &**direct, registration)
            }
            _ => Ok(0),
        };
        let pushed = left.and_then(|_| queue.push(frame, queue_max, &port.pool));
        drop(queue);
        let (pushed, follows) = self.follow(slot, frame, pushed, closes);
        (pushed.and(left), follows)
    }

    #[inline]
    fn follow(
        &self,
        slot: &Slot,
        frame: Frame<'_>,
        pushed: Result<Pushed, Refusal>,
        closes: bool,
    ) -> (Result<(), Refusal>, Follows) {
        match pushed {
            Ok(Pushed { armed, queued_bytes }) => {
                // Only the push that passes the mark: those after it find it passed.
                let (before, mark) = (queued_bytes - frame.bytes(), self.pause_mark());
                (Ok(()), Follows { armed, changed: before <= mark && queued_bytes > mark })
            }
            Err(refusal) => {
                let changed = match refusal {
                    Refusal::Full { queued_bytes: queued } if closes => {
                        slot.ask_to_stop(CloseReason::SlowConsumer { queued })
                    }
                    Refusal::Failed => {
                        slot.count.ask_to_close();
                        true
                    }
                    Refusal::Closing | Refusal::Full { .. } => false,
                };
                (Err(refusal), Follows { changed, ..Follows::default() })
            }
        }
    }
}
