//! Every framing, beside a plain reading of what it promises.

use std::io::IoSlice;

use super::kind::Kind;
use super::*;
use crate::session::{Completed, Front, Left, ReceiveQueue};

/// Cuts a stream that comes in these pieces, as a session does. Returns the frames, and what is left or why it was
/// refused.
fn frames<'p>(
    framing: &Framing,
    pieces: impl IntoIterator<Item = &'p [u8]>,
) -> (Vec<Vec<u8>>, Result<usize, FramingError>) {
    let (mut queue, room, mut frames) = (ReceiveQueue::default(), Left::default(), Vec::new());
    for mut bytes in pieces {
        let mut known = None;
        loop {
            let from_queue = !queue.is_empty();
            let cut = match known.take() {
                Some(cut) => cut,
                None if from_queue => {
                    let mut cut = None;
                    let look = |bytes: &[u8], scanned| {
                        Front::from(*cut.insert(framing.cut(bytes, scanned)))
                    };
                    let (taken, completed) = queue.complete(5, bytes, &room, look);
                    bytes = &bytes[taken..];
                    match completed {
                        Completed::Done => cut.unwrap(),
                        Completed::Unfinished => break,
                        Completed::Full { .. } => unreachable!("there is room"),
                    }
                }
                None if bytes.is_empty() => break,
                None => framing.cut(bytes, 0),
            };
            match cut {
                Cut::Frame { header_bytes, frame_bytes, trailer_bytes } => {
                    let end = header_bytes + frame_bytes;
                    if from_queue {
                        frames.push(queue.contents()[header_bytes..end].to_vec());
                        queue.consume(end + trailer_bytes, &room);
                    } else {
                        frames.push(bytes[header_bytes..end].to_vec());
                        bytes = &bytes[end + trailer_bytes..];
                    }
                }
                Cut::More { scanned, bytes_min } => {
                    assert!(bytes_min > bytes.len());
                    assert!(queue.append(bytes, &room));
                    queue.set_scanned(scanned, 5);
                    break;
                }
                Cut::Refused(error) => return (frames, Err(error)),
            }
        }
    }
    (frames, Ok(queue.len()))
}

/// The stream in which these frames are sent.
fn stream(framing: &Framing, frames: &[&[u8]]) -> Vec<u8> {
    let mut stream = Vec::new();
    for frame in frames {
        // In two parts: where they meet means nothing.
        let (first, second) = frame.split_at(frame.len() / 3);
        let envelope = framing.envelope(Parts(&[first, second].map(IoSlice::new))).unwrap();
        stream.extend_from_slice(&[envelope.header(), frame, envelope.trailer()].concat());
    }
    stream
}

/// A magic byte, a length, the frame, and a sum.
struct Checked;

impl CustomFraming for Checked {
    fn wire_frame_bytes_max(&self) -> usize {
        300
    }

    fn cut(&self, bytes: &[u8], _: usize) -> Cut {
        match bytes {
            [] => Cut::More { bytes_min: 1, scanned: 0 },
            [0xA7] => Cut::More { bytes_min: 2, scanned: 0 },
            [0xA7, length, rest @ ..] if rest.len() <= usize::from(*length) => {
                Cut::More { bytes_min: 3 + usize::from(*length), scanned: 0 }
            }
            [0xA7, length, rest @ ..] => {
                let (frame, rest) = rest.split_at(usize::from(*length));
                if sum(frame.iter().copied()) != rest[0] {
                    return Cut::Refused(FramingError::Refused { reason: "a wrong sum" });
                }
                Cut::Frame { header_bytes: 2, frame_bytes: frame.len(), trailer_bytes: 1 }
            }
            _ => Cut::Refused(FramingError::Refused { reason: "no magic byte" }),
        }
    }

    fn envelope(&self, frame: Parts<'_>) -> Result<Envelope, FramingError> {
        let length = u8::try_from(frame.bytes())
            .map_err(|_| FramingError::Refused { reason: "it is too large" })?;
        Envelope::new(&[0xA7, length], &[sum(frame.iter())])
    }
}

fn sum(bytes: impl Iterator<Item = u8>) -> u8 {
    bytes.fold(0, u8::wrapping_add)
}

/// Lines, as a program would write it: it counts what was scanned.
struct OwnLines;

impl CustomFraming for OwnLines {
    fn wire_frame_bytes_max(&self) -> usize {
        300
    }

