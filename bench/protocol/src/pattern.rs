//! The bytes of an echo session: a row of 8-byte words, each computed from the session's seed and
//! its place in the stream, so that a byte that is lost, doubled, swapped or another session's
//! makes all that follows differ. One multiplication a word: checking must not be what is measured.

/// What one session sends, as a function of the place in its stream.
#[derive(Debug, Clone, Copy)]
pub struct Pattern {
    seed: u64,
}

impl Pattern {
    pub fn of_session(run_seed: u64, index: u64) -> Pattern {
        Pattern { seed: mix(run_seed ^ mix(index)) }
    }

    /// Appends `bytes` bytes of the stream from `position` on.
    pub fn append(self, position: u64, bytes: usize, to: &mut Vec<u8>) {
        let start = (position % 8) as usize;
        let head_bytes = ((8 - start) % 8).min(bytes);
        let index = (position + head_bytes as u64) / 8;
        let (words, tail_bytes) = ((bytes - head_bytes) as u64 / 8, (bytes - head_bytes) % 8);
        to.extend(&self.word(position / 8)[start..][..head_bytes]);
        to.extend((index..index + words).flat_map(|index| self.word(index)));
        to.extend(&self.word(index + words)[..tail_bytes]);
    }

    /// Whether these are the stream's bytes from `position` on, wherever they were cut.
    pub fn matches(self, position: u64, bytes: &[u8]) -> bool {
        let head_bytes = ((8 - position % 8) as usize % 8).min(bytes.len());
        let (head, body) = bytes.split_at(head_bytes);
        let start = (position % 8) as usize;
        if *head != self.word(position / 8)[start..][..head.len().min(8 - start)] {
            return false;
        }
        let mut index = (position + head_bytes as u64) / 8;
        let (words, tail) = body.as_chunks::<8>();
        let mut difference = 0;
        for word in words {
            difference |= u64::from_ne_bytes(*word) ^ u64::from_ne_bytes(self.word(index));
            index += 1;
        }
        difference == 0 && *tail == self.word(index)[..tail.len()]
    }

    fn word(self, index: u64) -> [u8; 8] {
        let mixed = (self.seed ^ index).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        (mixed ^ (mixed >> 32)).to_le_bytes()
    }
}

/// SplitMix64's step.
pub(crate) fn mix(state: u64) -> u64 {
    let mut mixed = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_match_wherever_they_are_cut_and_nowhere_else() {
        let pattern = Pattern::of_session(1, 2);
        let mut stream = Vec::new();
        pattern.append(0, 256, &mut stream);
        for from in 0..64 {
            for to in from..=256 {
                assert!(pattern.matches(from as u64, &stream[from..to]), "{from}..{to}");
            }
        }
        let mut in_pieces = Vec::new();
        for bytes in (0..20).chain([66]) {
            pattern.append(in_pieces.len() as u64, bytes, &mut in_pieces);
        }
        assert_eq!(in_pieces, stream, "however it is appended");
        assert!(!pattern.matches(1, &stream[..64]));
        assert!(!Pattern::of_session(1, 3).matches(0, &stream));
        stream[100] ^= 1;
        assert!(!pattern.matches(0, &stream));
    }
}
