//! What follows when a session's buffers are freed when it is closed, rather than when the completions
//! of what was outstanding have come?
//!
//! An operation is posted with a block of an arena. The session is closed, in several ways, and its
//! block is given back at once; the next owner of a block gets that one, writes into it, and
//! touches it no more. Is it a little later what was written, and has the old session's peer got
//! any of it? The arena makes this visible without memory that belongs to nobody: the block is
//! valid throughout, only its owner has changed, which is what a real allocator does too.

mod arena;
#[cfg(windows)]
mod iocp;
mod peer;
#[cfg(unix)]
mod readiness;
#[cfg(target_os = "linux")]
mod uring;

use instruments::{Table, is_quick, verdict};

/// How a session is closed. The last is the right way; the others free the block at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Closing {
    /// The socket is closed, and that is all.
    Close,
    /// As `Close`, but somebody has a duplicate of its handle: a child process that inherited it, say.
    CloseDuplicated,
    /// A cancel is asked for, and has been handed to the OS.
    Cancel,
    /// A cancel is noted, to be handed to the OS with the next batch.
    CancelNextBatch,
    /// As `Cancel`, but the block is freed when the completion has been taken.
    CancelAndAwait,
}

/// What is outstanding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operation {
    /// A receive, for which bytes have come when the session is closed.
    ReceiveBytesBefore,
    /// A receive, for which bytes come when the session was closed.
    ReceiveBytesAfter,
    /// A send, which waits for the peer to read, which it does when the session was closed.
    Send,
}

/// What became of the next owner.
#[derive(Debug, Clone, Copy, Default)]
struct Found {
    /// What had been the operation's buffer was written to, or its new bytes went to the old peer.
    harmed: bool,
    /// What had been the OVERLAPPED was written to, on a port that has such a thing.
    overlapped_changed: bool,
}

type Trial = fn(Closing, Operation) -> Found;

/// The trials in which the next owner was harmed: by the buffer, by what had been the OVERLAPPED.
fn count(trial: Trial, closing: Closing, operation: Operation, trials: usize) -> [usize; 2] {
    let mut harmed = [0; 2];
    for _ in 0..trials {
        let found = trial(closing, operation);
        harmed[0] += usize::from(found.harmed);
        harmed[1] += usize::from(found.overlapped_changed);
    }
    harmed
}

fn main() {
    let trials = if is_quick() { 10 } else { 200 };
    #[cfg(target_os = "linux")]
    let ports = [
        ("uring, DEFER_TASKRUN", uring::trial_deferring as Trial),
        ("uring, no flag", uring::trial_without_flags),
        ("uring, SQPOLL", uring::trial_polled),
        ("readiness", readiness::trial),
    ];
    #[cfg(all(unix, not(target_os = "linux")))]
    let ports = [("readiness", readiness::trial as Trial)];
    #[cfg(windows)]
    let ports = [("iocp", iocp::trial as Trial)];

    println!("Of {trials} trials each, those in which the next owner of the block was harmed:\n");
    let mut table = Table::new([
        "port, and how the session is closed",
        "receive, bytes before",
        "bytes after",
        "send",
        "OVERLAPPED of the three",
    ]);
    let (mut harmed_any, mut as_it_should_be) = (false, true);
    for (port, trial) in ports {
        // Where nothing is lent, nothing can be written.
        let lends = port != "readiness";
        for (closing, does) in [
            (Closing::Close, "socket closed"),
            (Closing::CloseDuplicated, "socket closed, a duplicate is open"),
            (Closing::Cancel, "cancelled"),
            (Closing::CancelNextBatch, "to be cancelled with the next batch"),
            (Closing::CancelAndAwait, "cancelled, freed at the completion"),
        ] {
            let harmed =
                [Operation::ReceiveBytesBefore, Operation::ReceiveBytesAfter, Operation::Send]
                    .map(|operation| count(trial, closing, operation, trials));
            let sum: usize = harmed.iter().flatten().sum();
            if closing == Closing::CancelAndAwait || !lends {
                as_it_should_be &= sum == 0;
            } else {
                harmed_any |= sum > 0;
            }
            let overlapped = harmed.map(|harmed| harmed[1].to_string()).join(", ");
            table.row([
                format!("{port}: {does}"),
                harmed[0][0].to_string(),
                harmed[1][0].to_string(),
                harmed[2][0].to_string(),
                if cfg!(windows) { overlapped } else { "-".to_owned() },
            ]);
        }
    }
    println!("{table}");
    verdict(
        harmed_any && as_it_should_be,
        "a block that is freed before the completion is written to, or sent, under its next owner",
    );
}
