//! shuttle's: every access is a place where another thread may go on. All are sequentially
//! consistent; what weaker orders allow is loom's to show.

pub(crate) use std::cell::UnsafeCell;

pub(crate) use ::shuttle::sync::atomic::{
    AtomicBool, AtomicU8, AtomicU16, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence,
};
pub(crate) use ::shuttle::sync::{Condvar, Mutex, MutexGuard};
pub(crate) use ::shuttle::thread::yield_now;
