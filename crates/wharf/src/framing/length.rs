//! Length-prefixed frames: a header says how many bytes follow.
//!
//! A length is a peer's claim. It is read as a `u64` at every width, and checked against the bound before it
//! becomes a `usize` or is added to anything. So no length can overflow a sum or cost memory.

use super::cut::{Cut, FramingError};
use crate::buffer::Envelope;
use crate::settings::settings;

settings! {
    /// The shape of the header, and the bound on what it announces.
    ///
    /// ```
    /// use wharf::{Framing, LengthPrefix, LengthWidth};
    ///
    /// // Two bytes, big endian, and frames of at most 1,000 bytes.
    /// let prefix = LengthPrefix::default().width(LengthWidth::Two).frame_bytes_max(1_000);
    /// let framing = Framing::length_prefixed(prefix);
    /// # let _ = framing;
    /// ```
    #[derive(Copy)]
    LengthPrefix {
        /// How many bytes the length has. Default four: two are too few for the default bound, and eight only
        /// add zeros.
        width: LengthWidth = LengthWidth::Four,
        /// The order of those bytes. Default big endian, the order of the network.
        endianness: Endianness = Endianness::Big,
        /// Whether the length counts the header's own bytes as well. Default `false`: then every length is
        /// possible. If `true`, a length smaller than the header ends the session with
        /// [`CloseReason::LengthTooSmall`](crate::CloseReason::LengthTooSmall).
        counts_itself: bool = false,
        /// The most bytes that a frame may have, its header not counted. A peer that announces more ends its
        /// session with [`CloseReason::FrameTooLarge`](crate::CloseReason::FrameTooLarge), before anything is
        /// allocated. A width that cannot express the bound lowers it. Default 64 KiB (65,536): ample for
        /// messages, and the most that an unfinished frame may cost a session.
        frame_bytes_max: usize = 64 * 1024,
    }
}

/// How many bytes a length has on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LengthWidth {
    /// One byte: lengths up to 255.
    One,
    /// Two bytes: lengths up to 65,535.
    Two,
    /// Three bytes: lengths up to 16 MiB less one byte.
    Three,
    /// Four bytes: lengths up to 4 GiB less one byte.
    Four,
    /// Eight bytes: any length.
    Eight,
}

/// In which order the bytes of a length come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Endianness {
    /// The most significant byte first.
    Big,
    /// The least significant byte first.
    Little,
}

impl LengthWidth {
    #[cfg(test)]
    pub(super) const ALL: [LengthWidth; 5] = {
        use LengthWidth::*;
        [One, Two, Three, Four, Eight]
    };

    /// The width in bytes.
    pub fn bytes(self) -> usize {
        match self {
            LengthWidth::One => 1,
            LengthWidth::Two => 2,
            LengthWidth::Three => 3,
            LengthWidth::Four => 4,
            LengthWidth::Eight => 8,
        }
    }

    pub(super) fn length_max(self) -> u64 {
        u64::MAX >> (64 - 8 * self.bytes())
    }
}

impl Endianness {
    /// The number that at most eight bytes are.
    #[inline]
    pub(super) fn decode(self, bytes: &[u8]) -> u64 {
        let append = |length: u64, byte: &u8| length << 8 | u64::from(*byte);
        match self {
            Endianness::Big => bytes.iter().fold(0, append),
            Endianness::Little => bytes.iter().rev().fold(0, append),
        }
    }

    /// Writes a number into at most eight bytes.
    #[inline]
    pub(super) fn encode(self, number: u64, bytes: &mut [u8]) {
        let width = bytes.len();
        match self {
            Endianness::Big => bytes.copy_from_slice(&number.to_be_bytes()[8 - width..]),
            Endianness::Little => bytes.copy_from_slice(&number.to_le_bytes()[..width]),
        }
    }
}

impl LengthPrefix {
    /// What the length counts beyond the frame's bytes.
    fn counted_header_bytes(&self) -> u64 {
        if self.counts_itself { self.width.bytes() as u64 } else { 0 }
    }

    /// The effective bound: the configured one, limited by the width and by what a `usize` can count together
    /// with the header.
    fn bound(&self) -> u64 {
        let countable = self.frame_bytes_max.min(usize::MAX - self.width.bytes());
        (countable as u64).min(self.width.length_max() - self.counted_header_bytes())
    }

    pub(super) fn wire_frame_bytes_max(&self) -> usize {
        self.width.bytes() + self.bound() as usize
    }

    pub(super) fn cut(&self, bytes: &[u8]) -> Cut {
        let header_bytes = self.width.bytes();
        let Some(header) = bytes.get(..header_bytes) else {
            return Cut::More { bytes_min: header_bytes, scanned: 0 };
        };
        match self.frame_bytes(self.endianness.decode(header)) {
            Err(error) => Cut::Refused(error),
            Ok(frame_bytes) if bytes.len() - header_bytes < frame_bytes => {
                Cut::More { bytes_min: header_bytes + frame_bytes, scanned: 0 }
            }
            Ok(frame_bytes) => Cut::Frame { header_bytes, frame_bytes, trailer_bytes: 0 },
        }
    }

