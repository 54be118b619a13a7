//! The last word to a session.

use crate::engine::{Content, FAREWELL_BYTES_MAX};

/// The last word to a session, which is closed with it: why it ends, for its peer and for
/// [`Handler::closed`](crate::Handler::closed). See [`Handle::close_with`](crate::Handle::close_with).
///
/// ```no_run
/// # use wharf::{Farewell, Handle, SessionId};
/// # fn kick(handle: &Handle, id: SessionId) -> Result<(), wharf::EncodeError<Farewell>> {
/// handle.close_with(id, Farewell::new(7).frame("you were idle for an hour"))?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Farewell {
    /// A number of the program's, for [`CloseReason::Kicked`](crate::CloseReason::Kicked). Over WebSocket it is the code
    /// of the Close frame, if peers may send it (3000 to 4999, and those of RFC 6455, 7.4.1, that are not reserved); if
    /// not, the frame has 1008.
    pub code: u32,
    /// The last frame that the peer gets; `None`: it gets none.
    pub frame: Option<Vec<u8>>,
    is_text: bool,
}

impl Farewell {
    /// The most bytes that the frame and its header may have: 1,024.
    pub const WIRE_BYTES_MAX: usize = FAREWELL_BYTES_MAX;

    /// With this code and no frame.
    pub fn new(code: u32) -> Self {
        Farewell { code, frame: None, is_text: false }
    }

    /// Sets [`frame`](field@Self::frame).
    #[must_use]
    pub fn frame(mut self, frame: impl Into<Vec<u8>>) -> Self {
        (self.frame, self.is_text) = (Some(frame.into()), false);
        self
    }

    /// Sets [`frame`](field@Self::frame) to a text. Over WebSocket it is sent as one, and is the reason in the Close frame
    /// too, as far as that has room (123 bytes).
    #[must_use]
    pub fn text(mut self, text: impl Into<String>) -> Self {
        (self.frame, self.is_text) = (Some(text.into().into_bytes()), true);
        self
    }

    pub(super) fn content(&self) -> Option<Content<'_>> {
        let frame = self.frame.as_deref()?;
        let text = std::str::from_utf8(frame).ok().filter(|_| self.is_text);
        Some(text.map_or(Content::Plain(frame), Content::Text))
    }
}
