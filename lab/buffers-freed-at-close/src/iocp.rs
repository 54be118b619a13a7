//! IOCP: the system takes the addresses of the buffer and of the OVERLAPPED, which lie in one block.

use std::net::TcpStream;
use std::os::windows::io::AsRawSocket;
use std::ptr::{null, null_mut};

use instruments::connection;
use windows_sys::Win32::Foundation::{CloseHandle, HANDLE, INVALID_HANDLE_VALUE};
use windows_sys::Win32::Networking::WinSock::{
    SOCKET, WSA_IO_PENDING, WSABUF, WSAGetLastError, WSARecv, WSASend,
};
use windows_sys::Win32::System::IO::{
    CancelIoEx, CreateIoCompletionPort, GetQueuedCompletionStatus, OVERLAPPED,
};

use crate::arena::{self, Arena, BUFFER_BYTES, Block, HEADER_BYTES};
use crate::{Closing, Found, Operation, peer};

/// How long a completion is waited for that may never come.
const MAY_COME_MS: u32 = 10;
/// And one that must.
const MUST_COME_MS: u32 = 5_000;

const _: () = assert!(size_of::<OVERLAPPED>() <= HEADER_BYTES);

pub fn trial(closing: Closing, operation: Operation) -> Found {
    let mut arena = Arena::new(2);
    let (socket, peer) = connection();
    if operation == Operation::Send {
        peer::fill_the_way_to_it(&socket);
    }
    let number = socket.as_raw_socket() as SOCKET;
    // SAFETY: takes no memory of ours; the socket is open.
    let port = unsafe {
        let port = CreateIoCompletionPort(INVALID_HANDLE_VALUE, null_mut(), 0, 1);
        assert!(!port.is_null());
        assert!(!CreateIoCompletionPort(number as HANDLE, port, 0, 0).is_null());
        port
    };

    let block = arena.take();
    post(number, block, operation);
    if operation == Operation::ReceiveBytesBefore {
        peer::write(&peer);
    }

    let mut ended = false;
    let mut open: Option<TcpStream> = None;
    match closing {
        // `drop` closes: it was ours, and nobody uses it any more. So one thinks.
        Closing::Close => drop(socket),
        Closing::CloseDuplicated => {
            open = Some(socket.try_clone().expect("a duplicate"));
            drop(socket);
        }
        Closing::Cancel => {
            cancel(number);
            open = Some(socket);
        }
        Closing::CancelNextBatch => open = Some(socket),
        Closing::CancelAndAwait => {
            cancel(number);
            ended = await_completion(port, MUST_COME_MS);
            assert!(ended, "every operation has a completion");
            open = Some(socket);
        }
    }
    arena.give_back(block);
    let other = arena.take();
    assert_eq!(block, other, "the last block given back is the next to be taken");
    arena::fill(other);

    let harmed = peer::go_on(&peer, operation, || {
        ended = ended || await_completion(port, MAY_COME_MS);
        ended
    });
    if closing == Closing::CancelNextBatch {
        cancel(number);
        await_completion(port, MAY_COME_MS);
    }
    let changed = arena::has_changed(arena::buffer(other), BUFFER_BYTES);
    let overlapped_changed = arena::has_changed(arena::header(other), HEADER_BYTES);
    drop((open, peer));
    // SAFETY: it is ours, and nobody uses it any more.
    unsafe { CloseHandle(port) };
    Found { harmed: harmed || changed, overlapped_changed }
}

fn post(socket: SOCKET, block: *mut Block, operation: Operation) {
    let overlapped = arena::header(block).cast::<OVERLAPPED>();
    let piece = WSABUF { len: BUFFER_BYTES as u32, buf: arena::buffer(block) };
    let mut flags = 0;
    // SAFETY: the block is never freed, so buffer and OVERLAPPED stay valid. That they may have
    // another owner by the time of the completion is the fault that is shown. The WSABUF is read
    // before the call returns.
    let code = unsafe {
        overlapped.write(OVERLAPPED::default());
        match operation {
            Operation::Send => WSASend(socket, &piece, 1, null_mut(), 0, overlapped, None),
            _ => WSARecv(socket, &piece, 1, null_mut(), &mut flags, overlapped, None),
        }
    };
    // SAFETY: takes nothing.
    assert!(code == 0 || unsafe { WSAGetLastError() } == WSA_IO_PENDING);
}

fn cancel(socket: SOCKET) {
    // Every operation of the socket. It fails if there is none any more.
    // SAFETY: the socket is open.
    unsafe { CancelIoEx(socket as HANDLE, null()) };
}

fn await_completion(port: HANDLE, bound_ms: u32) -> bool {
    let (mut count, mut key, mut overlapped) = (0, 0, null_mut());
    // SAFETY: the three are ours for the time of the call. What the last one points to is not used.
    unsafe { GetQueuedCompletionStatus(port, &mut count, &mut key, &mut overlapped, bound_ms) };
    !overlapped.is_null()
}
