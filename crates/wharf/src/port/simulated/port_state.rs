//! The state of a simulated port, and what is outstanding at it.

use std::collections::VecDeque;
use std::net::SocketAddr;

use super::network::SocketIndex;
use crate::buffer::{RingBuffer, SendBatch};
use crate::port::operation::{Failure, Operation, OperationKind, Token};

/// The state of a simulated port, for all its handles.
#[derive(Debug, Default)]
pub(super) struct PortState {
    pub(super) registrations: Vec<Registered>,
    pub(super) vacant: Vec<u32>,
    /// Posted, but not submitted to the OS yet.
    pub(super) unsubmitted: Vec<(u32, u8)>,
    pub(super) ready: VecDeque<Ready>,
    /// Wakes that have not ended a wait yet.
    pub(super) wakes: usize,
    /// A sleep will end without reason.
    pub(super) spurious: bool,
    /// Lent buffers in use.
    pub(super) lent: usize,
    pub(super) sizes: Sizes,
    pub(super) is_shared: bool,
    /// A wait has failed.
    pub(super) has_failed: bool,
    /// Open handles.
    pub(super) handles: usize,
    pub(super) posts_made: u32,
    /// How many waits there were.
    pub(super) waits: u64,
    /// The most waits between a send being due and being posted.
    pub(super) send_waits_max: u64,
}

/// The sizes of a port.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sizes {
    /// The number of lent buffers.
    pub(crate) buffers: usize,
    /// The size of each, or of the receive memory of a port without lent buffers.
    pub(crate) buffer_bytes: usize,
    /// How many completions may be ready before receives that continue are ended.
    pub(crate) ready_max: usize,
    /// How many completions one wait delivers.
    pub(crate) batch_max: usize,
}

impl Default for Sizes {
    fn default() -> Self {
        Sizes { buffers: 256, buffer_bytes: 16 * 1024, ready_max: 4_096, batch_max: 1_024 }
    }
}

#[derive(Debug)]
pub(super) struct Registered {
    pub(super) token: Token,
    /// `None`: vacant.
    pub(super) socket: Option<SocketIndex>,
    pub(super) posts: [Option<Posted>; 4],
    /// A send is due since this wait of the port.
    pub(super) send_due_since: Option<u64>,
}

/// An outstanding operation.
#[derive(Debug)]
pub(super) struct Posted {
    /// Distinguishes it from earlier operations, so that events for those do not reach it.
    pub(super) number: u32,
    /// The operation, until its last completion is ready.
    pub(super) operation: Option<Operation>,
    pub(super) submitted: bool,
    /// The OS is scheduled to look at it.
    pub(super) scheduled: bool,
    pub(super) cancelled: bool,
    /// Completions before the last that some handle has not delivered yet.
    pub(super) untold: u32,
    /// The last one, which another handle took meanwhile.
    pub(super) held_back: Option<Ready>,
}

/// A ready completion.
#[derive(Debug)]
pub(super) struct Ready {
    pub(super) registration: u32,
    pub(super) kind: OperationKind,
    pub(super) result: ReadyResult,
    pub(super) more: bool,
}

#[derive(Debug)]
pub(super) enum ReadyResult {
    Accepted(Result<(SocketIndex, SocketAddr), Failure>),
    Connected(Result<(), Failure>),
    /// True: the bytes are in a lent buffer.
    Received(Result<Vec<u8>, Failure>, bool),
    ReceivedInto(Box<RingBuffer>, Result<usize, Failure>),
    Sent(Box<SendBatch>, Result<usize, Failure>),
}

pub(super) const KINDS: [OperationKind; 4] =
    [OperationKind::Accept, OperationKind::Connect, OperationKind::Receive, OperationKind::Send];

impl PortState {
    pub(super) fn has_something(&self) -> bool {
        !self.ready.is_empty() || self.wakes > 0 || self.spurious || !self.unsubmitted.is_empty()
    }

    pub(super) fn registered(&mut self, registration: u32) -> &mut Registered {
        let registered = &mut self.registrations[registration as usize];
        assert!(registered.socket.is_some(), "the registration was deregistered");
        registered
    }

    /// Something was queued for a socket. If no send of it is outstanding, one is due.
    pub(super) fn note_send_due(&mut self, registration: u32) {
        let waits = self.waits;
        if let Some(registered) = self.registrations.get_mut(registration as usize)
            && registered.posts[OperationKind::Send as usize].is_none()
        {
            registered.send_due_since.get_or_insert(waits);
        }
    }

    pub(super) fn occupy(&mut self, socket: SocketIndex, token: Token) -> u32 {
        let posts = [const { None }; 4];
        let registered = Registered { token, socket: Some(socket), posts, send_due_since: None };
        match self.vacant.pop() {
            Some(registration) => {
                self.registrations[registration as usize] = registered;
                registration
            }
            None => {
                self.registrations.push(registered);
                self.registrations.len() as u32 - 1
            }
        }
    }

    /// Takes the socket out of a registration. Nothing may be outstanding.
    pub(super) fn vacate(&mut self, registration: u32) -> (SocketIndex, Token) {
        let registered = self.registered(registration);
        for kind in KINDS {
            let is_outstanding = registered.posts[kind as usize].is_some();
            assert!(!is_outstanding, "deregistered while {kind:?} is outstanding");
        }
        let (socket, token) = (registered.socket.take(), registered.token);
        self.vacant.push(registration);
        (socket.expect("checked by registered"), token)
    }

    pub(super) fn put(&mut self, registration: u32, operation: Operation) -> OperationKind {
        let kind = operation.kind();
        if let Operation::ReceiveInto(ring) = &operation {
            assert!(ring.free() > 0, "a receive without room would look like the end");
        }
        self.posts_made = self.posts_made.wrapping_add(1);
        let number = self.posts_made;
        let waits = self.waits;
        let registered = self.registered(registration);
        let due_since = match kind {
            OperationKind::Send => registered.send_due_since.take(),
            _ => None,
        };
        let post = &mut registered.posts[kind as usize];
        assert!(post.is_none(), "a second {kind:?} while one is outstanding");
        let operation = Some(operation);
        *post = Some(Posted {
            number,
            operation,
            submitted: false,
            scheduled: false,
            cancelled: false,
            untold: 0,
            held_back: None,
        });
        let waited = due_since.map_or(0, |since| waits - since);
        self.send_waits_max = self.send_waits_max.max(waited);
        kind
    }

    /// Begins to deliver a completion, and returns its token. `None`: it is an operation's last, and another
    /// handle has yet to deliver an earlier one. That handle will then deliver this one.
    pub(super) fn begin_telling(&mut self, ready: Ready) -> Option<(Token, Ready)> {
        let registered = self.registered(ready.registration);
        let (token, post) = (registered.token, &mut registered.posts[ready.kind as usize]);
        if !ready.more {
            match post {
                Some(posted) if posted.untold > 0 => {
                    posted.held_back = Some(ready);
                    return None;
                }
                // It ends after the delivery, because the sink may need it.
                _ => *post = None,
            }
        }
        Some((token, ready))
    }
}
