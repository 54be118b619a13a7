//! The descriptors of a port's sockets by registration, for threads that send directly.

use std::io::IoSlice;
use std::os::fd::{BorrowedFd, RawFd};
use std::sync::Arc;

use socket2::SockRef;

use super::completion_port::Anywhere;
use super::operation::Registration;
use super::socket::send_at_once;
use crate::buffer::Direct;
use crate::close::CloseReason;
use crate::sync::{Gate, OnceLock};

/// Entries in the table's first chunk. Each further chunk has twice as many as the one before. Entries do not
/// move. Every session has one, so the overhead must be small.
const CHUNK_LEN_MIN: usize = 1024;
/// This many chunks hold an entry for every possible registration.
const CHUNKS_MAX: usize = 23;

/// The port's own reference to the table. Dropped before the sockets, so it must be the first field.
#[derive(Debug, Default)]
pub(super) struct Descriptors(Arc<Table>);

/// A gate per registration: the descriptor is behind it, a sending thread is inside.
#[derive(Debug)]
struct Table([OnceLock<Box<[Gate]>>; CHUNKS_MAX]);

impl Default for Table {
    fn default() -> Self {
        Table(std::array::from_fn(|_| OnceLock::new()))
    }
}

impl Table {
    /// The position of a registration's entry: its chunk, and its index there.
    fn place(Registration(index): Registration) -> (usize, usize) {
        let index = index as usize;
        let chunk = (index / CHUNK_LEN_MIN + 1).ilog2() as usize;
        (chunk, index - (Self::len(chunk) - CHUNK_LEN_MIN))
    }

    fn len(chunk: usize) -> usize {
        CHUNK_LEN_MIN << chunk
    }

    fn gate(&self, registration: Registration) -> Option<&Gate> {
        let (chunk, place) = Self::place(registration);
        self.0[chunk].get()?.get(place)
    }
}

impl Descriptors {
    pub(super) fn anywhere(&self) -> Anywhere {
        Anywhere::Sends(self.0.clone())
    }

    /// Enters a registered socket.
    ///
    /// # Safety
    /// The descriptor stays open until [`vacate`](Self::vacate) of this registration, or the drop of this
    /// value, has returned.
    pub(super) unsafe fn occupy(&self, registration: Registration, descriptor: RawFd) {
        let (chunk, place) = Table::place(registration);
        let make = || (0..Table::len(chunk)).map(|_| Gate::default()).collect();
        self.0.0[chunk].get_or_init(make)[place].open(descriptor as u32); // open descriptors are not negative
    }

    /// Removes a socket, and returns when no thread is sending to it. (None should be: a sending thread holds
    /// a count on the session, whose socket stays registered meanwhile.)
    pub(super) fn vacate(&self, registration: Registration) {
        if let Some(gate) = self.0.gate(registration) {
            gate.shut();
        }
    }
}

/// The port ends and closes its sockets, even if a count is held on their sessions, as is possible after a
/// failure. So this waits until no thread is inside a gate. Sends do not block, so the wait is short.
impl Drop for Descriptors {
    fn drop(&mut self) {
        self.0.0.iter().filter_map(OnceLock::get).flatten().for_each(Gate::shut);
    }
}

impl Direct for Table {
    fn send(&self, registration: u32, parts: &[IoSlice<'_>]) -> Result<usize, CloseReason> {
        let gate = self.gate(Registration(registration));
        let Some(inside) = gate.and_then(Gate::enter) else { return Ok(0) };
        // SAFETY: the descriptor stays open while this thread is inside its gate, as the caller of
        // `Descriptors::occupy` promised.
        let socket = unsafe { BorrowedFd::borrow_raw(inside.number() as RawFd) };
        send_at_once(&SockRef::from(&socket), parts)
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use std::io::Read;
    use std::os::fd::AsRawFd;
    use std::os::unix::net::UnixStream;

    use super::*;
    use crate::sync::{AtomicBool, Ordering, yield_now};

    const PARTS: [&[u8]; 2] = [b"ab", b"c"];

    fn occupy(descriptors: &Descriptors, at: Registration, socket: &UnixStream) {
        // SAFETY: each test keeps its socket longer than its descriptors.
        unsafe { descriptors.occupy(at, socket.as_raw_fd()) };
    }

    #[test]
    fn only_what_is_registered_at_a_port_that_stands_is_sent_to() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        theirs.set_nonblocking(true).unwrap();
        let descriptors = Descriptors::default();
        let sender = descriptors.0.clone();
        let at = Registration(1_500);
        assert_eq!(sender.send(at.0, &PARTS.map(IoSlice::new)).unwrap(), 0, "nothing is there");
        occupy(&descriptors, at, &ours);
        assert_eq!(sender.send(1_499, &PARTS.map(IoSlice::new)).unwrap(), 0, "nor there");
        assert_eq!(sender.send(at.0, &PARTS.map(IoSlice::new)).unwrap(), 3);
        descriptors.vacate(at);
        assert_eq!(sender.send(at.0, &PARTS.map(IoSlice::new)).unwrap(), 0);
        occupy(&descriptors, at, &ours);
        drop(descriptors);
        assert_eq!(sender.send(at.0, &PARTS.map(IoSlice::new)).unwrap(), 0, "the port has ended");
        let mut came = [0; 10];
        assert_eq!(theirs.read(&mut came).unwrap(), 3);
        assert!(theirs.read(&mut came).is_err(), "nothing more");
    }

    #[test]
    fn every_registration_has_an_entry_of_its_own() {
        let mut next = (0, 0);
        for index in 0..100_000 {
            assert_eq!(Table::place(Registration(index)), next);
            next = match next {
                (chunk, place) if place + 1 == Table::len(chunk) => (chunk + 1, 0),
                (chunk, place) => (chunk, place + 1),
            };
        }
        let (chunk, place) = Table::place(Registration(u32::MAX));
        assert!(chunk < CHUNKS_MAX && place < Table::len(chunk));
    }

    /// Also for a sender that should not be there: a closed descriptor may soon belong to another file.
    #[test]
    fn who_ends_a_registration_or_the_port_waits_for_who_is_sending() {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let at = Registration(3);
        let ends: [fn(Descriptors, Registration); 2] =
            [|descriptors, at| descriptors.vacate(at), |descriptors, _| drop(descriptors)];
        for end in ends {
            let descriptors = Descriptors::default();
            occupy(&descriptors, at, &ours);
            let table = descriptors.0.clone();
            let (has_begun, has_ended) = (AtomicBool::new(false), AtomicBool::new(false));
            let sending = table.gate(at).unwrap().enter().unwrap();
            assert_eq!(
                table.send(at.0, &PARTS.map(IoSlice::new)).unwrap(),
                0,
                "another is sending"
            );
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    has_begun.store(true, Ordering::SeqCst);
                    end(descriptors, at);
                    has_ended.store(true, Ordering::SeqCst);
                });
                while !has_begun.load(Ordering::SeqCst) {
                    yield_now();
                }
                for _ in 0..1_000 {
                    assert!(!has_ended.load(Ordering::SeqCst));
                    yield_now();
                }
                drop(sending);
            });
            assert!(has_ended.load(Ordering::SeqCst));
        }
    }
}
