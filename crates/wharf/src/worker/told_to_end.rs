//! A worker is told to end at any moment of its turn. With no session there is nothing else that would
//! wake it, so it must not need a turn more than the one that took the mail.

use std::io;
use std::net::Shutdown;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::config::Options;
use crate::engine::Engine;
use crate::framing::Framing;
use crate::handler::Handler;
use crate::port::readiness::ReadinessPort;
use crate::port::{
    CompletionPort, Operation, OperationKind, Refused, Registration, Sink, Socket, Token, Waker,
};
use crate::server::{Plan, start_on};

/// A port that waits for nothing while it is restless: its worker makes one turn after another.
struct RestlessPort {
    port: ReadinessPort,
    restless: Arc<AtomicBool>,
}

impl CompletionPort for RestlessPort {
    fn register(&mut self, socket: Socket, token: Token) -> Result<Registration, Refused<Socket>> {
        self.port.register(socket, token)
    }

    fn deregister(&mut self, registration: Registration) -> Socket {
        self.port.deregister(registration)
    }

    fn post(
        &mut self,
        registration: Registration,
        operation: Operation,
    ) -> Result<(), Refused<Operation>> {
        self.port.post(registration, operation)
    }

    fn cancel(&mut self, registration: Registration, kind: OperationKind) {
        self.port.cancel(registration, kind);
    }

    fn shutdown(&mut self, registration: Registration, how: Shutdown) {
        self.port.shutdown(registration, how);
    }

    fn wait<S: Sink>(&mut self, timeout: Option<Duration>, sink: &mut S) -> io::Result<()> {
        if self.restless.load(Ordering::SeqCst) {
            return Ok(());
        }
        self.port.wait(timeout, sink)
    }

    fn waker(&self) -> Waker {
        self.port.waker()
    }

    fn close<S: Sink>(self, sink: &mut S) {
        self.port.close(sink);
    }
}

struct Silent;

impl Handler for Silent {
    type State = ();

    fn opened(&self, _: &super::Session) {}

    fn received(&self, _: &super::Session, (): &mut (), _: &[u8]) {}
}

/// Many rounds of it, for the moment that matters is short.
fn ends_when_told(tell: fn(&Engine)) {
    let options = Options { workers: 1, sessions_max: 1, ..Options::default() };
    for round in 0..200 {
        let restless = Arc::new(AtomicBool::new(true));
        let for_port = restless.clone();
        let make_port =
            move |_| Ok(RestlessPort { port: ReadinessPort::new()?, restless: for_port.clone() });
        let plan = Plan::new(Framing::raw(), &options);
        let running = start_on(make_port, plan, Vec::new(), &Arc::new(Silent)).unwrap();
        for _ in 0..round % 8 {
            std::thread::yield_now(); // the worker is somewhere in its turns
        }
        tell(running.engine());
        restless.store(false, Ordering::SeqCst);
        // If it sleeps, the end of `running` wakes it.
        let ended = running.engine().wait_ended(Some(Duration::from_secs(10)));
        assert!(ended.is_some(), "in round {round} the worker went to sleep instead");
    }
}

#[test]
fn a_worker_without_sessions_ends_at_whatever_moment_it_is_told_to_stop() {
    ends_when_told(Engine::stop);
}

#[test]
fn a_worker_without_sessions_ends_at_whatever_moment_it_is_told_to_drain() {
    ends_when_told(Engine::drain);
}
