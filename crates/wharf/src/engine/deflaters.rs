//! Compressors, for whichever thread sends.

use crate::guarded::caught;
use crate::sync::Mutex;
use crate::transport::web_socket::Deflater;

/// Compressors at rest, some 270 KiB each; at most as many as there are workers.
#[derive(Debug)]
pub(super) struct Deflaters {
    at_rest: Mutex<Vec<Deflater>>,
    at_rest_max: usize,
}

impl Deflaters {
    pub(super) fn new(workers: usize) -> Self {
        Deflaters { at_rest: Mutex::default(), at_rest_max: workers }
    }

    /// A frame in parts, with so many bytes together, compressed at this level. `None`: that makes it no shorter.
    pub(super) fn deflate<'p>(
        &self,
        level: u8,
        parts: impl Iterator<Item = &'p [u8]>,
        bytes: usize,
    ) -> Option<Vec<u8>> {
        let mut deflater = self.take(level);
        // What is not ours may panic; then the frame is sent as it is, and the compressor is not used again.
        let deflated = caught(|| deflater.deflate(parts, bytes))?;
        let mut at_rest = self.at_rest.lock();
        if at_rest.len() < self.at_rest_max {
            at_rest.push(deflater);
        }
        deflated
    }

    fn take(&self, level: u8) -> Deflater {
        let mut at_rest = self.at_rest.lock();
        let place = at_rest.iter().rposition(|deflater| deflater.level() == level);
        let found = place.map(|place| at_rest.swap_remove(place));
        drop(at_rest);
        found.unwrap_or_else(|| Deflater::new(level))
    }
}
