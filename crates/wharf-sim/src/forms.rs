//! The wire forms that the scenario `framings` plays, written and read here by themselves, as a peer would.
//!
//! A peer that has asked for another framing sees from a frame's first bytes which of the two it has, so only some
//! changes are played ([`Form::may_become`]).

use std::ops::Range;

use wharf::simulation::may_switch;
use wharf::{
    CloseReason, CustomFraming, Cut, Delimiter, Envelope, Framing, FramingError, LengthField,
    LengthPrefix, LengthWidth, LineEnd, Lines, Parts, VarintPrefix,
};

use crate::frames::{FRAME_BYTES_MAX, TEXT_BEGINS, TEXT_END};
use crate::misbehaviour::may_block;

/// A framing of the server's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    Raw,
    Length,
    /// Lines that the server ends with `\r\n`, and peers now with that and now with `\n`.
    Lines,
    Delimited,
    /// The delimiter is what every text ends with.
    Kept,
    /// Only where all frames have the same size.
    Fixed,
    Field,
    Varint,
    /// The program's own.
    Summed,
    /// WebSocket: a listener's that sends binary messages, one's that sends text, and what is connected with it.
    Web,
    WebText,
    WebCalls,
}

/// Why a peer's bytes are refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    TooLarge {
        max: u64,
    },
    LengthTooSmall,
    Said(&'static str),
    /// By a rule of WebSocket, with this code.
    Rule(u16),
}

impl Refusal {
    /// Whether a session ends so that is refused its bytes so.
    pub(crate) fn is(self, reason: CloseReason) -> bool {
        match (self, reason) {
            (Refusal::TooLarge { max }, CloseReason::FrameTooLarge { bytes, max: said }) => {
                max == said && bytes > max
            }
            (Refusal::LengthTooSmall, CloseReason::LengthTooSmall { length, min }) => length < min,
            (Refusal::Said(words), CloseReason::FrameRefused { reason }) => words == reason,
            (Refusal::Rule(said), CloseReason::ProtocolError { code, .. }) => said == code,
            _ => false,
        }
    }
}

/// What the bytes from the beginning of a frame on are, to a peer.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    /// The frame, and where the next one begins.
    Frame(Range<usize>, usize),
    More,
    Wrong,
}

const DELIMITER: &[u8] = b"|=|";
/// The first byte of a frame with a length field, and of one of the program's own framing.
const FIELD_BEGINS: u8 = 2;
const SUMMED_BEGINS: u8 = 1;
const FIELD_HEADER_BYTES: usize = 3;
const VARINT_BYTES_MAX: u8 = 4;
const NO_BEGIN: &str = "it begins wrong";
const WRONG_SUM: &str = "a wrong sum";

impl Form {
    pub(crate) const ALL: [Form; 9] = [
        Form::Raw,
        Form::Length,
        Form::Lines,
        Form::Delimited,
        Form::Kept,
        Form::Fixed,
        Form::Field,
        Form::Varint,
        Form::Summed,
    ];

    /// No form has more bytes before and behind a frame.
    pub(crate) const ENVELOPE_BYTES_MAX: usize = 8;

