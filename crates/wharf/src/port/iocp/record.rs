//! A registered socket, and the operations that it can have outstanding.
//!
//! Nothing here has a lock. The registration is written only when it is made or ended, when no other thread
//! has it. It is read by threads that hold it or have one of its operations, as an [`InUse`] asserts. What an
//! operation owns is in an [`Owned`] and belongs to the operation's holder: the poster before the post, the
//! OS after it, then the taker of the completion (invariant 2).

use std::cell::UnsafeCell;
use std::ops::Deref;
use std::sync::OnceLock;

use socket2::Socket;
use windows_sys::Win32::Networking::WinSock::SOCKET;

use super::accept::Accepting;
use super::calls::{raw, unread_bytes};
use super::overlapped::Overlapped;
use super::state::State;
use crate::buffer::{RingBuffer, SendBatch};
use crate::port::{OperationKind, Token};
use crate::sync::{AtomicU32, Ordering};

pub(super) const KINDS: [OperationKind; 4] =
    [OperationKind::Accept, OperationKind::Connect, OperationKind::Receive, OperationKind::Send];

/// Where a receive puts its bytes.
#[derive(Debug)]
pub(super) enum Receiving {
    /// Into the scratch buffer of the handle that takes the completion, repeatedly.
    Lent,
    LentOnce,
    Into(Box<RingBuffer>),
}

/// An operation that is posted once: its overlapped, its state, what it owns.
pub(super) struct Owned<T> {
    pub(super) overlapped: Overlapped,
    pub(super) state: State,
    payload: UnsafeCell<Option<T>>,
}

#[derive(Debug)]
struct Registered {
    socket: Socket,
    token: Token,
}

/// See the module's page.
pub(super) struct Record {
    /// Raised at each deregistration.
    generation: AtomicU32,
    registered: UnsafeCell<Option<Registered>>,
    accepting: OnceLock<Box<Accepting>>,
    pub(super) connect: Owned<()>,
    pub(super) receive: Owned<Receiving>,
    pub(super) send: Owned<Box<SendBatch>>,
}

/// A registered record. Its holder may use its socket.
#[derive(Debug, Clone, Copy)]
pub(super) struct InUse<'a>(&'a Record);

// SAFETY: one thread at a time accesses what is in the cells: see the module's page (invariants 1, 2 and 5).
// The pointers inside an OVERLAPPED belong to the OS.
unsafe impl Send for Record {}
// SAFETY: as above.
unsafe impl Sync for Record {}

impl<T> Owned<T> {
    fn new(kind: OperationKind) -> Self {
        Owned {
            overlapped: Overlapped::new(kind, 0),
            state: State::default(),
            payload: UnsafeCell::new(None),
        }
    }

    /// # Safety
    /// The caller has the operation: it has begun it and not passed it to the OS, or has taken its completion
    /// and not ended it (invariant 2). The reference ends before that does.
    #[expect(clippy::mut_from_ref, reason = "who has the operation has what it owns")]
    pub(super) unsafe fn payload(&self) -> &mut Option<T> {
        // SAFETY: the caller's promise.
        unsafe { &mut *self.payload.get() }
    }

    pub(super) fn ask_to_end(&self, mark: u32, socket: SOCKET) {
        self.state.ask(mark, || self.overlapped.cancel(socket));
    }
}

impl Default for Record {
    fn default() -> Self {
        Record {
            generation: AtomicU32::new(0),
            registered: UnsafeCell::new(None),
            accepting: OnceLock::new(),
            connect: Owned::new(OperationKind::Connect),
            receive: Owned::new(OperationKind::Receive),
            send: Owned::new(OperationKind::Send),
        }
    }
}

impl Record {
    /// # Safety
    /// The record is vacant, and the caller took it from the vacant ones.
    pub(super) unsafe fn register(&self, socket: Socket, token: Token) {
        // SAFETY: the caller promises that no other thread accesses it now.
        let registered = unsafe { &mut *self.registered.get() };
        debug_assert!(registered.is_none(), "invariant 6: only a vacant record is used again");
        *registered = Some(Registered { socket, token });
    }

