//! Clients and targets. Each sends its number, and then bytes that follow from it and from their place: so who
//! gets them knows whose they are, and whether any is lost, doubled or out of order.

use std::net::SocketAddr;

use wharf::simulation::Peer;

const NUMBER_BYTES: u64 = 4;

/// A client or a target.
#[derive(Debug)]
pub(super) struct End {
    pub(super) number: u32,
    /// `None`: it has left, or its session is over.
    pub(super) peer: Option<Peer>,
    /// Of a client: its address. `None`: it is a target.
    pub(super) address: Option<SocketAddr>,
    /// Bytes that it has sent.
    pub(super) sent: u64,
    /// It has ended its stream.
    pub(super) has_ended: bool,
    /// It has reset, or closed without reading on.
    pub(super) is_cut: bool,
    pub(super) has_vanished: bool,
    pub(super) stalls: bool,
    /// Bytes that it has got, and from whom.
    pub(super) got: u64,
    from: u32,
    /// The end of the other's stream has come to it, or a reset.
    pub(super) got_end: bool,
    pub(super) was_reset: bool,
}

impl End {
    pub(super) fn new(number: u32, peer: Peer, address: Option<SocketAddr>) -> End {
        let mut end = End {
            number,
            peer: Some(peer),
            address,
            sent: 0,
            has_ended: false,
            is_cut: false,
            has_vanished: false,
            stalls: false,
            got: 0,
            from: 0,
            got_end: false,
            was_reset: false,
        };
        end.send(NUMBER_BYTES);
        end
    }

    pub(super) fn is_client(&self) -> bool {
        self.address.is_some()
    }

    /// Who is on the other side, as soon as that is known.
    pub(super) fn from(&self) -> Option<u32> {
        (self.got >= NUMBER_BYTES).then_some(self.from)
    }

    pub(super) fn key(&self) -> u64 {
        self.peer.as_ref().map_or(u64::MAX, Peer::key)
    }

    /// Sends so many bytes more.
    pub(super) fn send(&mut self, count: u64) {
        let Some(peer) = self.peer.as_ref().filter(|_| !self.has_ended) else { return };
        let bytes: Vec<u8> =
            (self.sent..self.sent + count).map(|at| byte_of(self.number, at)).collect();
        self.sent += count;
        peer.send(&bytes);
    }

    pub(super) fn finish(&mut self) {
        if let Some(peer) = &self.peer {
            self.has_ended = true;
            peer.shutdown();
        }
    }

    /// Takes what has come. What is wrong with it.
    pub(super) fn take(&mut self) -> Option<String> {
        let peer = self.peer.as_ref()?;
        for byte in peer.received() {
            let at = self.got;
            if at < NUMBER_BYTES {
                self.from = self.from << 8 | u32::from(byte);
            } else if byte != byte_of(self.from, at) {
                return Some(format!("byte {at} of {} came wrong to {}", self.from, self.number));
            }
            self.got += 1;
        }
        if peer.is_reset() {
            (self.was_reset, self.peer) = (true, None);
        } else if peer.is_ended() {
            self.got_end = true;
            if self.has_ended {
                self.peer = None;
            }
        }
        None
    }
}

fn byte_of(number: u32, at: u64) -> u8 {
    if at < NUMBER_BYTES {
        return number.to_be_bytes()[at as usize];
    }
    let mixed = (at ^ u64::from(number) << 40).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    mixed.to_be_bytes()[0]
}