    pub(crate) fn name(self) -> &'static str {
        match self {
            Form::Raw => "raw",
            Form::Length => "length",
            Form::Lines => "lines",
            Form::Delimited => "delimited",
            Form::Kept => "kept",
            Form::Fixed => "fixed",
            Form::Field => "field",
            Form::Varint => "varint",
            Form::Summed => "summed",
            Form::Web => "web",
            Form::WebText => "web text",
            Form::WebCalls => "web calls",
        }
    }

    /// Whether it is a WebSocket's: those have peers of their own ([`crate::web_socket`]).
    pub(crate) fn is_web(self) -> bool {
        matches!(self, Form::Web | Form::WebText | Form::WebCalls)
    }

    /// The same for wharf.
    pub(crate) fn framing(self, frame_bytes: Option<usize>) -> Framing {
        let max = FRAME_BYTES_MAX;
        match self {
            Form::Raw | Form::Web | Form::WebText | Form::WebCalls => Framing::raw(),
            Form::Length => Framing::length_prefixed(LengthPrefix::default().frame_bytes_max(max)),
            Form::Lines => {
                Framing::lines(Lines::default().sent_end(LineEnd::CrLf).frame_bytes_max(max))
            }
            Form::Delimited => Framing::delimited(Delimiter::new(DELIMITER).frame_bytes_max(max)),
            Form::Kept => {
                Framing::delimited(Delimiter::new([TEXT_END]).kept(true).frame_bytes_max(max))
            }
            Form::Fixed => Framing::fixed(frame_bytes.unwrap_or(1)),
            Form::Field => {
                let mut header = [0; 16];
                header[0] = FIELD_BEGINS;
                let field = LengthField::default().offset(1).width(LengthWidth::Two);
                let field = field.counts_from(Some(0)).header(header).frame_bytes_max(max);
                Framing::length_field(field)
            }
            Form::Varint => {
                let prefix = VarintPrefix::default().length_bytes_max(VARINT_BYTES_MAX);
                Framing::varint(prefix.frame_bytes_max(max))
            }
            Form::Summed => Framing::custom(Summed),
        }
    }

    /// Writes a frame as a peer sends it.
    pub(crate) fn write(self, frame: &[u8], into: &mut Vec<u8>) {
        let length = frame.len() as u32;
        match self {
            Form::Length => into.extend(length.to_be_bytes()),
            Form::Field => {
                into.push(FIELD_BEGINS);
                into.extend((length as u16 + FIELD_HEADER_BYTES as u16).to_be_bytes());
            }
            Form::Varint => {
                let mut rest = length;
                while rest > 0x7F {
                    into.push(rest as u8 | 0x80);
                    rest >>= 7;
                }
                into.push(rest as u8);
            }
            Form::Summed => {
                into.push(SUMMED_BEGINS);
                into.extend((length as u16).to_be_bytes());
            }
            _ => {}
        }
        into.extend(frame);
        match self {
            Form::Lines if frame.len().is_multiple_of(2) => into.extend(b"\n"),
            Form::Lines => into.extend(b"\r\n"),
            Form::Delimited => into.extend(DELIMITER),
            Form::Summed => into.push(sum_of(frame)),
            _ => {}
        }
    }

    /// How many bytes the server writes around a frame of so many.
    pub(crate) fn envelope_bytes(self, frame_bytes: usize) -> usize {
        match self {
            Form::Raw | Form::Kept | Form::Fixed => 0,
            Form::Lines => 2,
            Form::Delimited | Form::Field => 3,
            Form::Length | Form::Summed => 4,
            Form::Web | Form::WebText => {
                if frame_bytes < 126 {
                    2
                } else {
                    4
                }
            }
            Form::WebCalls => {
                if frame_bytes < 126 {
                    6
                } else {
                    8
                }
            }
            Form::Varint => (1..).find(|bytes| frame_bytes >> (7 * bytes) == 0).unwrap_or(0),
        }
    }

    /// Cuts as a peer does that knows exactly what the server sends.
    pub(crate) fn see(self, bytes: &[u8], frame_bytes: Option<usize>) -> Seen {
        let behind = |header: usize, length: usize, trailer: usize| {
            let total = header + length + trailer;
            match total <= bytes.len() {
                true => Seen::Frame(header..header + length, total),
                false => Seen::More,
            }
        };
        let two = |at: usize| {
            Some(usize::from(u16::from_be_bytes([*bytes.get(at)?, *bytes.get(at + 1)?])))
        };
        let Some(first) = bytes.first() else { return Seen::More };
        if self.begins(*first) == Some(false) {
            return Seen::Wrong;
        }
        match self {
            Form::Length => match (two(0), two(2)) {
                (Some(high), Some(low)) => behind(4, high << 16 | low, 0),
                _ => Seen::More,
            },
            Form::Field => match two(1).map(|total| total.checked_sub(FIELD_HEADER_BYTES)) {
                Some(Some(length)) => behind(FIELD_HEADER_BYTES, length, 0),
                Some(None) => Seen::Wrong,
                None => Seen::More,
            },
            Form::Varint => match bytes.iter().position(|byte| byte & 0x80 == 0) {
                Some(last) => {
                    let whole = |so_far, byte: &u8| so_far << 7 | usize::from(byte & 0x7F);
                    behind(last + 1, bytes[..=last].iter().rev().fold(0, whole), 0)
                }
                None if bytes.len() < VARINT_BYTES_MAX.into() => Seen::More,
                None => Seen::Wrong,
            },
            Form::Summed => match two(1).map(|length| (length, behind(3, length, 1))) {
                Some((length, Seen::Frame(frame, total))) => {
                    match sum_of(&bytes[frame.clone()]) == bytes[3 + length] {
                        true => Seen::Frame(frame, total),
                        false => Seen::Wrong,
                    }
                }
                _ => Seen::More,
            },
            Form::Fixed => behind(0, frame_bytes.unwrap_or(1), 0),
            Form::Raw | Form::Kept => seen_text(bytes, b""),
            Form::Lines => seen_text(bytes, b"\r\n"),
            Form::Delimited => seen_text(bytes, DELIMITER),
            Form::Web | Form::WebText | Form::WebCalls => Seen::Wrong, // another codec reads it
        }
    }

    /// Whether a frame in this form may begin so. `None`: what follows must tell.
    fn begins(self, first: u8) -> Option<bool> {
        match self {
            Form::Length => Some(first == 0),
            Form::Summed => Some(first == SUMMED_BEGINS),
            Form::Field => Some(first == FIELD_BEGINS),
            Form::Varint => Some(first > *TEXT_BEGINS.end()),
            _ if !TEXT_BEGINS.contains(&first) => Some(false),
            _ => None,
        }
    }

    /// What stands behind each text.
    fn end(self) -> &'static [u8] {
        match self {
            Form::Lines => b"\r\n",
            Form::Delimited => DELIMITER,
            _ => b"",
        }
    }

    fn is_text(self) -> bool {
        self.begins(*TEXT_BEGINS.start()).is_none()
    }

    /// Whether a peer sees which of the two a frame has.
    pub(crate) fn may_become(self, other: Form) -> bool {
        let both_end = !self.end().is_empty() && !other.end().is_empty();
        self != other && (both_end || !self.is_text() || !other.is_text())
    }

    /// Whether the frame at the front has this form and not the other, of which it may become this. `None`: more must
    /// come.
    pub(crate) fn has_begun(self, other: Form, bytes: &[u8]) -> Option<bool> {
        let first = *bytes.first()?;
        if !self.is_text() || !other.is_text() {
            return Some(self.begins(first).unwrap_or(true));
        }
        let end = bytes.iter().position(|byte| *byte == TEXT_END)? + 1;
        Some(bytes.get(end)? == self.end().first()?)
    }

    /// Whether frames in another form can lie unseen behind one that is not whole.
    pub(crate) fn sees_no_end_in(self, other: Form) -> bool {
        self == Form::Delimited && other != self && self.may_become(other)
    }

    /// Bytes that are no frame, or of a frame that is just too large; and what is said of them.
    pub(crate) fn refused(self, way: u64) -> Option<(Vec<u8>, Refusal)> {
        let over = FRAME_BYTES_MAX + 1;
        let too_large = Refusal::TooLarge { max: FRAME_BYTES_MAX as u64 };
        let mut bytes = Vec::new();
        let said = match (self, way % 3) {
            (Form::Raw | Form::Fixed, _) => return None,
            // It is announced, and perhaps does not come.
            (Form::Length, 0) => {
                bytes.extend((over as u32).to_be_bytes());
                too_large
            }
            (Form::Field, 0) => {
                bytes.extend([FIELD_BEGINS, 0, FIELD_HEADER_BYTES as u8 - 1]);
                Refusal::LengthTooSmall
            }
            (Form::Varint, 0) => {
                bytes.extend([0xFF; VARINT_BYTES_MAX as usize]);
                Refusal::Said("the length has too many bytes")
            }
            (Form::Summed, 0) => {
                bytes.extend([SUMMED_BEGINS + 1, 0, 0]);
                Refusal::Said(NO_BEGIN)
            }
            (Form::Summed, 1) => {
                self.write(b"summed;", &mut bytes);
                bytes.last_mut().into_iter().for_each(|sum| *sum ^= 1);
                Refusal::Said(WRONG_SUM)
            }
            (Form::Kept, _) => {
                bytes = vec![b'x'; over - 1];
                bytes.push(TEXT_END);
                too_large
            }
            _ => {
                self.write(&vec![b'x'; over], &mut bytes);
                match self {
                    Form::Summed => Refusal::TooLarge { max: Summed.wire_frame_bytes_max() as u64 },
                    _ => too_large,
                }
            }
        };
        Some((bytes, said))
    }
}

