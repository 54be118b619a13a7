//! What does it cost to send each message by a call of its own, and what does a send queue change?
//!
//! The server side sends messages of 64 bytes to 50 sessions, from one thread or from four, in three
//! shapes: as fast as it can, ten messages to each session every 20 ms, or one every 2 ms. Each way runs in a
//! child process, whose CPU time, send operations and (if strace is there) system calls are counted;
//! the peers, in this one, read whatever comes. The ways take turns, and a figure is a median.
//!
//! And what if four threads send frames too large for the socket's buffer, each by calls of its own,
//! without a queue and without a lock? The peer counts the frames that are torn.

#[cfg(target_os = "linux")]
mod calls;
#[cfg(target_os = "linux")]
mod peers;
#[cfg(target_os = "linux")]
mod report;
#[cfg(target_os = "linux")]
mod sender;
#[cfg(target_os = "linux")]
mod torn;
#[cfg(target_os = "linux")]
mod ways;

#[cfg(target_os = "linux")]
fn main() {
    if instruments::option("way").is_some() {
        sender::run();
    } else {
        report::run();
    }
}

#[cfg(not(target_os = "linux"))]
fn main() {
    instruments::not_here("it measures system calls of Linux, and nothing is measured under Wine");
}
