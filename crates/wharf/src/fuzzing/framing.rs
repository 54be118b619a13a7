//! Any framing, fed any bytes in any pieces, compared with a plain reading of its options.
//!
//! The reference sees the whole stream at once and computes with 128 bits, so it need not consider overflow,
//! what has arrived yet, or piece boundaries. The pieces must give the same frames.

use arbitrary::{Arbitrary, Unstructured};

use crate::framing::{Cut, Endianness, Framing, FramingError, LengthPrefix, LengthWidth, TakeOver};
use crate::session::{Left, ReceiveQueue};

#[derive(Debug, Arbitrary)]
struct Input<'a> {
    shape: Shape,
    /// A frame of so many bytes is given a header.
    encoded: Bytes,
    /// How many bytes come at a time, over and over; 0: all that are left.
    pieces: [u8; 4],
    stream: &'a [u8],
}

#[derive(Clone, Copy, Debug, Arbitrary)]
enum Shape {
    Raw,
    Length { width: Width, little: bool, counts_itself: bool, bound: Bytes },
}

#[derive(Clone, Copy, Debug, Arbitrary)]
enum Width {
    One,
    Two,
    Four,
    Eight,
}

/// A number of bytes: mostly one that a stream can reach.
#[derive(Clone, Copy, Debug, Arbitrary)]
enum Bytes {
    Few(u8),
    Some(u16),
    Any(usize),
    /// Counted down from the largest there is.
    Almost(u8),
}

/// The target.
pub fn framing(bytes: &[u8]) {
    let Ok(input) = Input::arbitrary_take_rest(Unstructured::new(bytes)) else { return };
    let framing = input.shape.framing();
    let reference = Reference::of(input.shape);
    reference.judge_header(&framing, input.encoded.count());

    let mut feed = Feed::new(framing, &reference);
    let (mut rest, mut pieces) = (input.stream, input.pieces.iter().cycle());
    while !rest.is_empty() {
        let wanted = usize::from(*pieces.next().expect("they are cycled"));
        let count = if wanted == 0 { rest.len() } else { wanted.min(rest.len()) };
        feed.receive(&rest[..count]);
        rest = &rest[count..];
    }
    reference.judge_frames(input.stream, &feed);
}

impl Shape {
    fn framing(self) -> Framing {
        let Shape::Length { width, little, counts_itself, bound } = self else {
            return Framing::raw();
        };
        Framing::length_prefixed(
            LengthPrefix::default()
                .width(match width {
                    Width::One => LengthWidth::One,
                    Width::Two => LengthWidth::Two,
                    Width::Four => LengthWidth::Four,
                    Width::Eight => LengthWidth::Eight,
                })
                .endianness(if little { Endianness::Little } else { Endianness::Big })
                .counts_itself(counts_itself)
                .frame_bytes_max(bound.count()),
        )
    }
}

impl Bytes {
    fn count(self) -> usize {
        match self {
            Bytes::Few(count) => count.into(),
            Bytes::Some(count) => count.into(),
            Bytes::Any(count) => count,
            Bytes::Almost(less) => usize::MAX - usize::from(less),
        }
    }
}

/// What the options say, read plainly.
enum Reference {
    Raw,
    Length { header_bytes: usize, little: bool, counted: u128, max: u128 },
}

impl Reference {
    fn of(shape: Shape) -> Self {
        let Shape::Length { width, little, counts_itself, bound } = shape else {
            return Reference::Raw;
        };
        let header_bytes = match width {
            Width::One => 1,
            Width::Two => 2,
            Width::Four => 4,
            Width::Eight => 8,
        };
        let counted = if counts_itself { header_bytes as u128 } else { 0 };
        let sayable = 256u128.pow(header_bytes as u32) - 1 - counted;
        let countable = usize::MAX as u128 - header_bytes as u128;
        let max = (bound.count() as u128).min(sayable).min(countable);
        Reference::Length { header_bytes, little, counted, max }
    }

    /// What the bytes from a frame boundary on are.
    fn cut(&self, bytes: &[u8]) -> Cut {
        let Reference::Length { header_bytes, little, counted, max } = *self else {
            return match bytes.len() {
                0 => Cut::More { bytes_min: 1, scanned: 0 },
                len => {
                    Cut::Frame { header_bytes: 0, frame_bytes: len.min(65_536), trailer_bytes: 0 }
                }
            };
        };
        if bytes.len() < header_bytes {
            return Cut::More { bytes_min: header_bytes, scanned: 0 };
        }
        let mut length = 0u128;
        for (place, byte) in bytes[..header_bytes].iter().enumerate() {
            let power = if little { place } else { header_bytes - 1 - place };
            length += u128::from(*byte) << (8 * power);
        }
        if length < counted {
            let (length, min) = (length as u64, counted as u64);
            return Cut::Refused(FramingError::LengthTooSmall { length, min });
        }
        if length - counted > max {
            let (bytes, max) = ((length - counted) as u64, max as u64);
            return Cut::Refused(FramingError::FrameTooLarge { bytes, max });
        }
        let bytes_min = header_bytes as u128 + length - counted;
        if (bytes.len() as u128) < bytes_min {
            return Cut::More { bytes_min: bytes_min as usize, scanned: 0 };
        }
        Cut::Frame { header_bytes, frame_bytes: (length - counted) as usize, trailer_bytes: 0 }
    }

