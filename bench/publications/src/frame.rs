//! What is inside the frames: those that are published, and those with which server and load agree.

use clap::ValueEnum;

/// Whom a member is and what it wants: the first frame of a session. The server sends it back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Hello {
    /// Counts from 0; [`CONTROL`] is the load itself.
    pub(crate) number: u32,
    pub(crate) group: u8,
    pub(crate) policy: Policy,
}

/// The number of the session that is no member: the load says on it when to begin, and the server when it is done.
pub(crate) const CONTROL: u32 = u32::MAX;

/// What becomes of a member that cannot keep up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Policy {
    Close,
    Skip,
    Latest,
}

impl Hello {
    pub(crate) const BYTES: usize = 6;

    pub(crate) fn bytes(self) -> [u8; Hello::BYTES] {
        let [a, b, c, d] = self.number.to_le_bytes();
        [a, b, c, d, self.group, self.policy as u8]
    }

    pub(crate) fn read(bytes: &[u8]) -> Option<Hello> {
        let [a, b, c, d, group, policy] = *bytes else { return None };
        let policy = *Policy::value_variants().get(usize::from(policy))?;
        Some(Hello { number: u32::from_le_bytes([a, b, c, d]), group, policy })
    }
}

/// What is said on the control session, one byte and then numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Control {
    /// The load: all members are there; and, later, it has heard that nothing waits.
    GoOn,
    /// The server: so many frames were published in each stream, and no more will be.
    Published([u64; STREAMS]),
    /// The server: nothing waits any more.
    Idle,
}

impl Control {
    pub(crate) fn bytes(self) -> Vec<u8> {
        match self {
            Control::GoOn => vec![1],
            Control::Idle => vec![2],
            Control::Published(frames) => {
                [3].into_iter().chain(frames.into_iter().flat_map(u64::to_le_bytes)).collect()
            }
        }
    }

    pub(crate) fn read(bytes: &[u8]) -> Option<Control> {
        match bytes {
            [1] => Some(Control::GoOn),
            [2] => Some(Control::Idle),
            [3, rest @ ..] => {
                let (numbers, []) = rest.as_chunks::<8>() else { return None };
                let numbers: [[u8; 8]; STREAMS] = numbers.try_into().ok()?;
                Some(Control::Published(numbers.map(u64::from_le_bytes)))
            }
            _ => None,
        }
    }
}

/// The streams of frames that are numbered on their own, by the group that hears them; [`DIRECT`] is sent to each
/// session by its id.
pub(crate) const STREAMS: usize = 3;
pub(crate) const FLOOD: u8 = 0;
pub(crate) const PACED: u8 = 1;
pub(crate) const DIRECT: u8 = 2;

/// The beginning of a published frame. What follows is computed from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) stream: u8,
    pub(crate) key: u32,
    pub(crate) sequence: u64,
    /// When it was published.
    pub(crate) at_ns: u64,
}

impl Head {
    pub(crate) const BYTES: usize = 24;

    /// Fills a whole frame, of at least [`Head::BYTES`].
    pub(crate) fn write(self, frame: &mut [u8]) {
        let (head, body) = frame.split_at_mut(Head::BYTES);
        head[..8]
            .copy_from_slice(&(u64::from(self.key) << 8 | u64::from(self.stream)).to_le_bytes());
        head[8..16].copy_from_slice(&self.sequence.to_le_bytes());
        head[16..].copy_from_slice(&self.at_ns.to_le_bytes());
        let mut word = self.first_word();
        let (words, tail) = body.as_chunks_mut::<8>();
        for place in words {
            *place = word.to_le_bytes();
            word = word.wrapping_add(STEP);
        }
        tail.copy_from_slice(&word.to_le_bytes()[..tail.len()]);
    }

    /// `None`: it is not as it was published.
    pub(crate) fn read(frame: &[u8]) -> Option<Head> {
        let (head, body) = frame.split_first_chunk::<{ Head::BYTES }>()?;
        let (numbers, _) = head.as_chunks::<8>();
        let [first, sequence, at_ns] = [0, 1, 2].map(|index| u64::from_le_bytes(numbers[index]));
        let key = u32::try_from(first >> 8).ok()?;
        let head = Head { stream: first as u8, key, sequence, at_ns };
        let mut word = head.first_word();
        let mut difference = 0;
        let (words, tail) = body.as_chunks::<8>();
        for bytes in words {
            difference |= u64::from_le_bytes(*bytes) ^ word;
            word = word.wrapping_add(STEP);
        }
        (difference == 0 && *tail == word.to_le_bytes()[..tail.len()]).then_some(head)
    }

    fn first_word(self) -> u64 {
        (self.sequence ^ self.at_ns).wrapping_mul(STEP) ^ u64::from(self.key)
    }
}

const STEP: u64 = 0x9E37_79B9_7F4A_7C15;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_read_as_it_was_written_and_one_wrong_byte_is_seen() {
        for bytes in Head::BYTES..80 {
            let head = Head { stream: PACED, key: 77, sequence: 5, at_ns: 1 << 40 };
            let mut frame = vec![0; bytes];
            head.write(&mut frame);
            assert_eq!(Head::read(&frame), Some(head));
            for at in Head::BYTES..bytes {
                frame[at] ^= 4;
                assert_eq!(Head::read(&frame), None, "byte {at} of {bytes}");
                frame[at] ^= 4;
            }
            let mut other = vec![0; bytes];
            Head { sequence: 6, ..head }.write(&mut other);
            if bytes >= Head::BYTES + 8 {
                other[8] = 5;
                assert_eq!(Head::read(&other), None, "the head of one and the rest of another");
            }
        }
        assert_eq!(Head::read(&[0; Head::BYTES - 1]), None);
    }

    #[test]
    fn what_is_agreed_comes_back_as_it_was_said() {
        let hello = Hello { number: 300, group: 2, policy: Policy::Latest };
        assert_eq!(Hello::read(&hello.bytes()), Some(hello));
        assert_eq!(Hello::read(&[0, 0, 0, 0, 1, 9]), None);
        for control in [Control::GoOn, Control::Idle, Control::Published([1, 2, 3])] {
            assert_eq!(Control::read(&control.bytes()), Some(control));
        }
        assert_eq!(Control::read(&[3, 0]), None);
    }
}
