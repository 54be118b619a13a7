//! An accept that continues: several AcceptEx outstanding for one listener.
//!
//! Each has a place: a socket made for the next peer, and a buffer for its addresses. The thread that took a
//! place's completion posts the place again after dealing with it, so several may be processed concurrently.
//! `outstanding` counts the places that are not at rest. The thread that brings it to 0 delivers the last
//! completion, after all others.

use std::cell::UnsafeCell;
use std::mem;
use std::net::SocketAddr;
use std::ptr;

use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use windows_sys::Win32::Networking::WinSock::{
    SO_UPDATE_ACCEPT_CONTEXT, SOCKADDR, SOCKADDR_STORAGE, SOCKET, SOL_SOCKET, setsockopt,
};

use super::calls::{Started, raw, started_if};
use super::error::{CONNECTION_ABORTED, code_of, last_code};
use super::extension::Extensions;
use super::overlapped::Overlapped;
use super::state::{FAILED, State};
use crate::port::{Accepted, OperationKind};
use crate::sync::{AtomicU32, Ordering};

/// AcceptEx wants 16 bytes more than the largest address has.
const ADDRESS_BYTES: usize = mem::size_of::<SOCKADDR_STORAGE>() + 16;

/// Aligned as an address is.
#[repr(C, align(8))]
struct Addresses([u8; 2 * ADDRESS_BYTES]);

/// One AcceptEx.
pub(super) struct Place {
    pub(super) overlapped: Overlapped,
    /// For the next peer. Belongs to the holder of the operation (invariant 2).
    socket: UnsafeCell<Option<Socket>>,
    addresses: UnsafeCell<Addresses>,
}

/// The accept of one record. Kept after the accept has ended, for the next one (invariant 6).
pub(super) struct Accepting {
    pub(super) state: State,
    pub(super) places: Box<[Place]>,
    /// Places that are not at rest.
    pub(super) outstanding: AtomicU32,
    /// Why it ends, if that was not requested. 0: nothing failed.
    error: AtomicU32,
    /// The listener's address family.
    family: AtomicU32,
}

impl Accepting {
    pub(super) fn new(places: u32) -> Self {
        Accepting {
            state: State::default(),
            places: (0..places.max(1)).map(Place::new).collect(),
            outstanding: AtomicU32::new(0),
            error: AtomicU32::new(0),
            family: AtomicU32::new(0),
        }
    }

    /// All places will be posted; none is yet.
    pub(super) fn begin(&self, family: Domain) {
        self.state.begin(OperationKind::Accept);
        self.error.store(0, Ordering::Relaxed);
        self.family.store(i32::from(family) as u32, Ordering::Relaxed);
        self.outstanding.store(self.places.len() as u32, Ordering::SeqCst);
    }

    pub(super) fn family(&self) -> Domain {
        Domain::from(self.family.load(Ordering::Relaxed) as i32)
    }

    /// It cannot continue: the other places must end too.
    pub(super) fn fail(&self, code: u32, listener: SOCKET) {
        // Only the first failure is kept.
        let _ = self.error.compare_exchange(0, code, Ordering::SeqCst, Ordering::SeqCst);
        self.ask_to_end(FAILED, listener);
    }

    pub(super) fn error(&self) -> Option<u32> {
        Some(self.error.load(Ordering::SeqCst)).filter(|code| *code != 0)
    }

    pub(super) fn ask_to_end(&self, mark: u32, listener: SOCKET) {
        self.state.ask(mark, || {
            for place in &self.places {
                place.overlapped.cancel(listener);
            }
        });
    }

    /// One place is at rest for good. True: it was the last.
    pub(super) fn rest(&self) -> bool {
        self.outstanding.fetch_sub(1, Ordering::SeqCst) == 1
    }
}

impl Place {
    fn new(index: u32) -> Self {
        Place {
            overlapped: Overlapped::new(OperationKind::Accept, index),
            socket: UnsafeCell::new(None),
            addresses: UnsafeCell::new(Addresses([0; 2 * ADDRESS_BYTES])),
        }
    }

