//! Accepting: the listeners of a port.
//!
//! On Linux each port has listeners of its own, and the kernel shares out what connects among them;
//! elsewhere the first port accepts for all.
//!
//! The acceptor takes sockets in, the worker admits them (a slot in the table, its own
//! port or the least-loaded) or closes them at once. When accepting fails for want of descriptors or memory it pauses
//! for [`RETRY_PAUSE`] and goes on: the connections wait in the kernel's backlog meanwhile, and the
//! worker sleeps.

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use crate::clock::Moment;
use crate::port::{
    Accepted, CompletionPort, Failure, Operation, OperationKind, Registration, Socket, Token,
};

/// How long accepting pauses after a failure: half of the 100 ms within which it must go on after
/// a descriptor has come free, and at 20 tries a second no load.
const RETRY_PAUSE: Duration = Duration::from_millis(50);

#[derive(Debug, Default)]
pub(crate) struct Acceptor {
    listeners: Vec<Listener>,
    accepted: VecDeque<Accepted>,
    retry_at: Option<Moment>,
    /// Why it pauses, until that is taken.
    failure: Option<io::Error>,
    ending: bool,
}

#[derive(Debug)]
struct Listener {
    /// Until it is registered.
    socket: Option<Socket>,
    registration: Option<Registration>,
    outstanding: bool,
}

impl Acceptor {
    pub(crate) fn new(sockets: Vec<Socket>) -> Self {
        let listeners = sockets
            .into_iter()
            .map(|socket| Listener { socket: Some(socket), registration: None, outstanding: false })
            .collect();
        Acceptor { listeners, ..Acceptor::default() }
    }

    /// Takes the listeners to the port.
    pub(crate) fn register<P: CompletionPort>(&mut self, port: &mut P) {
        for (index, listener) in self.listeners.iter_mut().enumerate() {
            let Some(socket) = listener.socket.take() else { continue };
            // A refusal is an empty listener: accepting is tried again like after any failure.
            match port.register(socket, token(index)) {
                Ok(registration) => listener.registration = Some(registration),
                Err(refused) => {
                    listener.socket = Some(refused.given_back);
                    self.failure = Some(refused.error);
                }
            }
        }
    }

    /// Posts an accept for each listener that has none outstanding, unless it is the pause's time.
    pub(crate) fn post<P: CompletionPort>(&mut self, port: &mut P, now: Moment) {
        if self.ending || self.retry_at.is_some_and(|retry_at| now < retry_at) {
            return;
        }
        self.retry_at = None;
        if self.listeners.iter().any(|listener| listener.socket.is_some()) {
            self.register(port);
        }
        for listener in &mut self.listeners {
            if listener.outstanding {
                continue;
            }
            let posted = listener.registration.map(|it| port.post(it, Operation::Accept));
            listener.outstanding = matches!(posted, Some(Ok(())));
            if !listener.outstanding {
                self.retry_at = Some(now.after(RETRY_PAUSE));
            }
            if let Some(Err(refused)) = posted {
                self.failure = Some(refused.error);
            }
        }
    }

    /// Takes a completion of a listener's.
    pub(crate) fn complete(
        &mut self,
        token: Token,
        result: Result<Accepted, Failure>,
        more: bool,
        now: Moment,
    ) {
        let index = (u64::MAX - token.0) as usize;
        let Some(listener) = self.listeners.get_mut(index) else { return };
        // Workers that share a port may tell of one listener's completions in another order.
        listener.outstanding &= more;
        match result {
            // Also when the acceptor ends: a cancelled accept may have succeeded, and is refused.
            Ok(accepted) => self.accepted.push_back(accepted),
            // The peer was gone before it was accepted: nothing to wait for.
            Err(Failure::Os(error)) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(Failure::Os(error)) => {
                self.retry_at = Some(now.after(RETRY_PAUSE));
                self.failure = Some(error);
            }
            // Of an accept, what says that no lent buffer is left says that the system has none.
            Err(Failure::BuffersExhausted) => {
                self.retry_at = Some(now.after(RETRY_PAUSE));
                self.failure = Some(io::ErrorKind::OutOfMemory.into());
            }
            Err(Failure::Cancelled) => {}
        }
    }

    pub(crate) fn next_accepted(&mut self) -> Option<Accepted> {
        self.accepted.pop_front()
    }

    /// Why accepting failed since this was asked last, if it did.
    pub(crate) fn take_failure(&mut self) -> Option<io::Error> {
        self.failure.take()
    }

    /// When the acceptor wants its worker to be awake.
    pub(crate) fn next_deadline(&self) -> Option<Moment> {
        self.retry_at.filter(|_| !self.ending)
    }

    /// Stops accepting, and closes the listeners once their last completion has come.
    pub(crate) fn end<P: CompletionPort>(&mut self, port: &mut P) {
        self.ending = true;
        for listener in &mut self.listeners {
            listener.socket = None;
            if let Some(registration) = listener.registration
                && listener.outstanding
            {
                port.cancel(registration, OperationKind::Accept);
            }
        }
    }

    /// Whether it has ended, and nothing of it is outstanding any more. Closes listeners that have
    /// ended.
    pub(crate) fn is_quiet<P: CompletionPort>(&mut self, port: &mut P) -> bool {
        for listener in &mut self.listeners {
            if self.ending
                && !listener.outstanding
                && let Some(registration) = listener.registration.take()
            {
                drop(port.deregister(registration));
            }
        }
        let ended =
            |listener: &Listener| listener.socket.is_none() && listener.registration.is_none();
        self.accepted.is_empty() && self.listeners.iter().all(ended)
    }
}

/// A token that is no session's: the generation above all of theirs.
fn token(listener: usize) -> Token {
    Token(u64::MAX - listener as u64)
}
