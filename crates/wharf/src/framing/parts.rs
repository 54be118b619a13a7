//! A frame in several pieces.

use std::io::IoSlice;

/// A frame in several pieces, which need not be joined before they are sent. It can be given to every call that takes
/// a frame.
///
/// ```
/// # fn reply(session: &wharf::Session, value: &[u8]) {
/// use std::io::IoSlice;
/// use wharf::Parts;
///
/// let length = format!("${}\r\n", value.len());
/// let parts = [length.as_bytes(), value, b"\r\n"].map(IoSlice::new);
/// session.send(Parts(&parts));
/// # }
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Parts<'a>(
    /// What follows each other in the frame.
    pub &'a [IoSlice<'a>],
);

impl<'a> Parts<'a> {
    /// How many bytes there are.
    pub fn bytes(&self) -> usize {
        // Several may lie over the same memory.
        self.0.iter().fold(0, |sum: usize, part| sum.saturating_add(part.len()))
    }

    /// The bytes, in order.
    pub fn iter(&self) -> impl Iterator<Item = u8> + 'a {
        self.0.iter().flat_map(|part| part.iter().copied())
    }
}
