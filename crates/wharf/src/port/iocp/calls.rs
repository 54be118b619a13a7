//! The calls that pass an operation to the OS, with their different answers unified.
//!
//! The array of buffers is read only during the call, so it may be a local variable. The memory that the
//! buffers point to, and the OVERLAPPED, belong to the OS until the packet was taken (invariant 7).
//!
//! The socket is passed by number: before the call has returned, another thread may have taken the packet,
//! dealt with it, and ended the registration that owns the socket.

use std::io::{IoSlice, IoSliceMut};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::windows::io::AsRawSocket;
use std::ptr;

use socket2::{SockAddr, Socket};
use windows_sys::Win32::Networking::WinSock::{
    FIONREAD, SO_UPDATE_CONNECT_CONTEXT, SOCKET, SOL_SOCKET, WSA_IO_PENDING, WSABUF, WSARecv,
    WSASend, ioctlsocket, setsockopt,
};
use windows_sys::core::BOOL;

use super::error::{code_of, last_code};
use super::extension::Extensions;
use super::overlapped::Overlapped;

/// The result of a call that did not fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Started {
    /// A packet will come.
    Outstanding,
    /// It succeeded at once. A packet will come nevertheless.
    Done,
}

/// The number of bytes waiting in a socket.
pub(super) fn unread_bytes(socket: SOCKET) -> Result<u32, u32> {
    let mut bytes = 0;
    // SAFETY: FIONREAD writes one unsigned long during the call.
    let failed = unsafe { ioctlsocket(socket, FIONREAD, &raw mut bytes) };
    if failed == 0 { Ok(bytes) } else { Err(last_code()) }
}

/// # Safety
/// The operation was begun and prepared. The memory that the buffers point to stays in place and is not
/// touched until its packet was taken (invariant 7).
pub(super) unsafe fn receive(
    socket: SOCKET,
    buffers: &mut [IoSliceMut<'_>],
    overlapped: &Overlapped,
) -> Result<Started, u32> {
    let mut flags = 0;
    // SAFETY: an `IoSliceMut` has the layout of a WSABUF and is only read during the call, like the flags.
    // The rest is the caller's promise.
    let failed = unsafe {
        WSARecv(
            socket,
            buffers.as_ptr().cast::<WSABUF>(),
            buffers.len() as u32,
            ptr::null_mut(),
            &raw mut flags,
            overlapped.pointer(),
            None,
        )
    };
    started(failed == 0)
}

/// # Safety
/// As for [`receive`]; the buffers are only read.
pub(super) unsafe fn send(
    socket: SOCKET,
    buffers: &[IoSlice<'_>],
    overlapped: &Overlapped,
) -> Result<Started, u32> {
    // SAFETY: an `IoSlice` has the layout of a WSABUF and is only read during the call. The rest is the
    // caller's promise.
    let failed = unsafe {
        WSASend(
            socket,
            buffers.as_ptr().cast::<WSABUF>(),
            buffers.len() as u32,
            ptr::null_mut(),
            0,
            overlapped.pointer(),
            None,
        )
    };
    started(failed == 0)
}

/// # Safety
/// The operation was begun and prepared.
pub(super) unsafe fn connect(
    extensions: &Extensions,
    socket: SOCKET,
    address: &SockAddr,
    overlapped: &Overlapped,
) -> Result<Started, u32> {
    let Some(connect_ex) = extensions.connect_ex else { unreachable!("loaded with the port") };
    // SAFETY: the address is only read during the call; no bytes are sent with it.
    let succeeded = unsafe {
        connect_ex(
            socket,
            address.as_ptr().cast(),
            address.len(),
            ptr::null(),
            0,
            ptr::null_mut(),
            overlapped.pointer(),
        )
    };
    started_if(succeeded)
}

/// ConnectEx needs a bound socket. If the socket is already bound, it stays as it is.
pub(super) fn bind_for_connect(socket: &Socket, to: &SocketAddr) {
    let wildcard = match to {
        SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
        SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
    };
    let _ = socket.bind(&wildcard.into());
}

/// Completes a connected socket, so that it has addresses and can be shut down. Returns its own address.
pub(super) fn finish_connect(socket: &Socket) -> Result<Option<SocketAddr>, u32> {
    // SAFETY: this option has no value to read.
    let failed =
        unsafe { setsockopt(raw(socket), SOL_SOCKET, SO_UPDATE_CONNECT_CONTEXT, ptr::null(), 0) };
    if failed != 0 {
        return Err(last_code());
    }
    Ok(socket.local_addr().map_err(|error| code_of(&error))?.as_socket())
}

pub(super) fn raw(socket: &Socket) -> SOCKET {
    socket.as_raw_socket() as SOCKET
}

pub(super) fn started_if(succeeded: BOOL) -> Result<Started, u32> {
    started(succeeded != 0)
}

fn started(succeeded: bool) -> Result<Started, u32> {
    if succeeded {
        return Ok(Started::Done);
    }
    match last_code() {
        code if code == WSA_IO_PENDING as u32 => Ok(Started::Outstanding),
        code => Err(code),
    }
}
