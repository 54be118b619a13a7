//! Accepting from a socket that others accept from too: other workers, or other processes.
//!
//! An accept of the ring's waits exclusively: the kernel wakes the first that waits for each connection, as long as it
//! waits, even if it is busy, and also if it is cancelled at that moment: then nobody hears of the connection before
//! the next (seen with Linux 6.18). So of a socket that does not block, which marks those that are shared, the ring is
//! asked for readiness alone. All that wait are woken, and each takes what it finds.

use std::io::ErrorKind;

use super::port::{Request, UringPort};
use super::record::{Ends, bit};
use crate::port::{Accepted, Completion, Failure, OperationKind, Outcome, Sink};

/// The most connections that are accepted before other completions are looked at.
const ACCEPTS_MAX: usize = 64;

impl UringPort {
    /// The poll of such a listener has ended.
    pub(super) fn polled<S: Sink>(
        &mut self,
        index: u32,
        result: Result<usize, Failure>,
        sink: &mut S,
    ) {
        let record = &mut self.records[index as usize];
        let token = record.token;
        let mut tell = |result, more| {
            sink.take(Completion::new(token, Outcome::Accepted(result), more));
        };
        let Some(listener) = &record.socket else { return };
        if let Err(failure) = result {
            return tell(Err(failure), false);
        }
        // The cancel may have come when the poll had ended already, and found nothing. What waits is the others'.
        if record.ends == Ends::ByCancel || self.ending {
            return tell(Err(Failure::Cancelled), false);
        }
        // Whoever shares the socket may have set this otherwise, and an accept would block the worker.
        let _ = listener.os().set_nonblocking(true);
        for _ in 0..ACCEPTS_MAX {
            match listener.os().accept4(libc::SOCK_CLOEXEC) {
                Ok((socket, peer)) => {
                    let peer_address = peer.as_socket();
                    tell(Ok(Accepted { socket: socket.into(), peer_address }), true);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // That peer gave up; the listener is fine.
                Err(error) if error.kind() == ErrorKind::ConnectionAborted => {
                    tell(Err(Failure::Os(error)), true);
                }
                Err(error) => return tell(Err(Failure::Os(error)), false),
            }
        }
        record.outstanding |= bit(OperationKind::Accept);
        self.outstanding += 1;
        self.request(Request::Operation(index, OperationKind::Accept, None));
    }
}
