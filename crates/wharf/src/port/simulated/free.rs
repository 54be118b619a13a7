//! The simulated network for the contract's suite, which starts threads freely and plays the peers with
//! blocking sockets.
//!
//! No scheduler controls a free world. When a port waits, its time jumps to the next thing that will happen.
//! If nothing will happen, the port really sleeps.

use std::cell::RefCell;
use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, Shutdown, SocketAddr};
use std::sync::{Arc, Weak};

use super::fault::Faults;
use super::network::{Connecting, Readable, SocketIndex, Writable};
use super::port::{At, SimulatedPort};
use super::port_state::Sizes;
use super::socket::SimulatedSocket;
use super::world::{Pace, Shared, State, World};
use crate::port::Socket;
use crate::port::contract::sockets::BOUND;

thread_local! {
    /// The world of the port that this thread's test judges, while it exists.
    static OF_THIS_TEST: RefCell<Weak<Shared>> = const { RefCell::new(Weak::new()) };
}

impl<const SHARED: bool> SimulatedPort<SHARED> {
    /// A port in its own world. This thread's test gets its sockets from that world's network.
    pub(in crate::port) fn for_test(seed: u64, faults: Faults) -> Self {
        Self::join_for_test(&Joined::of(seed, faults, Sizes::default(), SHARED))
    }

    /// The same with queues and buffers that are soon full.
    pub(in crate::port) fn for_test_small(seed: u64, faults: Faults) -> Self {
        let sizes = Sizes { buffers: 4, buffer_bytes: 1_024, ready_max: 8, batch_max: 3 };
        Self::join_for_test(&Joined::of(seed, faults, sizes, SHARED))
    }

    /// One more handle.
    pub(in crate::port) fn join_for_test(shared: &Joined) -> Self {
        Self::open(shared.0.world.clone(), shared.0.port)
    }
}

/// A port that several handles can join.
pub(in crate::port) struct Joined(At);

impl Joined {
    pub(in crate::port) fn for_test(seed: u64, faults: Faults) -> Self {
        // No handle takes everything at once.
        Self::of(seed, faults, Sizes { batch_max: 64, ..Sizes::default() }, true)
    }

    fn of(seed: u64, faults: Faults, sizes: Sizes, is_shared: bool) -> Self {
        let world = World::free(seed, faults);
        OF_THIS_TEST.set(Arc::downgrade(&world.0));
        let port = world.make_ports(1, is_shared, sizes);
        Joined(At { world, port })
    }
}

impl World {
    fn free(seed: u64, faults: Faults) -> Self {
        let window_bytes = 256 * 1024;
        let pace =
            Pace { operation_ns: 1, turn_ns: 1, switch_one_in: u64::MAX, window_bytes, steps: 0 };
        Self::with_pace(seed, faults, pace, true)
    }

    /// `None`: another port is judged, with sockets of the OS.
    pub(in crate::port) fn of_this_test() -> Option<World> {
        OF_THIS_TEST.with_borrow(Weak::upgrade).map(World)
    }

    fn hand_out(&self, index: SocketIndex) -> Socket {
        Socket::Simulated(SimulatedSocket::new(self, index))
    }

    pub(in crate::port) fn pair(&self) -> (Socket, Socket) {
        let (listener, address) = self.listener(1);
        let ours = self.socket();
        ours.connect(address).unwrap();
        let (peer, _) = listener.accept().unwrap();
        (ours.into(), peer)
    }

    pub(in crate::port) fn listener(&self, backlog: i32) -> (Socket, SocketAddr) {
        let any = (Ipv4Addr::LOCALHOST, 0).into();
        let listener = self.listen(any, backlog.unsigned_abs(), 1).unwrap().remove(0);
        let address = listener.local_address().unwrap();
        (listener.into(), address)
    }

    pub(in crate::port) fn deaf_socket(&self) -> (Socket, SocketAddr) {
        let (socket, address) = self.listener(1);
        socket.shutdown(Shutdown::Both).unwrap(); // keeps its address
        (socket, address)
    }

