//! Which malfunction follows when the OVERLAPPED of an operation is a local variable of the function that
//! posted it?
//!
//! Each experiment posts receives whose OVERLAPPED is on the stack of a function that has returned
//! by the time they complete, and the same once more with the OVERLAPPED in a place of its own. For
//! the local ones nobody promises anything: that they went wrong is what was seen, not what must be.

#[cfg(windows)]
mod experiments;

#[cfg(windows)]
fn main() {
    experiments::run();
}

#[cfg(not(windows))]
fn main() {
    instruments::not_here("it is about Windows: ci/lab runs it under Wine");
}
