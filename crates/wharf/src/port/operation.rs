//! What is posted to a port, and how it is named.

use std::io;

use crate::buffer::{RingBuffer, SendBatch};
use crate::peer_address::PeerAddress;

/// Eight bytes that the caller chooses and each completion returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Token(pub(crate) u64);

/// A registered socket, until it is deregistered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Registration(pub(crate) u32);

/// The kinds of operation. At most one of each is outstanding for a registration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum OperationKind {
    Accept = 0,
    Connect = 1,
    Receive = 2,
    Send = 3,
}

/// What to do, with everything that the OS may touch meanwhile.
#[derive(Debug)]
pub(crate) enum Operation {
    /// Accept from a listening socket, repeatedly.
    Accept,
    /// Connect the socket to this address, once.
    Connect(Box<PeerAddress>),
    /// Receive into the port's memory, repeatedly.
    Receive,
    /// Receive into the port's memory, once. Kind: [`OperationKind::Receive`].
    ReceiveOnce,
    /// Receive once, into the free segments of this ring. Kind: [`OperationKind::Receive`]. For shared ports,
    /// which lend no buffers of their own.
    ReceiveInto(Box<RingBuffer>),
    /// Send from this batch, once. It may leave only in part.
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

/// Why an operation failed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// It was cancelled, or interrupted by the OS, before it had any effect.
    Cancelled,
    /// A receive ended because every lent buffer was in use. Nothing is lost; post it again.
    #[cfg_attr(
        not(any(target_os = "linux", feature = "simulation")),
        expect(dead_code, reason = "io_uring's and the simulated port's")
    )]
    BuffersExhausted,
    /// What the OS reported.
    Os(io::Error),
}

/// A refused post or registration: returns what was passed in, with the reason.
#[derive(Debug)]
pub(crate) struct Refused<T> {
    pub(crate) given_back: T,
    pub(crate) error: io::Error,
}
