//! Encoding frames for many, and queueing what is encoded.

use std::sync::Arc;

use super::engine::Engine;
use super::frame::{Content, FORM_BYTES, Frame};
use super::publication::REQUEST_BYTES;
use super::push::AtOnce;
use super::share::Follows;
use crate::buffer::{Frame as Queued, SharedFrame};
use crate::error::SendError;
use crate::framing::Framing;
use crate::session::Slot;

impl Engine {
    /// What is given, in every wire form of this server's; or else how many bytes it may have.
    pub(crate) fn encode(&self, content: Content<'_>) -> Result<Frame, usize> {
        let body = match content {
            Content::Plain(bytes) => bytes,
            Content::Encoded(frame) if self.could_have_encoded(frame) => return Ok(frame.clone()),
            Content::Encoded(frame) => &frame.body(),
        };
        let max = self.encoded_bytes_max();
        if body.len() > max {
            return Err(max);
        }
        let forms = self.framings.forms();
        let first = self.encode_as(&forms[0], body)?;
        let others: Result<Vec<_>, _> =
            forms[1..].iter().map(|form| self.encode_as(form, body)).collect();
        let others = Some(others?).filter(|others| !others.is_empty()).map(Arc::from);
        let header_bytes = first.bytes() - body.len();
        Ok(Frame { first, others, header_bytes, forms: forms.clone() })
    }

    fn encode_as(&self, form: &Framing, body: &[u8]) -> Result<SharedFrame, usize> {
        let mut header = [0; 8];
        let header_bytes = self.encode_header(form, body.len(), &mut header)?;
        Ok(SharedFrame::new([&header[..header_bytes], body]))
    }

    /// The most bytes of a frame for many: each of its wire forms can be queued, and a port that has nothing
    /// else waiting has room for all of them together.
    fn encoded_bytes_max(&self) -> usize {
        let forms = self.framings.forms();
        let headers = forms.iter().map(|form| form.encode_header(0, &mut [0; 8]).unwrap_or(0));
        let waiting_max = self.options.sending.publications_bytes_max - REQUEST_BYTES;
        let further = (forms.len() - 1) * FORM_BYTES;
        let together = waiting_max.saturating_sub(further + headers.sum::<usize>()) / forms.len();
        forms.iter().map(|form| self.frame_bytes_max(form)).fold(together, usize::min)
    }

    /// Whether a frame has this server's wire forms, and a size that it allows: it may be another's.
    pub(super) fn could_have_encoded(&self, frame: &Frame) -> bool {
        let forms = self.framings.forms();
        Arc::ptr_eq(forms, &frame.forms)
            || *forms == frame.forms && frame.body_bytes() <= self.encoded_bytes_max()
    }

    /// Queues an encoded frame for a session on which the caller holds a count, and says what follows.
    /// Another server's is encoded anew, for this session alone.
    pub(crate) fn push_encoded(
        &self,
        slot: &Slot,
        frame: &Frame,
    ) -> (Result<(), SendError<()>>, Follows) {
        if !self.could_have_encoded(frame) {
            let (pushed, follows) = self.push(slot, Content::Plain(&frame.body()), AtOnce::No);
            return (pushed.map(|_| ()), follows);
        }
        let (pushed, follows) = self.push_frame(slot, Queued::Shared(self.form_for(slot, frame)));
        (pushed.map_err(|refusal| self.send_error(refusal)), follows)
    }

    /// The form in which this session is sent a frame that has this server's wire forms.
    pub(crate) fn form_for<'f>(&self, slot: &Slot, frame: &'f Frame) -> &'f SharedFrame {
        frame.in_form(self.framings.form_of(slot.framing()))
    }
}