    fn cut(&self, bytes: &[u8], scanned: usize) -> Cut {
        match bytes[scanned..].iter().position(|byte| *byte == b'\n') {
            Some(at) => Cut::Frame { header_bytes: 0, frame_bytes: scanned + at, trailer_bytes: 1 },
            None => Cut::More { bytes_min: 0, scanned: bytes.len() },
        }
    }

    fn envelope(&self, _: Parts<'_>) -> Result<Envelope, FramingError> {
        Envelope::new(b"", b"\n")
    }
}

fn field() -> LengthField {
    LengthField::default().width(LengthWidth::Two).frame_bytes_max(300)
}

/// Framings that take any bytes as a frame but those with an end in them.
fn framings() -> Vec<Framing> {
    let varint = VarintPrefix::default().frame_bytes_max(300);
    vec![
        Framing::length_prefixed(LengthPrefix::default().frame_bytes_max(300)),
        Framing::lines(Lines::default().frame_bytes_max(300)),
        Framing::lines(Lines::default().frame_bytes_max(300).sent_end(LineEnd::CrLf)),
        Framing::delimited(Delimiter::new(b"\0").frame_bytes_max(300)),
        Framing::delimited(Delimiter::new(b"aab").frame_bytes_max(300)),
        Framing::delimited(Delimiter::new(b"--boundary--").frame_bytes_max(300)),
        Framing::length_field(field()),
        Framing::length_field(field().counts_from(Some(0)).endianness(Endianness::Little)),
        Framing::length_field(field().offset(2).counts_from(Some(2)).header(*b"wharf's own head")),
        Framing::varint(varint),
        Framing::custom(Checked),
        Framing::custom(OwnLines),
    ]
}

#[test]
fn raw_bytes_are_one_frame_as_they_are() {
    let framing = Framing::raw();
    assert!(framing.is_raw());
    assert_eq!(framing.wire_frame_bytes_max(), None);
    let whole = Cut::Frame { header_bytes: 0, frame_bytes: 3, trailer_bytes: 0 };
    assert_eq!(framing.cut(b"abc", 0), whole);
    assert_eq!(framing.cut(b"", 0), Cut::More { bytes_min: 1, scanned: 0 });
    let largest = Cut::Frame { header_bytes: 0, frame_bytes: 65_536, trailer_bytes: 0 };
    assert_eq!(framing.cut(&[0; 65_537], 0), largest, "the rest is another frame");
    assert_eq!(framing.envelope(Parts(&[])), Ok(Envelope::default()));
}

#[test]
fn wherever_a_stream_is_chopped_the_frames_are_those_that_were_sent() {
    let long: Vec<u8> = (0..250).map(|at| b'c' + at % 20).collect();
    let sent: [&[u8]; 8] = [b"first", b"", b"x", &long, b"", b"a", &long[..130], b"last"];
    for framing in framings() {
        assert!(framing.check().is_ok());
        let stream = stream(&framing, &sent);
        for split in (0..=stream.len()).step_by(if cfg!(miri) { 171 } else { 1 }) {
            let (first, second) = stream.split_at(split);
            let got = frames(&framing, [first, second]);
            assert!(got.0 == sent && got.1 == Ok(0), "{framing:?} at {split}: {:?}", got.1);
        }
        for size in [1, 2, 3, 7, 64, 65, 1_000].into_iter().skip(if cfg!(miri) { 3 } else { 0 }) {
            assert_eq!(frames(&framing, stream.chunks(size)), frames(&framing, [&stream[..]]));
        }
    }
}

#[test]
fn frames_that_are_kept_whole_are_seen_as_they_stand_in_the_stream() {
    let kept = Framing::delimited(Delimiter::new(b"\r\n").kept(true));
    let fixed = Framing::fixed(4);
    let mqtt = VarintPrefix::default().offset(1).length_bytes_max(4).kept(true);
    for (framing, sent) in [
        (kept, [&b"one\r\n"[..], b"\r\n", b"\r\r\n"]),
        (fixed.clone(), [b"abcd", b"efgh", b"\0\0\0\0"]),
        (Framing::varint(mqtt), [b"\x30\x02ab", b"\xC0\x00", b"\x10\x01z"]),
        (
            Framing::length_field(field().stripped_bytes(Some(0))),
            [b"\0\x02ab", b"\0\0", b"\0\x01z"],
        ),
    ] {
        let stream = stream(&framing, &sent);
        assert_eq!(stream, sent.concat());
        for size in 1..=stream.len() {
            let expected = sent.map(<[u8]>::to_vec).to_vec();
            assert_eq!(frames(&framing, stream.chunks(size)), (expected, Ok(0)), "{framing:?}");
        }
    }
    let refused = fixed.envelope(Parts(&[IoSlice::new(b"abc")]));
    assert!(matches!(refused, Err(FramingError::Refused { .. })));
}

