//! For tests: a port with some behaviour replaced, so that it refuses, fails or waits on demand.

use std::io;
use std::net::Shutdown;
use std::time::Duration;

use crate::port::{
    Anywhere, CompletionPort, Operation, OperationKind, Refused, Registration, Sink, Socket, Token,
    Waker,
};

/// Intercepts calls to a port. The default of each method passes the call on.
pub(super) trait Changes<P: CompletionPort> {
    fn register(
        &mut self,
        port: &mut P,
        socket: Socket,
        token: Token,
    ) -> Result<Registration, Refused<Socket>> {
        port.register(socket, token)
    }

    fn post(
        &mut self,
        port: &mut P,
        registration: Registration,
        operation: Operation,
    ) -> Result<(), Refused<Operation>> {
        port.post(registration, operation)
    }

    fn cancel(&mut self, port: &mut P, registration: Registration, kind: OperationKind) {
        port.cancel(registration, kind);
    }

    fn wait<S: Sink>(
        &mut self,
        port: &mut P,
        timeout: Option<Duration>,
        sink: &mut S,
    ) -> io::Result<()> {
        port.wait(timeout, sink)
    }

    fn close<S: Sink>(&mut self, port: P, sink: &mut S) {
        port.close(sink);
    }
}

pub(super) struct ChangedPort<P, C> {
    pub(super) port: P,
    pub(super) changes: C,
}

impl<P: CompletionPort, C: Changes<P>> CompletionPort for ChangedPort<P, C> {
    const SHARED: bool = P::SHARED;

    fn register(&mut self, socket: Socket, token: Token) -> Result<Registration, Refused<Socket>> {
        self.changes.register(&mut self.port, socket, token)
    }

    fn deregister(&mut self, registration: Registration) -> Socket {
        self.port.deregister(registration)
    }

    fn post(
        &mut self,
        registration: Registration,
        operation: Operation,
    ) -> Result<(), Refused<Operation>> {
        self.changes.post(&mut self.port, registration, operation)
    }

    fn cancel(&mut self, registration: Registration, kind: OperationKind) {
        self.changes.cancel(&mut self.port, registration, kind);
    }

    fn shutdown(&mut self, registration: Registration, how: Shutdown) {
        self.port.shutdown(registration, how);
    }

    fn has_unread(&self, registration: Registration) -> bool {
        self.port.has_unread(registration)
    }

    fn stalled_for(&self, registration: Registration) -> Option<Duration> {
        self.port.stalled_for(registration)
    }

    fn unacknowledged_bytes(&self, registration: Registration) -> Option<usize> {
        self.port.unacknowledged_bytes(registration)
    }

    fn wait<S: Sink>(&mut self, timeout: Option<Duration>, sink: &mut S) -> io::Result<()> {
        self.changes.wait(&mut self.port, timeout, sink)
    }

    fn waker(&self) -> Waker {
        self.port.waker()
    }

    fn anywhere(&self) -> Option<Anywhere> {
        self.port.anywhere()
    }

    fn close<S: Sink>(mut self, sink: &mut S) {
        self.changes.close(self.port, sink);
    }
}
