//! Tests beyond the contract, which has its own suite: each fault shows, the same seed gives the same run,
//! and peers behave as documented.

mod faults;
mod peers;
mod runs;
#[cfg(debug_assertions)]
mod steps;

use std::net::SocketAddr;
use std::time::Duration;

use super::port_state::Sizes;
use super::socket::SimulatedSocket;
use super::world::Pace;
use super::{Faults, Peer, PeerListener, SimulatedPort, World};
use crate::port::{
    CompletionPort, Failure, Operation, OperationKind, Outcome, Registration, Token,
};

/// A port at which the driver itself waits. Nothing takes time unless a fault says so.
struct Bench<const SHARED: bool> {
    world: World,
    port: SimulatedPort<SHARED>,
    listening: Registration,
    address: SocketAddr,
    /// What was delivered: the token, the kind of operation, the result, whether it continues.
    told: Vec<(Token, OperationKind, Told, bool)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Told {
    Socket(Registration),
    /// With its own address.
    Connected(Option<SocketAddr>),
    Bytes(Vec<u8>),
    /// Bytes sent, and bytes left.
    Sent(usize, usize),
    Cancelled,
    BuffersExhausted,
    Failed(std::io::ErrorKind, Option<i32>),
}

/// As much as an end of a stream can hold unread.
const WINDOW: usize = if cfg!(miri) { 1 << 9 } else { 1 << 14 };

const LISTENER: Token = Token(0);

impl<const SHARED: bool> Bench<SHARED> {
    fn new(faults: Faults) -> Self {
        let switch_one_in = u64::MAX;
        let pace =
            Pace { operation_ns: 1, turn_ns: 1, switch_one_in, window_bytes: WINDOW, steps: 1 };
        let world = World::with_pace(1, faults, pace, false);
        world.begin();
        let port = world.make_ports(1, SHARED, Sizes::default());
        let mut port = SimulatedPort::open(world.clone(), port);
        let listener = world.listen(([10, 0, 0, 1], 7_000).into(), 16, 1).unwrap().remove(0);
        let address = listener.local_address().unwrap();
        // If registering is refused, that is what the test checks.
        let listening = port.register(listener.into(), LISTENER).unwrap_or(Registration(u32::MAX));
        Bench { world, port, listening, address, told: Vec::new() }
    }

    /// One wait. Adds to `told`.
    fn wait(&mut self, timeout: Duration) -> std::io::Result<usize> {
        let before = self.told.len();
        let mut sockets = Vec::new();
        let told = &mut self.told;
        let waited =
            self.port.wait(Some(timeout), &mut |completion: crate::port::Completion<'_>| {
                let (kind, came) = match completion.outcome {
                    Outcome::Accepted(Ok(accepted)) => {
                        sockets.push((told.len(), accepted.socket));
                        (OperationKind::Accept, Told::Socket(Registration(u32::MAX)))
                    }
                    Outcome::Accepted(Err(failure)) => (OperationKind::Accept, failed(failure)),
                    Outcome::Connected(Ok(own)) => (OperationKind::Connect, Told::Connected(own)),
                    Outcome::Connected(Err(failure)) => (OperationKind::Connect, failed(failure)),
                    Outcome::Received(Ok(bytes)) => {
                        (OperationKind::Receive, Told::Bytes(bytes.to_vec()))
                    }
                    Outcome::Received(Err(failure)) => (OperationKind::Receive, failed(failure)),
                    Outcome::ReceivedInto(..) => unreachable!("it is not posted here"),
                    Outcome::Sent(batch, Ok(count)) => {
                        (OperationKind::Send, Told::Sent(count, batch.bytes()))
                    }
                    Outcome::Sent(_, Err(failure)) => (OperationKind::Send, failed(failure)),
                };
                told.push((completion.token, kind, came, completion.more));
            });
        for (at, socket) in sockets {
            let registration = self.port.register(socket, Token(at as u64 + 1_000)).unwrap();
            self.told[at].2 = Told::Socket(registration);
        }
        waited.map(|()| self.told.len() - before)
    }

    /// The first completion of this kind within ten virtual seconds.
    fn outcome(&mut self, kind: OperationKind) -> Option<(Told, bool)> {
        let end = self.world.now() + Duration::from_secs(10);
        loop {
            let told = self.told.iter().find(|(_, of, ..)| *of == kind);
            if let Some((_, _, told, more)) = told {
                return Some((told.clone(), *more));
            }
            let now = self.world.now();
            if now >= end || self.wait(end - now).is_err() {
                return None;
            }
        }
    }

    fn post(&mut self, registration: Registration, operation: Operation) {
        self.port.post(registration, operation).unwrap();
    }

    /// A registered session socket and its peer, accepted while no fault happens.
    fn session(&mut self, token: u64) -> (Registration, Peer) {
        let peer = self.world.connect_peer(self.address).unwrap();
        let socket = self.world.with(|state| {
            let listener = state.ports[0].registered(self.listening.0).socket.unwrap();
            state.accept(listener).unwrap().0
        });
        let socket = SimulatedSocket::new(&self.world, socket).into();
        (self.port.register(socket, Token(token)).unwrap(), peer)
    }

    fn fired(&self, fault: super::Fault) -> u64 {
        self.world.fired().into_iter().find(|(of, _)| *of == fault).unwrap().1
    }

    fn peer_listener(&self) -> PeerListener {
        self.world.peer_listener(([10, 0, 0, 2], 0).into()).unwrap()
    }
}

impl<const SHARED: bool> Drop for Bench<SHARED> {
    fn drop(&mut self) {
        self.world.end();
    }
}

fn failed(failure: Failure) -> Told {
    match failure {
        Failure::Cancelled => Told::Cancelled,
        Failure::BuffersExhausted => Told::BuffersExhausted,
        Failure::Os(error) => Told::Failed(error.kind(), error.raw_os_error()),
    }
}
