//! The locks, atomics and cells that several threads share, in one place, so that a model checker can replace
//! them without changes above.
//!
//! - A usual build uses the standard library's types unchanged.
//! - With the feature `simulation` and debug assertions, each access is also a step, at which a simulated
//!   world may let another thread run.
//! - With `--cfg loom` they are loom's, which runs a model through every execution that the memory model
//!   allows.
//! - With `--cfg shuttle` they are shuttle's, which draws schedules at random, for models too large to
//!   explore completely.
//!
//! The models are in `models/`; `ci/loom.sh` and `ci/shuttle.sh` run them.

#[cfg(any(loom, shuttle))]
mod checked_once_lock;
mod chosen;
#[cfg(unix)]
mod gate;
#[cfg(loom)]
mod loom;
#[cfg(all(feature = "simulation", debug_assertions, not(any(loom, shuttle))))]
mod pauses;
#[cfg(all(shuttle, not(loom)))]
mod shuttle;
#[cfg(not(any(all(feature = "simulation", debug_assertions), loom, shuttle)))]
mod standard;
#[cfg(all(feature = "simulation", debug_assertions, not(any(loom, shuttle))))]
mod stepped;
#[cfg(all(feature = "simulation", debug_assertions, not(any(loom, shuttle))))]
pub(crate) mod steps;
#[cfg(not(all(feature = "simulation", debug_assertions, not(any(loom, shuttle)))))]
#[path = "no_steps.rs"]
pub(crate) mod steps;

#[cfg(any(loom, shuttle))]
pub(crate) use self::checked_once_lock::OnceLock;
pub(crate) use self::chosen::*;
#[cfg(unix)]
pub(crate) use self::gate::Gate;
