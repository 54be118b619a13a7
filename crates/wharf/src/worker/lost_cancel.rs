//! Tests: a cancel is only a request. If it has no effect, the session's deadlines still hold.

use std::io::Write;
use std::net::{Ipv4Addr, TcpStream};
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

use super::changed_port::{ChangedPort, Changes};
use crate::close::CloseReason;
use crate::face::{Handler, Session};
use crate::framing::{Framing, Framings};
use crate::options::Options;
use crate::port::readiness::ReadinessPort;
use crate::port::{CompletionPort, OperationKind, Registration};
use crate::server::{Plan, serve_on};

const BOUND: Duration = Duration::from_secs(30);

/// Ignores the first cancel of a receive, and reports it.
struct Loses(Option<Sender<()>>);

impl Changes<ReadinessPort> for Loses {
    fn cancel(
        &mut self,
        port: &mut ReadinessPort,
        registration: Registration,
        kind: OperationKind,
    ) {
        match self.0.take_if(|_| kind == OperationKind::Receive) {
            Some(told) => told.send(()).expect("the test waits for it"),
            None => port.cancel(registration, kind),
        }
    }
}

struct Recorder(Sender<CloseReason>);

impl Handler for Recorder {
    type State = ();

    fn opened(&self, _: &Session) {}

    fn received(&self, _: &Session, _: &mut (), _: &[u8]) {}

    fn closed(&self, _: &Session, (): (), reason: CloseReason) {
        self.0.send(reason).expect("the test waits for it");
    }
}

#[test]
fn a_session_whose_cancel_came_to_nothing_ends_all_the_same_when_it_is_silent() {
    let idle_timeout = Some(Duration::from_millis(200));
    let options = Options::default().workers(1).with(|options| {
        options.time.idle_timeout = idle_timeout;
    });
    let plan = Plan::new(Framings::of(&[Framing::raw()]), &options);
    let any = (Ipv4Addr::LOCALHOST, 0).into();
    let listeners = plan.sockets.listen(any, false, &options, 1).unwrap();
    let address = listeners[0].local_address().unwrap();
    let (lost, is_lost) = channel();
    let make_port = move |_| {
        Ok(ChangedPort { port: ReadinessPort::new()?, changes: Loses(Some(lost.clone())) })
    };
    let (closes, closed) = channel();
    let Ok(_running) = serve_on(make_port, plan, vec![listeners], &Arc::new(Recorder(closes)))
    else {
        panic!("not started")
    };
    let mut peer = TcpStream::connect(address).unwrap();
    is_lost.recv_timeout(BOUND).expect("its time comes");
    peer.write_all(b"spoken in spite of it").unwrap();
    assert_eq!(closed.recv_timeout(BOUND), Ok(CloseReason::IdleTimeout));
}
