//! For builds without steps: does nothing.

/// Counts nothing here.
#[derive(Debug)]
pub(crate) struct Counted;

#[inline]
pub(crate) fn user_code() -> Counted {
    Counted
}

#[cfg(feature = "simulation")]
pub(crate) fn undivided() -> Counted {
    Counted
}

#[cfg(feature = "simulation")]
pub(crate) fn begin() {}

#[cfg(feature = "simulation")]
pub(crate) fn pause(_seed: u64, _one_in: u32) -> bool {
    false
}

#[cfg(feature = "simulation")]
pub(crate) fn end() {}
