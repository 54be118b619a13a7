//! Any framing, fed any bytes in any pieces, compared with a plain reading of its options.
//!
//! The reference sees the whole stream at once and computes with 128 bits, so it need not consider overflow,
//! what has arrived yet, what was scanned, or piece boundaries. The pieces must give the same frames.

use std::io::IoSlice;

use arbitrary::{Arbitrary, Unstructured};

use crate::framing::{
    CustomFraming, Cut, Delimiter, Endianness, Framing, FramingError, LengthField, LengthPrefix,
    LengthWidth, LineEnd, Lines, Parts, VarintPrefix,
};
use crate::session::{Completed, Front, Left, ReceiveQueue};

#[derive(Debug, Arbitrary)]
struct Input<'a> {
    shape: Shape,
    /// A frame of so many bytes, at most 64 Ki, is sent.
    sent_bytes: u16,
    /// How many bytes come at a time, over and over; 0: all that are left.
    pieces: [u8; 4],
    stream: &'a [u8],
}

#[derive(Clone, Copy, Debug, Arbitrary)]
enum Shape {
    Raw,
    Length {
        width: Width,
        little: bool,
        counts_itself: bool,
        bound: Bytes,
    },
    Lines {
        bound: Bytes,
    },
    Delimited {
        delimiter: [u8; 3],
        count: u8,
        kept: bool,
        bound: Bytes,
    },
    Fixed {
        bytes: Bytes,
    },
    Field {
        offset: u8,
        width: Width,
        little: bool,
        from: Option<i16>,
        stripped: bool,
        bound: Bytes,
    },
    Varint {
        offset: u8,
        bytes_max: u8,
        kept: bool,
        bound: Bytes,
    },
    /// The reference itself, as a framing of the program's.
    Custom {
        delimiter: [u8; 3],
        count: u8,
        bound: Bytes,
    },
}

#[derive(Clone, Copy, Debug, Arbitrary)]
enum Width {
    One,
    Two,
    Three,
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
    if framing.check().is_err() {
        return;
    }
    input.shape.judge_sent(&framing, &vec![b'x'; input.sent_bytes.into()]);

    let mut feed = Feed::new(&framing);
    let (mut rest, mut pieces) = (input.stream, input.pieces.iter().cycle());
    while !rest.is_empty() {
        let wanted = usize::from(*pieces.next().expect("they are cycled"));
        let count = if wanted == 0 { rest.len() } else { wanted.min(rest.len()) };
        feed.receive(&rest[..count]);
        rest = &rest[count..];
    }
    input.shape.judge_frames(input.stream, &feed);
}

impl Width {
    fn of(self) -> LengthWidth {
        match self {
            Width::One => LengthWidth::One,
            Width::Two => LengthWidth::Two,
            Width::Three => LengthWidth::Three,
            Width::Four => LengthWidth::Four,
            Width::Eight => LengthWidth::Eight,
        }
    }
}

fn order(little: bool) -> Endianness {
    if little { Endianness::Little } else { Endianness::Big }
}

