//! Control frames, written.

use super::close;
use super::head::{CONTROL_BYTES_MAX, HEAD_BYTES_MAX, Head, Opcode};
use super::mask;

const BYTES_MAX: usize = HEAD_BYTES_MAX + CONTROL_BYTES_MAX as usize;

/// A whole control frame as it is on the wire.
#[derive(Clone, Copy)]
pub(crate) struct ControlFrame {
    bytes: [u8; BYTES_MAX],
    len: u8,
}

impl ControlFrame {
    /// With this payload, or as much of it as a control frame may have. `key`: of a client.
    pub(crate) fn new(opcode: Opcode, payload: &[u8], key: Option<[u8; 4]>) -> Self {
        let payload = &payload[..payload.len().min(CONTROL_BYTES_MAX as usize)];
        let head = Head {
            is_last: true,
            opcode,
            is_deflated: false,
            key,
            payload_bytes: payload.len() as u64,
        };
        let mut head_bytes = [0; HEAD_BYTES_MAX];
        let start = head.write(&mut head_bytes);
        let mut bytes = [0; BYTES_MAX];
        bytes[..start].copy_from_slice(&head_bytes[..start]);
        let end = start + payload.len();
        bytes[start..end].copy_from_slice(payload);
        if let Some(key) = key {
            mask::apply(&mut bytes[start..end], key);
        }
        ControlFrame { bytes, len: end as u8 } // at most 139
    }

    /// A Close frame with this code and as much of the reason as there is room for; with neither for a code that says
    /// that none came.
    pub(crate) fn close(code: u16, reason: &str, key: Option<[u8; 4]>) -> Self {
        ControlFrame::new(Opcode::Close, &close::payload(code, reason), key)
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_as_in_the_protocol_and_a_long_payload_is_cut() {
        let key = [0x37, 0xfa, 0x21, 0x3d];
        let bytes = |opcode, key| ControlFrame::new(opcode, b"Hello", key).bytes().to_vec();
        // RFC 6455, 5.7.
        assert_eq!(bytes(Opcode::Ping, None), b"\x89\x05Hello");
        assert_eq!(bytes(Opcode::Pong, Some(key)), b"\x8a\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58");
        let long = ControlFrame::new(Opcode::Pong, &[7; 126], Some([0; 4]));
        assert_eq!(long.bytes(), [&[0x8a, 0x80 | 125, 0, 0, 0, 0][..], &[7; 125]].concat());
        assert_eq!(ControlFrame::close(1000, "bye", None).bytes(), b"\x88\x05\x03\xe8bye");
        assert_eq!(ControlFrame::close(1005, "unsaid", None).bytes(), b"\x88\x00");
    }
}