    /// The most bytes of a frame that has at most so many on the wire.
    pub(super) fn frame_bytes_within(&self, wire_bytes: usize) -> usize {
        wire_bytes.saturating_sub(self.width.bytes()).min(self.bound() as usize)
    }

    #[inline]
    pub(super) fn envelope(
        &self,
        frame_bytes: usize,
        envelope: &mut Envelope,
    ) -> Result<(), FramingError> {
        let frame_bytes = self.within_bound(frame_bytes as u64)? as u64;
        let length = frame_bytes + self.counted_header_bytes();
        let width = self.width.bytes();
        self.endianness.encode(length, envelope.header_mut(width));
        Ok(())
    }

    fn frame_bytes(&self, length: u64) -> Result<usize, FramingError> {
        let min = self.counted_header_bytes();
        let bytes = length.checked_sub(min).ok_or(FramingError::LengthTooSmall { length, min })?;
        self.within_bound(bytes)
    }

    fn within_bound(&self, bytes: u64) -> Result<usize, FramingError> {
        let max = self.bound();
        if bytes <= max {
            Ok(bytes as usize)
        } else {
            Err(FramingError::FrameTooLarge { bytes, max })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Framing, Parts};
    use super::*;

    fn prefixes(frame_bytes_max: usize) -> Vec<LengthPrefix> {
        let mut prefixes = Vec::new();
        for width in LengthWidth::ALL {
            for endianness in [Endianness::Big, Endianness::Little] {
                for counts_itself in [false, true] {
                    prefixes.push(
                        LengthPrefix::default()
                            .width(width)
                            .endianness(endianness)
                            .counts_itself(counts_itself)
                            .frame_bytes_max(frame_bytes_max),
                    );
                }
            }
        }
        prefixes
    }

    /// Writes the header of a frame of so many bytes. Returns the header's length.
    fn encode(
        framing: &Framing,
        frame_bytes: usize,
        header: &mut [u8; 8],
    ) -> Result<usize, FramingError> {
        let mut envelope = Envelope::default();
        framing.envelop_parts(Parts(&[]), frame_bytes, &mut envelope)?;
        assert_eq!(envelope.trailer(), []);
        header[..envelope.header().len()].copy_from_slice(envelope.header());
        Ok(envelope.header().len())
    }

    fn eight_bytes(frame_bytes_max: usize, counts_itself: bool) -> LengthPrefix {
        let width = LengthWidth::Eight;
        LengthPrefix::default()
            .width(width)
            .counts_itself(counts_itself)
            .frame_bytes_max(frame_bytes_max)
    }

    /// Cuts a stream that arrives as `first`, then `second`, as a session does.
    fn frames(framing: &Framing, first: &[u8], second: &[u8]) -> Vec<Vec<u8>> {
        let (mut waiting, mut frames, mut needed) = (Vec::new(), Vec::new(), 0);
        for part in [first, second] {
            waiting.extend_from_slice(part);
            while waiting.len() >= needed {
                match framing.cut(&waiting, 0) {
                    Cut::Frame { header_bytes, frame_bytes, .. } => {
                        let rest = waiting.split_off(header_bytes + frame_bytes);
                        frames.push(waiting.split_off(header_bytes));
                        (waiting, needed) = (rest, 0);
                    }
                    Cut::More { bytes_min, .. } => {
                        assert!(bytes_min > waiting.len(), "it would be asked in vain");
                        needed = bytes_min;
                    }
                    Cut::Refused(error) => panic!("{error:?}"),
                }
            }
        }
        assert!(waiting.is_empty());
        frames
    }

    #[test]
    fn every_length_up_to_the_limit_comes_back_in_every_shape() {
        for prefix in prefixes(70_000) {
            let framing = Framing::length_prefixed(prefix);
            let header_bytes = prefix.width.bytes();
            let max = framing.wire_frame_bytes_max().unwrap() - header_bytes;
            let bytes = vec![0; header_bytes + 70_000];
            for frame_bytes in [0, 1, 2, 127, 253, 254, 255, 256, 65_533, 65_535, 65_536, max] {
                let mut header = [0xEE; 8];
                let encoded = encode(&framing, frame_bytes, &mut header);
                if frame_bytes > max {
                    let (bytes, max) = (frame_bytes as u64, max as u64);
                    assert_eq!(encoded, Err(FramingError::FrameTooLarge { bytes, max }));
                    continue;
                }
                assert_eq!(encoded, Ok(header_bytes));
                assert!(header[header_bytes..].iter().all(|byte| *byte == 0xEE));
                let mut wire = bytes[..header_bytes + frame_bytes].to_vec();
                wire[..header_bytes].copy_from_slice(&header[..header_bytes]);
                let whole = Cut::Frame { header_bytes, frame_bytes, trailer_bytes: 0 };
                assert_eq!(framing.cut(&wire, 0), whole, "{prefix:?}");
                let bytes_min = wire.len();
                if frame_bytes > 0 {
                    assert_eq!(
                        framing.cut(&wire[..bytes_min - 1], 0),
                        Cut::More { bytes_min, scanned: 0 }
                    );
                }
            }
        }
    }

    #[test]
    fn a_frame_one_byte_over_the_bound_is_refused_in_both_directions() {
        for prefix in prefixes(100) {
            let framing = Framing::length_prefixed(prefix);
            let mut header = [0; 8];
            assert!(encode(&framing, 100, &mut header).is_ok());
            let refusal = FramingError::FrameTooLarge { bytes: 101, max: 100 };
            assert_eq!(encode(&framing, 101, &mut header), Err(refusal));
            let wider = prefix.frame_bytes_max(101);
            let used = encode(&Framing::length_prefixed(wider), 101, &mut header).unwrap();
            assert_eq!(framing.cut(&header[..used], 0), Cut::Refused(refusal));
        }
    }

    #[test]
    fn a_width_that_cannot_say_the_bound_lowers_it() {
        let maxima = prefixes(1 << 20).into_iter().step_by(4).map(|prefix| {
            let counting = prefix.counts_itself(true);
            (prefix.wire_frame_bytes_max(), counting.wire_frame_bytes_max())
        });
        let mib = 1 << 20;
        let expected = [
            (256, 255),
            (65_537, 65_535),
            (mib + 3, mib + 3),
            (mib + 4, mib + 4),
            (mib + 8, mib + 8),
        ];
        assert!(maxima.eq(expected));
    }

    #[test]
    fn the_largest_length_there_is_overflows_nothing() {
        let all = [0xFF; 8];
        for counts_itself in [false, true] {
            let bytes = if counts_itself { u64::MAX - 8 } else { u64::MAX };
            let prefix = eight_bytes(100, counts_itself);
            let refusal = FramingError::FrameTooLarge { bytes, max: 100 };
            assert_eq!(prefix.cut(&all), Cut::Refused(refusal));
            assert_eq!(eight_bytes(usize::MAX, counts_itself).wire_frame_bytes_max(), usize::MAX);
        }
        let max = (usize::MAX - 8) as u64;
        let refusal = FramingError::FrameTooLarge { bytes: u64::MAX, max };
        assert_eq!(eight_bytes(usize::MAX, false).cut(&all), Cut::Refused(refusal));
        let encoded = eight_bytes(usize::MAX, false).envelope(usize::MAX, &mut Envelope::default());
        assert!(matches!(encoded, Err(FramingError::FrameTooLarge { .. })));
    }

    #[test]
    fn a_length_that_counts_itself_is_no_smaller_than_itself() {
        let prefix = LengthPrefix::default().counts_itself(true);
        let refusal = FramingError::LengthTooSmall { length: 3, min: 4 };
        assert_eq!(prefix.cut(&[0, 0, 0, 3, 9]), Cut::Refused(refusal));
        let empty = Cut::Frame { header_bytes: 4, frame_bytes: 0, trailer_bytes: 0 };
        assert_eq!(prefix.cut(&[0, 0, 0, 4]), empty);
    }

    #[test]
    fn wherever_a_stream_is_chopped_the_frames_are_the_same() {
        for prefix in prefixes(65_536) {
            let framing = Framing::length_prefixed(prefix);
            let sent: Vec<Vec<u8>> = [3, 0, 1, 0, 0, 40].map(|n| (0..n).collect()).to_vec();
            let mut stream = Vec::new();
            for frame in &sent {
                let mut header = [0; 8];
                let used = encode(&framing, frame.len(), &mut header).unwrap();
                stream.extend_from_slice(&header[..used]);
                stream.extend_from_slice(frame);
            }
            for split in (0..=stream.len()).step_by(if cfg!(miri) { 7 } else { 1 }) {
                let (first, second) = stream.split_at(split);
                assert_eq!(frames(&framing, first, second), sent, "{prefix:?} at {split}");
            }
        }
    }

    #[test]
    fn garbage_is_cut_or_refused_and_never_out_of_bounds() {
        let mut state = 0x9E37_79B9_7F4A_7C15u64;
        let mut random = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        };
        for _ in 0..if cfg!(miri) { 50 } else { 20_000 } {
            let garbage: Vec<u8> = (0..random() % 40)
                .map(|_| if random() % 2 == 0 { 0 } else { random() as u8 })
                .collect();
            for bound in [0, 20, usize::MAX] {
                for prefix in prefixes(bound) {
                    let wire_max = prefix.wire_frame_bytes_max();
                    match prefix.cut(&garbage) {
                        Cut::Frame { header_bytes, frame_bytes, .. } => {
                            assert!(header_bytes + frame_bytes <= garbage.len().min(wire_max));
                        }
                        Cut::More { bytes_min, .. } => {
                            assert!(bytes_min > garbage.len() && bytes_min <= wire_max);
                        }
                        Cut::Refused(_) => {}
                    }
                }
            }
        }
    }
}
