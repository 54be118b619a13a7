//! A registered socket with what its operations own, and the kernel's name for an operation.

use std::os::fd::{AsRawFd, RawFd};

use super::buffers::{Choice, Group};
use crate::buffer::{RingBuffer, SendBatch};
use crate::port::{OperationKind, Socket, Token};

/// The kernel's name for an operation: index, kind and generation of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct UserData(pub(super) u64);

impl UserData {
    /// The poll of the wake event. No record has this index.
    pub(super) const WAKE: UserData = UserData(u32::MAX as u64);
    /// The result of a cancel, which adds nothing to the target's completion.
    pub(super) const CANCEL: UserData = UserData(1 << 32 | u32::MAX as u64);
    const GENERATION_SHIFT: u32 = 34;

    pub(super) fn new(index: u32, kind: OperationKind, generation: u32) -> Self {
        UserData(
            u64::from(generation) << Self::GENERATION_SHIFT
                | (kind as u64) << 32
                | u64::from(index),
        )
    }

    pub(super) fn index(self) -> u32 {
        self.0 as u32
    }

    pub(super) fn kind(self) -> OperationKind {
        match self.0 >> 32 & 3 {
            0 => OperationKind::Accept,
            1 => OperationKind::Connect,
            2 => OperationKind::Receive,
            _ => OperationKind::Send,
        }
    }

    pub(super) fn generation(self) -> u32 {
        (self.0 >> Self::GENERATION_SHIFT) as u32
    }
}

/// One registered socket, and what its outstanding operations own.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) token: Token,
    pub(super) generation: u32,
    /// One bit for each [`OperationKind`].
    pub(super) outstanding: u8,
    pub(super) socket: Option<Socket>,
    pub(super) sending: Option<Box<SendBatch>>,
    pub(super) receiving: Option<Box<RingBuffer>>,
    /// Whether the receive is one that continues after a completion.
    pub(super) receives_on: bool,
    /// The group that the outstanding receive uses, and the one for the next.
    pub(super) draws_from: Group,
    pub(super) choice: Choice,
    /// Of a receive that continues, or an accept.
    pub(super) ends: Ends,
    /// Of a listener: others accept from it too.
    pub(super) polls: bool,
}

/// Why an outstanding receive will end.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Ends {
    /// It was not asked to end.
    #[default]
    ByItself,
    /// The caller asked it to end.
    ByCancel,
    /// The port asked it to end, so that the next one uses the other group. Not visible to the caller.
    ToChangeGroup,
}

impl Record {
    pub(super) fn new(token: Token, socket: Socket) -> Self {
        Record {
            token,
            generation: 0,
            outstanding: 0,
            socket: Some(socket),
            sending: None,
            receiving: None,
            receives_on: false,
            draws_from: Group::default(),
            choice: Choice::default(),
            ends: Ends::default(),
            polls: false,
        }
    }

    /// Reuses a vacant record.
    pub(super) fn occupy(&mut self, token: Token, socket: Socket) {
        *self = Record { generation: self.generation, ..Record::new(token, socket) };
    }

    pub(super) fn descriptor(&self) -> RawFd {
        self.socket.as_ref().map_or(-1, |socket| socket.os().as_raw_fd())
    }

    pub(super) fn is_outstanding(&self, kind: OperationKind) -> bool {
        self.outstanding & bit(kind) != 0
    }
}

pub(super) fn bit(kind: OperationKind) -> u8 {
    1 << kind as u8
}
