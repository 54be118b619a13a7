//! The completion port itself: created, filled with packets, taken from.

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

/// The most packets that one call takes. The rest stays for the other handles. Few enough that a slow handler
/// delays few other sessions, and enough for replies to share a send.
pub(super) const PACKETS_MAX: usize = 16;

/// The key of every socket. A socket keeps the key of its first association, so the key cannot name a
/// registration.
const KEY_OPERATION: usize = 0;
const KEY_WAKE: usize = 1;

/// Owns the port's handle, and closes it last, when no thread waits or posts any more.
#[derive(Debug)]
pub(super) struct OsPort(HANDLE);

// SAFETY: the handle is a number that every thread of the process may use. The calls with it may run
// concurrently, and only Drop closes it.
unsafe impl Send for OsPort {}
// SAFETY: as above.
unsafe impl Sync for OsPort {}

/// Reports that an operation has ended: its overlapped, and the bytes it moved.
#[derive(Debug, Clone, Copy)]
pub(super) struct Packet {
    pub(super) overlapped: *mut OVERLAPPED,
    pub(super) count: u32,
}

// SAFETY: the pointer is dereferenced only with the shared port at hand, whose records are shared by all
// threads and never move (invariant 6).
unsafe impl Send for Packet {}

/// One entry of what was taken.
pub(super) enum Taken {
    Packet(Packet),
    Wake,
}

impl OsPort {
    pub(super) fn new(concurrent_threads: u32) -> io::Result<Self> {
        // SAFETY: takes no memory of ours; without a file to associate it creates a port.
        let handle = unsafe {
            CreateIoCompletionPort(INVALID_HANDLE_VALUE, ptr::null_mut(), 0, concurrent_threads)
        };
        if handle.is_null() { Err(io::Error::last_os_error()) } else { Ok(OsPort(handle)) }
    }

    /// From here on the socket's completions come to this port, as long as the socket lives.
    ///
    /// A socket that was associated before is refused as an invalid parameter, and stays associated. So is
    /// one that belongs to another port, but such a socket is never passed in.
    pub(super) fn associate(&self, socket: &Socket) -> io::Result<()> {
        let file = socket.as_raw_socket() as HANDLE;
        // SAFETY: both handles are open, because their owners are borrowed.
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

    /// Queues a packet as the OS would.
    pub(super) fn post(&self, packet: Packet) -> io::Result<()> {
        self.post_entry(packet.count, KEY_OPERATION, packet.overlapped)
    }

    pub(super) fn post_wake(&self) -> io::Result<()> {
        self.post_entry(0, KEY_WAKE, ptr::null())
    }

    fn post_entry(&self, count: u32, key: usize, overlapped: *const OVERLAPPED) -> io::Result<()> {
        // SAFETY: the handle is open; the OS passes the pointer on without dereferencing it.
        let posted = unsafe { PostQueuedCompletionStatus(self.0, count, key, overlapped) };
        if posted == 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Takes what has completed. Waits at most so many milliseconds for the first. Returns how many entries
    /// were filled: 0 after a time-out.
    pub(super) fn take(&self, entries: &mut Entries, timeout_ms: u32) -> io::Result<usize> {
        let mut count = 0;
        // SAFETY: the entries are ours during the call, and their number is right.
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
        // The result decides: not every system sets the count to 0 after a time-out.
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

// SAFETY: as for `Packet`: its pointers are dereferenced only with the shared port at hand.
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
