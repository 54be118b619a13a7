//! The completion port itself: made, filled with packets, taken from.

use std::io;
use std::os::windows::io::AsRawSocket;
use std::ptr;

use socket2::Socket;
use windows_sys::Win32::Foundation::{
    CloseHandle, ERROR_INVALID_PARAMETER, HANDLE, INVALID_HANDLE_VALUE, WAIT_TIMEOUT,
};
use windows_sys::Win32::System::IO::{
    CreateIoCompletionPort, GetQueuedCompletionStatusEx, OVERLAPPED, OVERLAPPED_ENTRY,
    PostQueuedCompletionStatus,
};

/// Packets that one call takes at most; the rest stay for the other handles. Few enough that a slow
/// handler holds up few others beside its own session, and enough for replies to share a send.
pub(super) const PACKETS_MAX: usize = 16;

/// The key of every socket. A socket's key is fixed with its first association, and so cannot name
/// a registration.
const KEY_OPERATION: usize = 0;
const KEY_WAKE: usize = 1;

/// Owns the port's handle, and closes it last: nobody waits or posts any more by then.
#[derive(Debug)]
pub(super) struct OsPort(HANDLE);

// SAFETY: the handle is a number that every thread of the process may use; the calls made with it
// are safe to make from several threads at the same time, and it is closed by Drop alone.
unsafe impl Send for OsPort {}
// SAFETY: as above.
unsafe impl Sync for OsPort {}

/// What says that an operation has ended: its overlapped, and the bytes it moved.
#[derive(Debug, Clone, Copy)]
pub(super) struct Packet {
    pub(super) overlapped: *mut OVERLAPPED,
    pub(super) count: u32,
}

// SAFETY: the pointer is only looked at with the shared port at hand, whose records are shared by
// all threads and never move (invariant 6).
unsafe impl Send for Packet {}

/// One entry of what was taken.
pub(super) enum Taken {
    Packet(Packet),
    Wake,
}

impl OsPort {
    pub(super) fn new(concurrent_threads: u32) -> io::Result<Self> {
        // SAFETY: takes no memory of ours; without a file to associate it makes a port.
        let handle = unsafe {
            CreateIoCompletionPort(INVALID_HANDLE_VALUE, ptr::null_mut(), 0, concurrent_threads)
        };
        if handle.is_null() { Err(io::Error::last_os_error()) } else { Ok(OsPort(handle)) }
    }

    /// From here on the socket's completions come to this port, as long as the socket lives.
    ///
    /// One that has been here before is refused as an invalid parameter, and is ours all the same.
    /// So is one that belongs to another port; nobody gives us such a socket.
    pub(super) fn associate(&self, socket: &Socket) -> io::Result<()> {
        let file = socket.as_raw_socket() as HANDLE;
        // SAFETY: both handles are open, by the borrows of their owners.
        let port = unsafe { CreateIoCompletionPort(file, self.0, KEY_OPERATION, 0) };
        if !port.is_null() {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        match error.raw_os_error() {
            Some(code) if code == ERROR_INVALID_PARAMETER as i32 => Ok(()),
            _ => Err(error),
        }
    }

    /// Queues a packet as if the OS had.
    pub(super) fn post(&self, packet: Packet) -> io::Result<()> {
        self.post_entry(packet.count, KEY_OPERATION, packet.overlapped)
    }

    pub(super) fn post_wake(&self) -> io::Result<()> {
        self.post_entry(0, KEY_WAKE, ptr::null())
    }

    fn post_entry(&self, count: u32, key: usize, overlapped: *const OVERLAPPED) -> io::Result<()> {
        // SAFETY: the handle is open; the OS passes the pointer on without looking at it.
        let posted = unsafe { PostQueuedCompletionStatus(self.0, count, key, overlapped) };
        if posted == 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Takes what has completed, waiting for the first at most so many milliseconds.
    /// Says how many entries were filled: 0 when the time has passed.
    pub(super) fn take(&self, entries: &mut Entries, timeout_ms: u32) -> io::Result<usize> {
        let mut count = 0;
        // SAFETY: the entries are ours for the time of the call, and their number is right.
        let taken = unsafe {
            GetQueuedCompletionStatusEx(
                self.0,
                entries.0.as_mut_ptr(),
                PACKETS_MAX as u32,
                &raw mut count,
                timeout_ms,
                0,
            )
        };
        // The result decides: not every system leaves the count at 0 when the time has passed.
        if taken != 0 {
            return Ok((count as usize).min(PACKETS_MAX));
        }
        let error = io::Error::last_os_error();
        match error.raw_os_error() {
            Some(code) if code == WAIT_TIMEOUT as i32 => Ok(0),
            _ => Err(error),
        }
    }
}

impl Drop for OsPort {
    fn drop(&mut self) {
        // SAFETY: the handle was opened by `new` and nobody else closes it.
        unsafe { CloseHandle(self.0) };
    }
}

/// Room for what one call takes.
pub(super) struct Entries(Box<[OVERLAPPED_ENTRY; PACKETS_MAX]>);

// SAFETY: as `Packet`: the pointers in it are only looked at with the shared port at hand.
unsafe impl Send for Entries {}

impl Entries {
    pub(super) fn new() -> Self {
        Entries(Box::new([OVERLAPPED_ENTRY::default(); PACKETS_MAX]))
    }

    pub(super) fn at(&self, index: usize) -> Taken {
        let entry = &self.0[index];
        if entry.lpCompletionKey == KEY_WAKE || entry.lpOverlapped.is_null() {
            return Taken::Wake;
        }
        let count = entry.dwNumberOfBytesTransferred;
        Taken::Packet(Packet { overlapped: entry.lpOverlapped, count })
    }
}

impl std::fmt::Debug for Entries {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Entries({PACKETS_MAX})")
    }
}