#[test]
fn lines_end_either_way() {
    let framing = Framing::lines(Lines::default().frame_bytes_max(6));
    let stream = b"a\nb\r\n\r\n\n\r\r\nlonges\r\n";
    let expected: Vec<Vec<u8>> =
        [&b"a"[..], b"b", b"", b"", b"\r", b"longes"].map(<[u8]>::to_vec).to_vec();
    for size in 1..=stream.len() {
        assert_eq!(frames(&framing, stream.chunks(size)), (expected.clone(), Ok(0)), "{size}");
    }
}

#[test]
fn what_has_no_end_is_refused_at_the_bound_wherever_it_is_chopped() {
    let endless = [b'x'; 400];
    for framing in framings().into_iter().filter(|framing| {
        matches!(framing.0, Kind::Lines(_) | Kind::Delimited(_))
            || format!("{framing:?}").contains("Own")
    }) {
        for size in [1, 7, 299, 300, 301, 400].into_iter().skip(if cfg!(miri) { 2 } else { 0 }) {
            let (got, error) = frames(&framing, endless.chunks(size));
            assert!(got.is_empty(), "{framing:?}");
            assert!(
                matches!(error, Err(FramingError::FrameTooLarge { bytes: 300.., .. })),
                "{error:?}"
            );
        }
        // And the largest is not.
        let end = framing.envelope(Parts(&[])).unwrap();
        let wire_bytes_max = framing.wire_frame_bytes_max().unwrap();
        let largest = framing.frame_bytes_within(wire_bytes_max) - usize::from(framing.is_own());
        let stream = [&endless[..largest], end.trailer()].concat();
        for size in [1, 64, 1_000].into_iter().skip(usize::from(cfg!(miri))) {
            assert_eq!(
                frames(&framing, stream.chunks(size)).0,
                [&endless[..largest]],
                "{framing:?}"
            );
        }
    }
}

impl Framing {
    fn is_own(&self) -> bool {
        matches!(self.0, Kind::Custom(_))
    }
}

#[test]
fn the_largest_frame_that_fits_is_as_large_as_it_says() {
    let all = [b'x'; 2_000];
    for framing in framings().into_iter().filter(|framing| !framing.is_own()) {
        for wire_bytes in [0, 1, 16, 17, 127, 128, 130, 131, 290, 300, 304, 2_000] {
            let most = framing.frame_bytes_within(wire_bytes);
            let on_the_wire = |bytes: usize| {
                let envelope = framing.envelope(Parts(&[IoSlice::new(&all[..bytes])]));
                envelope.map(|envelope| envelope.bytes() + bytes)
            };
            let says = format!("{framing:?}, {wire_bytes}: {most}");
            assert!(most == 0 || on_the_wire(most).unwrap() <= wire_bytes, "{says}");
            // A length may need one byte more for one byte of the frame more.
            assert!(
                on_the_wire(most + 2).is_err() || on_the_wire(most + 2).unwrap() > wire_bytes,
                "{says}"
            );
        }
    }
}

#[test]
fn a_search_looks_at_each_byte_once_and_at_few_of_an_unfinished_frame_twice() {
    let framing = Framing::delimited(Delimiter::new(b"\r\n"));
    let frame: Vec<u8> = (0..20_000).map(|at| if at % 1_000 == 0 { b'\r' } else { b'a' }).collect();
    let stream = [&frame[..], b"\r\n"].concat();
    for size in [1, 2, 3, 100, 5_000, 30_000].into_iter().skip(if cfg!(miri) { 4 } else { 0 }) {
        looked_at::take();
        assert_eq!(frames(&framing, stream.chunks(size)).0, [&frame[..]]);
        assert_eq!(looked_at::take(), stream.len(), "{size}");
    }
}

