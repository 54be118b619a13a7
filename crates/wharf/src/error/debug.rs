//! `Debug` of errors that give a frame or a note back: it is not printed. It may be large, and anything.

use std::fmt;

use super::{EncodeError, Gone, OffloadError, PublishError, SendError, TellError};

/// Stands for it.
const FRAME: fmt::Arguments<'_> = format_args!("..");

impl<T> fmt::Debug for Gone<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Gone").field(&FRAME).finish()
    }
}

fn too_large(max: usize, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    f.debug_struct("TooLarge").field("max", &max).finish_non_exhaustive()
}

fn refused(reason: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    f.debug_struct("Refused").field("reason", &reason).finish_non_exhaustive()
}

impl<T> fmt::Debug for EncodeError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            EncodeError::TooLarge { max, .. } => too_large(*max, f),
            EncodeError::Refused { reason, .. } => refused(reason, f),
        }
    }
}

impl<F> fmt::Debug for OffloadError<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OffloadError::Gone(_) => f.debug_tuple("Gone").field(&FRAME).finish(),
            OffloadError::Full { held, max, .. } => f
                .debug_struct("Full")
                .field("work", &FRAME)
                .field("held", held)
                .field("max", max)
                .finish(),
            OffloadError::NoThreads(_) => f.debug_tuple("NoThreads").field(&FRAME).finish(),
            OffloadError::NotStarted(_) => f.debug_tuple("NotStarted").field(&FRAME).finish(),
        }
    }
}

impl<N> fmt::Debug for TellError<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TellError::Gone(_) => f.debug_tuple("Gone").field(&FRAME).finish(),
            TellError::Full { waiting, max, .. } => f
                .debug_struct("Full")
                .field("waiting", waiting)
                .field("max", max)
                .finish_non_exhaustive(),
            TellError::NotStarted(_) => f.debug_tuple("NotStarted").field(&FRAME).finish(),
        }
    }
}

impl<T> fmt::Debug for SendError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SendError::Gone(_) => f.debug_tuple("Gone").field(&FRAME).finish(),
            SendError::Full { queued, max, .. } => f
                .debug_struct("Full")
                .field("queued", queued)
                .field("max", max)
                .finish_non_exhaustive(),
            SendError::TooLarge { max, .. } => too_large(*max, f),
            SendError::Refused { reason, .. } => refused(reason, f),
        }
    }
}

impl<T> fmt::Debug for PublishError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PublishError::Full { waiting, max, .. } => f
                .debug_struct("Full")
                .field("waiting", waiting)
                .field("max", max)
                .finish_non_exhaustive(),
            PublishError::TooLarge { max, .. } => too_large(*max, f),
            PublishError::Refused { reason, .. } => refused(reason, f),
            PublishError::Ending(_) => f.debug_tuple("Ending").field(&FRAME).finish(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_frame_is_printed_and_none_need_be_printable() {
        struct Frame;
        let of = |error: &dyn fmt::Debug| format!("{error:?}");
        assert_eq!(of(&Gone(Frame)), "Gone(..)");
        let too_large = EncodeError::TooLarge { bytes: Frame, max: 7 };
        assert_eq!(of(&too_large), "TooLarge { max: 7, .. }");
        let refused = EncodeError::Refused { bytes: Frame, reason: "why" };
        assert_eq!(of(&refused), "Refused { reason: \"why\", .. }");
        assert_eq!(of(&SendError::Gone(Frame)), "Gone(..)");
        let full = SendError::Full { bytes: Frame, queued: 6, max: 7 };
        assert_eq!(of(&full), "Full { queued: 6, max: 7, .. }");
        let full = PublishError::Full { bytes: Frame, waiting: 6, max: 7 };
        assert_eq!(of(&full), "Full { waiting: 6, max: 7, .. }");
        assert_eq!(of(&PublishError::Ending(Frame)), "Ending(..)");
    }
}
