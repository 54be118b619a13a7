//! Pages about one matter each, for which there are several types.

#[doc = include_str!("browsers.md")]
pub mod browsers {}
