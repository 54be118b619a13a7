//! Encoding frames for many, and queueing what is encoded.

use std::io::IoSlice;
use std::sync::Arc;

use super::engine::Engine;
use super::frame::{Content, FORM_BYTES, Formed, Frame};
use super::publication::REQUEST_BYTES;
use super::push::AtOnce;
use super::share::Follows;
use crate::buffer::{Envelope, SharedFrame};
use crate::error::{EncodeError, SendError};
#[cfg(feature = "websocket")]
use crate::framing::Framings;
use crate::framing::{Framing, Parts};
use crate::session::Slot;
#[cfg(feature = "websocket")]
use crate::transport::web_socket::{HEAD_BYTES_MAX, mask};

impl Engine {
    /// What is given, in every wire form of this server's.
    pub(crate) fn encode(&self, content: Content<'_>) -> Result<Frame, EncodeError<()>> {
        if let Content::Encoded(frame) = content
            && self.could_have_encoded(frame)
        {
            return Ok(frame.clone());
        }
        self.with_parts(content, |parts, is_text| self.encode_parts(parts, is_text))
    }

    /// The same for one session alone, in the form of its framing. It keeps that framing while the frame waits for it.
    pub(super) fn encode_for_one(
        &self,
        framing: u8,
        content: Content<'_>,
    ) -> Result<Frame, EncodeError<()>> {
        if let Content::Encoded(frame) = content
            && self.could_have_encoded(frame)
        {
            return Ok(frame.clone());
        }
        let form = self.with_parts(content, |parts, is_text| {
            self.encode_as(self.framings.get(framing), parts, is_text)
        })?;
        let max = self.options.sending.publications_bytes_max - REQUEST_BYTES;
        if form.bytes() > max {
            let max = self.frame_bytes_max(self.framings.get(framing), max);
            return Err(EncodeError::TooLarge { bytes: (), max });
        }
        Ok(self.frame_of(form, None))
    }

