//! What follows when an OVERLAPPED is a local variable of the function that posted.
//!
//! Each experiment posts receives whose OVERLAPPED is on the stack of a function that has returned
//! by the time they complete, and the same once more with the OVERLAPPED in a place of its own. It
//! prints what it saw, and ends with exit code 0 if the pinned ones did as they should; what becomes
//! of the local ones is for the reader, for nobody promises anything about them.

#[cfg(windows)]
mod experiments;

#[cfg(windows)]
fn main() {
    experiments::run();
}

#[cfg(not(windows))]
fn main() {
    eprintln!("this is about Windows: see lab/README.md");
    std::process::exit(2);
}
