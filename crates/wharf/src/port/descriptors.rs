//! The descriptors of a port's sockets, by registration, for threads that send to them at once.

use std::os::fd::{BorrowedFd, RawFd};
use std::sync::Arc;

use socket2::SockRef;

use super::{Direct, DirectSender, Registration, SendAnywhere};
use crate::error::CloseReason;
use crate::sync::{Gate, Mutex};

const NO_DESCRIPTOR: RawFd = -1;
/// The table grows by so many, which stay where they are: every session has an entry, so there is to be
/// little beside them.
const CHUNK_LEN: usize = 1024;

/// The port's own hold on the table. First among its fields, so that it is dropped before the sockets.
#[derive(Debug, Default)]
pub(super) struct Descriptors(Arc<Table>);

#[derive(Debug, Default)]
struct Table {
    descriptors: Mutex<Vec<Box<[RawFd]>>>,
    /// Who sends is inside.
    gate: Gate,
}

impl Descriptors {
    pub(super) fn sender(&self) -> DirectSender {
        self.0.clone()
    }

    /// A socket is registered, or (`None`) is not any more.
    pub(super) fn set(&self, Registration(index): Registration, descriptor: Option<RawFd>) {
        let (mut descriptors, index) = (self.0.descriptors.lock(), index as usize);
        while index / CHUNK_LEN >= descriptors.len() {
            descriptors.push(vec![NO_DESCRIPTOR; CHUNK_LEN].into_boxed_slice());
        }
        descriptors[index / CHUNK_LEN][index % CHUNK_LEN] = descriptor.unwrap_or(NO_DESCRIPTOR);
    }
}

/// The port ends, and closes its sockets, whoever holds a count on their sessions: if it has failed, there
/// may be such. So nobody is to be sending then. Sends do not wait for anything, so this is soon.
impl Drop for Descriptors {
    fn drop(&mut self) {
        self.0.gate.shut();
    }
}

impl SendAnywhere for Table {
    fn send(
        &self,
        Registration(index): Registration,
        parts: [&[u8]; 2],
    ) -> Result<usize, CloseReason> {
        let Some(_inside) = self.gate.enter() else { return Ok(0) };
        let (chunk, place) = (index as usize / CHUNK_LEN, index as usize % CHUNK_LEN);
        let found = self.descriptors.lock().get(chunk).map(|chunk| chunk[place]);
        let Some(descriptor) = found.filter(|descriptor| *descriptor != NO_DESCRIPTOR) else {
            return Ok(0);
        };
        // SAFETY: it stays open meanwhile: the caller holds a count on the session, so its port does not
        // give the socket back (invariant 5), nor does it end while this thread is inside the gate.
        let socket = unsafe { BorrowedFd::borrow_raw(descriptor) };
        Direct::send(&*SockRef::from(&socket), parts)
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

    #[test]
    fn only_what_is_registered_at_a_port_that_stands_is_sent_to() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        theirs.set_nonblocking(true).unwrap();
        let descriptors = Descriptors::default();
        let sender = descriptors.sender();
        let at = Registration(1_500);
        assert_eq!(sender.send(at, PARTS).unwrap(), 0, "nothing is there");
        descriptors.set(at, Some(ours.as_raw_fd()));
        assert_eq!(sender.send(Registration(1_499), PARTS).unwrap(), 0, "nor there");
        assert_eq!(sender.send(at, PARTS).unwrap(), 3);
        descriptors.set(at, None);
        assert_eq!(sender.send(at, PARTS).unwrap(), 0);
        descriptors.set(at, Some(ours.as_raw_fd()));
        drop(descriptors);
        assert_eq!(sender.send(at, PARTS).unwrap(), 0, "the port has ended");
        let mut came = [0; 10];
        assert_eq!(theirs.read(&mut came).unwrap(), 3);
        assert!(theirs.read(&mut came).is_err(), "nothing more");
    }

    #[test]
    fn the_end_of_a_port_waits_for_who_is_sending() {
        let descriptors = Descriptors::default();
        let table = descriptors.0.clone();
        let has_ended = AtomicBool::new(false);
        let sending = table.gate.enter();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                drop(descriptors);
                has_ended.store(true, Ordering::SeqCst);
            });
            while table.gate.enter().is_some() {
                yield_now();
            }
            assert!(!has_ended.load(Ordering::SeqCst));
            drop(sending);
        });
    }
}
