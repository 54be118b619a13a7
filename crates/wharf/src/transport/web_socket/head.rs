//! The head of a frame (RFC 6455, 5.2): 2 to 14 bytes.

use super::rules::{Role, Violation};

/// The most bytes that a head has.
pub(crate) const HEAD_BYTES_MAX: usize = 14;
/// The most bytes in a control frame.
pub(crate) const CONTROL_BYTES_MAX: u64 = 125;

const FIN: u8 = 0x80;
/// The first reserved bit: the message is deflated (RFC 7692, 6).
pub(crate) const DEFLATED: u8 = 0x40;
const RESERVED: u8 = 0x70;
const OPCODE: u8 = 0x0f;
const CONTROL: u8 = 0x08;
const MASKED: u8 = 0x80;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Opcode {
    Continuation,
    Text,
    Binary,
    Close,
    Ping,
    Pong,
}

impl Opcode {
    /// Where it is in the first byte.
    pub(crate) const MASK: u8 = OPCODE;

    fn of(bits: u8) -> Result<Self, Violation> {
        Ok(match bits {
            0 => Opcode::Continuation,
            1 => Opcode::Text,
            2 => Opcode::Binary,
            8 => Opcode::Close,
            9 => Opcode::Ping,
            10 => Opcode::Pong,
            opcode => return Err(Violation::Opcode { opcode }),
        })
    }

    pub(crate) fn bits(self) -> u8 {
        match self {
            Opcode::Continuation => 0,
            Opcode::Text => 1,
            Opcode::Binary => 2,
            Opcode::Close => 8,
            Opcode::Ping => 9,
            Opcode::Pong => 10,
        }
    }

