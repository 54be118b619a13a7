//! What the OS's error numbers mean.
//!
//! The same failure has several numbers: Winsock's, and those of the file system. Each is mapped to the
//! number whose `ErrorKind` says what happened.

use std::io;

use windows_sys::Win32::Foundation::{
    ERROR_COMMITMENT_LIMIT, ERROR_CONNECTION_ABORTED, ERROR_CONNECTION_INVALID,
    ERROR_CONNECTION_REFUSED, ERROR_GRACEFUL_DISCONNECT, ERROR_HANDLE_EOF, ERROR_INVALID_HANDLE,
    ERROR_NETNAME_DELETED, ERROR_NO_DATA, ERROR_NO_SYSTEM_RESOURCES,
    ERROR_NONPAGED_SYSTEM_RESOURCES, ERROR_NOT_ENOUGH_MEMORY, ERROR_NOT_ENOUGH_QUOTA,
    ERROR_OPERATION_ABORTED, ERROR_OUTOFMEMORY, ERROR_PAGED_SYSTEM_RESOURCES, ERROR_SEM_TIMEOUT,
    ERROR_WORKING_SET_QUOTA, GetLastError,
};
use windows_sys::Win32::Networking::WinSock as winsock;

use super::state::{CANCELLED, Marks, SHUT};
use crate::port::Failure;

pub(super) const ABORTED: u32 = ERROR_OPERATION_ABORTED;
pub(super) const CONNECTION_ABORTED: u32 = winsock::WSAECONNABORTED as u32;
const CONNECTION_REFUSED: u32 = winsock::WSAECONNREFUSED as u32;
const BROKEN_PIPE: u32 = ERROR_NO_DATA;
const CONNECTION_RESET: u32 = winsock::WSAECONNRESET as u32;
const NET_RESET: u32 = winsock::WSAENETRESET as u32;
const TIMED_OUT: u32 = winsock::WSAETIMEDOUT as u32;
const SHUT_DOWN: u32 = winsock::WSAESHUTDOWN as u32;
const DISCONNECTED: u32 = winsock::WSAEDISCON as u32;
const NOT_CONNECTED: u32 = winsock::WSAENOTCONN as u32;
const NOT_A_SOCKET: u32 = winsock::WSAENOTSOCK as u32;
const TOO_MANY_SOCKETS: u32 = winsock::WSAEMFILE as u32;
const NO_BUFFERS: u32 = winsock::WSAENOBUFS as u32;
const TOO_MANY_OUTSTANDING: u32 = winsock::WSAEWOULDBLOCK as u32;
/// Wine 8 reports this when a socket was closed during its receive.
const CLOSED_UNDER_IT: u32 = 676;

/// How an operation failed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fault {
    pub(super) code: u32,
    /// Bytes that it had moved nevertheless.
    pub(super) count: u32,
}

pub(super) fn last_code() -> u32 {
    // SAFETY: reads a variable of this thread.
    unsafe { GetLastError() }
}

pub(super) fn code_of(error: &io::Error) -> u32 {
    error.raw_os_error().map_or(CONNECTION_ABORTED, |code| code as u32)
}

pub(super) fn error_of(code: u32) -> io::Error {
    let said = match code {
        ERROR_NETNAME_DELETED | NET_RESET => CONNECTION_RESET,
        ERROR_CONNECTION_ABORTED
        | ERROR_CONNECTION_INVALID
        | ERROR_INVALID_HANDLE
        | ERROR_OPERATION_ABORTED
        | NOT_A_SOCKET
        | CLOSED_UNDER_IT => CONNECTION_ABORTED,
        ERROR_CONNECTION_REFUSED => CONNECTION_REFUSED,
        ERROR_SEM_TIMEOUT => TIMED_OUT,
        SHUT_DOWN | DISCONNECTED | ERROR_GRACEFUL_DISCONNECT => BROKEN_PIPE,
        code => code,
    };
    io::Error::from_raw_os_error(said as i32)
}

/// The OS temporarily lacks something; the socket is fine.
pub(super) fn is_shortage(code: u32) -> bool {
    matches!(
        code,
        NO_BUFFERS
            | TOO_MANY_OUTSTANDING
            | TOO_MANY_SOCKETS
            | ERROR_NOT_ENOUGH_MEMORY
            | ERROR_OUTOFMEMORY
            | ERROR_NO_SYSTEM_RESOURCES
            | ERROR_NONPAGED_SYSTEM_RESOURCES
            | ERROR_PAGED_SYSTEM_RESOURCES
            | ERROR_WORKING_SET_QUOTA
            | ERROR_NOT_ENOUGH_QUOTA
            | ERROR_COMMITMENT_LIMIT
    )
}

/// For an accept: the peer gave up before it was accepted, and the listener is fine. (Wine 8 then reports
/// that the accepted socket is not connected.)
pub(super) fn is_of_the_peer(code: u32) -> bool {
    matches!(
        code,
        ERROR_NETNAME_DELETED
            | ERROR_CONNECTION_ABORTED
            | CONNECTION_RESET
            | CONNECTION_ABORTED
            | NET_RESET
            | NOT_CONNECTED
    )
}

/// The received bytes, the end of the stream (0), or the failure.
pub(super) fn received(result: Result<u32, Fault>, marks: Marks) -> Result<usize, Failure> {
    match result {
        Ok(count) => Ok(count as usize),
        Err(Fault { code: ABORTED, count }) if count > 0 => Ok(count as usize),
        Err(Fault { code: ABORTED, .. }) if marks.has(SHUT) => Ok(0),
        Err(Fault { code, .. }) if is_end_of_stream(code) => Ok(0),
        Err(fault) => Err(failure(fault, marks)),
    }
}

/// The bytes that left, or the failure. For a cancelled send this is only as exact as the OS reports: Wine
/// says what had left, Windows may not. So cancel a send only if nothing more will be sent on the socket.
pub(super) fn sent(result: Result<u32, Fault>, marks: Marks) -> Result<usize, Failure> {
    match result {
        Ok(count) => Ok(count as usize),
        Err(Fault { code: ABORTED, count }) if count > 0 => Ok(count as usize),
        Err(Fault { code: ABORTED, .. }) if marks.has(SHUT) => {
            Err(Failure::Os(error_of(BROKEN_PIPE)))
        }
        Err(fault) => Err(failure(fault, marks)),
    }
}

pub(super) fn failure(fault: Fault, marks: Marks) -> Failure {
    match fault.code {
        ABORTED if marks.has(CANCELLED) => Failure::Cancelled,
        code => Failure::Os(error_of(code)),
    }
}

fn is_end_of_stream(code: u32) -> bool {
    matches!(code, SHUT_DOWN | DISCONNECTED | ERROR_GRACEFUL_DISCONNECT | ERROR_HANDLE_EOF)
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;

    use super::*;

    #[test]
    fn one_mishap_has_one_kind_whatever_its_number() {
        for (code, kind) in [
            (64, ErrorKind::ConnectionReset),
            (10054, ErrorKind::ConnectionReset),
            (10053, ErrorKind::ConnectionAborted),
            (1236, ErrorKind::ConnectionAborted),
            (676, ErrorKind::ConnectionAborted),
            (6, ErrorKind::ConnectionAborted),
            (995, ErrorKind::ConnectionAborted),
            (1225, ErrorKind::ConnectionRefused),
            (121, ErrorKind::TimedOut),
            (10058, ErrorKind::BrokenPipe),
            (10101, ErrorKind::BrokenPipe),
        ] {
            assert_eq!(error_of(code).kind(), kind, "{code}");
        }
    }
}
