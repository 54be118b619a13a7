//! permessage-deflate (RFC 7692), without context takeover: each message is compressed for itself. So a publication is
//! compressed once for all, and no session has a compressor.

use std::ops::RangeInclusive;

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

/// What ends the last block of a message, and is not sent (RFC 7692, 7.2.1).
const TAIL: [u8; 4] = [0, 0, 0xff, 0xff];
/// So much memory an inflater keeps between two messages.
const AT_REST_BYTES_MAX: usize = 64 * 1024;
const WINDOW_BITS: RangeInclusive<u8> = 8..=15;
const WINDOW_BITS_MAX: u8 = 15;

/// What is answered to a client that offers it, and asked for by one: that neither has a context.
pub(super) const OFFER: &str =
    "permessage-deflate; server_no_context_takeover; client_no_context_takeover";

/// What both have agreed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Agreed {
    /// The largest window that the client has room for. `None`: the largest there is.
    pub(crate) server_window_bits: Option<u8>,
}

impl Agreed {
    /// Takes one of a client's offers: the members of its `Sec-WebSocket-Extensions`.
    pub(super) fn of_offers<'a>(offers: impl Iterator<Item = &'a str>) -> Option<Agreed> {
        offers.filter_map(Agreed::of_offer).next()
    }

    fn of_offer(offer: &str) -> Option<Agreed> {
        let mut agreed = Agreed { server_window_bits: None };
        let mut seen = Vec::new();
        for (name, value) in parameters(offer)? {
            if seen.contains(&name) {
                return None;
            }
            seen.push(name);
            match (name, value) {
                ("server_no_context_takeover" | "client_no_context_takeover", None) => {}
                ("client_max_window_bits", None) => {}
                ("client_max_window_bits", Some(bits)) => drop(window_bits(bits)?),
                ("server_max_window_bits", Some(bits)) => {
                    agreed.server_window_bits = Some(window_bits(bits)?);
                }
                _ => return None,
            }
        }
        Some(agreed)
    }

    /// Takes a server's answer to [`OFFER`].
    pub(super) fn of_answer(answer: &str) -> Option<Agreed> {
        let mut agreed = Agreed { server_window_bits: None };
        let (mut seen, mut has_no_context) = (Vec::new(), false);
        for (name, value) in parameters(answer)? {
            if seen.contains(&name) {
                return None;
            }
            seen.push(name);
            match (name, value) {
                ("server_no_context_takeover", None) => has_no_context = true,
                ("client_no_context_takeover", None) => {}
                ("server_max_window_bits", Some(bits)) => {
                    agreed.server_window_bits = Some(window_bits(bits)?);
                }
                _ => return None,
            }
        }
        has_no_context.then_some(agreed)
    }

    /// What the answer to the offer says.
    pub(crate) fn answer(self) -> String {
        match self.server_window_bits {
            None => OFFER.to_owned(),
            Some(bits) => format!("{OFFER}; server_max_window_bits={bits}"),
        }
    }

    /// Whether a client has room for the window of what is compressed for all.
    pub(crate) fn takes_largest_window(self) -> bool {
        self.server_window_bits.is_none_or(|bits| bits == WINDOW_BITS_MAX)
    }
}

/// The parameters of an extension, if it is this one.
fn parameters(extension: &str) -> Option<impl Iterator<Item = (&str, Option<&str>)>> {
    let mut parts = extension.split(';').map(str::trim);
    if parts.next() != Some("permessage-deflate") {
        return None;
    }
    Some(parts.map(|part| match part.split_once('=') {
        Some((name, value)) => (name.trim_end(), Some(value.trim().trim_matches('"'))),
        None => (part, None),
    }))
}

fn window_bits(text: &str) -> Option<u8> {
    let has_its_form = !text.starts_with(['0', '+']);
    text.parse().ok().filter(|bits| has_its_form && WINDOW_BITS.contains(bits))
}

/// Compresses messages.
#[derive(Debug)]
pub(crate) struct Deflater {
    level: u8,
    compress: Compress,
}

impl Deflater {
    /// Of this level, 0 to 9.
    pub(crate) fn new(level: u8) -> Self {
        Deflater { level, compress: Compress::new(Compression::new(level.into()), false) }
    }

    pub(crate) fn level(&self) -> u8 {
        self.level
    }

