//! The bytes a session sends, and the check that all of them came back: once, in order, and no others.
//!
//! A session's stream is a sequence of 8-byte words. Each is computed from the session's seed and the word's
//! position. So a byte that is lost, duplicated, swapped or from another session changes everything after it,
//! wherever the stream is cut. One multiplication per word, because the check runs for every byte and must
//! not dominate the measurement.

use std::fmt;

use super::MAYBE_WEB_SOCKET;
use crate::arguments::FramingName;

/// What one session sends, as a function of the place in its stream.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pattern {
    seed: u64,
    /// Bits that every word has, and the only ones that it may have.
    has: u64,
    may_have: u64,
}

/// Bits that each byte of a text has, and the only ones that it may have: ASCII, and no byte that ends a line.
const TEXT_HAS: u64 = u64::from_ne_bytes([0x40; 8]);
const TEXT_MAY_HAVE: u64 = u64::from_ne_bytes([0x7f; 8]);

impl Pattern {
    /// The pattern of one session in one run. Runs differ too, so that two load testers at one
    /// server cannot pass off each other's bytes.
    pub(super) fn of_session(run_seed: u64, index: u64) -> Pattern {
        Pattern { seed: splitmix(run_seed ^ splitmix(index)), has: 0, may_have: u64::MAX }
    }

    /// The same, as ASCII without bytes that end a line if it `is_text`.
    pub(super) fn as_text(self, is_text: bool) -> Pattern {
        if is_text { Pattern { has: TEXT_HAS, may_have: TEXT_MAY_HAVE, ..self } } else { self }
    }

    /// Writes the stream's bytes from `position` on.
    pub(super) fn fill(self, position: u64, bytes: &mut [u8]) {
        let (head, body) = bytes.split_at_mut(head_length(position, bytes.len()));
        let mut word_index = position / 8;
        if !head.is_empty() {
            let start = (position % 8) as usize;
            head.copy_from_slice(&self.word(word_index)[start..start + head.len()]);
            word_index += 1;
        }
        let mut words = body.chunks_exact_mut(8);
        for word in &mut words {
            word.copy_from_slice(&self.word(word_index));
            word_index += 1;
        }
        let tail = words.into_remainder();
        tail.copy_from_slice(&self.word(word_index)[..tail.len()]);
    }

    /// Whether these are the stream's bytes from `position` on.
    fn matches(self, position: u64, bytes: &[u8]) -> bool {
        let (head, body) = bytes.split_at(head_length(position, bytes.len()));
        let mut word_index = position / 8;
        if !head.is_empty() {
            let start = (position % 8) as usize;
            if *head != self.word(word_index)[start..start + head.len()] {
                return false;
            }
            word_index += 1;
        }
        let (words, tail) = body.as_chunks::<8>();
        let mut difference = 0;
        for word in words {
            difference |= u64::from_ne_bytes(*word) ^ u64::from_ne_bytes(self.word(word_index));
            word_index += 1;
        }
        difference == 0 && *tail == self.word(word_index)[..tail.len()]
    }

    /// The word at this place, as it stands in the stream. For one seed no two places have the
    /// same word, unless it is text: both steps before that can be undone.
    fn word(self, index: u64) -> [u8; 8] {
        let mixed = (self.seed ^ index).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        ((mixed ^ (mixed >> 32)) & self.may_have | self.has).to_le_bytes()
    }

    fn byte(self, position: u64) -> u8 {
        self.word(position / 8)[(position % 8) as usize]
    }

    /// What is wrong with bytes that do not match: told apart by what does match further on.
    fn diagnose(self, position: u64, bytes: &[u8]) -> Fault {
        /// So many bytes that fit elsewhere are no accident.
        const EVIDENCE_BYTES: usize = 8;
        const SHIFT_BYTES_MAX: usize = 256;
        let same = bytes.iter().zip(position..).take_while(|(byte, at)| **byte == self.byte(*at));
        let offset = same.count();
        let (rest, position) = (&bytes[offset..], position + offset as u64);
        let shown = |from: usize| rest.get(from..from + EVIDENCE_BYTES);
        for shift in 1..=SHIFT_BYTES_MAX {
            let later = position + shift as u64;
            if shown(0).is_some_and(|bytes| self.matches(later, bytes)) {
                return Fault::Missing { position, bytes: shift };
            }
            if shown(shift).is_some_and(|bytes| self.matches(position, bytes)) {
                return Fault::Extra { position, bytes: shift };
            }
        }
        let got = rest.first().copied().unwrap_or_default();
        Fault::Wrong { position, due: self.byte(position), got }
    }
}

