//! What the OS knows an operation by: the address of its OVERLAPPED.
//!
//! It lies in a record that never moves and is never freed while the port lives (invariant 6), so
//! the OS may write to it at any time, and who takes a packet may always look at it. It belongs to
//! the OS from the call that posts the operation until its packet has been taken, and the memory
//! that the operation owns with it (invariant 7).

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

/// The OS's part comes first: its address is the address of the whole.
#[repr(C)]
pub(super) struct Overlapped {
    of_the_os: UnsafeCell<OVERLAPPED>,
    /// The record that it lies in, and that record's generation when it was posted.
    record: AtomicU32,
    generation: AtomicU32,
    /// A post failed with this, and the packet that says so is ours. 0: the OS has the word.
    told: AtomicU32,
    pub(super) kind: OperationKind,
    /// Which of the accepts; 0 of every other kind.
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
    /// The packet was taken from the port, or was made by [`Self::packet`], and the shared port
    /// that the overlapped lies in outlives `'a`.
    pub(super) unsafe fn of<'a>(packet: Packet) -> &'a Self {
        // SAFETY: nothing but pointers made by `pointer` is given to the OS, each to a whole
        // `Overlapped` that never moves while the shared port lives (invariant 6).
        unsafe { &*packet.overlapped.cast::<Overlapped>() }
    }

    /// Makes it ready for the next post.
    ///
    /// # Safety
    /// The caller has begun the operation: the OS does not have it, and nobody else posts it.
    pub(super) unsafe fn prepare(&self, record: u32, generation: u32) {
        // SAFETY: by the caller's promise nobody reads or writes it now (invariants 1 and 7).
        unsafe { *self.of_the_os.get() = OVERLAPPED::default() };
        self.told.store(0, Ordering::Relaxed);
        self.record.store(record, Ordering::Relaxed);
        // What was written to the operation before is seen by who takes its packet.
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

    /// Says what the next packet means. The post's call failed, so the OS does not have it.
    pub(super) fn tell(&self, code: u32) {
        self.told.store(code, Ordering::Release);
    }

    /// What came of it; `count` is from the packet.
    ///
    /// # Safety
    /// The operation's packet was taken, by the caller: it is not the OS's any more.
    pub(super) unsafe fn result(&self, socket: &Socket, count: u32) -> Result<u32, Fault> {
        let told = self.told.swap(0, Ordering::Acquire);
        if told != 0 {
            return Err(Fault { code: told, count: 0 });
        }
        // SAFETY: by the caller's promise the OS writes to it no more (invariant 7).
        let status = unsafe { (*self.of_the_os.get()).Internal } as i32;
        if status >= 0 {
            return Ok(count);
        }
        // SAFETY: as above.
        Err(Fault { code: unsafe { self.code_of_failure(socket) }, count })
    }

    /// Has Winsock translate the status: it knows which of its own errors each of them is.
    ///
    /// # Safety
    /// The operation was posted for this socket, its packet was taken, and it has failed.
    unsafe fn code_of_failure(&self, socket: &Socket) -> u32 {
        let (mut count, mut flags) = (0, 0);
        // SAFETY: the socket is open, by the borrow of its owner. By the caller's promise the operation has
        // completed, so this waits for nothing and writes but to the two variables.
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
        // SAFETY: the OS looks for an operation with this address and reads nothing through it. The
        // socket may have been closed since, when another thread took the completion: then the
        // handle is nobody's, or somebody's who has no operation with this address, unless it is
        // this one, posted anew and asked to end (`State::cancel_if_asked`).
        unsafe { CancelIoEx(socket as HANDLE, self.pointer()) };
    }
}

impl std::fmt::Debug for Overlapped {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Overlapped({:?} {} of {:?})", self.kind, self.place, self.record)
    }
}
