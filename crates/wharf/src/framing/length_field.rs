//! A length somewhere in a header.
//!
//! Sums are computed with 128 bits, so no length overflows one.

use super::cut::{Cut, FramingError};
use super::length::{Endianness, LengthWidth};
use super::parts::Parts;
use crate::buffer::Envelope;
use crate::settings::settings;

settings! {
    /// Frames with a header that has their length in it: where it stands, what it counts, and how much of the header
    /// the handler gets.
    ///
    /// The bytes of the header that are *stripped* are not given to the handler; wharf puts them before each frame that
    /// is sent, with its length. The rest of the header the handler gets and sends with the frame. If the length is in
    /// that rest, wharf checks it: a frame with another length is refused.
    ///
    /// ```
    /// use wharf::{Framing, LengthField, LengthWidth};
    ///
    /// // A type of one byte, a length of two that counts what follows it, and the body. The handler gets all of it.
    /// let kept = LengthField::default().offset(1).width(LengthWidth::Two).stripped_bytes(Some(0));
    ///
    /// // A magic word of two bytes, a length of four that counts the whole frame, the body. The handler gets the body.
    /// let mut magic = [0; 16];
    /// magic[..2].copy_from_slice(&[0xCA, 0xFE]);
    /// let stripped = LengthField::default().offset(2).counts_from(Some(0)).header(magic);
    ///
    /// let framings = [kept, stripped].map(Framing::length_field);
    /// # let _ = framings;
    /// ```
    #[derive(Copy)]
    LengthField {
        /// Where the length stands: how many bytes of the frame come before it. Default 0.
        offset: usize = 0,
        /// How many bytes the length has. Default four.
        width: LengthWidth = LengthWidth::Four,
        /// The order of those bytes. Default big endian, the order of the network.
        endianness: Endianness = Endianness::Big,
        /// The length counts the bytes of the frame from this position on: 0 for a length that counts the whole frame.
        /// Larger than where the length ends if there are bytes behind it that it does not count; negative if it counts
        /// more than there is. Default `None`: from where the length ends.
        counts_from: Option<isize> = None,
        /// How many of the frame's first bytes the handler does not get, at most 16: all of the length, or nothing of
        /// it. Default `None`: everything up to the end of the length.
        stripped_bytes: Option<usize> = None,
        /// What a frame that is sent begins with, as far as it is stripped; the length is written into it. Default
        /// zeros.
        header: [u8; 16] = [0; 16],
        /// The most bytes that the handler gets of a frame. A peer that announces more ends its session with
        /// [`CloseReason::FrameTooLarge`](crate::CloseReason::FrameTooLarge), before anything is allocated. A width that
        /// cannot express the bound lowers it. Default 64 KiB (65,536).
        frame_bytes_max: usize = 64 * 1024,
    }
}

impl LengthField {
    /// Where the length ends.
    fn end(&self) -> usize {
        self.offset.saturating_add(self.width.bytes())
    }

    pub(super) fn stripped(&self) -> usize {
        self.stripped_bytes.unwrap_or(self.end())
    }

    fn counted_from(&self) -> i128 {
        self.counts_from.map_or(self.end() as i128, |from| from as i128)
    }

    /// A whole frame has at least so many bytes.
    fn total_min(&self) -> i128 {
        self.end().max(self.stripped()) as i128
    }

    /// The rule that its settings break, if any.
    pub(super) fn broken_rule(&self) -> Option<(&'static str, u64, &'static str)> {
        let (stripped, end) = (self.stripped(), self.end());
        if stripped > Envelope::BYTES_MAX {
            return Some(("stripped_bytes", stripped as u64, "it may be at most 16"));
        }
        if stripped > self.offset && stripped < end {
            let says = "it must be all of the length, or nothing of it";
            return Some(("stripped_bytes", stripped as u64, says));
        }
        if end.saturating_sub(stripped) > self.frame_bytes_max {
            let says = "it must hold what the handler gets of the header";
            return Some(("frame_bytes_max", self.frame_bytes_max as u64, says));
        }
        if self.counted_from() > (stripped as i128).saturating_add(self.frame_bytes_max as i128) {
            let says = "no frame reaches so far";
            return Some(("counts_from", self.counted_from() as u64, says));
        }
        // The length must be able to tell of the smallest frame.
        let least = self.total_min() - self.counted_from();
        if least > i128::from(self.width.length_max()) {
            return Some(("offset", self.offset as u64, "the length cannot express any frame"));
        }
        None
    }

