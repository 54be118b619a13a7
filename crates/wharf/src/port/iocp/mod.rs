//! The IOCP port: one I/O completion port that all workers share.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use socket2::Socket;

use super::{
    CompletionPort, Operation, OperationKind, Poster, Refused, Registration, Sink, Token, Waker,
};

/// How a completion port is made.
#[derive(Debug, Clone, Copy)]
pub(crate) struct IocpSizes {
    /// `NumberOfConcurrentThreads`: the workers.
    pub(crate) concurrent_threads: u32,
    /// AcceptEx operations outstanding for each listener.
    pub(crate) accepts_outstanding: u32,
    /// `FILE_SKIP_COMPLETION_PORT_ON_SUCCESS`: this many completions of a socket in a row may be dealt with without
    /// going through the port. 0: all go through the port.
    pub(crate) synchronous_completions_max: u32,
}

/// The port itself, and all that is registered at it.
#[derive(Debug)]
pub(crate) struct SharedPort {}

impl SharedPort {
    pub(crate) fn new(sizes: IocpSizes) -> io::Result<Arc<Self>> {
        let _ = sizes;
        Ok(Arc::new(SharedPort {}))
    }
}

/// One worker's handle to the port.
#[derive(Debug)]
pub(crate) struct IocpPort {
    shared: Arc<SharedPort>,
}

impl IocpPort {
    pub(crate) fn join(shared: Arc<SharedPort>) -> io::Result<Self> {
        Ok(IocpPort { shared })
    }

    #[cfg(test)]
    pub(crate) fn for_test() -> Self {
        todo!()
    }
}

impl CompletionPort for IocpPort {
    const SHARED: bool = true;

    fn register(
        &mut self,
        _socket: Socket,
        _token: Token,
    ) -> Result<Registration, Refused<Socket>> {
        todo!()
    }

    fn deregister(&mut self, _registration: Registration) -> Socket {
        todo!()
    }

    fn socket(&self, _registration: Registration) -> &Socket {
        todo!()
    }

    fn post(
        &mut self,
        _registration: Registration,
        _operation: Operation,
    ) -> Result<(), Refused<Operation>> {
        todo!()
    }

    fn cancel(&mut self, _registration: Registration, _kind: OperationKind) {
        todo!()
    }

    fn wait<S: Sink>(&mut self, _timeout: Option<Duration>, _sink: &mut S) -> io::Result<()> {
        todo!()
    }

    fn waker(&self) -> Waker {
        todo!()
    }

    fn poster(&self) -> Option<Poster> {
        todo!()
    }

    fn close<S: Sink>(self, _sink: &mut S) {
        let _ = self.shared;
    }
}
