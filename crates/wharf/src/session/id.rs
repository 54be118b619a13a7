//! The name of a session.

use std::fmt;
use std::str::FromStr;

/// The name of one session: 8 bytes that are never used again.
///
/// An id stays valid as a name for ever: it names its session, or nothing. It does not depend on socket
/// numbers.
///
/// The low 24 bits are the slot of the session table, the high 40 bits the *generation*: which session of that
/// slot it is. A slot serves at least 2^39 sessions and is then retired, so no server gives an id twice. At
/// 4,000 sessions a second that takes 4.4 years for each slot in use.
///
/// An id of another server, or of an earlier start, is gone here too, except by chance. Each server draws the
/// first generation of its slots from 2^39 values. A call with such an id meets a session with a probability
/// of at most 2^-39. Two servers give out a common id with a probability of at most (m + n) / 2^39, where m
/// and n are the most sessions that one slot of each has served: 1 in 270,000 if both are a million.
///
/// An id is not a secret: from one id others of the same server can be guessed.
///
/// It prints as `slot.generation`, and parses from that.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(u64);

impl SessionId {
    pub(crate) const INDEX_BITS: u32 = 24;
    const INDEX_MASK: u64 = (1 << Self::INDEX_BITS) - 1;
    /// The last generation of a slot, after which it is retired. The one value above it belongs to no
    /// session, so other tokens can use it.
    pub(crate) const GENERATION_MAX: u64 = (1 << (64 - Self::INDEX_BITS)) - 2;
    /// A server's first generation is below two to this power: the lower half, so that each slot has the
    /// upper half left.
    pub(crate) const FIRST_GENERATION_BITS: u32 = 64 - Self::INDEX_BITS - 1;

    pub(crate) fn new(index: u32, generation: u64) -> Self {
        debug_assert!(u64::from(index) <= Self::INDEX_MASK && generation <= Self::GENERATION_MAX);
        SessionId(generation << Self::INDEX_BITS | u64::from(index))
    }

    pub(crate) fn index(self) -> u32 {
        (self.0 & Self::INDEX_MASK) as u32
    }

    pub(crate) fn generation(self) -> u64 {
        self.0 >> Self::INDEX_BITS
    }

    /// The id as a number, to store or send. Its structure may change.
    pub fn to_bits(self) -> u64 {
        self.0
    }

    /// The id that [`to_bits`](Self::to_bits) returned. Any other number makes an id that names nothing.
    pub const fn from_bits(bits: u64) -> Self {
        SessionId(bits)
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.index(), self.generation())
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SessionId({self})")
    }
}

/// The text was not a session id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a session id is two numbers with a point between: slot.generation")]
pub struct ParseSessionIdError;

impl FromStr for SessionId {
    type Err = ParseSessionIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let number = |digits: &str| -> Option<u64> {
            let plain = digits.bytes().all(|byte| byte.is_ascii_digit());
            plain.then(|| digits.parse().ok()).flatten()
        };
        let parsed = text.split_once('.').and_then(|(index, generation)| {
            let index = number(index).filter(|index| *index <= Self::INDEX_MASK)?;
            let generation = number(generation).filter(|g| *g <= Self::GENERATION_MAX)?;
            Some(SessionId::new(index as u32, generation))
        });
        parsed.ok_or(ParseSessionIdError)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_survives_its_text_and_its_number() {
        for (index, generation) in
            [(0, 0), (17, 3), ((1 << 24) - 1, 1 << 39), (5, SessionId::GENERATION_MAX)]
        {
            let id = SessionId::new(index, generation);
            assert_eq!(id.to_string().parse(), Ok(id));
            assert_eq!(SessionId::from_bits(id.to_bits()), id);
            assert_eq!((id.index(), id.generation()), (index, generation));
        }
        assert_eq!(size_of::<SessionId>(), 8);
        let last = "16777215.1099511627774".parse().unwrap();
        assert_eq!(SessionId::new((1 << 24) - 1, SessionId::GENERATION_MAX), last);
        assert_eq!(format!("{last:?}"), "SessionId(16777215.1099511627774)");
    }

    #[test]
    fn what_is_no_id_is_refused() {
        for text in
            ["", "1", ".", "1.", ".1", "+1.2", "1.-2", "16777216.0", "0.1099511627775", "1.2.3"]
        {
            assert_eq!(text.parse::<SessionId>(), Err(ParseSessionIdError), "{text:?}");
        }
    }
}