fn seen_text(bytes: &[u8], end: &[u8]) -> Seen {
    let Some(last) = bytes.iter().position(|byte| *byte == TEXT_END) else { return Seen::More };
    let rest = &bytes[last + 1..];
    match rest.starts_with(end) {
        true => Seen::Frame(0..last + 1, last + 1 + end.len()),
        false if end.starts_with(rest) => Seen::More,
        false => Seen::Wrong,
    }
}

fn sum_of(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0, |sum: u8, byte| sum.wrapping_mul(3).wrapping_add(*byte))
}

/// A byte that says so, a length of two bytes, the frame, and a sum. It adds up what comes as it comes: what is passed
/// from look to look is how far it is, and the sum so far.
struct Summed;

impl CustomFraming for Summed {
    fn wire_frame_bytes_max(&self) -> usize {
        3 + FRAME_BYTES_MAX + 1
    }

    fn cut(&self, bytes: &[u8], scanned: usize) -> Cut {
        let refused = |reason| Cut::Refused(FramingError::Refused { reason });
        if bytes.first().is_some_and(|first| *first != SUMMED_BEGINS) {
            return refused(NO_BEGIN);
        }
        let Some(length) = bytes.get(1..3) else { return Cut::More { bytes_min: 3, scanned: 0 } };
        let frame_bytes = usize::from(u16::from_be_bytes([length[0], length[1]]));
        let Some(so_far) = bytes[3..].get(scanned >> 8..frame_bytes.min(bytes.len() - 3)) else {
            return refused("it was not scanned so far");
        };
        let add = |sum: u8, byte: &u8| sum.wrapping_mul(3).wrapping_add(*byte);
        let (sum, at) = (so_far.iter().fold(scanned as u8, add), (scanned >> 8) + so_far.len());
        match bytes.get(3 + frame_bytes) {
            None => {
                Cut::More { bytes_min: 3 + frame_bytes + 1, scanned: at << 8 | usize::from(sum) }
            }
            Some(said) if *said == sum => {
                Cut::Frame { header_bytes: 3, frame_bytes, trailer_bytes: 1 }
            }
            Some(_) => refused(WRONG_SUM),
        }
    }