    /// Calls `act` with the parts of a content, and whether it is text.
    pub(super) fn with_parts<R>(
        &self,
        content: Content<'_>,
        act: impl FnOnce(Parts<'_>, bool) -> R,
    ) -> R {
        match content {
            Content::Plain(bytes) => act(Parts(&[IoSlice::new(bytes)]), false),
            Content::Text(text) => act(Parts(&[IoSlice::new(text.as_bytes())]), true),
            Content::Parts(parts) => act(parts, false),
            Content::Encoded(frame) => act(Parts(&frame.body()), frame.is_text()),
        }
    }

    fn frame_of(&self, first: SharedFrame, others: Option<Arc<[SharedFrame]>>) -> Frame {
        Frame { first, others, forms: self.framings.forms().clone() }
    }

    fn encode_parts(&self, body: Parts<'_>, is_text: bool) -> Result<Frame, EncodeError<()>> {
        let (body_bytes, max) = (body.bytes(), self.encoded_bytes_max());
        if body_bytes > max {
            return Err(EncodeError::TooLarge { bytes: (), max });
        }
        let forms = self.framings.forms();
        let first = self.encode_as(&forms[0], body, is_text)?;
        let others = forms[1..].iter().map(|form| self.encode_as(form, body, is_text));
        let others: Result<Vec<_>, _> = others.collect();
        let others = Some(others?).filter(|others| !others.is_empty()).map(Arc::from);
        Ok(self.frame_of(first, others))
    }

    /// A frame in one wire form, with what stands around it.
    pub(super) fn encode_as(
        &self,
        form: &Framing,
        body: Parts<'_>,
        is_text: bool,
    ) -> Result<SharedFrame, EncodeError<()>> {
        let (body_bytes, mut envelope) = (body.bytes(), Envelope::default());
        let written = form.envelop_parts(body, body_bytes, &mut envelope);
        #[cfg(feature = "deflate")]
        if written.is_ok()
            && let Some((deflated, envelope)) = self.deflate_for(form, body, is_text)
        {
            let bytes = self.sendable(form, deflated.len(), Ok(()), &envelope)?;
            let parts = std::iter::once(&deflated[..]);
            return Ok(SharedFrame::of(&envelope, bytes, parts, |_| ()).with_text(is_text));
        }
        let bytes = self.sendable(form, body_bytes, written, &envelope)?;
        if is_text {
            form.make_text(&mut envelope);
        }
        #[cfg(feature = "websocket")]
        if form.web_socket_form().is_some_and(|form| form.masks()) {
            return Ok(self.masked(envelope, body).with_text(is_text));
        }
        let parts = body.0.iter().map(|part| &**part);
        Ok(SharedFrame::of(&envelope, bytes, parts, |_| ()).with_text(is_text))
    }

    /// A client's frame: masked, with a key that is drawn for it, which stands at the end of the header.
    #[cfg(feature = "websocket")]
    fn masked(&self, mut envelope: Envelope, body: Parts<'_>) -> SharedFrame {
        let key = self.keys.draw();
        let header_bytes = envelope.header().len();
        if let Some(place) = envelope.header_mut(header_bytes).last_chunk_mut() {
            *place = key;
        }
        let (bytes, parts) = (envelope.bytes() + body.bytes(), body.0.iter().map(|part| &**part));
        SharedFrame::of(&envelope, bytes, parts, |body| mask(body, key)).with_mask()
    }

    /// A frame as it is compressed, and what stands before it, if its form compresses it and it has less bytes then.
    #[cfg(feature = "deflate")]
    fn deflate_for(
        &self,
        form: &Framing,
        body: Parts<'_>,
        is_text: bool,
    ) -> Option<(Vec<u8>, Envelope)> {
        let web_socket = form.web_socket_form()?;
        let (level, bytes_min) = web_socket.deflate?;
        let body_bytes = body.bytes();
        if body_bytes < bytes_min {
            return None;
        }
        let parts = body.0.iter().map(|part| &**part);
        let deflated = self.deflaters.deflate(level, parts, body_bytes)?;
        let mut envelope = Envelope::default();
        web_socket.write_head_with(deflated.len(), true, &mut envelope);
        if is_text {
            form.make_text(&mut envelope);
        }
        Some((deflated, envelope))
    }

    /// A frame in the form of this framing, as one session is sent it that has this framing. Masked forms are not shared:
    /// each is made from a form that is.
    #[inline]
    pub(super) fn formed<'f>(&self, framing: u8, form: &'f SharedFrame) -> Formed<'f> {
        #[cfg(feature = "websocket")]
        if Framings::masks(framing) && !form.is_masked() {
            return self.formed_alone(framing, form);
        }
        let _ = framing;
        Formed::Shared(form)
    }

    #[cfg(feature = "websocket")]
    #[cold]
    fn formed_alone<'f>(&self, framing: u8, form: &SharedFrame) -> Formed<'f> {
        let parts: Vec<_> = form.body().map(IoSlice::new).collect();
        let (body, mut envelope, framing) =
            (Parts(&parts), Envelope::default(), self.framings.get(framing));
        // What was encoded for many may be no text, though this session sends nothing else: then it is binary.
        if framing.envelop_parts(body, form.body_bytes(), &mut envelope).is_err() {
            let binary = self.framings.get(Framings::of_client(false));
            let _ = binary.envelop_parts(body, form.body_bytes(), &mut envelope);
        }
        if form.is_text() {
            framing.make_text(&mut envelope);
        }
        Formed::Own(self.masked(envelope, body))
    }

    /// The most bytes that may be queued for a session when this is: for masked frames there is room for their heads, of
    /// which the bounds of what is encoded for many know nothing.
    pub(super) fn queue_bytes_max_with(&self, form: &Formed<'_>) -> usize {
        let max = self.options.sending.queue_bytes_max;
        match form {
            Formed::Shared(_) => max,
            #[cfg(feature = "websocket")]
            Formed::Own(_) => max + HEAD_BYTES_MAX,
        }
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
            let (pushed, follows) = self.with_parts(Content::Encoded(frame), |parts, is_text| {
                self.push_parts(slot, parts, is_text, AtOnce::No)
            });
            return (pushed.map(|_| ()), follows);
        }
        let (pushed, follows) = loop {
            let framing = slot.framing();
            let form = self.formed(framing, self.form_for(framing, frame));
            if let Some(pushed) = self.push_form(slot, framing, &form) {
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

#[cfg(all(test, feature = "websocket", not(any(loom, shuttle))))]
mod tests {
    use super::*;
    use crate::options::Options;
    use crate::port::Sockets;

    #[test]
    fn what_waits_for_a_client_is_masked_once() {
        let framings = Framings::of(&[Framing::raw()]);
        let engine = Engine::new(false, framings, Options::default().workers(1), Sockets::Os);
        for (sends_text, message) in [(false, vec![b'x'; 300]), (true, "text".into())] {
            let framing = Framings::of_client(sends_text);
            let waits = engine.encode_for_one(framing, Content::Plain(&message)).unwrap();
            let leaves = engine.formed(framing, engine.form_for(framing, &waits));
            let wire = leaves.pieces().concat();
            let (head, payload) = wire.split_at(wire.len() - message.len());
            let mut payload = payload.to_vec();
            mask(&mut payload, head.last_chunk().copied().unwrap());
            assert_eq!(payload, message);
        }
        let is_refused = engine.encode_for_one(Framings::of_client(true), Content::Plain(b"\xFF"));
        assert!(is_refused.is_err(), "what is sent as text must be text");
    }
}
