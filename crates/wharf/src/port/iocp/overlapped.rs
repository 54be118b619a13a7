//! How the OS names an operation: by the address of its OVERLAPPED.
//!
//! It lies in a record that never moves and is not freed while the port lives (invariant 6). So the OS may
//! write to it at any time, and a thread that takes a packet may always read it. From the call that posts the
//! operation until its packet was taken, it belongs to the OS, like the memory that the operation owns
//! (invariant 7).

use std::cell::UnsafeCell;
use std::os::windows::io::AsRawSocket;

use socket2::Socket;
use windows_sys::Win32::Foundation::HANDLE;
use windows_sys::Win32::Networking::WinSock::{SOCKET, WSAGetOverlappedResult};
use windows_sys::Win32::System::IO::{CancelIoEx, OVERLAPPED};

use super::error::{Fault, last_code};
use super::port::Packet;
use crate::port::OperationKind;
use crate::sync::{AtomicU32, Ordering};

/// The OS's part comes first, so its address is the address of the whole.
#[repr(C)]
pub(super) struct Overlapped {
    of_the_os: UnsafeCell<OVERLAPPED>,
    /// The record that it lies in, and that record's generation when it was posted.
    record: AtomicU32,
    generation: AtomicU32,
    /// A post failed with this error, and wharf made the packet for it. 0: the OS's result counts.
    told: AtomicU32,
    pub(super) kind: OperationKind,
    /// The index among the accepts; 0 for other kinds.
    pub(super) place: u32,
}

const _: () = assert!(std::mem::offset_of!(Overlapped, of_the_os) == 0);

impl Overlapped {
    pub(super) fn new(kind: OperationKind, place: u32) -> Self {
        Overlapped {
            of_the_os: UnsafeCell::new(OVERLAPPED::default()),
            record: AtomicU32::new(u32::MAX),
            generation: AtomicU32::new(0),
            told: AtomicU32::new(0),
            kind,
            place,
        }
    }

    /// # Safety
    /// The packet was taken from the port, or made by [`Self::packet`], and the shared port that contains the
    /// overlapped outlives `'a`.
    pub(super) unsafe fn of<'a>(packet: Packet) -> &'a Self {
        // SAFETY: the OS gets only pointers made by `pointer`, each to a whole `Overlapped` that never moves
        // while the shared port lives (invariant 6).
        unsafe { &*packet.overlapped.cast::<Overlapped>() }
    }

    /// Prepares it for the next post.
    ///
    /// # Safety
    /// The caller has begun the operation: the OS does not have it, and no other thread posts it.
    pub(super) unsafe fn prepare(&self, record: u32, generation: u32) {
        // SAFETY: the caller promises that no thread accesses it now (invariants 1 and 7).
        unsafe { *self.of_the_os.get() = OVERLAPPED::default() };
        self.told.store(0, Ordering::Relaxed);
        self.record.store(record, Ordering::Relaxed);
        // Release: the thread that takes its packet sees what was written to the operation before.
        self.generation.store(generation, Ordering::Release);
    }

    /// For the OS. It stays valid while the port lives.
    pub(super) fn pointer(&self) -> *mut OVERLAPPED {
        std::ptr::from_ref(self).cast_mut().cast()
    }

    pub(super) fn packet(&self, count: u32) -> Packet {
        Packet { overlapped: self.pointer(), count }
    }

    /// The generation and the index of its record.
    pub(super) fn name(&self) -> (u32, u32) {
        let generation = self.generation.load(Ordering::Acquire);
        (generation, self.record.load(Ordering::Relaxed))
    }

    /// Sets the meaning of the next packet. The post's call failed, so the OS does not have it.
    pub(super) fn tell(&self, code: u32) {
        self.told.store(code, Ordering::Release);
    }

    /// The operation's result. `count` is from the packet.
    ///
    /// # Safety
    /// The caller has taken the operation's packet, so the OS no longer has it.
    pub(super) unsafe fn result(&self, socket: &Socket, count: u32) -> Result<u32, Fault> {
        let told = self.told.swap(0, Ordering::Acquire);
        if told != 0 {
            return Err(Fault { code: told, count: 0 });
        }
        // SAFETY: the caller promises that the OS does not write to it any more (invariant 7).
        let status = unsafe { (*self.of_the_os.get()).Internal } as i32;
        if status >= 0 {
            return Ok(count);
        }
        // SAFETY: as above.
        Err(Fault { code: unsafe { self.code_of_failure(socket) }, count })
    }

    /// Lets Winsock translate the status into one of its own errors.
    ///
    /// # Safety
    /// The operation was posted for this socket, its packet was taken, and it has failed.
    unsafe fn code_of_failure(&self, socket: &Socket) -> u32 {
        let (mut count, mut flags) = (0, 0);
        // SAFETY: the socket is open, because its owner is borrowed. The caller promises that the operation
        // has completed, so this does not wait, and writes only to the two variables.
        let succeeded = unsafe {
            WSAGetOverlappedResult(
                socket.as_raw_socket() as SOCKET,
                self.pointer(),
                &raw mut count,
                0,
                &raw mut flags,
            )
        };
        debug_assert_eq!(succeeded, 0, "its status was a failure");
        last_code()
    }

    /// Asks the OS to end it. Does nothing if the OS does not have it.
    pub(super) fn cancel(&self, socket: usize) {
        // SAFETY: the OS searches for an operation with this address, and reads nothing through it. The
        // socket may have been closed since, after another thread took the completion. Then the handle is
        // unused, or belongs to a socket without an operation at this address, or to this operation, posted
        // anew and asked to end (`State::cancel_if_asked`).
        unsafe { CancelIoEx(socket as HANDLE, self.pointer()) };
    }
}

impl std::fmt::Debug for Overlapped {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Overlapped({:?} {} of {:?})", self.kind, self.place, self.record)
    }
}
