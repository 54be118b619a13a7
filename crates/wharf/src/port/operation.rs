//! What is handed to a port, and how it is named.

use std::io;
use std::net::SocketAddr;

use crate::buffer::{RingBuffer, SendBatch};

/// Eight bytes of the caller's that come back with each completion.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Token(pub(crate) u64);

/// A registered socket, until it is deregistered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Registration(pub(crate) u32);

/// The kinds of operation; at most one of each is outstanding for a registration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum OperationKind {
    Accept = 0,
    Connect = 1,
    Receive = 2,
    Send = 3,
}

/// What to do, with all that the OS may touch while it does it.
#[derive(Debug)]
pub(crate) enum Operation {
    /// Accept from a listening socket, again and again.
    Accept,
    /// Connect the socket to this address. Once.
    Connect(SocketAddr),
    /// Receive into memory of the port's, again and again.
    Receive,
    /// Receive into memory of the port's, once. Kind: [`OperationKind::Receive`].
    ReceiveOnce,
    /// Receive once, into the free segments of this ring. Kind: [`OperationKind::Receive`].
    /// Posted to shared ports, which have no lent buffers of their own to receive into.
    ReceiveInto(Box<RingBuffer>),
    /// Send from this batch, once; it may leave only in part.
    Send(Box<SendBatch>),
}

impl Operation {
    #[cfg_attr(
        all(windows, not(test), not(feature = "simulation")),
        expect(dead_code, reason = "iocp tells them apart itself")
    )]
    pub(crate) fn kind(&self) -> OperationKind {
        match self {
            Operation::Accept => OperationKind::Accept,
            Operation::Connect(_) => OperationKind::Connect,
            Operation::Receive | Operation::ReceiveOnce | Operation::ReceiveInto(_) => {
                OperationKind::Receive
            }
            Operation::Send(_) => OperationKind::Send,
        }
    }
}

/// Why an operation came to nothing.
#[derive(Debug)]
pub(crate) enum Failure {
    /// It was cancelled before it did anything.
    Cancelled,
    /// A receive ended because every lent buffer was out. Nothing is lost; post it again.
    #[cfg_attr(
        not(any(target_os = "linux", feature = "simulation")),
        expect(dead_code, reason = "io_uring's and the simulated port's")
    )]
    BuffersExhausted,
    /// What the OS said.
    Os(io::Error),
}

/// A post or registration that was refused: what was asked comes back, with the reason.
#[derive(Debug)]
pub(crate) struct Refused<T> {
    pub(crate) given_back: T,
    pub(crate) error: io::Error,
}
