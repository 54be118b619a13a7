//! How a peer reads what arrives: it checks every byte.

use std::collections::{HashMap, HashSet};

use crate::frames::{Frame, Kind, cut_frames};
use crate::rules::{Rule, Violation};
use crate::wires::Wire;

/// What has come to a peer.
#[derive(Debug, Default)]
pub(crate) struct Reader {
    /// How frames come.
    pub(crate) wire: Wire,
    /// Whose frames these are, as the first that names a session says.
    pub(crate) session: Option<u64>,
    /// Frames by their senders.
    pub(crate) got: HashMap<u64, u32>,
    /// Publications, in the order in which they came: publisher and number.
    pub(crate) published: Vec<(u64, u32)>,
    /// To which group each was.
    pub(crate) groups: HashMap<(u64, u32), u64>,
    /// The code of the farewell, which is the last frame.
    pub(crate) farewell: Option<u32>,
    pub(crate) frames: u64,
    pub(crate) bytes: u64,
    last: HashMap<u64, u32>,
    once: HashSet<u32>,
    stream: Vec<u8>,
}

impl Reader {
    pub(crate) fn of(wire: Wire) -> Reader {
        Reader { wire, ..Reader::default() }
    }

    /// Takes bytes as they come.
    pub(crate) fn take(&mut self, bytes: &[u8], mut broken: impl FnMut(Violation)) {
        self.bytes += bytes.len() as u64;
        let mut stream = std::mem::take(&mut self.stream);
        stream.extend_from_slice(bytes);
        let wire = self.wire;
        let cut = cut_frames(&mut stream, wire, |frame| {
            if let Some((rule, what)) = self.frame(frame) {
                broken(Violation { rule, what });
            }
            true
        });
        if cut.is_err() {
            let front = &stream[..stream.len().min(8)];
            let what = format!("{front:?} came to {:?} as {wire:?}", self.session);
            broken(Violation { rule: Rule::FramesArriveWhole, what });
            stream.clear();
        }
        self.stream = stream;
    }

    /// The stream has ended: is anything left of a frame?
    pub(crate) fn unfinished_bytes(&self) -> usize {
        self.stream.len()
    }

    fn frame(&mut self, frame: &[u8]) -> Option<(Rule, String)> {
        self.frames += 1;
        let Some(Frame { kind, to, from, number }) = Frame::read(frame) else {
            let what = format!("a frame came torn to {:?}, {} bytes", self.session, frame.len());
            return Some((Rule::FramesArriveWhole, what));
        };
        let me = self.session;
        if let Some(code) = self.farewell {
            let what = format!("{me:?} got {kind:?} {number} of {from:#x} after farewell {code}");
            return Some((Rule::FarewellsComeLast, what));
        }
        let is_direct = matches!(kind, Kind::Direct | Kind::OnceDirect | Kind::Farewell);
        if is_direct && *self.session.get_or_insert(to) != to {
            let what = format!("{me:?} got frame {number} of {from:#x}, which was to {to}");
            return Some((Rule::FramesReachTheirSession, what));
        }
        match kind {
            Kind::Direct => {
                let next = self.got.entry(from).or_default();
                let expected = std::mem::replace(next, number + 1);
                (expected != number).then(|| {
                    let what = format!("{me:?} got frame {number} of {from:#x}, not {expected}");
                    (Rule::FramesArriveInOrder, what)
                })
            }
            Kind::Published => {
                self.published.push((from, number));
                self.groups.insert((from, number), to);
                let last = self.last.insert(from, number)?;
                (last >= number).then(|| {
                    let what = format!("{me:?} got publication {number} of {from:#x} after {last}");
                    (Rule::FramesArriveInOrder, what)
                })
            }
            Kind::Farewell => {
                self.farewell = Some(number);
                None
            }
            Kind::OnceDirect | Kind::OncePublished => (!self.once.insert(number)).then(|| {
                (Rule::FramesArriveInOrder, format!("{me:?} got the one frame {number} twice"))
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: Kind, to: u64, from: u64, number: u32) -> Vec<u8> {
        Frame { kind, to, from, number }.write(40, true)
    }

    fn rules(reader: &mut Reader, bytes: &[u8]) -> Vec<Rule> {
        let mut rules = Vec::new();
        // However they come.
        for part in bytes.chunks(7) {
            reader.take(part, |violation| rules.push(violation.rule));
        }
        rules
    }

    #[test]
    fn frames_in_order_break_no_rule() {
        let mut reader = Reader::default();
        let mut bytes = frame(Kind::Published, 0, 8, 3);
        bytes.extend(frame(Kind::Direct, 5, 1, 0));
        bytes.extend(frame(Kind::Direct, 5, 2, 0));
        bytes.extend(frame(Kind::Direct, 5, 1, 1));
        bytes.extend(frame(Kind::Published, 0, 8, 9));
        bytes.extend(frame(Kind::OnceDirect, 5, 0, 7));
        assert_eq!(rules(&mut reader, &bytes), []);
        assert_eq!((reader.session, reader.got[&1], reader.frames), (Some(5), 2, 6));
        assert_eq!(reader.published, [(8, 3), (8, 9)]);
        assert_eq!(reader.unfinished_bytes(), 0);
        assert_eq!(rules(&mut reader, &frame(Kind::Direct, 5, 1, 2)[..20]), []);
        assert_eq!(reader.unfinished_bytes(), 20);
    }

    #[test]
    fn a_wrong_byte_is_seen() {
        let mut bytes = frame(Kind::Direct, 5, 1, 0);
        bytes[30] ^= 1;
        assert_eq!(rules(&mut Reader::default(), &bytes), [Rule::FramesArriveWhole]);
        let without_sense = [0xFF; 16];
        assert!(rules(&mut Reader::default(), &without_sense).contains(&Rule::FramesArriveWhole));
    }

    #[test]
    fn a_strangers_frame_is_seen() {
        let mut bytes = frame(Kind::Direct, 5, 1, 0);
        bytes.extend(frame(Kind::Direct, 6, 1, 0));
        bytes.extend(frame(Kind::OnceDirect, 6, 0, 0));
        let expected = [Rule::FramesReachTheirSession; 2];
        assert_eq!(rules(&mut Reader::default(), &bytes), expected);
    }

    #[test]
    fn a_frame_after_the_farewell_is_seen() {
        for kind in [Kind::Direct, Kind::Published, Kind::OncePublished, Kind::Farewell] {
            let mut reader = Reader::default();
            let bytes = [frame(Kind::Farewell, 5, 1, 70), frame(kind, 5, 1, 0)].concat();
            assert_eq!(rules(&mut reader, &bytes), [Rule::FarewellsComeLast]);
            assert_eq!(reader.farewell, Some(70));
        }
    }

    #[test]
    fn a_frame_left_out_or_doubled_is_seen() {
        for numbers in [[0, 2], [0, 0], [1, 2]] {
            let bytes = numbers.map(|number| frame(Kind::Direct, 5, 1, number)).concat();
            assert_eq!(rules(&mut Reader::default(), &bytes), [Rule::FramesArriveInOrder]);
        }
        for kind in [Kind::Published, Kind::OnceDirect, Kind::OncePublished] {
            let bytes = [frame(kind, 5, 1, 4), frame(kind, 5, 1, 4)].concat();
            assert_eq!(rules(&mut Reader::default(), &bytes), [Rule::FramesArriveInOrder]);
        }
    }
}
