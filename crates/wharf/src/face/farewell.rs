//! The last word to a session.

use crate::engine::FAREWELL_BYTES_MAX;

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
    /// A number of the program's, for [`CloseReason::Kicked`](crate::CloseReason::Kicked).
    pub code: u32,
    /// The last frame that the peer gets; `None`: it gets none.
    pub frame: Option<Vec<u8>>,
}

impl Farewell {
    /// The most bytes that the frame and its header may have: 1,024.
    pub const WIRE_BYTES_MAX: usize = FAREWELL_BYTES_MAX;

    /// With this code and no frame.
    pub fn new(code: u32) -> Self {
        Farewell { code, frame: None }
    }

    /// Sets [`frame`](field@Self::frame).
    #[must_use]
    pub fn frame(mut self, frame: impl Into<Vec<u8>>) -> Self {
        self.frame = Some(frame.into());
        self
    }
}
