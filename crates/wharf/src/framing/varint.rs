//! A length in seven bits of each byte (LEB128), as protobuf streams and MQTT have it.

use super::cut::{Cut, FramingError};
use super::parts::Parts;
use crate::buffer::Envelope;
use crate::settings::settings;

settings! {
    /// Frames with a length of which each byte has seven bits, the least significant first; the highest bit says that
    /// another byte follows. (Protobuf calls this a varint, and its streams of messages have one before each message;
    /// MQTT calls it the remaining length.)
    ///
    /// ```
    /// use wharf::{Framing, VarintPrefix};
    ///
    /// let protobuf = Framing::varint(VarintPrefix::default());
    /// // One byte, a length of at most four bytes, and the rest. The handler gets all of it.
    /// let mqtt = Framing::varint(VarintPrefix::default().offset(1).length_bytes_max(4).kept(true));
    /// # let _ = (protobuf, mqtt);
    /// ```
    #[derive(Copy)]
    VarintPrefix {
        /// How many bytes of the frame come before the length. More than 0 only if the header is kept. Default 0.
        offset: usize = 0,
        /// The most bytes that the length may have, 1 to 10. Default 5: 32 bits and more.
        length_bytes_max: u8 = 5,
        /// Whether the handler gets the length with the frame, and what comes before it. If `true`, it sends it with the
        /// frame too, and wharf checks it. Default `false`.
        kept: bool = false,
        /// The most bytes that the handler gets of a frame. A peer that announces more ends its session with
        /// [`CloseReason::FrameTooLarge`](crate::CloseReason::FrameTooLarge), before anything is allocated. Default
        /// 64 KiB (65,536).
        frame_bytes_max: usize = 64 * 1024,
    }
}

/// The most bytes of a length: ten have 64 bits.
const LENGTH_BYTES_MAX: usize = 10;
const TOO_LONG: FramingError = FramingError::Refused { reason: "the length has too many bytes" };

/// A length at the front of some bytes.
enum Length {
    /// It goes on behind them.
    Unfinished,
    Is {
        value: u64,
        bytes: usize,
    },
    TooLong,
}

impl VarintPrefix {
    /// The rule that its settings break, if any.
    pub(super) fn broken_rule(&self) -> Option<(&'static str, u64, &'static str)> {
        if !(1..=LENGTH_BYTES_MAX).contains(&self.length_bytes_max.into()) {
            return Some(("length_bytes_max", self.length_bytes_max.into(), "it must be 1 to 10"));
        }
        if self.offset > 0 && !self.kept {
            return Some(("offset", self.offset as u64, "it must be 0 unless the length is kept"));
        }
        let front = self.offset.saturating_add(self.length_bytes_max.into());
        if self.kept && front > self.frame_bytes_max {
            let says = "it must hold the length and what comes before it";
            return Some(("frame_bytes_max", self.frame_bytes_max as u64, says));
        }
        None
    }

    /// The largest length.
    fn length_max(&self) -> u64 {
        1u64.checked_shl(7 * u32::from(self.length_bytes_max)).map_or(u64::MAX, |over| over - 1)
    }

    pub(super) fn header_bytes_max(&self) -> usize {
        if self.kept { 0 } else { self.length_bytes_max.into() }
    }

    pub(super) fn wire_frame_bytes_max(&self) -> usize {
        self.frame_bytes_max.saturating_add(self.header_bytes_max())
    }

    pub(super) fn frame_bytes_within(&self, wire_bytes: usize) -> usize {
        if self.kept {
            return wire_bytes.min(self.frame_bytes_max);
        }
        // With a length of so many bytes.
        let within = |length_bytes: u8| {
            let sayable = VarintPrefix { length_bytes_max: length_bytes, ..*self }.length_max();
            let rest = wire_bytes.checked_sub(length_bytes.into())?;
            Some(rest.min(usize::try_from(sayable).unwrap_or(usize::MAX)))
        };
        let most = (1..=self.length_bytes_max).filter_map(within).max();
        most.unwrap_or(0).min(self.frame_bytes_max)
    }

    #[inline]
    pub(super) fn cut(&self, bytes: &[u8]) -> Cut {
        // Most lengths have one byte.
        let (value, length_bytes) = match bytes.get(self.offset) {
            Some(byte @ 0..0x80) => (u64::from(*byte), 1),
            Some(_) => match self.read(bytes[self.offset..].iter().copied()) {
                Length::Is { value, bytes } => (value, bytes),
                Length::Unfinished => return Cut::More { bytes_min: bytes.len() + 1, scanned: 0 },
                Length::TooLong => return Cut::Refused(TOO_LONG),
            },
            None => return Cut::More { bytes_min: self.offset + 1, scanned: 0 },
        };
        let front = self.offset + length_bytes;
        let (header_bytes, kept_bytes) = if self.kept { (0, front) } else { (front, 0) };
        let max = self.frame_bytes_max as u64;
        let frame_bytes = value.saturating_add(kept_bytes as u64);
        if frame_bytes > max {
            return Cut::Refused(FramingError::FrameTooLarge { bytes: frame_bytes, max });
        }
        let frame_bytes = frame_bytes as usize; // it is within the bound
        if bytes.len() - header_bytes < frame_bytes {
            return Cut::More { bytes_min: header_bytes.saturating_add(frame_bytes), scanned: 0 };
        }
        Cut::Frame { header_bytes, frame_bytes, trailer_bytes: 0 }
    }