    /// Makes a socket and lets the OS accept with it.
    ///
    /// # Safety
    /// The operation was begun and the overlapped prepared; no other thread has the place.
    pub(super) unsafe fn accept(
        &self,
        extensions: &Extensions,
        listener: SOCKET,
        family: Domain,
    ) -> Result<Started, u32> {
        let made = Socket::new(family, Type::STREAM, Some(Protocol::TCP));
        let made = made.map_err(|error| code_of(&error))?;
        let accepting = raw(&made);
        // SAFETY: invariant 2: the caller has the place.
        unsafe { *self.socket.get() = Some(made) };
        let Some(accept_ex) = extensions.accept_ex else { unreachable!("loaded with the port") };
        let mut count = 0;
        // SAFETY: the socket and the buffer lie in the place, which never moves (invariant 6) and belongs to
        // the OS until its packet was taken (invariant 7). The lengths are right.
        let succeeded = unsafe {
            accept_ex(
                listener,
                accepting,
                self.addresses.get().cast(),
                0,
                ADDRESS_BYTES as u32,
                ADDRESS_BYTES as u32,
                &raw mut count,
                self.overlapped.pointer(),
            )
        };
        started_if(succeeded)
    }

    /// Takes the socket that was made for the next peer.
    ///
    /// # Safety
    /// The caller has taken the place's packet, or its post has failed.
    pub(super) unsafe fn take_socket(&self) -> Option<Socket> {
        // SAFETY: invariant 2: the caller has the place.
        unsafe { (*self.socket.get()).take() }
    }

    /// Completes an accepted socket, so that it has addresses and can be shut down.
    ///
    /// # Safety
    /// The caller has taken the place's packet, which reported an accepted peer.
    pub(super) unsafe fn finish(
        &self,
        extensions: &Extensions,
        listener: &Socket,
        socket: Option<Socket>,
    ) -> Result<Accepted, u32> {
        let Some(socket) = socket else {
            debug_assert!(false, "invariant 2: the place had its socket");
            return Err(CONNECTION_ABORTED);
        };
        let value = raw(listener);
        // SAFETY: the value is a socket's handle, and is read during the call.
        let failed = unsafe {
            setsockopt(
                raw(&socket),
                SOL_SOCKET,
                SO_UPDATE_ACCEPT_CONTEXT,
                (&raw const value).cast(),
                mem::size_of::<SOCKET>() as i32,
            )
        };
        if failed != 0 {
            return Err(last_code());
        }
        // SAFETY: the caller promises that AcceptEx has filled the buffer.
        let peer_address = unsafe { self.peer_address(extensions) };
        Ok(Accepted { socket: socket.into(), peer_address })
    }

    /// # Safety
    /// AcceptEx has filled the buffer, and no other thread has the place.
    unsafe fn peer_address(&self, extensions: &Extensions) -> Option<SocketAddr> {
        let addresses = extensions.accept_ex_addresses?;
        let (mut ours, mut peer) = (ptr::null_mut::<SOCKADDR>(), ptr::null_mut::<SOCKADDR>());
        let (mut ours_bytes, mut peer_bytes) = (0, 0);
        // SAFETY: the buffer and the lengths are those of the AcceptEx; the results are ours.
        unsafe {
            addresses(
                self.addresses.get().cast(),
                0,
                ADDRESS_BYTES as u32,
                ADDRESS_BYTES as u32,
                &raw mut ours,
                &raw mut ours_bytes,
                &raw mut peer,
                &raw mut peer_bytes,
            );
        }
        let bytes = usize::try_from(peer_bytes).ok().filter(|bytes| *bytes <= ADDRESS_BYTES)?;
        if peer.is_null() {
            return None;
        }
        // SAFETY: `peer` points to that many bytes in our buffer. The storage has room for them, as checked
        // below, and becomes an address of that length.
        let copied = unsafe {
            SockAddr::try_init(|storage, length| {
                let room = *length as usize;
                ptr::copy_nonoverlapping(peer.cast::<u8>(), storage.cast::<u8>(), bytes.min(room));
                *length = bytes.min(room) as i32;
                Ok(())
            })
        };
        copied.ok().and_then(|((), address)| address.as_socket())
    }
}

impl std::fmt::Debug for Accepting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let outstanding = self.outstanding.load(Ordering::Relaxed);
        write!(f, "Accepting({outstanding} of {})", self.places.len())
    }
}
