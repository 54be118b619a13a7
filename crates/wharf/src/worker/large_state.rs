//! A large state of a session lives in an allocation of its own, from `opened` to `closed`.
//!
//! Receive halves are allocated 512 at a time and kept, each with room for a state. For a small state that
//! is best: no allocation, no pointer to follow. A large state there would cost 512 times its size at the
//! first session, and as much for good. Which states are large is known at compile time, and only then does
//! the worker run this handler in the place of the program's.

use std::sync::Arc;

use super::half::ReceiveHalf;
use crate::close::CloseReason;
use crate::face::{Handle, Handler, Internal, Session, Tells, pass_on_callbacks};
use crate::session::SessionId;

/// A state is large if the half with it would be larger than this, which with the word of its holder is four
/// cache lines. Without a state they are two, and with a box three. So a state of up to 120 bytes is small,
/// unless its alignment is unusual.
const HALF_BYTES_MAX: usize = 4 * 64 - size_of::<u32>();

/// The program's handler, whose states are large.
pub(crate) struct LargeState<H>(Arc<H>);

impl<H: Handler> LargeState<H> {
    pub(crate) const IS_NEEDED: bool = size_of::<ReceiveHalf<H::State>>() > HALF_BYTES_MAX;

    pub(crate) fn of(handler: &Arc<H>) -> Arc<Self> {
        Arc::new(LargeState(handler.clone()))
    }
}

#[deny(clippy::missing_trait_methods, reason = "each callback is passed on")]
impl<H: Handler> Handler for LargeState<H> {
    type State = Box<H::State>;

    fn opened(&self, session: &Session) -> Self::State {
        Box::new(self.0.opened(session))
    }

    fn closed(&self, session: &Session, state: Self::State, reason: CloseReason) {
        self.0.closed(session, *state, reason);
    }

    fn tells(&self, internal: Internal) -> Option<&dyn Tells<Self::State>> {
        self.0.tells(internal).is_some().then_some(self)
    }

    pass_on_callbacks!(self => self.0);
}

/// What the program's handler is told, with its state out of the box.
impl<H: Handler> Tells<Box<H::State>> for LargeState<H> {
    fn begin(&self, handle: Handle) -> bool {
        self.0.tells(Internal).is_none_or(|tells| tells.begin(handle))
    }

    fn tell_next(&self, session: &Session, state: &mut Box<H::State>) -> bool {
        self.0.tells(Internal).is_some_and(|tells| tells.tell_next(session, state))
    }

    fn forget(&self, id: SessionId, port: usize) -> u64 {
        self.0.tells(Internal).map_or(0, |tells| tells.forget(id, port))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Keeps<S>(fn() -> S);

    impl<S: Send + 'static> Handler for Keeps<S> {
        type State = S;

        fn opened(&self, _: &Session) -> S {
            (self.0)()
        }

        fn received(&self, _: &Session, _: &mut S, _: &[u8]) {}
    }

    #[test]
    fn a_state_is_large_if_a_half_would_be_too_large_with_it() {
        #[repr(align(256))]
        struct Aligned;

        fn is_large<S: Send + 'static>() -> bool {
            LargeState::<Keeps<S>>::IS_NEEDED
        }
        assert!(!is_large::<()>() && !is_large::<[u64; 15]>() && !is_large::<Vec<u8>>());
        assert!(is_large::<[u64; 18]>() && is_large::<Aligned>());
    }
}