fn number(bytes: &[u8], little: bool) -> i128 {
    let append = |number: i128, byte: &u8| number << 8 | i128::from(*byte);
    if little { bytes.iter().rev().fold(0, append) } else { bytes.iter().fold(0, append) }
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

/// What the bytes from a boundary on are, read plainly: bytes before, of and behind a frame, or that it is refused.
/// `None`: not a whole frame.
type Read = Option<Result<[usize; 3], Refusal>>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Refusal {
    TooLarge,
    TooSmall,
    Other,
}

impl Refusal {
    fn of(error: FramingError) -> Self {
        match error {
            FramingError::FrameTooLarge { bytes, max } => {
                assert!(bytes > max, "{bytes}, {max}");
                Refusal::TooLarge
            }
            FramingError::LengthTooSmall { length, min } => {
                assert!(length < min, "{length}, {min}");
                Refusal::TooSmall
            }
            FramingError::Refused { .. } => Refusal::Other,
            FramingError::Panicked => panic!("nothing in it panics"),
        }
    }
}

/// A frame of so many bytes behind a header, within a bound; as far as it is there.
fn counted(bytes: &[u8], header_bytes: usize, frame_bytes: i128, max: i128) -> Read {
    if frame_bytes > max {
        return Some(Err(Refusal::TooLarge));
    }
    let is_there = bytes.len() as i128 >= header_bytes as i128 + frame_bytes;
    is_there.then_some(Ok([header_bytes, frame_bytes as usize, 0]))
}

/// A frame that ends with a delimiter, within a bound.
fn delimited(bytes: &[u8], delimiter: &[u8], kept: bool, max: usize) -> Read {
    let delimiter_bytes = delimiter.len();
    let found = bytes.windows(delimiter_bytes).position(|window| window == delimiter);
    let [frame_bytes, trailer_bytes] = match found {
        Some(at) if kept => [at + delimiter_bytes, 0],
        Some(at) => [at, delimiter_bytes],
        // As few as it can have.
        None if kept => [bytes.len() + 1, 0],
        None => [(bytes.len() + 1).saturating_sub(delimiter_bytes), 0],
    };
    if frame_bytes > max {
        return Some(Err(Refusal::TooLarge));
    }
    found.map(|_| Ok([0, frame_bytes, trailer_bytes]))
}

impl Shape {
    fn framing(self) -> Framing {
        match self {
            Shape::Raw => Framing::raw(),
            Shape::Length { width, little, counts_itself, bound } => Framing::length_prefixed(
                LengthPrefix::default()
                    .width(width.of())
                    .endianness(order(little))
                    .counts_itself(counts_itself)
                    .frame_bytes_max(bound.count()),
            ),
            Shape::Lines { bound } => Framing::lines(
                Lines::default().frame_bytes_max(bound.count()).sent_end(LineEnd::CrLf),
            ),
            Shape::Delimited { delimiter, count, kept, bound } => {
                let bytes = &delimiter[..usize::from(count % 4)];
                let delimiter = Delimiter::new(bytes).kept(kept).frame_bytes_max(bound.count());
                Framing::delimited(delimiter)
            }
            Shape::Fixed { bytes } => Framing::fixed(bytes.count()),
            Shape::Field { offset, width, little, from, stripped, bound } => Framing::length_field(
                LengthField::default()
                    .offset(offset.into())
                    .width(width.of())
                    .endianness(order(little))
                    .counts_from(from.map(isize::from))
                    .stripped_bytes(if stripped { None } else { Some(0) })
                    .header(*b"what begins each")
                    .frame_bytes_max(bound.count()),
            ),
            Shape::Varint { offset, bytes_max, kept, bound } => Framing::varint(
                VarintPrefix::default()
                    .offset(offset.into())
                    .length_bytes_max(bytes_max)
                    .kept(kept)
                    .frame_bytes_max(bound.count()),
            ),
            Shape::Custom { .. } => Framing::custom(Plain(self)),
        }
    }

    /// The most bytes of a frame, as the handler gets it.
    fn bound(self) -> i128 {
        let (bound, header_bytes, sayable) = match self {
            Shape::Raw => return i128::MAX,
            Shape::Fixed { bytes } => return bytes.count() as i128,
            Shape::Lines { bound }
            | Shape::Delimited { bound, .. }
            | Shape::Custom { bound, .. }
            | Shape::Varint { bound, .. } => return bound.count() as i128,
            Shape::Length { width, counts_itself, bound, .. } => {
                let bytes = width.of().bytes();
                let counted = if counts_itself { bytes as i128 } else { 0 };
                (bound, bytes, 256i128.pow(bytes as u32) - 1 - counted)
            }
            Shape::Field { offset, width, from, stripped, bound, .. } => {
                let end = usize::from(offset) + width.of().bytes();
                let from = from.map_or(end as i128, i128::from);
                let header_bytes = if stripped { end } else { 0 };
                let largest = 256i128.pow(width.of().bytes() as u32) - 1 + from;
                (bound, header_bytes, (largest - header_bytes as i128).max(0))
            }
        };
        let countable = usize::MAX as i128 - header_bytes as i128;
        (bound.count() as i128).min(sayable).min(countable)
    }

    /// What the bytes from a boundary on are.
    fn read(self, bytes: &[u8]) -> Read {
        let max = self.bound();
        match self {
            Shape::Raw => (!bytes.is_empty()).then(|| Ok([0, bytes.len().min(65_536), 0])),
            Shape::Fixed { bytes: count } => counted(bytes, 0, count.count() as i128, i128::MAX),
            Shape::Length { width, little, counts_itself, .. } => {
                let header_bytes = width.of().bytes();
                let length = number(bytes.get(..header_bytes)?, little);
                let counted_bytes = if counts_itself { header_bytes as i128 } else { 0 };
                if length < counted_bytes {
                    return Some(Err(Refusal::TooSmall));
                }
                counted(bytes, header_bytes, length - counted_bytes, max)
            }
            Shape::Field { offset, width, little, from, stripped, .. } => {
                let offset = usize::from(offset);
                let end = offset + width.of().bytes();
                let length = number(bytes.get(offset..end)?, little);
                let total = length + from.map_or(end as i128, i128::from);
                if total < end as i128 {
                    return Some(Err(Refusal::TooSmall));
                }
                let header_bytes = if stripped { end } else { 0 };
                counted(bytes, header_bytes, total - header_bytes as i128, max)
            }
            Shape::Varint { offset, bytes_max, kept, .. } => {
                let offset = usize::from(offset);
                let mut length = 0i128;
                for index in 0.. {
                    if index == usize::from(bytes_max) {
                        return Some(Err(Refusal::Other));
                    }
                    let byte = *bytes.get(offset + index)?;
                    length += i128::from(byte & 0x7F) << (7 * index);
                    if index == 9 && byte & 0x7F > 1 {
                        return Some(Err(Refusal::Other));
                    }
                    if byte < 0x80 {
                        let front = offset + index + 1;
                        return match kept {
                            true => counted(bytes, 0, length + front as i128, max),
                            false => counted(bytes, front, length, max),
                        };
                    }
                }
                None
            }
            Shape::Lines { bound } => {
                let found = bytes.iter().position(|byte| *byte == b'\n');
                let line = &bytes[..found.unwrap_or(bytes.len())];
                let frame = line.strip_suffix(b"\r").unwrap_or(line);
                if frame.len() > bound.count() {
                    return Some(Err(Refusal::TooLarge));
                }
                found.map(|at| Ok([0, frame.len(), at + 1 - frame.len()]))
            }
            Shape::Delimited { delimiter, count, kept, bound } => {
                delimited(bytes, &delimiter[..usize::from(count % 4)], kept, bound.count())
            }
            Shape::Custom { delimiter, count, bound } => {
                let bound = bound.count().min(1 << 20);
                delimited(bytes, &delimiter[..1 + usize::from(count % 3)], false, bound)
            }
        }
    }

    /// What is sent is read as that frame, or it is refused.
    fn judge_sent(self, framing: &Framing, frame: &[u8]) {
        let (first, second) = frame.split_at(frame.len() / 2);
        let parts = [first, b"", second].map(IoSlice::new);
        let Ok(envelope) = framing.envelope(Parts(&parts)) else {
            let fits = frame.len() as i128 <= self.bound();
            let is_kept =
                matches!(self, Shape::Fixed { .. } | Shape::Field { .. } | Shape::Varint { .. });
            return assert!(!fits || is_kept, "{} bytes are refused", frame.len());
        };
        assert!(frame.len() as i128 <= self.bound());
        let wire = [envelope.header(), frame, envelope.trailer()].concat();
        // A frame has no delimiter in it, unless that is made of what it is made of.
        let delimiter_bytes: &[u8] = match &self {
            Shape::Delimited { kept: true, .. } => return,
            Shape::Delimited { delimiter, .. } | Shape::Custom { delimiter, .. } => delimiter,
            _ => b"",
        };
        if delimiter_bytes.contains(&b'x') || matches!(self, Shape::Raw) {
            return;
        }
        let [header_bytes, trailer_bytes] =
            [envelope.header(), envelope.trailer()].map(<[u8]>::len);
        let whole = Some(Ok([header_bytes, frame.len(), trailer_bytes]));
        assert_eq!(self.read(&wire), whole, "{self:?}");
    }

    /// The pieces gave the frames, and the end, that the whole stream has.
    fn judge_frames(self, stream: &[u8], feed: &Feed<'_>) {
        if let Shape::Raw = self {
            return assert_eq!((feed.frames.concat(), feed.refused), (stream.to_vec(), None));
        }
        let (mut rest, mut frames) = (stream, feed.frames.iter());
        let mut end = None;
        while !rest.is_empty() {
            end = match self.read(rest) {
                Some(Ok([header_bytes, frame_bytes, trailer_bytes])) => {
                    let frame = frames.next().expect("a frame was not delivered");
                    assert_eq!(frame, &rest[header_bytes..header_bytes + frame_bytes]);
                    rest = &rest[header_bytes + frame_bytes + trailer_bytes..];
                    continue;
                }
                Some(Err(refusal)) => Some(refusal),
                None => None,
            };
            break;
        }
        assert_eq!(frames.next(), None, "a frame was made up");
        assert_eq!(feed.refused.map(Refusal::of), end, "{self:?}");
        assert!(end.is_some() || feed.queue.len() == rest.len());
    }
}

/// A framing of the program's that reads plainly, and says of an unfinished frame whatever it likes.
struct Plain(Shape);

impl CustomFraming for Plain {
    fn wire_frame_bytes_max(&self) -> usize {
        2 << 20
    }

    fn cut(&self, bytes: &[u8], scanned: usize) -> Cut {
        match self.0.read(bytes) {
            Some(Ok([header_bytes, frame_bytes, trailer_bytes])) => {
                Cut::Frame { header_bytes, frame_bytes, trailer_bytes }
            }
            Some(Err(_)) => {
                let (bytes, max) = (2, 1);
                Cut::Refused(FramingError::FrameTooLarge { bytes, max })
            }
            None => Cut::More { bytes_min: bytes.len() % 3, scanned: scanned.wrapping_mul(31) + 7 },
        }
    }

    fn envelope(&self, frame: Parts<'_>) -> Result<crate::framing::Envelope, FramingError> {
        let Shape::Custom { delimiter, count, bound } = self.0 else { unreachable!("it is one") };
        let (bytes, max) = (frame.bytes() as u64, bound.count().min(1 << 20) as u64);
        if bytes > max {
            return Err(FramingError::FrameTooLarge { bytes, max });
        }
        crate::framing::Envelope::new(b"", &delimiter[..1 + usize::from(count % 3)])
    }
}

/// The way of the bytes in a session: whole frames straight from what came, an unfinished one by
/// the receive queue.
struct Feed<'a> {
    framing: &'a Framing,
    queue: ReceiveQueue,
    room: Left,
    frames: Vec<Vec<u8>>,
    refused: Option<FramingError>,
}

