//! Encoding frames for many, and queueing what is encoded.

use std::io::IoSlice;
use std::sync::Arc;

use super::engine::Engine;
use super::frame::{Content, FORM_BYTES, Frame};
use super::publication::REQUEST_BYTES;
use super::push::AtOnce;
use super::share::Follows;
use crate::buffer::{Envelope, Frame as Queued, SharedFrame};
use crate::error::{EncodeError, SendError};
use crate::framing::{Framing, Parts};
use crate::session::Slot;

impl Engine {
    /// What is given, in every wire form of this server's.
    pub(crate) fn encode(&self, content: Content<'_>) -> Result<Frame, EncodeError<()>> {
        match content {
            Content::Plain(bytes) => self.encode_parts(Parts(&[IoSlice::new(bytes)])),
            Content::Parts(parts) => self.encode_parts(parts),
            Content::Encoded(frame) if self.could_have_encoded(frame) => Ok(frame.clone()),
            Content::Encoded(frame) => self.encode_parts(Parts(&[IoSlice::new(&frame.body())])),
        }
    }

    /// The same for one session alone, in the form of its framing. It keeps that framing while the frame waits for it.
    pub(super) fn encode_for_one(
        &self,
        framing: u8,
        content: Content<'_>,
    ) -> Result<Frame, EncodeError<()>> {
        let framing = self.framings.get(framing);
        let (form, envelope) = match content {
            Content::Plain(bytes) => {
                self.encode_as(framing, Parts(&[IoSlice::new(bytes)]), bytes.len())?
            }
            Content::Parts(parts) => self.encode_as(framing, parts, parts.bytes())?,
            Content::Encoded(frame) if self.could_have_encoded(frame) => return Ok(frame.clone()),
            Content::Encoded(frame) => {
                let body = frame.body();
                self.encode_as(framing, Parts(&[IoSlice::new(&body)]), body.len())?
            }
        };
        let max = self.options.sending.publications_bytes_max - REQUEST_BYTES;
        if form.bytes() > max {
            let max = self.frame_bytes_max(framing, max);
            return Err(EncodeError::TooLarge { bytes: (), max });
        }
        Ok(self.frame_of(form, None, &envelope))
    }

    fn frame_of(
        &self,
        first: SharedFrame,
        others: Option<Arc<[SharedFrame]>>,
        envelope: &Envelope,
    ) -> Frame {
        let [header_bytes, trailer_bytes] =
            [envelope.header(), envelope.trailer()].map(|part| part.len() as u8); // at most 16
        Frame { first, others, header_bytes, trailer_bytes, forms: self.framings.forms().clone() }
    }

    fn encode_parts(&self, body: Parts<'_>) -> Result<Frame, EncodeError<()>> {
        let (body_bytes, max) = (body.bytes(), self.encoded_bytes_max());
        if body_bytes > max {
            return Err(EncodeError::TooLarge { bytes: (), max });
        }
        let forms = self.framings.forms();
        let (first, envelope) = self.encode_as(&forms[0], body, body_bytes)?;
        let others = forms[1..].iter().map(|form| self.encode_as(form, body, body_bytes));
        let others: Result<Vec<_>, _> = others.map(|form| form.map(|(form, _)| form)).collect();
        let others = Some(others?).filter(|others| !others.is_empty()).map(Arc::from);
        Ok(self.frame_of(first, others, &envelope))
    }

    /// A frame of so many bytes in one wire form, and what stands around it.
    pub(super) fn encode_as(
        &self,
        form: &Framing,
        body: Parts<'_>,
        body_bytes: usize,
    ) -> Result<(SharedFrame, Envelope), EncodeError<()>> {
        let mut envelope = Envelope::default();
        let written = form.envelop_parts(body, body_bytes, &mut envelope);
        let bytes = self.sendable(form, body_bytes, written, &envelope)?;
        let parts = std::iter::once(envelope.header()).chain(body.0.iter().map(|part| &**part));
        let parts = parts.chain(std::iter::once(envelope.trailer()));
        Ok((SharedFrame::of(bytes, parts), envelope))
    }

    /// The most bytes of a frame for many: each of its wire forms can be queued, and a port that has nothing
    /// else waiting has room for all of them together.
    fn encoded_bytes_max(&self) -> usize {
        let forms = self.framings.forms();
        let envelopes = forms.iter().map(Framing::envelope_bytes_max).sum::<usize>();
        let waiting_max = self.options.sending.publications_bytes_max - REQUEST_BYTES;
        let further = (forms.len() - 1) * FORM_BYTES;
        let together = waiting_max.saturating_sub(further + envelopes) / forms.len();
        forms.iter().map(|form| self.frame_bytes_max(form, usize::MAX)).fold(together, usize::min)
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
        let (pushed, follows) = loop {
            let framing = slot.framing();
            let form = Queued::Shared(self.form_for(framing, frame));
            if let Some(pushed) = self.push_frame(slot, framing, form) {
                break pushed;
            }
        };
        (pushed.map_err(|refusal| self.send_error(refusal)), follows)
    }

    /// The form that a frame with this server's wire forms has in this framing.
    #[inline]
    pub(crate) fn form_for<'f>(&self, framing: u8, frame: &'f Frame) -> &'f SharedFrame {
        frame.in_form(self.framings.form_of(framing))
    }
}
