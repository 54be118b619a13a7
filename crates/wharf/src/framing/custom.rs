//! A framing of the program's.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use super::cut::{Cut, FramingError};
use super::parts::Parts;
use crate::buffer::Envelope;
use crate::guarded::guarded;

/// A framing of the program's: where in a stream a frame ends, and what stands around a frame that is sent.
///
/// It keeps nothing between calls, and does no I/O; several threads call it at once. It must not block, and must not
/// call back into wharf. If it panics while it cuts, the session ends with
/// [`CloseReason::HandlerPanicked`](crate::CloseReason::HandlerPanicked).
///
/// ```
/// use wharf::{Cut, CustomFraming, Envelope, Framing, FramingError, Parts};
///
/// /// A magic byte, a length of two bytes, the frame, and a byte that all bytes of the frame add up to.
/// struct Checked;
///
/// const MAGIC: u8 = 0xA7;
///
/// impl CustomFraming for Checked {
///     fn wire_frame_bytes_max(&self) -> usize {
///         3 + 65_535 + 1
///     }
///
///     fn cut(&self, bytes: &[u8], _scanned: usize) -> Cut {
///         if bytes.first().is_some_and(|magic| *magic != MAGIC) {
///             return Cut::Refused(FramingError::Refused { reason: "no magic byte" });
///         }
///         let Some(length) = bytes.get(1..3) else {
///             return Cut::More { bytes_min: 3, scanned: 0 };
///         };
///         let frame_bytes = usize::from(u16::from_be_bytes([length[0], length[1]]));
///         let Some(frame) = bytes.get(3..3 + frame_bytes + 1) else {
///             return Cut::More { bytes_min: 3 + frame_bytes + 1, scanned: 0 };
///         };
///         match frame.split_last() {
///             Some((sum, frame)) if frame.iter().fold(0, |sum: u8, byte| sum.wrapping_add(*byte)) == *sum => {
///                 Cut::Frame { header_bytes: 3, frame_bytes, trailer_bytes: 1 }
///             }
///             _ => Cut::Refused(FramingError::Refused { reason: "a wrong sum" }),
///         }
///     }
///
///     fn envelope(&self, frame: Parts<'_>) -> Result<Envelope, FramingError> {
///         let bytes = frame.bytes() as u64;
///         let Ok(length) = u16::try_from(bytes) else {
///             return Err(FramingError::FrameTooLarge { bytes, max: u16::MAX.into() });
///         };
///         let [high, low] = length.to_be_bytes();
///         let sum = frame.iter().fold(0, |sum: u8, byte| sum.wrapping_add(byte));
///         Envelope::new(&[MAGIC, high, low], &[sum])
///     }
/// }
///
/// let framing = Framing::custom(Checked);
/// # let _ = framing;
/// ```
pub trait CustomFraming: Send + Sync + 'static {
    /// The most bytes that a frame has on the wire, with what stands before and behind it. A frame that needs more ends
    /// its session with [`CloseReason::FrameTooLarge`](crate::CloseReason::FrameTooLarge). Frames that are sent are not
    /// held to it, since answers may be larger than what is asked; [`envelope`](Self::envelope) may refuse them.
    fn wire_frame_bytes_max(&self) -> usize;

    /// Looks for the frame that begins at the start of `bytes`. `scanned` is 0 at the first look at a frame, and then
    /// what the last look has said ([`Cut::More`]); the bytes of that look are still there. Nothing is allocated for a
    /// frame before it has come, so a length can be judged in time.
    fn cut(&self, bytes: &[u8], scanned: usize) -> Cut;

    /// What stands before and behind a frame that is sent. Default: nothing.
    ///
    /// # Errors
    /// The frame cannot be sent.
    fn envelope(&self, frame: Parts<'_>) -> Result<Envelope, FramingError> {
        let _ = frame;
        Ok(Envelope::default())
    }
}

/// A program's framing, held to what a framing promises.
#[derive(Clone)]
pub(super) struct Custom {
    framing: Arc<dyn CustomFraming>,
    name: &'static str,
    pub(super) wire_frame_bytes_max: usize,
}

impl Custom {
    pub(super) fn new<F: CustomFraming>(framing: F) -> Self {
        let wire_frame_bytes_max = framing.wire_frame_bytes_max().max(1);
        Custom {
            framing: Arc::new(framing),
            name: std::any::type_name::<F>(),
            wire_frame_bytes_max,
        }
    }

    pub(super) fn cut(&self, bytes: &[u8], scanned: usize) -> Cut {
        let Some(cut) = guarded(|| self.framing.cut(bytes, scanned)) else {
            return Cut::Refused(FramingError::Panicked);
        };
        let max = self.wire_frame_bytes_max;
        let too_large = |bytes: usize| {
            Cut::Refused(FramingError::FrameTooLarge { bytes: bytes as u64, max: max as u64 })
        };
        match cut {
            Cut::Frame { header_bytes, frame_bytes, trailer_bytes } => {
                let total = header_bytes.checked_add(frame_bytes);
                match total.and_then(|total| total.checked_add(trailer_bytes)) {
                    Some(0) => refused("its framing cut a frame of no bytes"),
                    Some(total) if total <= bytes.len().min(max) => cut,
                    Some(total) if total <= bytes.len() => too_large(total),
                    _ => refused("its framing cut a frame of more bytes than there were"),
                }
            }
            Cut::More { bytes_min, .. } if bytes_min > max => too_large(bytes_min),
            Cut::More { .. } if bytes.len() >= max => too_large(bytes.len() + 1),
            Cut::More { bytes_min, scanned } => Cut::More {
                bytes_min: bytes_min.max(bytes.len() + 1),
                scanned: scanned.min(u32::MAX as usize),
            },
            Cut::Refused(_) => cut,
        }
    }

    pub(super) fn envelope(&self, frame: Parts<'_>) -> Result<Envelope, FramingError> {
        guarded(|| self.framing.envelope(frame)).unwrap_or(Err(FramingError::Panicked))
    }
}

fn refused(reason: &'static str) -> Cut {
    Cut::Refused(FramingError::Refused { reason })
}

/// Two that share the program's value are equal.
impl PartialEq for Custom {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.framing, &other.framing)
    }
}

impl Eq for Custom {}

impl Hash for Custom {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Arc::as_ptr(&self.framing).cast::<()>().hash(state);
    }
}

impl fmt::Debug for Custom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Custom").field(&format_args!("{}", self.name)).finish()
    }
}