    /// Limited only by memory.
    #[cfg(unix)]
    pub(in crate::port) fn pairs_within_limit(&self, wanted: usize) -> usize {
        wanted
    }

    pub(in crate::port) fn full_listener(&self) -> (Vec<Socket>, SocketAddr) {
        let (listener, address) = self.listener(1);
        let mut sockets = vec![listener];
        for _ in 0..8 {
            sockets.push(self.with(|state| {
                let index = state.network.unconnected();
                state.connect(index, address);
                self.hand_out(index)
            }));
        }
        (sockets, address)
    }
}

/// What only the suite does with these sockets. As with real sockets there, an action that does not succeed
/// within its bound fails.
impl SimulatedSocket {
    fn index(&self) -> SocketIndex {
        self.index.expect("no port has it")
    }

    /// Tries until there is a result.
    fn block<R>(
        &self,
        mut attempt: impl FnMut(&mut State, SocketIndex) -> Option<io::Result<R>>,
    ) -> io::Result<R> {
        let shared = self.world.shared();
        let mut state = shared.lock();
        loop {
            if let Some(result) = attempt(&mut state, self.index()) {
                drop(state);
                self.world.tell_free_threads();
                return result;
            }
            let (again, waited) = shared.changed.wait_timeout(state, BOUND).unwrap();
            if waited.timed_out() {
                return Err(ErrorKind::WouldBlock.into());
            }
            state = again;
        }
    }

    pub(in crate::port) fn connect(&self, address: SocketAddr) -> io::Result<()> {
        self.block(|state, index| match state.connect(index, address) {
            Connecting::Done => Some(Ok(())),
            Connecting::Waits => None,
            Connecting::Refused => Some(Err(ErrorKind::ConnectionRefused.into())),
        })
    }

    pub(in crate::port) fn accept(&self) -> io::Result<(Socket, Option<SocketAddr>)> {
        let (index, peer) = self.block(|state, index| state.accept(index).map(Ok))?;
        Ok((self.world.hand_out(index), Some(peer)))
    }

    pub(in crate::port) fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        self.block(|state, index| {
            state.shut(index, how);
            Some(Ok(()))
        })
    }

    pub(in crate::port) fn reset(mut self) {
        if let Some(index) = self.index.take() {
            self.world.with(|state| state.close(index, true));
            self.world.tell_free_threads();
        }
    }

    pub(in crate::port) fn another_name(&self) -> Socket {
        self.world.with(|state| state.network.add_name(self.index()));
        self.world.hand_out(self.index())
    }

    pub(in crate::port) fn read(&self, into: &mut [u8]) -> io::Result<usize> {
        self.block(|state, index| match state.network.readable(index) {
            Readable::Nothing => None,
            Readable::End => Some(Ok(0)),
            Readable::Failed(kind) => {
                state.network.note_reset_told(index);
                Some(Err(kind.into()))
            }
            Readable::Bytes(count) => {
                let count = count.min(into.len());
                state.network.read(index, &mut [&mut into[..count]]);
                state.room_came(index);
                Some(Ok(count))
            }
        })
    }

    pub(in crate::port) fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        self.block(|state, index| write_now(state, index, bytes))
    }

    /// Does not block.
    pub(in crate::port) fn write_now(&self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.world.with(|state| write_now(state, self.index(), bytes));
        self.world.tell_free_threads();
        written.unwrap_or_else(|| Err(ErrorKind::WouldBlock.into()))
    }
}

/// `None`: there is no room.
fn write_now(state: &mut State, index: SocketIndex, bytes: &[u8]) -> Option<io::Result<usize>> {
    match state.network.writable(index) {
        Writable::Failed(kind) => Some(Err(kind.into())),
        Writable::Room(0) if !bytes.is_empty() => None,
        Writable::Room(room) => {
            let count = room.min(bytes.len());
            state.write(index, &[&bytes[..count]]);
            Some(Ok(count))
        }
    }
}