    fn envelope(&self, frame: Parts<'_>) -> Result<Envelope, FramingError> {
        let (bytes, max) = (frame.bytes() as u64, FRAME_BYTES_MAX as u64);
        let Some(length) = u16::try_from(bytes).ok().filter(|_| bytes <= max) else {
            return Err(FramingError::FrameTooLarge { bytes, max });
        };
        // Much may happen while a frame is encoded: its session may get another framing.
        may_switch();
        may_block();
        let [high, low] = length.to_be_bytes();
        let sum = frame.iter().fold(0, |sum: u8, byte| sum.wrapping_mul(3).wrapping_add(byte));
        Envelope::new(&[SUMMED_BEGINS, high, low], &[sum])
    }
}

#[cfg(test)]
mod tests {
    use wharf::SessionId;

    use super::*;
    use crate::frames::{Message, Shape};

    fn texts() -> Vec<Vec<u8>> {
        let text = Shape::Text { bytes: None };
        let of = |(number, bytes)| {
            Message { to: SessionId::from_bits(9), sender: 3, number }.write(bytes, text)
        };
        [(1, 0), (2, 100), (3, 127), (4, 128), (5, 129), (6, 9_000)].map(of).to_vec()
    }

    /// As the server sends it.
    fn sent(form: Form, frame: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        form.write(frame, &mut bytes);
        if form == Form::Lines {
            bytes.truncate(frame.len());
            bytes.extend(b"\r\n");
        }
        bytes
    }

    #[test]
    fn a_peer_sees_each_frame_when_it_is_whole_and_not_before() {
        for form in Form::ALL.into_iter().filter(|form| *form != Form::Fixed) {
            for frame in texts() {
                let bytes = sent(form, &frame);
                assert_eq!(bytes.len() - frame.len(), form.envelope_bytes(frame.len()), "{form:?}");
                for count in 0..bytes.len() {
                    assert_eq!(form.see(&bytes[..count], None), Seen::More, "{form:?} {count}");
                }
                let start = bytes.windows(frame.len()).position(|part| part == frame).unwrap();
                let seen = form.see(&[&bytes[..], &bytes[..]].concat(), None);
                assert_eq!(seen, Seen::Frame(start..start + frame.len(), bytes.len()));
            }
        }
    }

    #[test]
    fn of_two_forms_a_peer_sees_which_it_is() {
        for one in Form::ALL {
            for other in Form::ALL.into_iter().filter(|other| one.may_become(*other)) {
                for frame in texts() {
                    let (before, after) = (sent(one, &frame), sent(other, &frame));
                    let rest = b"!";
                    assert_eq!(other.has_begun(one, &[&before[..], rest].concat()), Some(false));
                    assert_eq!(other.has_begun(one, &[&after[..], rest].concat()), Some(true));
                }
            }
        }
    }
}
