//! Runs user code on wharf's threads, so that a panic in it does as little as possible (invariant 10).
//!
//! User code is not only callbacks but also destructors: of a session's state, of the handler, and of the
//! value that a callback panicked with.

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::sync::steps::user_code;

/// Runs user code. `None`: it panicked.
pub(crate) fn guarded<R>(code: impl FnOnce() -> R) -> Option<R> {
    caught(|| {
        let _user_code = user_code();
        code()
    })
}

/// Runs code that calls user code. `None`: it panicked.
pub(crate) fn caught<R>(code: impl FnOnce() -> R) -> Option<R> {
    match catch_unwind(AssertUnwindSafe(code)) {
        Ok(result) => Some(result),
        Err(payload) => {
            end(payload);
            None
        }
    }
}

/// Drops a user's value.
pub(crate) fn end<T>(value: T) {
    let dropped = catch_unwind(AssertUnwindSafe(|| {
        let _user_code = user_code();
        drop(value);
    }));
    if let Err(payload) = dropped {
        // Its own destructor may panic too, so it is leaked.
        std::mem::forget(payload);
    }
}

/// A user's value, or none. It can be dropped anywhere, even while this thread unwinds.
#[derive(Debug)]
pub(crate) struct Guarded<T>(Option<T>);

impl<T> Guarded<T> {
    pub(crate) fn new(value: Option<T>) -> Self {
        Guarded(value)
    }

    pub(crate) fn as_mut(&mut self) -> Option<&mut T> {
        self.0.as_mut()
    }

    pub(crate) fn take(&mut self) -> Option<T> {
        self.0.take()
    }
}

impl<T> Default for Guarded<T> {
    fn default() -> Self {
        Guarded(None)
    }
}

impl<T> Drop for Guarded<T> {
    fn drop(&mut self) {
        if let Some(value) = self.0.take() {
            end(value);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::panic::panic_any;

    use super::*;

    /// Panics when dropped, with another of its kind.
    struct Dreadful;

    impl Drop for Dreadful {
        fn drop(&mut self) {
            panic_any(Dreadful);
        }
    }

    #[test]
    fn code_that_panics_with_what_panics_when_it_is_dropped_has_merely_panicked() {
        assert_eq!(guarded(|| 3), Some(3));
        assert_eq!(guarded(|| -> u8 { panic_any(Dreadful) }), None);
    }

    #[test]
    fn a_value_whose_destructor_panics_is_dropped_anywhere_also_while_unwinding() {
        drop(Guarded::new(Some(Dreadful)));
        let unwound = guarded(|| {
            let _state = Guarded::new(Some(Dreadful));
            panic!("ours");
        });
        assert_eq!(unwound, None::<()>);
        let mut taken = Guarded::new(Some(7));
        assert_eq!((taken.take(), taken.as_mut()), (Some(7), None));
    }

    #[test]
    fn it_takes_no_more_room_than_the_value() {
        assert_eq!(size_of::<Guarded<()>>(), size_of::<Option<()>>());
    }
}