/// How many bytes there are before the stream's next word begins.
fn head_length(position: u64, length: usize) -> usize {
    ((8 - position % 8) as usize % 8).min(length)
}

fn splitmix(state: u64) -> u64 {
    let mut mixed = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ (mixed >> 31)
}

/// What the replies of a server are to be.
#[derive(Clone, Copy)]
pub(super) struct Replies {
    pub(super) framing: FramingName,
    /// Of each message.
    pub(super) bytes: usize,
}

/// Whether an answer is HTTP's. A framing may have taken its first byte for a header.
fn is_http(frame: &[u8]) -> bool {
    frame.starts_with(b"HTTP/1.") || frame.starts_with(b"TTP/1.")
}

/// Follows the replies of one session.
pub(super) struct Verifier {
    pattern: Pattern,
    position: u64,
}

impl Verifier {
    pub(super) fn new(pattern: Pattern) -> Verifier {
        Verifier { pattern, position: 0 }
    }

    /// Takes what came next, when `sent_bytes` had been sent since the start.
    pub(super) fn take(&mut self, bytes: &[u8], sent_bytes: u64) -> Result<(), Fault> {
        let due = sent_bytes.saturating_sub(self.position);
        let asked_for = bytes.len().min(usize::try_from(due).unwrap_or(usize::MAX));
        if !self.pattern.matches(self.position, &bytes[..asked_for]) {
            return Err(self.pattern.diagnose(self.position, bytes));
        }
        self.position += asked_for as u64;
        match bytes.len() - asked_for {
            0 => Ok(()),
            bytes => Err(Fault::Extra { position: self.position, bytes }),
        }
    }

    /// The same of a whole frame, which must be as the replies are.
    pub(super) fn take_frame(
        &mut self,
        frame: &[u8],
        is_text: bool,
        replies: Replies,
        sent_bytes: u64,
    ) -> Result<(), Fault> {
        let Replies { framing, bytes: due } = replies;
        let bytes = frame.len();
        let is_first = self.position == 0;
        let taken = if framing.is_web_socket() && is_text != framing.is_text() {
            Err(Fault::Kind { is_text })
        } else if framing.is_framed() && bytes != due {
            Err(Fault::FrameLength { bytes, due })
        } else {
            self.take(frame, sent_bytes)
        };
        taken.map_err(|fault| if is_first && is_http(frame) { Fault::Http } else { fault })
    }

    /// How many bytes were right so far.
    pub(super) fn position(&self) -> u64 {
        self.position
    }
}

/// What was wrong with a reply, and where in the session's stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    Wrong {
        position: u64,
        due: u8,
        got: u8,
    },
    Missing {
        position: u64,
        bytes: usize,
    },
    Extra {
        position: u64,
        bytes: usize,
    },
    FrameLength {
        bytes: usize,
        due: usize,
    },
    /// A message is text, or is not, though what was sent is not, or is.
    Kind {
        is_text: bool,
    },
    /// The server takes a message for a request.
    Http,
}

