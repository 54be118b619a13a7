//! A session ends with a last word.

use super::engine::Engine;
use super::frame::Frame;
use crate::buffer::SharedFrame;
use crate::close::{Close, CloseReason};
use crate::session::{SessionId, Slot};

/// The most bytes of a farewell, its header included.
pub(crate) const FAREWELL_BYTES_MAX: usize = 1024;

impl Engine {
    /// Closes a session on which the caller holds a count, with this last frame. True: it ends so. Or else how
    /// many bytes the frame may have.
    pub(crate) fn say_farewell(
        &self,
        id: SessionId,
        slot: &Slot,
        code: u32,
        frame: Option<&[u8]>,
    ) -> Result<bool, usize> {
        let reason = CloseReason::Kicked { code };
        let Some(frame) = frame else {
            return Ok(self.ask_to_close(id, slot, reason, Close::Drain));
        };
        let farewell = self.encode_for(slot, frame, FAREWELL_BYTES_MAX)?;
        Ok(self.ask_to_close_with(id, slot, reason, &farewell))
    }

    /// The handler's answer, when a limit is to end a session: a last frame, or none. A frame that is too large
    /// is none.
    pub(crate) fn answer_last_word(&self, slot: &Slot, frame: Option<&Frame>) {
        let farewell = frame.and_then(|frame| self.farewell_of(slot, frame));
        slot.send_queue.lock().answer_last_word(farewell);
    }

    fn farewell_of(&self, slot: &Slot, frame: &Frame) -> Option<SharedFrame> {
        if !self.could_have_encoded(frame) {
            return self.encode_for(slot, &frame.body(), FAREWELL_BYTES_MAX).ok();
        }
        let form = self.form_for(slot, frame);
        (form.bytes() <= FAREWELL_BYTES_MAX).then(|| form.clone())
    }

    /// A frame in the form of one session; or else how many bytes it may have, if its wire form is to have at
    /// most `wire_bytes_max`.
    fn encode_for(
        &self,
        slot: &Slot,
        body: &[u8],
        wire_bytes_max: usize,
    ) -> Result<SharedFrame, usize> {
        let (framing, mut header) = (self.framing_of(slot), [0; 8]);
        let header_bytes = self.encode_header(framing, body.len(), &mut header)?;
        if header_bytes + body.len() > wire_bytes_max {
            return Err(wire_bytes_max - header_bytes);
        }
        Ok(SharedFrame::new([&header[..header_bytes], body]))
    }
}