    /// The most bytes of a frame, as the handler gets it.
    fn bound(&self) -> usize {
        let sayable = i128::from(self.width.length_max()) + self.counted_from();
        let sayable = sayable.saturating_sub(self.stripped() as i128).max(0);
        let countable = usize::MAX - self.stripped();
        usize::try_from(sayable).unwrap_or(usize::MAX).min(self.frame_bytes_max).min(countable)
    }

    pub(super) fn wire_frame_bytes_max(&self) -> usize {
        self.stripped() + self.bound()
    }

    pub(super) fn frame_bytes_within(&self, wire_bytes: usize) -> usize {
        wire_bytes.saturating_sub(self.stripped()).min(self.bound())
    }

    pub(super) fn cut(&self, bytes: &[u8]) -> Cut {
        let (end, stripped) = (self.end(), self.stripped());
        let Some(field) = bytes.get(self.offset..end) else {
            return Cut::More { bytes_min: end, scanned: 0 };
        };
        let length = self.endianness.decode(field);
        let total = self.counted_from() + i128::from(length);
        if total < self.total_min() {
            // Not below 0, or no length would be too small.
            let min = (self.total_min() - self.counted_from()) as u64;
            return Cut::Refused(FramingError::LengthTooSmall { length, min });
        }
        let (frame_bytes, max) = (total - stripped as i128, self.bound());
        if frame_bytes > max as i128 {
            let bytes = u64::try_from(frame_bytes).unwrap_or(u64::MAX);
            return Cut::Refused(FramingError::FrameTooLarge { bytes, max: max as u64 });
        }
        let frame_bytes = frame_bytes as usize; // it is within the bound
        if bytes.len() - stripped.min(bytes.len()) < frame_bytes || bytes.len() < stripped {
            return Cut::More { bytes_min: stripped + frame_bytes, scanned: 0 };
        }
        Cut::Frame { header_bytes: stripped, frame_bytes, trailer_bytes: 0 }
    }

    pub(super) fn envelope(&self, frame: Parts<'_>) -> Result<Envelope, FramingError> {
        let (frame_bytes, max) = (frame.bytes(), self.bound());
        super::delimited::within(frame_bytes, max)?;
        let (stripped, width) = (self.stripped(), self.width.bytes());
        let total = (stripped + frame_bytes) as i128;
        let length = total - self.counted_from();
        let has_header = total >= self.total_min();
        let length = u64::try_from(length).ok().filter(|_| has_header);
        let Some(length) = length else {
            return Err(FramingError::Refused { reason: "the frame is smaller than its header" });
        };
        let mut header = self.header;
        if stripped > self.offset {
            self.endianness.encode(length, &mut header[self.offset..self.offset + width]);
        } else if self.length_in(frame, self.offset - stripped) != Some(length) {
            return Err(FramingError::Refused { reason: "the length in the frame is not its own" });
        }
        Envelope::new(&header[..stripped], b"")
    }

    /// The length that stands at this place of a frame.
    fn length_in(&self, frame: Parts<'_>, at: usize) -> Option<u64> {
        let mut field = [0; 8];
        let width = self.width.bytes();
        let mut bytes = frame.iter().skip(at);
        for byte in &mut field[..width] {
            *byte = bytes.next()?;
        }
        Some(self.endianness.decode(&field[..width]))
    }
}

#[cfg(test)]
mod tests {
    use super::super::Framing;
    use super::*;

    fn frame(field: LengthField, bytes: &[u8]) -> &[u8] {
        match field.cut(bytes) {
            Cut::Frame { header_bytes, frame_bytes, trailer_bytes: 0 } => {
                &bytes[header_bytes..header_bytes + frame_bytes]
            }
            other => panic!("{other:?}"),
        }
    }

    fn header_of(begins: &[u8]) -> [u8; 16] {
        let mut header = [0; 16];
        header[..begins.len()].copy_from_slice(begins);
        header
    }