    pub(crate) fn is_control(self) -> bool {
        self.bits() & CONTROL != 0
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Head {
    /// The last fragment of its message.
    pub(crate) is_last: bool,
    pub(crate) opcode: Opcode,
    /// The message that begins with it is deflated.
    pub(crate) is_deflated: bool,
    /// `None`: it is not masked.
    pub(crate) key: Option<[u8; 4]>,
    pub(crate) payload_bytes: u64,
}

impl Head {
    /// Reads what a peer of this role's has sent. Returns the head and its own length, or `None`: more bytes are needed. A
    /// violation is told as soon as the byte is there that has it.
    #[inline]
    pub(crate) fn read(
        bytes: &[u8],
        role: Role,
        may_be_deflated: bool,
    ) -> Result<Option<(Head, usize)>, Violation> {
        let [first, rest @ ..] = bytes else { return Ok(None) };
        let is_deflated = may_be_deflated && first & RESERVED == DEFLATED;
        if first & RESERVED != 0 && !is_deflated {
            return Err(Violation::ReservedBit);
        }
        let (is_last, opcode) = (first & FIN != 0, Opcode::of(first & OPCODE)?);
        if is_deflated && !matches!(opcode, Opcode::Text | Opcode::Binary) {
            return Err(Violation::ReservedBit); // a message is deflated, not a frame
        }
        if opcode.is_control() && !is_last {
            return Err(Violation::ControlFragment);
        }
        let [second, rest @ ..] = rest else { return Ok(None) };
        let is_masked = second & MASKED != 0;
        if is_masked != (role == Role::Server) {
            return Err(Violation::Mask);
        }
        let short = second & !MASKED;
        if opcode.is_control() && u64::from(short) > CONTROL_BYTES_MAX {
            return Err(Violation::ControlTooLong { bytes: short.into() });
        }
        let (payload_bytes, length_bytes, least) = match (short, rest) {
            (126, [a, b, ..]) => (u64::from(u16::from_be_bytes([*a, *b])), 2, 126),
            (127, [a, b, c, d, e, f, g, h, ..]) => {
                (u64::from_be_bytes([*a, *b, *c, *d, *e, *f, *g, *h]), 8, 1 << 16)
            }
            (126 | 127, _) => return Ok(None),
            _ => (short.into(), 0, 0),
        };
        if payload_bytes < least || payload_bytes > u64::MAX / 2 {
            return Err(Violation::Length);
        }
        let head_bytes = 2 + length_bytes;
        let head = |key| Head { is_last, opcode, is_deflated, key, payload_bytes };
        if !is_masked {
            return Ok(Some((head(None), head_bytes)));
        }
        let Some([a, b, c, d, ..]) = rest.get(length_bytes..) else { return Ok(None) };
        Ok(Some((head(Some([*a, *b, *c, *d])), head_bytes + 4)))
    }

    /// A fragment of a message that has begun before.
    pub(crate) fn is_continuation(&self) -> bool {
        self.opcode == Opcode::Continuation
    }

    /// How many bytes there must be, at least, for the frame to go on whose head begins here: those of the head, and if
    /// it is a control frame's, those of the frame.
    pub(crate) fn bytes_needed(bytes: &[u8]) -> usize {
        let [first, second, ..] = bytes else { return 2 };
        let length_bytes = match second & !MASKED {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        let head_bytes = 2 + length_bytes + if second & MASKED != 0 { 4 } else { 0 };
        let is_control = first & CONTROL != 0;
        if is_control { head_bytes + usize::from(second & !MASKED) } else { head_bytes }
    }

    /// Writes it in its shortest form. Returns how many bytes it has.
    #[inline]
    pub(crate) fn write(&self, out: &mut [u8; HEAD_BYTES_MAX]) -> usize {
        let Head { is_last, opcode, is_deflated, key, payload_bytes } = *self;
        let deflated_bit = if is_deflated { DEFLATED } else { 0 };
        out[0] = opcode.bits() | deflated_bit | if is_last { FIN } else { 0 };
        let mask_bit = if key.is_some() { MASKED } else { 0 };
        let mut end = match payload_bytes {
            0..126 => {
                out[1] = payload_bytes as u8 | mask_bit;
                2
            }
            126..65_536 => {
                out[1] = 126 | mask_bit;
                out[2..4].copy_from_slice(&(payload_bytes as u16).to_be_bytes());
                4
            }
            _ => {
                out[1] = 127 | mask_bit;
                out[2..10].copy_from_slice(&payload_bytes.to_be_bytes());
                10
            }
        };
        if let Some(key) = key {
            out[end..end + 4].copy_from_slice(&key);
            end += 4;
        }
        end
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again_and_no_part_of_it_is_a_head() {
        let lengths = [0, 1, 125, 126, 127, 65_535, 65_536, 1 << 40, u64::MAX / 2];
        let opcodes = [Opcode::Text, Opcode::Binary, Opcode::Continuation];
        for (payload_bytes, key) in
            lengths.iter().flat_map(|length| [(*length, None), (*length, Some([1, 2, 3, 4]))])
        {
            for (opcode, is_last) in opcodes.iter().flat_map(|one| [(*one, true), (*one, false)]) {
                let is_deflated = key.is_some() && opcode == Opcode::Text;
                let head = Head { is_last, opcode, is_deflated, key, payload_bytes };
                let mut out = [0; HEAD_BYTES_MAX];
                let end = head.write(&mut out);
                let role = if key.is_some() { Role::Server } else { Role::Client };
                assert_eq!(Head::read(&out, role, is_deflated), Ok(Some((head, end))));
                for part in 0..end {
                    assert_eq!(Head::read(&out[..part], role, true), Ok(None));
                    let needed = Head::bytes_needed(&out[..part]);
                    assert!(needed > part && needed <= end);
                }
                assert_eq!(Head::bytes_needed(&out[..end]), end);
            }
        }
    }

    #[test]
    fn what_no_peer_may_send_is_refused_at_the_byte_that_has_it() {
        use Violation::*;
        let refused =
            |bytes: &[u8], role| Head::read(bytes, role, false).expect_err("it is refused");
        for bit in [0x40, 0x20, 0x10] {
            assert_eq!(refused(&[0x82 | bit], Role::Client), ReservedBit);
        }
        for opcode in [0, 8, 9, 10] {
            let read = Head::read(&[0xc0 | opcode, 0], Role::Client, true);
            assert_eq!(read, Err(ReservedBit), "a message is deflated, not a frame");
        }
        for opcode in [3, 4, 5, 6, 7, 11, 12, 13, 14, 15] {
            assert_eq!(refused(&[0x80 | opcode], Role::Client), Opcode { opcode });
        }
        assert_eq!(refused(&[0x82, 0], Role::Server), Mask);
        assert_eq!(refused(&[0x82, 0x80], Role::Client), Mask);
        for opcode in [8, 9, 10] {
            assert_eq!(refused(&[opcode], Role::Client), ControlFragment);
            assert_eq!(refused(&[0x80 | opcode, 126], Role::Client), ControlTooLong { bytes: 126 });
        }
        assert_eq!(refused(&[0x82, 126, 0, 125], Role::Client), Length);
        let mut long = [0; 10];
        (long[0], long[1]) = (0x82, 127);
        long[8..].copy_from_slice(&u16::MAX.to_be_bytes());
        assert_eq!(refused(&long, Role::Client), Length);
        long[2] = 0x80;
        assert_eq!(refused(&long, Role::Client), Length);
    }
}
