//! What follows when an operation that succeeds at once is dealt with inline, on the spot, rather than
//! through the port like all others?
//!
//! One busy session streams, ten quiet ones send a frame now and then and measure how long the answer
//! takes, and how much of the busy session's stream was handled in between. A small server on
//! epoll receives one time for each turn of the port, up to 16 times in a row, or for as long as the
//! receives succeed; and once more, calling itself from its own completion. wharf is put beside it.

#[cfg(target_os = "linux")]
mod by_epoll;
#[cfg(target_os = "linux")]
mod by_wharf;
#[cfg(target_os = "linux")]
mod load;
#[cfg(target_os = "linux")]
mod recursion;
#[cfg(target_os = "linux")]
mod report;

#[cfg(target_os = "linux")]
fn main() {
    if instruments::option("recurse").is_some() {
        recursion::recurse();
    }
    report::run();
}

#[cfg(not(target_os = "linux"))]
fn main() {
    instruments::not_here("its server is on epoll, and nothing is measured under Wine");
}