    /// A header is what the reference reads as that frame, or it is refused.
    fn judge_header(&self, framing: &Framing, frame_bytes: usize) {
        const UNTOUCHED: u8 = 0xA5;
        let mut header = [UNTOUCHED; 8];
        let encoded = framing.encode_header(frame_bytes, &mut header);
        let Reference::Length { header_bytes, max, .. } = *self else {
            assert_eq!((encoded, header), (Ok(0), [UNTOUCHED; 8]));
            return;
        };
        if frame_bytes as u128 > max {
            let (bytes, max) = (frame_bytes as u64, max as u64);
            assert_eq!(encoded, Err(FramingError::FrameTooLarge { bytes, max }));
            return;
        }
        assert_eq!(encoded, Ok(header_bytes));
        assert!(header[header_bytes..].iter().all(|byte| *byte == UNTOUCHED));
        let read = match frame_bytes {
            0 => Cut::Frame { header_bytes, frame_bytes, trailer_bytes: 0 },
            _ => Cut::More { bytes_min: header_bytes + frame_bytes, scanned: 0 },
        };
        assert_eq!(self.cut(&header[..header_bytes]), read);
    }

    /// The pieces gave the frames, and the end, that the whole stream has.
    fn judge_frames(&self, stream: &[u8], feed: &Feed) {
        if let Reference::Raw = self {
            assert_eq!((feed.frames.concat(), feed.refused), (stream.to_vec(), None));
            return;
        }
        let (mut rest, mut frames) = (stream, feed.frames.iter());
        while let Cut::Frame { header_bytes, frame_bytes, .. } = self.cut(rest) {
            let frame = frames.next().expect("a frame was not delivered");
            assert_eq!(frame, &rest[header_bytes..header_bytes + frame_bytes]);
            rest = &rest[header_bytes + frame_bytes..];
        }
        assert_eq!(frames.next(), None, "a frame was made up");
        match self.cut(rest) {
            Cut::Refused(error) => assert_eq!(feed.refused, Some(error)),
            _ => assert_eq!((feed.refused, feed.queue.len()), (None, rest.len())),
        }
    }
}

/// The way of the bytes in a session: whole frames straight from what came, an unfinished one by
/// the receive queue.
struct Feed<'a> {
    framing: Framing,
    reference: &'a Reference,
    queue: ReceiveQueue,
    room: Left,
    frames: Vec<Vec<u8>>,
    refused: Option<FramingError>,
}

impl<'a> Feed<'a> {
    fn new(framing: Framing, reference: &'a Reference) -> Self {
        let (queue, frames) = (ReceiveQueue::default(), Vec::new());
        Feed { framing, reference, queue, room: Left::default(), frames, refused: None }
    }

    fn receive(&mut self, mut bytes: &[u8]) {
        while !self.queue.is_empty() && !bytes.is_empty() && self.refused.is_none() {
            let waiting = self.queue.contents().to_vec();
            let came = self.take_over(&waiting, bytes);
            assert!(self.queue.append(&bytes[..came.bytes], &self.room));
            self.queue.set_scanned(came.scanned);
            bytes = &bytes[came.bytes..];
            let waiting = self.queue.contents().to_vec();
            let delivered = self.deliver(&waiting);
            self.queue.consume(delivered, &self.room);
        }
        if self.queue.is_empty() {
            let delivered = self.deliver(bytes);
            assert!(self.queue.append(&bytes[delivered..], &self.room));
        }
        let bound = self.framing.wire_frame_bytes_max();
        let unfinished = self.queue.len();
        assert!(self.refused.is_some() || bound.is_none_or(|bound| unfinished < bound));
    }

    /// Takes whole frames from the front; how many bytes they took.
    fn deliver(&mut self, bytes: &[u8]) -> usize {
        let mut taken = 0;
        while taken < bytes.len() && self.refused.is_none() {
            match self.look(&bytes[taken..]) {
                Cut::Frame { header_bytes, frame_bytes, .. } => {
                    let start = taken + header_bytes;
                    taken = start + frame_bytes;
                    self.frames.push(bytes[start..taken].to_vec());
                }
                Cut::More { .. } => break,
                Cut::Refused(error) => self.refused = Some(error),
            }
        }
        taken
    }

    /// What waits takes over what it needs, as the reference has it.
    fn take_over(&self, waiting: &[u8], came: &[u8]) -> TakeOver {
        let Cut::More { bytes_min, scanned } = self.look(waiting) else {
            unreachable!("what waits is no whole frame");
        };
        let taken = self.framing.take_over(waiting, scanned, came);
        let bytes = (bytes_min - waiting.len()).min(came.len());
        assert_eq!(taken, TakeOver { bytes, scanned: 0 });
        taken
    }

    /// One look, which must be the reference's, and must lead on.
    fn look(&self, bytes: &[u8]) -> Cut {
        let cut = self.framing.cut(bytes, 0);
        assert_eq!(cut, self.reference.cut(bytes), "{:?}, {bytes:?}", self.framing);
        let bound = self.framing.wire_frame_bytes_max().unwrap_or(usize::MAX);
        match cut {
            Cut::Frame { header_bytes, frame_bytes, .. } => {
                assert!(header_bytes + frame_bytes <= bytes.len().min(bound));
            }
            Cut::More { bytes_min, .. } => assert!(bytes_min > bytes.len() && bytes_min <= bound),
            Cut::Refused(_) => {}
        }
        cut
    }
}