/// What a framing of the program's says that cannot be.
struct Lies(fn(&[u8], usize) -> Cut);

impl CustomFraming for Lies {
    fn wire_frame_bytes_max(&self) -> usize {
        100
    }

    fn cut(&self, bytes: &[u8], scanned: usize) -> Cut {
        (self.0)(bytes, scanned)
    }

    fn envelope(&self, _: Parts<'_>) -> Result<Envelope, FramingError> {
        std::panic::panic_any("on purpose")
    }
}

#[test]
fn a_framing_that_lies_or_panics_ends_the_session_and_nothing_else() {
    let frame = |header_bytes, frame_bytes, trailer_bytes| Cut::Frame {
        header_bytes,
        frame_bytes,
        trailer_bytes,
    };
    let lies: [fn(&[u8], usize) -> Cut; 5] = [
        |_, _| Cut::Frame { header_bytes: 0, frame_bytes: 0, trailer_bytes: 0 },
        |bytes, _| Cut::Frame { header_bytes: 0, frame_bytes: bytes.len() + 1, trailer_bytes: 0 },
        |_, _| Cut::Frame { header_bytes: 1, frame_bytes: usize::MAX, trailer_bytes: 1 },
        |_, _| Cut::More { bytes_min: 101, scanned: 0 },
        |_, _| std::panic::panic_any("on purpose"),
    ];
    for lie in lies {
        let cut = Framing::custom(Lies(lie)).cut(b"some bytes", 0);
        assert!(matches!(cut, Cut::Refused(_)), "{cut:?}");
    }
    let lies = Framing::custom(Lies(|_, _| Cut::More { bytes_min: 0, scanned: usize::MAX }));
    let more = Cut::More { bytes_min: 5, scanned: u32::MAX as usize };
    assert_eq!(lies.cut(b"four", 0), more, "it is asked when there is more");
    assert!(matches!(lies.cut(&[0; 100], 0), Cut::Refused(FramingError::FrameTooLarge { .. })));
    assert_eq!(lies.envelope(Parts(&[])), Err(FramingError::Panicked));
    // It sees late that a frame was whole.
    let late = Framing::custom(Lies(|bytes, _| match bytes.len() {
        0..10 => Cut::More { bytes_min: 0, scanned: 0 },
        _ => Cut::Frame { header_bytes: 0, frame_bytes: 1, trailer_bytes: 0 },
    }));
    let stream: Vec<u8> = (0..40).collect();
    let (got, left) = frames(&late, stream.chunks(3));
    assert_eq!(got.concat(), stream[..got.len()]);
    assert_eq!(left, Ok(stream.len() - got.len()));
    assert_eq!(frame(1, 2, 3), frame(1, 2, 3));
}

#[test]
fn a_framing_equals_itself_and_its_settings_are_checked() {
    let own = Framing::custom(Checked);
    assert_eq!(own.clone(), own);
    assert_ne!(own, Framing::custom(Checked));
    assert!(format!("{own:?}").contains("Checked"), "{own:?}");
    for framing in [
        Framing::delimited(Delimiter::new(b"")),
        Framing::delimited(Delimiter::new([1; 17])),
        Framing::delimited(Delimiter::new(b"ab").kept(true).frame_bytes_max(1)),
        Framing::fixed(0),
        Framing::varint(VarintPrefix::default().length_bytes_max(0)),
        Framing::varint(VarintPrefix::default().offset(1)),
        Framing::length_field(field().stripped_bytes(Some(17))),
        Framing::length_field(field().counts_from(Some(303))),
    ] {
        assert!(framing.check().is_err(), "{framing:?}");
    }
}

/// Else a line of which the room takes a part would be copied for each of its bytes.
#[test]
fn room_that_is_nearly_used_up_is_filled_in_few_steps() {
    let framing = Framing::lines(Lines::default());
    let (mut queue, room) = (ReceiveQueue::default(), Left::of(50_000));
    assert!(queue.append(b"begun", &room));
    let (came, mut looks) = (vec![b'x'; 60_000], 0);
    let (taken, completed) = queue.complete(5, &came, &room, |bytes, scanned| {
        looks += 1;
        Front::from(framing.cut(bytes, scanned))
    });
    assert_eq!(completed, Completed::Full { needed: 1 });
    assert!(taken > 40_000 && looks < 100, "{taken} in {looks}");
}
