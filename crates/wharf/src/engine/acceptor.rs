//! Accepting: the listeners of a port.
//!
//! On Linux each port has its own listeners, and the kernel distributes connects among them. Elsewhere the
//! first port accepts for all.
//!
//! The acceptor accepts sockets; the worker admits them (with a slot in the table, at its own or the
//! least-loaded port) or closes them at once. When accepting fails because descriptors or memory run out, it
//! pauses for [`RETRY_PAUSE`] and continues. Meanwhile the connections wait in the kernel's backlog, and the
//! worker sleeps.

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use crate::clock::Moment;
use crate::port::{
    Accepted, CompletionPort, Failure, Operation, OperationKind, Registration, Socket, Token,
};

/// How long accepting pauses after a failure. It must continue within 100 ms after a descriptor comes free;
/// this is half of it, and 20 tries a second are no load.
const RETRY_PAUSE: Duration = Duration::from_millis(50);

#[derive(Debug, Default)]
pub(crate) struct Acceptor {
    listeners: Vec<Listener>,
    /// Each with the place of the socket that has accepted it.
    accepted: VecDeque<(usize, Accepted)>,
    retry_at: Option<Moment>,
    /// Why it pauses, until [`take_failure`](Self::take_failure).
    failure: Option<io::Error>,
    ending: bool,
}

#[derive(Debug)]
struct Listener {
    /// Until registered.
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

    /// Registers the listeners.
    pub(crate) fn register<P: CompletionPort>(&mut self, port: &mut P) {
        for (index, listener) in self.listeners.iter_mut().enumerate() {
            let Some(socket) = listener.socket.take() else { continue };
            // If refused, the listener stays without a registration, and is tried again after the pause.
            match port.register(socket, token(index)) {
                Ok(registration) => listener.registration = Some(registration),
                Err(refused) => {
                    listener.socket = Some(refused.given_back);
                    self.failure = Some(refused.error);
                }
            }
        }
    }

    /// Posts an accept for each listener that has none outstanding, except during a pause.
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

    /// Takes a completion of a listener.
    pub(crate) fn complete(
        &mut self,
        token: Token,
        result: Result<Accepted, Failure>,
        more: bool,
        now: Moment,
    ) {
        let index = (u64::MAX - token.0) as usize;
        let Some(listener) = self.listeners.get_mut(index) else { return };
        // On a shared port, workers may report one listener's completions in another order.
        listener.outstanding &= more;
        match result {
            // Also when the acceptor ends: a cancelled accept may have succeeded. It is then refused.
            Ok(accepted) => self.accepted.push_back((index, accepted)),
            // The peer left before it was accepted: no reason to pause.
            Err(Failure::Os(error)) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(Failure::Os(error)) => {
                self.retry_at = Some(now.after(RETRY_PAUSE));
                self.failure = Some(error);
            }
            // For an accept, no buffers means that the OS has no memory.
            Err(Failure::BuffersExhausted) => {
                self.retry_at = Some(now.after(RETRY_PAUSE));
                self.failure = Some(io::ErrorKind::OutOfMemory.into());
            }
            Err(Failure::Cancelled) => {}
        }
    }

    pub(crate) fn next_accepted(&mut self) -> Option<(usize, Accepted)> {
        self.accepted.pop_front()
    }

    /// Why accepting failed since the last call, if it did.
    pub(crate) fn take_failure(&mut self) -> Option<io::Error> {
        self.failure.take()
    }

    /// When accepting continues after a pause.
    pub(crate) fn next_deadline(&self) -> Option<Moment> {
        self.retry_at.filter(|_| !self.ending)
    }

    /// Stops accepting. Each listener closes after its last completion.
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

    pub(crate) fn is_ending(&self) -> bool {
        self.ending
    }

    /// Whether the acceptor has ended and nothing of it is outstanding. Closes the listeners that have ended.
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

/// A token that no session has: its generation is above all of theirs.
fn token(listener: usize) -> Token {
    Token(u64::MAX - listener as u64)
}
