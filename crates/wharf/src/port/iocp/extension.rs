//! The functions whose addresses Winsock returns: AcceptEx, ConnectEx, GetAcceptExSockaddrs.

use std::io;
use std::mem;
use std::os::windows::io::AsRawSocket;
use std::ptr;

use socket2::{Domain, Protocol, Socket, Type};
use windows_sys::Win32::Networking::WinSock::{
    LPFN_ACCEPTEX, LPFN_CONNECTEX, LPFN_GETACCEPTEXSOCKADDRS, SIO_GET_EXTENSION_FUNCTION_POINTER,
    SOCKET, WSAID_ACCEPTEX, WSAID_CONNECTEX, WSAID_GETACCEPTEXSOCKADDRS, WSAIoctl,
};
use windows_sys::core::GUID;

/// Loaded once per port: all TCP sockets of a process have the same provider.
#[derive(Clone, Copy)]
pub(super) struct Extensions {
    pub(super) accept_ex: LPFN_ACCEPTEX,
    pub(super) connect_ex: LPFN_CONNECTEX,
    pub(super) accept_ex_addresses: LPFN_GETACCEPTEXSOCKADDRS,
}

impl Extensions {
    pub(super) fn load() -> io::Result<Self> {
        let tcp = |domain| Socket::new(domain, Type::STREAM, Some(Protocol::TCP));
        let socket = tcp(Domain::IPV4).or_else(|_| tcp(Domain::IPV6))?;
        // SAFETY: each identifier belongs to the function whose type its field has.
        unsafe {
            Ok(Extensions {
                accept_ex: load(&socket, &WSAID_ACCEPTEX)?,
                connect_ex: load(&socket, &WSAID_CONNECTEX)?,
                accept_ex_addresses: load(&socket, &WSAID_GETACCEPTEXSOCKADDRS)?,
            })
        }
    }
}

impl std::fmt::Debug for Extensions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Extensions")
    }
}

/// # Safety
/// `F` is an optional pointer to a function of the type that the identifier means.
unsafe fn load<F: Copy>(socket: &Socket, identifier: &GUID) -> io::Result<F> {
    const { assert!(mem::size_of::<F>() == mem::size_of::<usize>()) };
    let mut address = 0usize;
    let mut bytes = 0;
    // SAFETY: the identifier is read and the address written only during the call, each with the given size;
    // nothing is overlapped.
    let failed = unsafe {
        WSAIoctl(
            socket.as_raw_socket() as SOCKET,
            SIO_GET_EXTENSION_FUNCTION_POINTER,
            ptr::from_ref(identifier).cast(),
            mem::size_of::<GUID>() as u32,
            (&raw mut address).cast(),
            mem::size_of::<usize>() as u32,
            &raw mut bytes,
            ptr::null_mut(),
            None,
        )
    };
    if failed != 0 || address == 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: Winsock returned the address of the function, which the caller promises to be an `F`.
    Ok(unsafe { mem::transmute_copy(&address) })
}