    /// Panics if an operation is outstanding (invariant 5).
    ///
    /// # Safety
    /// The caller owns the registration, and no thread uses it any more.
    pub(super) unsafe fn deregister(&self) -> Socket {
        if let Some(kind) = self.outstanding_kind() {
            panic!("invariant 5: deregistered while {kind:?} is outstanding");
        }
        // SAFETY: no operation is outstanding, and the caller promises that no other thread is here.
        let registered = unsafe { (*self.registered.get()).take() };
        self.generation.fetch_add(1, Ordering::SeqCst);
        registered.expect("the registration was deregistered").socket
    }

    /// What is left when the port ends: the socket, if nothing is outstanding.
    ///
    /// # Safety
    /// The caller is the last user of the port.
    pub(super) unsafe fn vacate(&self) -> Option<Socket> {
        // SAFETY: the caller's promise.
        let registered = unsafe { &mut *self.registered.get() };
        registered.take().map(|registered| registered.socket)
    }

    /// # Safety
    /// Whenever the caller uses the result to access the socket or the token, it has the registration or one
    /// of its outstanding operations, so that no thread registers or deregisters meanwhile (invariant 5).
    pub(super) unsafe fn in_use(&self) -> InUse<'_> {
        InUse(self)
    }

    pub(super) fn generation(&self) -> u32 {
        self.generation.load(Ordering::SeqCst)
    }

    /// The record's accept. Made at the first call.
    pub(super) fn accepting(&self, places: u32) -> &Accepting {
        self.accepting.get_or_init(|| Box::new(Accepting::new(places)))
    }

    pub(super) fn accepting_if_made(&self) -> Option<&Accepting> {
        self.accepting.get().map(|accepting| &**accepting)
    }

    pub(super) fn is_outstanding(&self, kind: OperationKind) -> bool {
        match kind {
            OperationKind::Accept => {
                self.accepting_if_made().is_some_and(|accepting| accepting.state.is_outstanding())
            }
            OperationKind::Connect => self.connect.state.is_outstanding(),
            OperationKind::Receive => self.receive.state.is_outstanding(),
            OperationKind::Send => self.send.state.is_outstanding(),
        }
    }

    pub(super) fn outstanding_kind(&self) -> Option<OperationKind> {
        KINDS.into_iter().find(|kind| self.is_outstanding(*kind))
    }
}

impl InUse<'_> {
    fn registered(&self) -> &Registered {
        // SAFETY: it is written only while no thread has the registration or one of its operations, as the
        // caller of `Record::in_use` promised.
        let registered = unsafe { &*self.0.registered.get() };
        registered.as_ref().expect("the registration was deregistered")
    }

    pub(super) fn socket(&self) -> &Socket {
        &self.registered().socket
    }

    /// Whether bytes wait in the socket. (Does not show the end of the stream or an error.)
    pub(super) fn has_unread(&self) -> bool {
        unread_bytes(self.raw_socket()).is_ok_and(|bytes| bytes > 0)
    }

    pub(super) fn raw_socket(&self) -> SOCKET {
        raw(self.socket())
    }

    pub(super) fn token(&self) -> Token {
        self.registered().token
    }

    /// Marks the outstanding operation of this kind, if any, and asks the OS to end it.
    pub(super) fn ask_to_end(&self, kind: OperationKind, mark: u32) {
        let socket = self.raw_socket();
        match kind {
            OperationKind::Accept => {
                if let Some(accepting) = self.accepting_if_made() {
                    accepting.ask_to_end(mark, socket);
                }
            }
            OperationKind::Connect => self.connect.ask_to_end(mark, socket),
            OperationKind::Receive => self.receive.ask_to_end(mark, socket),
            OperationKind::Send => self.send.ask_to_end(mark, socket),
        }
    }
}

impl Deref for InUse<'_> {
    type Target = Record;

    fn deref(&self) -> &Record {
        self.0
    }
}

impl std::fmt::Debug for Record {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Record(generation {}, {:?})", self.generation(), self.outstanding_kind())
    }
}