    /// A message in parts, with so many bytes together, compressed. `None`: that makes it no shorter.
    pub(crate) fn deflate<'p>(
        &mut self,
        parts: impl Iterator<Item = &'p [u8]>,
        bytes: usize,
    ) -> Option<Vec<u8>> {
        self.compress.reset();
        // Room for all, whatever is in it: zlib-rs 0.6.8 panics if there is less (deflate.rs, `send_bits_overflow`).
        let mut out = Vec::with_capacity(bytes + bytes / 4 + 64);
        for part in parts {
            self.take(part, &mut out, FlushCompress::None)?;
        }
        self.take(&[], &mut out, FlushCompress::Sync)?;
        out.truncate(out.strip_suffix(&TAIL)?.len());
        (out.len() < bytes).then_some(out)
    }

    fn take(&mut self, part: &[u8], out: &mut Vec<u8>, flush: FlushCompress) -> Option<()> {
        let before = self.compress.total_in();
        self.compress.compress_vec(part, out, flush).ok()?;
        let is_taken = self.compress.total_in() - before == part.len() as u64;
        (is_taken && out.len() < out.capacity()).then_some(())
    }
}

/// Why a message cannot be inflated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum InflateError {
    /// It is not what it says.
    Broken,
    /// It would have more bytes than a message may have.
    TooLong,
}

/// Inflates messages. Each worker has one.
#[derive(Debug)]
pub(crate) struct Inflater {
    decompress: Decompress,
    out: Vec<u8>,
}

impl Inflater {
    pub(crate) fn new() -> Self {
        Inflater { decompress: Decompress::new(false), out: Vec::new() }
    }

    /// A message, inflated. It takes memory as it is inflated, and never more than about twice `bytes_max`.
    pub(crate) fn inflate(
        &mut self,
        message: &[u8],
        bytes_max: usize,
    ) -> Result<&[u8], InflateError> {
        self.decompress.reset(false);
        self.out.clear();
        for part in [message, &TAIL] {
            if !self.take(part, bytes_max)? {
                break;
            }
        }
        Ok(&self.out)
    }

    /// Takes a part. False: the stream has ended within it, which a compressor may do.
    fn take(&mut self, mut part: &[u8], bytes_max: usize) -> Result<bool, InflateError> {
        loop {
            if self.out.len() > bytes_max {
                return Err(InflateError::TooLong);
            }
            if self.out.len() == self.out.capacity() {
                let more = self.out.len().max(1024).min(bytes_max + 1);
                self.out.reserve(more);
            }
            let (taken, made) = (self.decompress.total_in(), self.out.len());
            let status = self.decompress.decompress_vec(part, &mut self.out, FlushDecompress::Sync);
            let taken = (self.decompress.total_in() - taken) as usize; // at most the part
            part = &part[taken..];
            let has_gone_on = taken > 0 || self.out.len() > made;
            match status {
                Ok(Status::StreamEnd) => return self.ended(part, bytes_max),
                Ok(_) | Err(_) if part.is_empty() && self.out.len() < self.out.capacity() => {
                    return if status.is_ok() { Ok(true) } else { Err(InflateError::Broken) };
                }
                Ok(_) if has_gone_on => {}
                _ => return Err(InflateError::Broken),
            }
        }
    }

    fn ended(&self, rest: &[u8], bytes_max: usize) -> Result<bool, InflateError> {
        match rest.len() {
            _ if self.out.len() > bytes_max => Err(InflateError::TooLong),
            // What a compressor adds behind its last block.
            0..=1 => Ok(false),
            _ if *rest == TAIL => Ok(false),
            _ => Err(InflateError::Broken),
        }
    }