    #[inline(never)]
    fn read(&self, bytes: impl Iterator<Item = u8>) -> Length {
        let mut value = 0u64;
        for (index, byte) in bytes.take(self.length_bytes_max.into()).enumerate() {
            let bits = u64::from(byte & 0x7F);
            if index == LENGTH_BYTES_MAX - 1 && bits > 1 {
                return Length::TooLong;
            }
            value |= bits << (7 * index);
            if byte & 0x80 == 0 {
                return Length::Is { value, bytes: index + 1 };
            }
            if index + 1 == usize::from(self.length_bytes_max) {
                return Length::TooLong;
            }
        }
        Length::Unfinished
    }

    pub(super) fn envelope(&self, frame: Parts<'_>) -> Result<Envelope, FramingError> {
        let frame_bytes = frame.bytes();
        super::delimited::within(frame_bytes, self.frame_bytes_max)?;
        if !self.kept {
            let (bytes, max) = (frame_bytes as u64, self.length_max());
            if bytes > max {
                return Err(FramingError::FrameTooLarge { bytes, max });
            }
            let mut envelope = Envelope::default();
            let (length, length_bytes) = write(bytes);
            envelope.header_mut(length_bytes).copy_from_slice(&length[..length_bytes]);
            return Ok(envelope);
        }
        match self.read(frame.iter().skip(self.offset)) {
            Length::Is { value, bytes }
                if value.checked_add((self.offset + bytes) as u64) == Some(frame_bytes as u64) =>
            {
                Ok(Envelope::default())
            }
            _ => Err(FramingError::Refused { reason: "the length in the frame is not its own" }),
        }
    }
}

/// How many bytes a length has.
#[cfg(test)]
fn length_bytes(length: u64) -> usize {
    (u64::BITS - length.leading_zeros()).div_ceil(7).max(1) as usize
}

fn write(mut length: u64) -> ([u8; LENGTH_BYTES_MAX], usize) {
    let mut bytes = [0; LENGTH_BYTES_MAX];
    let mut count = 0;
    loop {
        bytes[count] = (length & 0x7F) as u8;
        length >>= 7;
        if length == 0 {
            return (bytes, count + 1);
        }
        bytes[count] |= 0x80;
        count += 1;
    }
}

#[cfg(test)]
mod tests {
    use std::io::IoSlice;

    use super::*;

    #[test]
    fn every_length_comes_back() {
        for shift in 0..64 {
            for length in [1u64 << shift, (1 << shift) - 1, (1 << shift) | 1, u64::MAX >> shift] {
                let (bytes, count) = write(length);
                assert_eq!(count, length_bytes(length));
                let prefix = VarintPrefix::default().length_bytes_max(10);
                let read = prefix.read(bytes[..count].iter().copied());
                assert!(
                    matches!(read, Length::Is { value, bytes } if (value, bytes) == (length, count))
                );
                for count in 0..count {
                    assert!(matches!(
                        prefix.read(bytes[..count].iter().copied()),
                        Length::Unfinished
                    ));
                }
            }
        }
    }

    #[test]
    fn a_length_of_too_many_bytes_is_refused() {
        let mqtt = VarintPrefix::default().offset(1).length_bytes_max(4).kept(true);
        let refused = Cut::Refused(TOO_LONG);
        assert_eq!(mqtt.cut(&[0x30, 0x80, 0x80, 0x80, 0x80]), refused);
        assert_eq!(mqtt.cut(&[0x30, 0x80, 0x80, 0x80]), Cut::More { bytes_min: 5, scanned: 0 });
        let ten = VarintPrefix::default().length_bytes_max(10);
        let mut largest = [0xFF; 10];
        largest[9] = 1;
        let too_large = FramingError::FrameTooLarge { bytes: u64::MAX, max: 65_536 };
        assert_eq!(ten.cut(&largest), Cut::Refused(too_large));
        largest[9] = 2;
        assert_eq!(ten.cut(&largest), refused);
        // More bytes than the length needs are no mistake.
        let whole = Cut::Frame { header_bytes: 2, frame_bytes: 1, trailer_bytes: 0 };
        assert_eq!(VarintPrefix::default().cut(&[0x81, 0, 7]), whole);
    }

    #[test]
    fn what_is_kept_is_seen_and_checked() {
        let mqtt = VarintPrefix::default().offset(1).length_bytes_max(4).kept(true);
        let packet = [0x30, 2, 7, 8, 9];
        let whole = Cut::Frame { header_bytes: 0, frame_bytes: 4, trailer_bytes: 0 };
        assert_eq!(mqtt.cut(&packet), whole);
        let sent = |frame: &[u8]| {
            mqtt.envelope(Parts(&[IoSlice::new(&frame[..1]), IoSlice::new(&frame[1..])]))
        };
        assert_eq!(sent(&packet[..4]), Ok(Envelope::default()));
        for wrong in [&packet[..], &packet[..3], &[0x30], &[0x30, 0x80]] {
            assert!(matches!(sent(wrong), Err(FramingError::Refused { .. })), "{wrong:?}");
        }
    }

    #[test]
    fn the_largest_frame_that_fits_is_known() {
        let prefix = VarintPrefix::default().frame_bytes_max(1 << 20);
        for wire_bytes in [1, 2, 127, 128, 129, 130, 131, 16_384, 16_387, 2_000_000] {
            let most = prefix.frame_bytes_within(wire_bytes);
            assert!(most + length_bytes(most as u64) <= wire_bytes.max(1));
            assert!(most == 1 << 20 || most + 1 + length_bytes(most as u64 + 1) > wire_bytes);
        }
    }
}
