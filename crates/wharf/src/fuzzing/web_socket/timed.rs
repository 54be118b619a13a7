//! The codec without a session, for `bench/web_socket`, which comes in by the fuzzer's door.

use crate::transport::web_socket::{Cutter, Found, Origins, Request, Role, mask, read};

/// Cuts the frames of a client.
#[derive(Debug)]
pub struct Cuts(Cutter);

impl Default for Cuts {
    fn default() -> Self {
        Cuts(Cutter::new(Role::Server, 1 << 16))
    }
}

impl Cuts {
    /// Hands out the messages of whole frames, as a session does with what it is lent.
    #[inline]
    pub fn messages(&mut self, bytes: &mut [u8], mut hear: impl FnMut(&[u8])) {
        let mut pass = self.0.pass(bytes);
        while !pass.is_done() {
            match self.0.next(&mut pass) {
                Ok(Found::Message { bytes, .. }) => hear(&pass.bytes[bytes]),
                other => panic!("{other:?}"),
            }
        }
        assert!(self.0.end(pass).is_empty());
    }
}

/// Masks and unmasks.
#[inline]
pub fn masks(bytes: &mut [u8], key: [u8; 4]) {
    mask(bytes, key);
}

/// Reads a good request, and answers it.
#[inline]
pub fn answers(head: &[u8]) -> String {
    match read(head, &Origins::Same) {
        Ok(Request::Upgrade { request, .. }) => request.answer(None, None),
        other => panic!("{other:?}"),
    }
}

/// Reads a good request. Returns how many bytes it has.
#[inline]
pub fn reads(head: &[u8]) -> usize {
    match read(head, &Origins::Same) {
        Ok(Request::Upgrade { head_bytes, .. }) => head_bytes,
        other => panic!("{other:?}"),
    }
}
