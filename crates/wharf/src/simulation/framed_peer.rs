//! A peer that sends and receives frames.

use std::collections::VecDeque;
use std::fmt;
use std::io::IoSlice;
use std::time::Duration;

use crate::framing::{Cut, Framing, Parts};
use crate::port::simulated::Peer;

/// A [`Peer`] that sends and receives frames. [`Peer::framed`] makes it.
///
/// ```
/// use std::time::Duration;
///
/// use wharf::simulation::{PeerEnd, check};
/// use wharf::{Close, Framing, Handler, LengthPrefix, Server, Session};
///
/// /// Answers one frame, and closes.
/// struct Once;
///
/// impl Handler for Once {
///     type State = ();
///     fn opened(&self, _: &Session) {}
///     fn received(&self, session: &Session, _: &mut (), frame: &[u8]) {
///         session.send(frame);
///         session.close(Close::Drain);
///     }
/// }
///
/// check(0..20, |simulation| {
///     let framing = Framing::length_prefixed(LengthPrefix::default());
///     let builder = Server::builder().listen("10.0.0.1:7000").framing(framing.clone());
///     let server = simulation.start(builder, Once).unwrap();
///     let mut peer = simulation.connect(server.addresses()[0]).unwrap().framed(framing);
///     peer.send(b"hello");
///     assert_eq!(peer.next_frame(Duration::from_secs(60)).as_deref(), Some(&b"hello"[..]));
///     assert_eq!(peer.next_frame(Duration::from_secs(60)), None);
///     assert_eq!(peer.end(), Some(PeerEnd::Closed));
/// });
/// ```
pub struct FramedPeer {
    peer: Peer,
    framing: Framing,
    /// What has come since the last whole frame.
    unfinished: Vec<u8>,
    /// Whole frames that were not taken yet.
    frames: VecDeque<Vec<u8>>,
    /// What has come is no frame.
    is_refused: bool,
}

/// How the session of a [`FramedPeer`] ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum PeerEnd {
    /// The server ended its stream after a whole frame, or before the first.
    Closed,
    /// The server ended its stream within a frame.
    WithinFrame {
        /// How many bytes of the frame have come, its header included.
        bytes: usize,
    },
    /// The connection was reset by the server, or this peer has reset or closed it.
    Reset,
    /// The server sent bytes that are no frame of the peer's framing. The session may go on, but the peer
    /// receives no further frame.
    NoFrame,
}

impl Peer {
    /// Makes it send and receive frames. What it has received and not taken yet is the beginning of the first
    /// frame.
    pub fn framed(self, framing: Framing) -> FramedPeer {
        let (unfinished, frames) = (Vec::new(), VecDeque::new());
        FramedPeer { peer: self, framing, unfinished, frames, is_refused: false }
    }
}

impl FramedPeer {
    /// The peer itself: to stall, reset or shut down, or to send bytes that are no frame.
    pub fn peer(&self) -> &Peer {
        &self.peer
    }

    /// Sends a frame, as [`Peer::send`] sends bytes.
    ///
    /// # Panics
    /// If the frame is larger than the framing allows. To see what the server does about such a frame, send
    /// its bytes through [`peer`](Self::peer).
    #[track_caller]
    pub fn send(&self, frame: impl AsRef<[u8]>) {
        let frame = frame.as_ref();
        let envelope = match self.framing.envelope(Parts(&[IoSlice::new(frame)])) {
            Ok(envelope) => envelope,
            Err(error) => panic!("a frame of {} bytes cannot be sent: {error:?}", frame.len()),
        };
        self.peer.send(&[envelope.header(), frame, envelope.trailer()].concat());
    }

    /// Takes the frames that have come whole since the last call. Lets no time pass.
    pub fn received(&mut self) -> Vec<Vec<u8>> {
        self.cut();
        std::mem::take(&mut self.frames).into()
    }

    /// Takes the next frame, and lets virtual time pass until it has come, at most so long. `None`: the session
    /// has [ended](Self::end), or the time is over.
    pub fn next_frame(&mut self, timeout: Duration) -> Option<Vec<u8>> {
        let world = self.peer.world().clone();
        world.run_until(timeout, || self.end().is_some() || !self.frames.is_empty());
        self.frames.pop_front()
    }

    /// How the session has ended. `None`: it has not, or some of the frames before its end were not taken yet.
    pub fn end(&mut self) -> Option<PeerEnd> {
        self.cut();
        if !self.frames.is_empty() {
            return None;
        }
        match self.unfinished.len() {
            _ if self.is_refused => Some(PeerEnd::NoFrame),
            _ if self.peer.has_unread() => None,
            _ if self.peer.is_reset() => Some(PeerEnd::Reset),
            _ if !self.peer.is_ended() => None,
            0 => Some(PeerEnd::Closed),
            bytes => Some(PeerEnd::WithinFrame { bytes }),
        }
    }

    /// Cuts the frames that have come whole.
    fn cut(&mut self) {
        let came = self.peer.received();
        if came.is_empty() || self.is_refused {
            return;
        }
        self.unfinished.extend(came);
        let mut at = 0;
        loop {
            match self.framing.cut(&self.unfinished[at..], 0) {
                Cut::Frame { header_bytes, frame_bytes, trailer_bytes } => {
                    let (from, to) = (at + header_bytes, at + header_bytes + frame_bytes);
                    self.frames.push_back(self.unfinished[from..to].to_vec());
                    at = to + trailer_bytes;
                }
                Cut::More { .. } => break,
                Cut::Refused(_) => {
                    self.is_refused = true;
                    break;
                }
            }
        }
        self.unfinished.drain(..at);
    }
}

/// Without the bytes: there may be many.
impl fmt::Debug for FramedPeer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FramedPeer")
            .field("key", &self.peer.key())
            .field("address", &self.peer.address())
            .field("framing", &self.framing)
            .field("frames", &self.frames.len())
            .field("unfinished_bytes", &self.unfinished.len())
            .finish_non_exhaustive()
    }
}