    /// The examples in the documentation of Netty's LengthFieldBasedFrameDecoder.
    #[test]
    fn every_shape_that_netty_names_can_be_said() {
        let two = LengthField::default().width(LengthWidth::Two);
        let three = LengthField::default().width(LengthWidth::Three);
        let body = b"HELLO, WORLD";
        let with = |front: &[u8]| [front, body].concat();
        let kept = Some(0);
        let cases: [(LengthField, Vec<u8>, Vec<u8>); 8] = [
            (two.stripped_bytes(kept), with(&[0, 12]), with(&[0, 12])),
            (two, with(&[0, 12]), body.to_vec()),
            (two.counts_from(Some(0)).stripped_bytes(kept), with(&[0, 14]), with(&[0, 14])),
            (
                three.offset(2).stripped_bytes(kept),
                with(&[0xCA, 0xFE, 0, 0, 12]),
                with(&[0xCA, 0xFE, 0, 0, 12]),
            ),
            (
                three.counts_from(Some(5)).stripped_bytes(kept),
                with(&[0, 0, 12, 0xCA, 0xFE]),
                with(&[0, 0, 12, 0xCA, 0xFE]),
            ),
            (
                two.offset(1).counts_from(Some(4)).header(header_of(&[0xCA])),
                with(&[0xCA, 0, 12, 0xFE]),
                with(&[0xFE]),
            ),
            (
                two.offset(1).counts_from(Some(0)).header(header_of(&[0xCA])),
                with(&[0xCA, 0, 16, 0xFE]),
                with(&[0xFE]),
            ),
            (two.counts_from(Some(-1)), with(&[0, 15]), body.to_vec()),
        ];
        for (field, wire, seen) in cases {
            assert_eq!(field.broken_rule(), None, "{field:?}");
            assert_eq!(frame(field, &wire), seen, "{field:?}");
            for count in 0..wire.len() {
                let cut = field.cut(&wire[..count]);
                let wanted = if count < field.end() { field.end() } else { wire.len() };
                assert_eq!(cut, Cut::More { bytes_min: wanted, scanned: 0 }, "{field:?}");
            }
            // What is seen can be sent, and is then as it came.
            let parts = [std::io::IoSlice::new(&seen)];
            let envelope = Framing::length_field(field).envelope(Parts(&parts)).unwrap();
            assert_eq!([envelope.header(), &seen, envelope.trailer()].concat(), wire, "{field:?}");
        }
    }

    #[test]
    fn lengths_that_cannot_be_are_refused() {
        let whole = LengthField::default().counts_from(Some(0)).frame_bytes_max(100);
        let too_small = FramingError::LengthTooSmall { length: 3, min: 4 };
        assert_eq!(whole.cut(&[0, 0, 0, 3]), Cut::Refused(too_small));
        let too_large = FramingError::FrameTooLarge { bytes: 101, max: 100 };
        assert_eq!(whole.cut(&[0, 0, 0, 105]), Cut::Refused(too_large));
        let eight = LengthField::default().width(LengthWidth::Eight).counts_from(Some(isize::MAX));
        assert!(matches!(eight.cut(&[0xFF; 8]), Cut::Refused(FramingError::FrameTooLarge { .. })));
        let negative = LengthField::default().counts_from(Some(isize::MIN));
        assert!(negative.broken_rule().is_some());
    }

    #[test]
    fn a_kept_length_that_is_not_the_frames_own_is_not_sent() {
        let kept = LengthField::default().offset(1).width(LengthWidth::One).stripped_bytes(Some(0));
        let sent = |frame: &[u8]| kept.envelope(Parts(&[std::io::IoSlice::new(frame)]));
        assert_eq!(sent(&[7, 2, 1, 1]), Ok(Envelope::default()));
        for wrong in [&[7, 1, 1, 1][..], &[7, 3, 1, 1], &[7], &[]] {
            assert!(matches!(sent(wrong), Err(FramingError::Refused { .. })), "{wrong:?}");
        }
    }

    #[test]
    fn settings_that_make_no_sense_are_refused() {
        let default = LengthField::default();
        for field in [
            default.offset(20),
            default.offset(2).stripped_bytes(Some(3)),
            default.width(LengthWidth::One).counts_from(Some(-300)),
        ] {
            assert!(field.broken_rule().is_some(), "{field:?}");
        }
        assert_eq!(default.broken_rule(), None);
    }
}
