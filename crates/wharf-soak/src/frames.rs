//! Frames that contain their receiver, sender and number. So a receiver notices one that is torn, lost,
//! duplicated or misdirected.
//!
//! With `Framing::raw` the program writes a length of 4 bytes before each; `wires` has what else there is.

use crate::wires::{Senseless, Wire};

/// What a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Sent to one session. Numbered by its sender, for that session.
    Direct,
    /// Published, to a group or to all. Numbered by its publisher.
    Published,
    /// Sent to one session by a call of which nobody knows what came of it.
    OnceDirect,
    /// Published by such a call.
    OncePublished,
    /// The last frame of a session, numbered by its code.
    Farewell,
}

const KINDS: [Kind; 5] =
    [Kind::Direct, Kind::Published, Kind::OnceDirect, Kind::OncePublished, Kind::Farewell];

/// A frame from the server's side to a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) kind: Kind,
    /// A session's id or a group's number.
    pub(crate) to: u64,
    pub(crate) from: u64,
    pub(crate) number: u32,
}

/// A frame from a peer to the handler.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) peer: u32,
    pub(crate) number: u32,
    pub(crate) action: u8,
}

pub(crate) const LENGTH_BYTES: usize = 4;
const FRAME_HEAD_BYTES: usize = 21;
const REQUEST_HEAD_BYTES: usize = 9;
/// So much follows the head at least, so that a changed bit of the head shows.
const BODY_BYTES_MIN: usize = 4;

impl Frame {
    /// The frame in at least so many bytes, after its length if `is_raw`.
    pub(crate) fn write(self, bytes: usize, is_raw: bool) -> Vec<u8> {
        let len = bytes.max(FRAME_HEAD_BYTES + BODY_BYTES_MIN);
        let mut into = Vec::with_capacity(LENGTH_BYTES + len);
        if is_raw {
            into.extend((len as u32).to_be_bytes());
        }
        let start = into.len();
        into.push(self.kind as u8);
        into.extend(self.to.to_be_bytes());
        into.extend(self.from.to_be_bytes());
        into.extend(self.number.to_be_bytes());
        fill(&mut into, start, len);
        into
    }

    /// `None`: it is no frame of ours, or a torn one.
    pub(crate) fn read(frame: &[u8]) -> Option<Frame> {
        let head = is_filled(frame, FRAME_HEAD_BYTES)?;
        let long = |at: usize| Some(u64::from_be_bytes(head.get(at..at + 8)?.try_into().ok()?));
        Some(Frame {
            kind: *KINDS.get(usize::from(head[0]))?,
            to: long(1)?,
            from: long(9)?,
            number: u32::from_be_bytes(head[17..].try_into().ok()?),
        })
    }
}

impl Request {
    /// The request as a peer writes it.
    pub(crate) fn write(self, bytes: usize, wire: Wire, into: &mut Vec<u8>) {
        let len = bytes.max(REQUEST_HEAD_BYTES + BODY_BYTES_MIN);
        let mut frame = Vec::with_capacity(len);
        frame.extend(self.peer.to_be_bytes());
        frame.extend(self.number.to_be_bytes());
        frame.push(self.action);
        fill(&mut frame, 0, len);
        wire.write(&frame, into);
    }

    /// `None`: it is no request of ours, or a torn one.
    pub(crate) fn read(frame: &[u8]) -> Option<Request> {
        let head = is_filled(frame, REQUEST_HEAD_BYTES)?;
        let word = |at: usize| Some(u32::from_be_bytes(head.get(at..at + 4)?.try_into().ok()?));
        Some(Request { peer: word(0)?, number: word(4)?, action: head[8] })
    }
}

/// The body follows from the head and the length.
fn fill(into: &mut Vec<u8>, start: usize, len: usize) {
    let seed = seed(&into[start..], len);
    let from = into.len() - start;
    into.extend((from..len).map(|at| byte(at, seed)));
}

/// The head, if the rest is the body that belongs to it.
fn is_filled(frame: &[u8], head_bytes: usize) -> Option<&[u8]> {
    let (head, body) = frame.split_at_checked(head_bytes)?;
    let seed = seed(head, frame.len());
    let mut bytes = (head_bytes..).zip(body);
    let is_whole =
        body.len() >= BODY_BYTES_MIN && bytes.all(|(at, found)| *found == byte(at, seed));
    is_whole.then_some(head)
}

fn seed(head: &[u8], len: usize) -> u32 {
    let step = |sum: u32, byte: &u8| (sum ^ u32::from(*byte)).wrapping_mul(0x0100_0193);
    head.iter().fold(len as u32 ^ 0x811C_9DC5, step)
}

fn byte(at: usize, seed: u32) -> u8 {
    (at as u32).wrapping_mul(0x9E37_79B1).wrapping_add(seed).to_be_bytes()[0]
}

/// Cuts whole frames from the front of what has come. `each` may end it, with false: then the rest stays.
/// An error: the rest is no frame.
pub(crate) fn cut_frames(
    stream: &mut Vec<u8>,
    wire: Wire,
    mut each: impl FnMut(&[u8]) -> bool,
) -> Result<(), Senseless> {
    let mut at = 0;
    let cut = loop {
        match wire.first(&stream[at..]) {
            Ok(Some((frame, end))) => {
                let goes_on = each(&stream[at..][frame]);
                at += end;
                if !goes_on {
                    break Ok(());
                }
            }
            Ok(None) => break Ok(()),
            Err(senseless) => break Err(senseless),
        }
    };
    stream.drain(..at);
    cut
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_one_wrong_bit_anywhere_is_seen() {
        for kind in KINDS {
            let frame = Frame { kind, to: 0x0300_0001, from: 1 << 63, number: 70_000 };
            for bytes in [0, 60, 1_000] {
                let written = frame.write(bytes, false);
                assert_eq!(Frame::read(&written), Some(frame));
                let behind_its_length = frame.write(bytes, true);
                assert_eq!(behind_its_length[LENGTH_BYTES..], written);
                assert_eq!(behind_its_length[..4], (written.len() as u32).to_be_bytes());
                for at in 0..written.len() {
                    let mut torn = written.clone();
                    torn[at] ^= 4;
                    assert_eq!(Frame::read(&torn), None, "byte {at}");
                }
                assert_eq!(Frame::read(&written[..written.len() - 1]), None);
            }
        }
        let request = Request { peer: 7, number: 3, action: 2 };
        let mut written = Vec::new();
        request.write(100, Wire::Length, &mut written);
        assert_eq!(Request::read(&written[LENGTH_BYTES..]), Some(request));
        written[LENGTH_BYTES + 50] ^= 1;
        assert_eq!(Request::read(&written[LENGTH_BYTES..]), None);
    }

    #[test]
    fn frames_are_cut_however_they_come_and_no_further_than_is_wanted() {
        let (mut stream, mut seen) = (Vec::new(), Vec::new());
        for byte in *b"\0\0\0\x02hi\0\0\0\0\0\0\0\x01!\0\0" {
            stream.push(byte);
            let cut = cut_frames(&mut stream, Wire::Length, |frame| {
                seen.push(frame.to_vec());
                true
            });
            assert_eq!(cut, Ok(()));
        }
        assert_eq!(seen, [&b"hi"[..], b"", b"!"]);
        assert_eq!(stream, b"\0\0");
        let mut stream = b"\0\0\0\x01a\0\0\0\x01b".to_vec();
        assert_eq!(cut_frames(&mut stream, Wire::Length, |_| false), Ok(()));
        assert_eq!(stream, b"\0\0\0\x01b");
    }
}
