//! A session ends with a last word.

use super::engine::Engine;
use super::frame::{Content, Frame};
use crate::buffer::SharedFrame;
use crate::close::{Close, CloseReason};
use crate::error::EncodeError;
#[cfg(feature = "websocket")]
use crate::framing::WebSocketForm;
use crate::session::{SessionId, Slot};
#[cfg(feature = "websocket")]
use crate::transport::web_socket::{ControlFrame, NO_CODE, code_of};

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
        frame: Option<Content<'_>>,
    ) -> Result<bool, EncodeError<()>> {
        let reason = CloseReason::Kicked { code };
        let Some(frame) = frame else {
            return Ok(self.ask_to_close(id, slot, reason, Close::Drain));
        };
        loop {
            let framing = slot.framing();
            let farewell = self.encode_for(framing, frame, FAREWELL_BYTES_MAX)?;
            #[cfg(feature = "websocket")]
            let farewell = match (self.framings.get(framing).web_socket_form(), frame) {
                (None, _) => farewell,
                (Some(form), Content::Text(said)) => self.with_close(form, &farewell, reason, said),
                (Some(form), _) => self.with_close(form, &farewell, reason, ""),
            };
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
        let framing = slot.framing();
        if !self.could_have_encoded(frame) {
            return self.encode_for(framing, Content::Encoded(frame), FAREWELL_BYTES_MAX).ok();
        }
        let form = self.formed(framing, self.form_for(framing, frame));
        (form.bytes() <= FAREWELL_BYTES_MAX).then(|| form.clone())
    }

    /// The same farewell, and a Close frame behind it.
    #[cfg(feature = "websocket")]
    fn with_close(
        &self,
        form: &WebSocketForm,
        farewell: &SharedFrame,
        reason: CloseReason,
        said: &str,
    ) -> SharedFrame {
        let key = form.masks().then(|| self.keys.draw());
        let code = code_of(reason).unwrap_or(NO_CODE);
        farewell.with_close(ControlFrame::close(code, said, key).bytes())
    }

    /// A frame in the form of a framing, which may have at most `wire_bytes_max`.
    fn encode_for(
        &self,
        framing: u8,
        content: Content<'_>,
        wire_bytes_max: usize,
    ) -> Result<SharedFrame, EncodeError<()>> {
        let framing = self.framings.get(framing);
        let form =
            self.with_parts(content, |parts, is_text| self.encode_as(framing, parts, is_text))?;
        if form.bytes() > wire_bytes_max {
            let max = self.frame_bytes_max(framing, wire_bytes_max);
            return Err(EncodeError::TooLarge { bytes: (), max });
        }
        Ok(form)
    }
}
