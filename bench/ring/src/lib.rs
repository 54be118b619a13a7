//! A thin layer over io_uring: a ring with one group of provided buffers, multishot accept and
//! receive, and sends. It knows no sessions; tokens are the caller's.

mod buffers;

use std::io;
use std::os::fd::RawFd;
use std::time::Duration;

use io_uring::types::{Fd, SubmitArgs, Timespec};
use io_uring::{IoUring, cqueue, opcode, squeue};

use buffers::{Buffers, GROUP};

/// One completion.
#[derive(Debug, Clone, Copy)]
pub struct Completion {
    pub token: u64,
    /// Bytes or a descriptor; negative is an errno.
    pub result: i32,
    flags: u32,
}

impl Completion {
    /// Whether the multishot operation goes on.
    pub fn more(&self) -> bool {
        cqueue::more(self.flags)
    }

    /// The lent buffer that the bytes are in. It must be given back.
    pub fn buffer(&self) -> Option<u16> {
        cqueue::buffer_select(self.flags)
    }
}

/// SINGLE_ISSUER | DEFER_TASKRUN: one thread's own, whose completions run when it waits.
pub struct Ring {
    ring: IoUring,
    buffers: Buffers,
}

impl Ring {
    pub fn new(entries: u32, buffers: u16, buffer_bytes: usize) -> io::Result<Ring> {
        let ring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_submit_all()
            .setup_cqsize(4 * entries)
            .build(entries)?;
        let buffers = Buffers::register(&ring, buffers, buffer_bytes)?;
        Ok(Ring { ring, buffers })
    }

    pub fn accept(&mut self, listener: RawFd, token: u64) -> io::Result<()> {
        let entry = opcode::AcceptMulti::new(Fd(listener)).flags(libc::SOCK_CLOEXEC).build();
        // SAFETY: the entry points to nothing.
        unsafe { self.push(entry.user_data(token)) }
    }

    /// A multishot receive into lent buffers.
    pub fn receive(&mut self, socket: RawFd, token: u64) -> io::Result<()> {
        let entry = opcode::RecvMulti::new(Fd(socket), GROUP).build();
        // SAFETY: the buffers belong to the ring, and end after it.
        unsafe { self.push(entry.user_data(token)) }
    }

    /// One receive of 8 bytes, as of an eventfd.
    ///
    /// # Safety
    /// `value` must stay valid until the completion.
    pub unsafe fn read_word(&mut self, fd: RawFd, value: *mut u64, token: u64) -> io::Result<()> {
        let entry = opcode::Read::new(Fd(fd), value.cast(), 8).build();
        // SAFETY: the caller's promise.
        unsafe { self.push(entry.user_data(token)) }
    }

    /// Sends all of the bytes: MSG_WAITALL takes the short sends away.
    ///
    /// # Safety
    /// The bytes must stay where they are until the completion.
    pub unsafe fn send(&mut self, socket: RawFd, bytes: &[u8], token: u64) -> io::Result<()> {
        let flags = libc::MSG_NOSIGNAL | libc::MSG_WAITALL;
        let entry = opcode::Send::new(Fd(socket), bytes.as_ptr(), bytes.len() as u32).flags(flags);
        // SAFETY: the caller's promise.
        unsafe { self.push(entry.build().user_data(token)) }
    }

    /// Sends all pieces of a message.
    ///
    /// # Safety
    /// The message, its list of pieces and the pieces must stay where they are until the completion.
    pub unsafe fn send_message(
        &mut self,
        socket: RawFd,
        message: *const libc::msghdr,
        token: u64,
    ) -> io::Result<()> {
        let flags = (libc::MSG_NOSIGNAL | libc::MSG_WAITALL) as u32;
        let entry = opcode::SendMsg::new(Fd(socket), message).flags(flags).build();
        // SAFETY: the caller's promise.
        unsafe { self.push(entry.user_data(token)) }
    }

    /// Asks for the end of an operation; its own completion is what ends it. The request itself
    /// completes with `token`.
    pub fn cancel(&mut self, operation: u64, token: u64) -> io::Result<()> {
        let entry = opcode::AsyncCancel::new(operation).build();
        // SAFETY: the entry points to nothing.
        unsafe { self.push(entry.user_data(token)) }
    }

    /// Submits what was pushed, waits for a completion or until the time is over, and adds all
    /// completions there are.
    pub fn wait(
        &mut self,
        patience: Option<Duration>,
        completions: &mut Vec<Completion>,
    ) -> io::Result<()> {
        let result = match patience {
            None => self.ring.submit_and_wait(1),
            Some(patience) => {
                let time = Timespec::from(patience);
                self.ring.submitter().submit_with_args(1, &SubmitArgs::new().timespec(&time))
            }
        };
        match result.map_err(|error| (error.raw_os_error(), error)) {
            // The time is over, a signal came, or completions must be taken first.
            Ok(_) | Err((Some(libc::ETIME | libc::EINTR | libc::EBUSY | libc::EAGAIN), _)) => {}
            Err((_, error)) => return Err(error),
        }
        completions.extend(self.ring.completion().map(|entry| Completion {
            token: entry.user_data(),
            result: entry.result(),
            flags: entry.flags(),
        }));
        Ok(())
    }

    /// The bytes in a lent buffer.
    pub fn lent(&self, buffer: u16, bytes: usize) -> &[u8] {
        self.buffers.bytes(buffer, bytes)
    }

    pub fn give_back(&mut self, buffer: u16) {
        self.buffers.give_back(buffer);
    }

    /// # Safety
    /// What the entry points to must stay valid until its completion.
    unsafe fn push(&mut self, entry: squeue::Entry) -> io::Result<()> {
        loop {
            // SAFETY: the caller's promise.
            if unsafe { self.ring.submission().push(&entry) }.is_ok() {
                return Ok(());
            }
            self.ring.submit()?;
        }
    }
}