impl Fault {
    /// The kind of error, for counting.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Fault::Wrong { .. } => "wrong byte",
            Fault::Missing { .. } => "missing byte",
            Fault::Extra { .. } => "extra byte",
            Fault::FrameLength { .. } => "wrong frame length",
            Fault::Kind { .. } => "wrong kind of message",
            Fault::Http => "answered by HTTP",
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = self.kind();
        match self {
            Fault::Wrong { position, due, got } => {
                write!(f, "{kind} at {position} of the stream: {got:#04x}, not {due:#04x}")
            }
            Fault::Missing { position, bytes } | Fault::Extra { position, bytes } => {
                write!(f, "{kind} at {position} of the stream: {bytes} of them")
            }
            Fault::FrameLength { bytes, due } => write!(f, "{kind}: {bytes}, not {due}"),
            Fault::Kind { is_text: true } => write!(f, "{kind}: text, not binary"),
            Fault::Kind { is_text: false } => write!(f, "{kind}: binary, not text"),
            Fault::Http => write!(f, "{kind}{MAYBE_WEB_SOCKET}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATTERN: Pattern = Pattern { seed: 0x1234_5678_9ABC_DEF0, has: 0, may_have: u64::MAX };

    fn stream(length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        PATTERN.fill(0, &mut bytes);
        bytes
    }

    fn take(bytes: &[u8], sent_bytes: u64) -> Result<(), Fault> {
        Verifier::new(PATTERN).take(bytes, sent_bytes)
    }

    #[test]
    fn the_stream_is_the_same_however_it_is_cut() {
        let whole = stream(200);
        for from in 0..40 {
            for to in from..100 {
                let mut part = vec![0; to - from];
                PATTERN.fill(from as u64, &mut part);
                assert_eq!(part, whole[from..to]);
                assert!(PATTERN.matches(from as u64, &part));
            }
        }
        for step in 1..30 {
            let mut verifier = Verifier::new(PATTERN);
            for part in whole.chunks(step) {
                verifier.take(part, 200).unwrap();
            }
            assert_eq!(verifier.position(), 200);
        }
    }

    #[test]
    fn one_flipped_bit_anywhere_is_a_wrong_byte_at_its_place() {
        let whole = stream(100);
        for index in 0..100 {
            for bit in 0..8 {
                let mut bytes = whole.clone();
                bytes[index] ^= 1 << bit;
                let (due, got) = (whole[index], bytes[index]);
                let fault = Fault::Wrong { position: index as u64, due, got };
                assert_eq!(take(&bytes, 100), Err(fault));
            }
        }
    }

    #[test]
    fn lost_doubled_and_foreign_bytes_are_told_apart() {
        let whole = stream(400);
        for (index, count) in [(0, 1), (7, 1), (63, 1), (100, 64), (8, 8)] {
            let mut lost = whole.clone();
            lost.drain(index..index + count);
            assert_eq!(take(&lost, 400).unwrap_err().kind(), "missing byte", "{index} {count}");
            let mut doubled = whole.clone();
            doubled.splice(index..index, whole[index..index + count].to_vec());
            assert_eq!(take(&doubled, 400).unwrap_err().kind(), "extra byte", "{index} {count}");
        }
        let mut swapped = whole.clone();
        swapped[64..192].rotate_left(64);
        assert!(take(&swapped, 400).is_err());
        let mut foreign = vec![0; 400];
        Pattern { seed: 1, ..PATTERN }.fill(0, &mut foreign);
        assert!(take(&foreign, 400).is_err());
    }

    #[test]
    fn text_is_ascii_without_a_byte_that_ends_a_line_and_is_checked_like_the_rest() {
        let pattern = Pattern::of_session(1, 2).as_text(true);
        let mut bytes = vec![0; 100_000];
        pattern.fill(3, &mut bytes);
        assert!(bytes.iter().all(|byte| byte.is_ascii() && ![b'\n', b'\r'].contains(byte)));
        assert!(pattern.matches(3, &bytes) && !Pattern::of_session(1, 2).matches(3, &bytes));
        bytes[77_777] ^= 1;
        assert!(!pattern.matches(3, &bytes));
    }

    #[test]
    fn a_byte_that_was_never_sent_is_extra_even_if_it_continues_the_pattern() {
        assert_eq!(take(&stream(65), 64), Err(Fault::Extra { position: 64, bytes: 1 }));
        assert_eq!(take(&stream(64), 64), Ok(()));
    }

    #[test]
    fn sessions_and_runs_have_streams_of_their_own() {
        let mut seen = std::collections::HashSet::new();
        for run in 0..10 {
            for index in 0..1000 {
                assert!(seen.insert(Pattern::of_session(run, index).word(0)));
            }
        }
    }
}