impl<'a> Feed<'a> {
    fn new(framing: &'a Framing) -> Self {
        let (queue, frames) = (ReceiveQueue::default(), Vec::new());
        Feed { framing, queue, room: Left::default(), frames, refused: None }
    }

    fn receive(&mut self, mut bytes: &[u8]) {
        while !self.queue.is_empty() && self.refused.is_none() {
            let mut cut = None;
            let look =
                |bytes: &[u8], scanned| Front::from(*cut.insert(self.framing.cut(bytes, scanned)));
            let (taken, completed) = self.queue.complete(0, bytes, &self.room, look);
            bytes = &bytes[taken..];
            match completed {
                Completed::Done => {
                    let waiting = self.queue.contents().to_vec();
                    let (delivered, scanned) = self.deliver(&waiting, cut);
                    self.queue.consume(delivered, &self.room);
                    self.queue.set_scanned(scanned, 0);
                }
                Completed::Unfinished => break,
                Completed::Full { .. } => unreachable!("there is room"),
            }
        }
        if self.queue.is_empty() {
            let (delivered, scanned) = self.deliver(bytes, None);
            assert!(self.queue.append(&bytes[delivered..], &self.room));
            self.queue.set_scanned(scanned, 0);
        }
        let bound = self.framing.wire_frame_bytes_max();
        let unfinished = self.queue.len();
        assert!(self.refused.is_some() || bound.is_none_or(|bound| unfinished < bound));
    }

    /// Takes whole frames from the front; how many bytes they took, and how many of the rest are scanned.
    fn deliver(&mut self, bytes: &[u8], mut cut: Option<Cut>) -> (usize, usize) {
        let mut taken = 0;
        while taken < bytes.len() && self.refused.is_none() {
            let cut = cut.take();
            match cut.unwrap_or_else(|| self.framing.cut(&bytes[taken..], 0)) {
                Cut::Frame { header_bytes, frame_bytes, trailer_bytes } => {
                    let start = taken + header_bytes;
                    self.frames.push(bytes[start..start + frame_bytes].to_vec());
                    taken = start + frame_bytes + trailer_bytes;
                }
                Cut::More { bytes_min, scanned } => {
                    assert!(bytes_min > bytes.len() - taken, "it would be asked in vain");
                    return (taken, scanned);
                }
                Cut::Refused(error) => self.refused = Some(error),
            }
        }
        (taken, 0)
    }
}
