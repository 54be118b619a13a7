//! A session ends with a last word.

use std::io::IoSlice;

use super::engine::Engine;
use super::frame::Frame;
use crate::buffer::SharedFrame;
use crate::close::{Close, CloseReason};
use crate::error::EncodeError;
use crate::framing::Parts;
use crate::session::{SessionId, Slot};

/// The most bytes of a farewell, its header included.
pub(crate) const FAREWELL_BYTES_MAX: usize = 1024;

impl Engine {
    /// Closes a session on which the caller holds a count, with this last frame. True: it ends so. An error: the frame
    /// can never be sent.
    pub(crate) fn say_farewell(
        &self,
        id: SessionId,
        slot: &Slot,
        code: u32,
        frame: Option<&[u8]>,
    ) -> Result<bool, EncodeError<()>> {
        let reason = CloseReason::Kicked { code };
        let Some(frame) = frame else {
            return Ok(self.ask_to_close(id, slot, reason, Close::Drain));
        };
        loop {
            let framing = slot.framing();
            let farewell = self.encode_for(framing, frame, FAREWELL_BYTES_MAX)?;
            if let Some(ends) = self.ask_to_close_with(id, slot, reason, &farewell, framing) {
                return Ok(ends);
            }
        }
    }

    /// The handler's answer, when a limit is to end a session: a last frame, or none. A frame that is too large
    /// is none.
    pub(crate) fn answer_last_word(&self, slot: &Slot, frame: Option<&Frame>) {
        let farewell = frame.and_then(|frame| self.farewell_of(slot, frame));
        slot.send_queue.lock().answer_last_word(farewell);
    }

    fn farewell_of(&self, slot: &Slot, frame: &Frame) -> Option<SharedFrame> {
        if !self.could_have_encoded(frame) {
            return self.encode_for(slot.framing(), &frame.body(), FAREWELL_BYTES_MAX).ok();
        }
        let form = self.form_for(slot.framing(), frame);
        (form.bytes() <= FAREWELL_BYTES_MAX).then(|| form.clone())
    }

    /// A frame in the form of a framing, which may have at most `wire_bytes_max`.
    fn encode_for(
        &self,
        framing: u8,
        body: &[u8],
        wire_bytes_max: usize,
    ) -> Result<SharedFrame, EncodeError<()>> {
        let framing = self.framings.get(framing);
        let (form, _) = self.encode_as(framing, Parts(&[IoSlice::new(body)]), body.len())?;
        if form.bytes() > wire_bytes_max {
            let max = self.frame_bytes_max(framing, wire_bytes_max);
            return Err(EncodeError::TooLarge { bytes: (), max });
        }
        Ok(form)
    }
}
