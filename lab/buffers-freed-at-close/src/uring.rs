//! io_uring: the kernel takes the address, and reads or writes there when it comes to it.

use std::net::TcpStream;
use std::os::fd::AsRawFd;
use std::time::Duration;

use instruments::{connection, not_here};
use io_uring::{Builder, IoUring, opcode, types};

use crate::arena::{self, Arena, BUFFER_BYTES, Block};
use crate::{Closing, Found, Operation, peer};

const OPERATION: u64 = 1;
const CANCEL: u64 = 2;
/// How long a completion is waited for that may never come.
const MAY_COME: Duration = Duration::from_millis(10);
/// And one that must.
const MUST_COME: Duration = Duration::from_secs(5);

/// As wharf's rings are made, and as everybody is advised to make them: nothing is completed but
/// inside a call that waits for completions, and what is submitted with it goes first.
pub fn trial_deferring(closing: Closing, operation: Operation) -> Found {
    trial(IoUring::builder().setup_single_issuer().setup_defer_taskrun(), closing, operation)
}

/// No flag: operations complete whenever the thread enters or leaves the kernel.
pub fn trial_without_flags(closing: Closing, operation: Operation) -> Found {
    trial(&mut IoUring::builder(), closing, operation)
}

/// A thread of the kernel's takes what is submitted when it comes to it, here mostly after all is over.
pub fn trial_polled(closing: Closing, operation: Operation) -> Found {
    trial(IoUring::builder().setup_sqpoll(1), closing, operation)
}

fn trial(builder: &mut Builder, closing: Closing, operation: Operation) -> Found {
    let ring = builder.build(8);
    let mut ring = ring.unwrap_or_else(|error| not_here(&format!("no io_uring: {error}")));
    let mut arena = Arena::new(2);
    let (socket, peer) = connection();
    if operation == Operation::Send {
        peer::fill_the_way_to_it(&socket);
    }
    let block = arena.take();
    push(&mut ring, entry(&socket, block, operation));
    ring.submit().expect("it is posted");
    if operation == Operation::ReceiveBytesBefore {
        peer::write(&peer);
    }

    let mut ended = false;
    let mut open = None;
    match closing {
        // `drop` closes: it was ours, and nobody uses it any more. So one thinks.
        Closing::Close => drop(socket),
        Closing::CloseDuplicated => {
            open = Some(socket.try_clone().expect("a duplicate"));
            drop(socket);
        }
        Closing::Cancel => {
            push(&mut ring, cancel());
            ring.submit().expect("a cancel is posted");
            open = Some(socket);
        }
        Closing::CancelNextBatch => {
            push(&mut ring, cancel());
            open = Some(socket);
        }
        Closing::CancelAndAwait => {
            push(&mut ring, cancel());
            ended = await_completion(&mut ring, MUST_COME);
            assert!(ended, "every operation has a completion");
            open = Some(socket);
        }
    }
    arena.give_back(block);
    let other = arena.take();
    assert_eq!(block, other, "the last block given back is the next to be taken");
    arena::fill(other);

    let harmed = peer::go_on(&peer, operation, || {
        ended = ended || await_completion(&mut ring, MAY_COME);
        ended
    });
    let changed = arena::has_changed(arena::buffer(other), BUFFER_BYTES);
    // Whatever is still outstanding ends before the ring does.
    drop((open, peer));
    if !ended {
        await_completion(&mut ring, MAY_COME);
    }
    Found { harmed: harmed || changed, overlapped_changed: false }
}

fn entry(socket: &TcpStream, block: *mut Block, operation: Operation) -> io_uring::squeue::Entry {
    let (descriptor, buffer) = (types::Fd(socket.as_raw_fd()), arena::buffer(block));
    let entry = match operation {
        Operation::Send => opcode::Send::new(descriptor, buffer, BUFFER_BYTES as u32)
            .flags(libc::MSG_NOSIGNAL)
            .build(),
        _ => opcode::Recv::new(descriptor, buffer, BUFFER_BYTES as u32).build(),
    };
    entry.user_data(OPERATION)
}

fn cancel() -> io_uring::squeue::Entry {
    opcode::AsyncCancel::new(OPERATION).build().user_data(CANCEL)
}

fn push(ring: &mut IoUring, entry: io_uring::squeue::Entry) {
    // SAFETY: what the entry points to is a block, and blocks are never freed. That a block may
    // have another owner by then is the fault that is shown.
    unsafe { ring.submission().push(&entry) }.expect("there is room");
}

/// Lets completions come, until that of the operation has, or the time has passed.
fn await_completion(ring: &mut IoUring, bound: Duration) -> bool {
    let wait = types::Timespec::from(bound);
    // The completion of a cancel may come before.
    for _ in 0..2 {
        let args = types::SubmitArgs::new().timespec(&wait);
        // An error says that the time has passed.
        let timed_out = ring.submitter().submit_with_args(1, &args).is_err();
        if ring.completion().any(|entry| entry.user_data() == OPERATION) {
            return true;
        }
        if timed_out {
            return false;
        }
    }
    false
}
