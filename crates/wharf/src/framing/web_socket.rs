//! What stands before a message of a WebSocket. What comes is cut elsewhere, because that needs memory of what came before
//! (`transport/web_socket`).

use super::cut::FramingError;
use crate::buffer::Envelope;
use crate::transport::web_socket::{HEAD_BYTES_MAX, Head, Opcode, Role};

/// The form that messages have on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct WebSocketForm {
    pub(crate) role: Role,
    /// Everything is sent as text.
    pub(crate) sends_text: bool,
    /// The most bytes of a message that comes.
    pub(crate) message_bytes_max: usize,
}

impl WebSocketForm {
    /// Writes the head of a message of so many bytes. A client's has a key of zeros: who sends it draws one, and masks.
    #[inline]
    pub(super) fn write_head(&self, frame_bytes: usize, envelope: &mut Envelope) {
        let opcode = if self.sends_text { Opcode::Text } else { Opcode::Binary };
        let key = self.masks().then_some([0; 4]);
        let head = Head { is_last: true, opcode, key, payload_bytes: frame_bytes as u64 };
        if let Ok(room) = envelope.header_mut(HEAD_BYTES_MAX).try_into() {
            let end = head.write(room);
            envelope.header_mut(end);
        }
    }

    /// The same, of bytes that must be text if everything is.
    pub(super) fn envelope_of<'p>(
        &self,
        frame_bytes: usize,
        parts: impl Iterator<Item = &'p [u8]>,
    ) -> Result<Envelope, FramingError> {
        if self.sends_text && !is_utf8(parts) {
            return Err(FramingError::Refused { reason: "what is sent as text must be UTF-8" });
        }
        let mut envelope = Envelope::default();
        self.write_head(frame_bytes, &mut envelope);
        Ok(envelope)
    }

    pub(crate) fn masks(&self) -> bool {
        self.role == Role::Client
    }

    pub(super) fn wire_frame_bytes_max(&self) -> usize {
        self.message_bytes_max.saturating_add(HEAD_BYTES_MAX)
    }

    /// The most bytes of a message that has so many with its head.
    pub(super) fn frame_bytes_within(&self, wire_bytes: usize) -> usize {
        let key_bytes = if self.masks() { 4 } else { 0 };
        let within = |head_bytes: usize| wire_bytes.saturating_sub(head_bytes + key_bytes);
        match wire_bytes.saturating_sub(key_bytes) {
            0..=127 => within(2),
            128..=129 => 125, // 126 bytes have a longer head
            130..=65_539 => within(4),
            65_540..=65_545 => 65_535,
            _ => within(10),
        }
    }
}

/// Whether pieces together are UTF-8. A character may span them.
fn is_utf8<'p>(mut parts: impl Iterator<Item = &'p [u8]>) -> bool {
    let mut carried: Vec<u8> = Vec::new();
    parts.all(|part| {
        let joined;
        let bytes = if carried.is_empty() {
            part
        } else {
            joined = [&carried, part].concat();
            &joined
        };
        match simdutf8::compat::from_utf8(bytes) {
            Ok(_) => {
                carried = Vec::new();
                true
            }
            Err(error) if error.error_len().is_some() => false,
            Err(error) => {
                carried = bytes[error.valid_up_to()..].to_vec();
                true
            }
        }
    }) && carried.is_empty()
}

/// Makes a message text, whose head this is.
pub(super) fn make_text(envelope: &mut Envelope) {
    let bytes = envelope.header().len();
    if let Some(first) = envelope.header_mut(bytes).first_mut() {
        *first = 0x80 | Opcode::Text.bits();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_that_fits_fits_and_a_byte_more_does_not() {
        for role in [Role::Server, Role::Client] {
            let form = WebSocketForm { role, sends_text: false, message_bytes_max: 1 };
            for wire_bytes in (16..200).chain(65_500..65_600) {
                let most = form.frame_bytes_within(wire_bytes);
                let wire = |bytes: usize| {
                    let mut envelope = Envelope::default();
                    form.write_head(bytes, &mut envelope);
                    bytes + envelope.bytes()
                };
                assert!(wire(most) <= wire_bytes && wire(most + 1) > wire_bytes, "{wire_bytes}");
            }
        }
    }

    #[test]
    fn a_text_may_be_in_parts_that_are_none() {
        let text = "κόσμε 🌍".as_bytes();
        for size in 1..=text.len() {
            assert!(is_utf8(text.chunks(size)));
            assert!(!is_utf8(text[..text.len() - 1].chunks(size)));
        }
        assert!(!is_utf8([&b"ok"[..], b"\xff"].into_iter()));
        assert!(is_utf8(std::iter::empty()));
    }
}
