//! How frames stand on the wire. A round has one listener for each of these, or one alone; a peer knows to which it has
//! connected. None has more than [`LENGTH_BYTES`] around a frame.

use std::ops::Range;

use wharf::{
    CustomFraming, Cut, Envelope, Framing, FramingError, LengthPrefix, Parts, VarintPrefix,
};

use crate::frames::LENGTH_BYTES;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Wire {
    /// Behind a length of four bytes. With `Framing::raw` the program writes that.
    #[default]
    Length,
    /// Behind a length of one to four bytes.
    Varint,
    /// Behind a length of three bytes, and before a sum.
    Summed,
}

/// No frame is larger, with the length that the program writes before a raw one.
const SENSIBLE_BYTES_MAX: usize = 70_000;
const FRAME_BYTES_MAX: usize = 64 * 1024;
const SUMMED_LENGTH_BYTES: usize = 3;

/// The bytes from the beginning of a frame on make no sense.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Senseless;

impl Wire {
    pub(crate) const ALL: [Wire; 3] = [Wire::Length, Wire::Varint, Wire::Summed];

    pub(crate) fn framing(self) -> Framing {
        match self {
            Wire::Length => Framing::length_prefixed(LengthPrefix::default()),
            Wire::Varint => Framing::varint(VarintPrefix::default().length_bytes_max(4)),
            Wire::Summed => Framing::custom(Summed),
        }
    }

    /// Writes a frame as a peer sends it.
    pub(crate) fn write(self, frame: &[u8], into: &mut Vec<u8>) {
        let length = (frame.len() as u32).to_be_bytes();
        match self {
            Wire::Length => into.extend(length),
            Wire::Varint => {
                let mut rest = frame.len();
                while rest > 0x7F {
                    into.push(rest as u8 | 0x80);
                    rest >>= 7;
                }
                into.push(rest as u8);
            }
            Wire::Summed => into.extend(&length[1..]),
        }
        into.extend(frame);
        if self == Wire::Summed {
            into.push(frame.iter().fold(0, add));
        }
    }

    /// The first frame, and where the next begins. `Ok(None)`: it is not whole.
    pub(crate) fn first(self, bytes: &[u8]) -> Result<Option<(Range<usize>, usize)>, Senseless> {
        let whole = |so_far, byte: &u8| so_far << 8 | usize::from(*byte);
        let (header, length, trailer) = match self {
            Wire::Length => match bytes.get(..LENGTH_BYTES) {
                Some(length) => (LENGTH_BYTES, length.iter().fold(0, whole), 0),
                None => return Ok(None),
            },
            Wire::Summed => match bytes.get(..SUMMED_LENGTH_BYTES) {
                Some(length) => (SUMMED_LENGTH_BYTES, length.iter().fold(0, whole), 1),
                None => return Ok(None),
            },
            Wire::Varint => match bytes.iter().take(4).position(|byte| byte & 0x80 == 0) {
                Some(last) => {
                    let seven = |so_far, byte: &u8| so_far << 7 | usize::from(byte & 0x7F);
                    (last + 1, bytes[..=last].iter().rev().fold(0, seven), 0)
                }
                None if bytes.len() < 4 => return Ok(None),
                None => return Err(Senseless),
            },
        };
        if length > SENSIBLE_BYTES_MAX {
            return Err(Senseless);
        }
        let (frame, end) = (header..header + length, header + length + trailer);
        match bytes.get(..end) {
            None => Ok(None),
            Some(bytes)
                if trailer == 1 && bytes[frame.clone()].iter().fold(0, add) != bytes[end - 1] =>
            {
                Err(Senseless)
            }
            Some(_) => Ok(Some((frame, end))),
        }
    }

    /// The beginning of a frame that is too large.
    pub(crate) fn too_large(self) -> &'static [u8] {
        match self {
            Wire::Length | Wire::Summed => &[0x7F, 0, 0, 0, 1, 2, 3],
            Wire::Varint => &[0xFF, 0xFF, 0xFF, 0x7F, 1, 2, 3],
        }
    }
}

fn add(sum: u8, byte: &u8) -> u8 {
    sum.wrapping_mul(3).wrapping_add(*byte)
}

/// It adds up what comes as it comes: what is passed from look to look is how far it is, and the sum so far.
struct Summed;

impl CustomFraming for Summed {
    fn wire_frame_bytes_max(&self) -> usize {
        FRAME_BYTES_MAX + SUMMED_LENGTH_BYTES + 1
    }

    fn cut(&self, bytes: &[u8], scanned: usize) -> Cut {
        let refused = |reason| Cut::Refused(FramingError::Refused { reason });
        let Some((length, rest)) = bytes.split_at_checked(SUMMED_LENGTH_BYTES) else {
            return Cut::More { bytes_min: SUMMED_LENGTH_BYTES, scanned: 0 };
        };
        let frame_bytes = length.iter().fold(0, |so_far, byte| so_far << 8 | usize::from(*byte));
        let Some(more) = rest.get(scanned >> 8..frame_bytes.min(rest.len())) else {
            return refused("it was not scanned so far");
        };
        let (at, sum) = ((scanned >> 8) + more.len(), more.iter().fold(scanned as u8, add));
        match rest.get(frame_bytes) {
            None => Cut::More {
                bytes_min: SUMMED_LENGTH_BYTES + frame_bytes + 1,
                scanned: at << 8 | usize::from(sum),
            },
            Some(said) if *said == sum => {
                Cut::Frame { header_bytes: SUMMED_LENGTH_BYTES, frame_bytes, trailer_bytes: 1 }
            }
            Some(_) => refused("a wrong sum"),
        }
    }

    fn envelope(&self, frame: Parts<'_>) -> Result<Envelope, FramingError> {
        let (bytes, max) = (frame.bytes() as u64, FRAME_BYTES_MAX as u64);
        if bytes > max {
            return Err(FramingError::FrameTooLarge { bytes, max });
        }
        let sum = frame.iter().fold(0, |sum, byte| add(sum, &byte));
        Envelope::new(&(bytes as u32).to_be_bytes()[1..], &[sum])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_whole_with_its_last_byte_and_a_wrong_one_makes_no_sense() {
        for wire in Wire::ALL {
            for frame in [vec![7; 20], vec![1; 127], vec![2; 128], vec![3; 40_000]] {
                let mut bytes = Vec::new();
                wire.write(&frame, &mut bytes);
                assert!(bytes.len() <= frame.len() + LENGTH_BYTES);
                for count in (0..bytes.len()).step_by(1 + bytes.len() / 99).chain([bytes.len() - 1])
                {
                    assert_eq!(wire.first(&bytes[..count]), Ok(None), "{wire:?} {count}");
                }
                let (found, end) = wire.first(&[&bytes[..], b"!"].concat()).unwrap().unwrap();
                assert_eq!((&bytes[found], end), (&frame[..], bytes.len()));
            }
            assert_eq!(wire.first(wire.too_large()), Err(Senseless));
        }
        assert_eq!(Wire::Summed.first(&[0, 0, 1, 9, 8]), Err(Senseless));
    }
}
