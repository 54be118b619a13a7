//! Tests: a half is wanted while another has it. A peer or thread cannot cause these interleavings reliably,
//! so a port waits or a worker does not run.

use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};

use super::super::Worker;
use super::super::changed_port::{ChangedPort, Changes};
use super::super::held::AtPort;
use super::{BOUND, Notes, Recorder, Trial, holding_back, port_maker};
use crate::clock::SystemClock;
use crate::close::Close;
use crate::engine::Engine;
use crate::port::{
    CompletionPort, Operation, OperationKind, Refused, Registration, Socket, Sockets, Token,
};
use crate::session::{Asked, HalfTable, Pauses, Phase};
use crate::{CloseReason, Framing, Options, Session};

/// Delays one post of a receive until another thread has asked for its end.
#[derive(Default)]
struct Gate {
    is_set: AtomicBool,
    /// What has been reached: the post, the cancel.
    reached: Mutex<[bool; 2]>,
    changed: Condvar,
}

const POST: usize = 0;
const CANCEL: usize = 1;

impl Gate {
    fn reach(&self, what: usize) {
        self.reached.lock().unwrap()[what] = true;
        self.changed.notify_all();
    }

    fn wait_for(&self, what: usize) {
        let reached = self.reached.lock().unwrap();
        let waited = self.changed.wait_timeout_while(reached, BOUND, |reached| !reached[what]);
        assert!(!waited.unwrap().1.timed_out(), "it never came");
    }
}

impl<P: CompletionPort> Changes<P> for Arc<Gate> {
    fn post(
        &mut self,
        port: &mut P,
        registration: Registration,
        operation: Operation,
    ) -> Result<(), Refused<Operation>> {
        if operation.kind() == OperationKind::Receive && self.is_set.swap(false, Ordering::SeqCst) {
            self.reach(POST);
            self.wait_for(CANCEL);
        }
        port.post(registration, operation)
    }

    fn cancel(&mut self, port: &mut P, registration: Registration, kind: OperationKind) {
        port.cancel(registration, kind);
        if kind == OperationKind::Receive {
            self.reach(CANCEL);
        }
    }
}

#[test]
fn a_close_that_comes_when_the_half_was_lent_and_the_receive_not_posted_yet_is_not_lost() {
    let options = holding_back().workers(4);
    let gate = Arc::new(Gate::default());
    let make_port = port_maker(&options);
    let of_ports = gate.clone();
    let make_port =
        move |index| Ok(ChangedPort { port: make_port(index)?, changes: of_ports.clone() });
    let trial = Trial::on(make_port, options, Framing::raw(), |_, _| {});
    gate.is_set.store(true, Ordering::SeqCst);
    let (_peer, id) = trial.connect_known();
    gate.wait_for(POST);
    assert!(trial.handle().close(id, Close::Stop));
    assert_eq!(trial.reason(id), CloseReason::Local);
    trial.finish();
}

#[test]
fn who_gives_back_or_would_lend_a_half_that_was_asked_for_looks_after_its_session_again() {
    let options = Options::default().workers(1);
    let port = port_maker(&options)(0).unwrap();
    let engine = Arc::new(Engine::new(true, Framing::raw(), options.clone(), Sockets::Os));
    let halves = HalfTable::new(engine.table.slots_max());
    let handler =
        Recorder { notes: Arc::new(Notes::default()), received: |_: &Session, _: &[u8]| {} };
    // This worker does not run; the test does its steps.
    let Worker { mut port, mut floor } =
        Worker::new(port, 0, &engine, &halves, &handler, SystemClock::start());
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let _peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let id = engine.admit(None, 0).unwrap();
    let slot = engine.table.held(id).unwrap();
    let socket = Socket::Os(listener.accept().unwrap().0.into());
    let registration = port.register(socket, Token(id.to_bits())).unwrap();
    slot.set_registration(Some(registration.0));
    let ask = || halves.take_or_ask(id.index()).err();

    let mut held = floor.hands.take(id, slot);
    held.half.life.enter(Phase::Open);
    assert_eq!(ask(), Some(Asked::InAHand));
    floor.give_back(held);
    assert_eq!(*floor.session.desk.to_attend.borrow(), [id]);

    let mut held = floor.hands.take(id, slot);
    held.half.life.set_pauses(Pauses::SHARE_USED);
    slot.note_turn_came();
    floor.attend(&mut port, id); // as another worker
    assert!(held.half.give_back(), "nobody would go on with it");

    let held = floor.hands.take(id, slot);
    assert_eq!(ask(), Some(Asked::InAHand));
    floor.attend_with(&mut AtPort { port: &mut port, registration }, held);
    assert_eq!(ask(), Some(Asked::WithAnOperation), "it was left without a receive");
}