    /// Gives back memory that the next message will hardly need.
    pub(crate) fn rest(&mut self) {
        self.out.clear();
        self.out.shrink_to(AT_REST_BYTES_MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deflated(message: &[u8]) -> Vec<u8> {
        deflated_by(&mut Deflater::new(6), message)
    }

    /// Also if that makes it longer.
    fn deflated_by(deflater: &mut Deflater, message: &[u8]) -> Vec<u8> {
        deflater.deflate(std::iter::once(message), message.len() + 100).unwrap()
    }

    #[test]
    fn what_is_deflated_is_inflated_again_each_message_for_itself() {
        let (mut deflater, mut inflater) = (Deflater::new(6), Inflater::new());
        for bytes in [0, 1, 5, 1_000, 65_536, 1_000_000] {
            let message: Vec<u8> =
                (0..bytes).map(|at: u32| (at / 7).wrapping_mul(at) as u8).collect();
            for size in [1_usize, 100, 100_000] {
                let parts = message.chunks(size.max(message.len() / 50).max(1));
                let short = deflater.deflate(parts, message.len() + 1_000).unwrap();
                assert_eq!(inflater.inflate(&short, message.len()), Ok(&message[..]));
                if bytes > 0 {
                    let less = message.len() - 1;
                    assert_eq!(inflater.inflate(&short, less), Err(InflateError::TooLong));
                }
            }
            inflater.rest();
            assert!(inflater.out.capacity() <= AT_REST_BYTES_MAX);
        }
    }

    /// RFC 7692, 7.2.3: one block, one without compression, one with BFINAL, two blocks.
    #[test]
    fn the_examples_of_the_standard_are_inflated() {
        let mut inflater = Inflater::new();
        let hello: [&[u8]; 4] = [
            &[0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00],
            &[0x00, 0x05, 0x00, 0xfa, 0xff, 0x48, 0x65, 0x6c, 0x6c, 0x6f, 0x00],
            &[0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0x00],
            &[0xf2, 0x48, 0x05, 0x00, 0x00, 0x00, 0xff, 0xff, 0xca, 0xc9, 0xc9, 0x07, 0x00],
        ];
        for bytes in hello {
            assert_eq!(inflater.inflate(bytes, 5), Ok(&b"Hello"[..]), "{bytes:x?}");
        }
        assert_eq!(deflated(b"Hello"), hello[0]);
        assert_eq!(inflater.inflate(&[0], 5), Ok(&b""[..]), "an empty message");
        assert_eq!(deflated(b""), [0]);
    }

    #[test]
    fn a_bomb_takes_no_more_memory_than_a_message_may_have() {
        let bomb = deflated(&vec![0; 100 << 20]);
        assert!(bomb.len() < 200_000);
        let mut inflater = Inflater::new();
        assert_eq!(inflater.inflate(&bomb, 65_536), Err(InflateError::TooLong));
        assert!(inflater.out.capacity() <= 4 * 65_536, "{}", inflater.out.capacity());
        for broken in [&[0xff; 20][..], &[0x07], &bomb[1..50]] {
            assert!(inflater.inflate(broken, 65_536).is_err(), "{broken:x?}");
        }
        assert!(inflater.inflate(&[], 65_536).is_ok());
    }

    #[test]
    fn what_grows_by_it_is_not_deflated() {
        let mut random = 1_u64;
        let noise = std::iter::repeat_with(|| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (random >> 33) as u8
        });
        let noise: Vec<u8> = noise.take(10_000).collect();
        let mut inflater = Inflater::new();
        for level in 0..=9 {
            let mut deflater = Deflater::new(level);
            for bytes in [1, 100, 1_000, noise.len()] {
                let message = &noise[..bytes];
                assert_eq!(deflater.deflate(std::iter::once(message), bytes), None);
                let text = b"one line like another\n".repeat(bytes);
                let short = deflater.deflate(std::iter::once(&text[..]), text.len());
                let inflated = inflater.inflate(short.as_deref().unwrap_or(&[0]), text.len());
                assert_eq!(inflated.unwrap().len(), if short.is_some() { text.len() } else { 0 });
            }
        }
    }

    #[test]
    fn offers_are_taken_that_can_be_kept_and_no_others() {
        let bits = |offer: &str| Agreed::of_offer(offer).map(|agreed| agreed.server_window_bits);
        assert_eq!(bits("permessage-deflate"), Some(None));
        assert_eq!(bits("permessage-deflate; client_max_window_bits"), Some(None));
        assert_eq!(bits("permessage-deflate;client_max_window_bits=9"), Some(None));
        assert_eq!(bits("permessage-deflate; server_max_window_bits=\"10\""), Some(Some(10)));
        assert_eq!(bits(OFFER), Some(None));
        for not in [
            "x-webkit-deflate-frame",
            "permessage-deflate; server_max_window_bits",
            "permessage-deflate; server_max_window_bits=7",
            "permessage-deflate; server_max_window_bits=16",
            "permessage-deflate; server_max_window_bits=09",
            "permessage-deflate; client_max_window_bits=no",
            "permessage-deflate; server_no_context_takeover=1",
            "permessage-deflate; client_no_context_takeover; client_no_context_takeover",
            "permessage-deflate; unknown",
        ] {
            assert_eq!(bits(not), None, "{not}");
        }
        let offers =
            ["permessage-deflate; unknown", "permessage-deflate; server_max_window_bits=9"];
        let agreed = Agreed::of_offers(offers.into_iter()).unwrap();
        assert!(!agreed.takes_largest_window());
        assert_eq!(Agreed::of_answer(&agreed.answer()), Some(agreed));
        assert_eq!(Agreed::of_answer("permessage-deflate"), None, "it would have a context");
        assert_eq!(Agreed::of_answer(&format!("{OFFER}; client_max_window_bits=9")), None);
    }
}
