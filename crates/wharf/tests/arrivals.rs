//! What is sent to an id arrives at the session of that id, or comes back as gone.
//!
//! A thread sends to hundreds of sessions by id while they end and come again in every way there
//! is. The frames carry the id they were addressed to and a number that counts up for each id; the
//! peers know their own id from the first frame and check both. `WHARF_TEST_SECS` says how long
//! (3), `WHARF_TEST_SESSIONS` how many (1,000).

#![forbid(unsafe_code)]

#[macro_use]
mod support;

use std::collections::{HashMap, VecDeque};
use std::io::Read;
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use socket2::SockRef;
use support::*;
use wharf::{Backend, Close, CloseReason, Handle, SendError, SessionId};

const WORKERS: usize = 2;
const PEER_THREADS: usize = 2;
/// The id and the number, eight bytes each; then filling that follows from both.
const FRAME_BYTES_MIN: usize = 16;
const FRAME_BYTES_MAX: usize = 200;

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |value| value.parse().unwrap())
}

/// The frame with this number to this session: every byte of it follows from the two.
fn frame(id: SessionId, number: u64) -> Vec<u8> {
    let mut random = Random::new(id.to_bits() ^ number.rotate_left(40));
    let filling = random.below(FRAME_BYTES_MAX - FRAME_BYTES_MIN);
    let head = [id.to_bits().to_be_bytes(), number.to_be_bytes()].concat();
    [head, random.bytes(filling)].concat()
}

/// How a peer's stream ended.
#[derive(Clone, Copy, Debug, PartialEq)]
enum End {
    /// The peer left, or had the server stop the session: what was on its way is lost.
    Cut,
    /// The server ended it in order: all that was taken for it must have come.
    InOrder,
    Reset,
    /// Linux leaves some connections without an answer whose handshake ends while the listener is
    /// closed, whether there is one or more (see [`Handle::drain`]). The peer takes it for standing,
    /// and no server can accept or end it.
    Stranded,
}

/// One peer: its stream, and what it has seen of it.
#[derive(Debug)]
struct Peer {
    stream: TcpStream,
    bytes: Vec<u8>,
    id: Option<SessionId>,
    /// The number of the next frame.
    number: u64,
    /// It asked the server to stop the session.
    stopped: bool,
}

impl Peer {
    /// `None`: nobody listens any more.
    fn connect(address: SocketAddr) -> Option<Self> {
        let stream = TcpStream::connect(address).ok()?;
        stream.set_nonblocking(true).unwrap();
        Some(Peer { stream, bytes: Vec::new(), id: None, number: 0, stopped: false })
    }

    /// Takes what has come, and holds every frame against what it should be.
    fn look(&mut self, scratch: &mut [u8]) -> Option<End> {
        match self.stream.read(scratch) {
            Ok(0) if self.stopped => return Some(End::Cut),
            Ok(0) => {
                assert!(self.bytes.is_empty(), "the stream ends inside a frame");
                return Some(End::InOrder);
            }
            Ok(count) => self.bytes.extend_from_slice(&scratch[..count]),
            Err(error) if is_time_out(&error) => {}
            Err(error) if is_reset(&error) => {
                return Some(if self.stopped { End::Cut } else { End::Reset });
            }
            Err(error) => panic!("{error}"),
        }
        let mut taken = 0;
        while let Some((length, rest)) = self.bytes[taken..].split_first_chunk() {
            let length = u32::from_be_bytes(*length) as usize;
            let Some(found) = rest.get(..length) else { break };
            judge(&mut self.id, &mut self.number, found);
            taken += 4 + length;
        }
        self.bytes.drain(..taken);
        None
    }
}

/// Whether this frame is the one that must come next.
fn judge(id: &mut Option<SessionId>, number: &mut u64, found: &[u8]) {
    let named = SessionId::from_bits(u64::from_be_bytes(*found.first_chunk().unwrap()));
    let id = *id.get_or_insert(named);
    assert_eq!(named, id, "a frame came to a session that it was not addressed to");
    assert_eq!(found, frame(id, *number), "frame {number} of {id}");
    *number += 1;
}

#[derive(Debug, Default)]
struct Totals {
    sent: u64,
    gone: u64,
    full: u64,
    arrived: u64,
    sessions: u64,
    in_order: u64,
}

/// The thread that sends: for each id, how many frames were taken for it.
fn send(
    handle: &Handle,
    live: &Mutex<Vec<SessionId>>,
    over: &AtomicBool,
) -> (HashMap<SessionId, u64>, Totals) {
    // The first frame of each was sent when it opened.
    let mut taken: HashMap<SessionId, u64> = HashMap::new();
    let (mut ids, mut stale) = (Vec::new(), VecDeque::new());
    let mut totals = Totals::default();
    let mut random = Random::new(9);
    while !over.load(Ordering::Relaxed) {
        ids.append(&mut lock(live));
        if ids.is_empty() {
            std::thread::yield_now();
            continue;
        }
        for _ in 0..64 {
            let at = random.below(ids.len());
            let id = ids[at];
            let number = taken.entry(id).or_insert(1);
            let expected = frame(id, *number);
            match handle.try_send(id, frame(id, *number)) {
                Ok(()) => {
                    *number += 1;
                    totals.sent += 1;
                }
                Err(SendError::Gone(back)) => {
                    assert_eq!(back, expected, "the bytes come back as they were");
                    totals.gone += 1;
                    stale.push_back(ids.swap_remove(at));
                    if ids.is_empty() {
                        break;
                    }
                }
                // Its peer is slow: the same frame is sent another time, so there is no gap.
                Err(SendError::Full { bytes, .. }) => {
                    assert_eq!(bytes, expected, "the bytes come back as they were");
                    totals.full += 1;
                }
                Err(error) => panic!("{error}"),
            }
        }
        // Who is gone stays gone, whoever lives in its slot now.
        if let Some(id) = stale.pop_front() {
            assert!(matches!(handle.try_send(id, b"to nobody"), Err(SendError::Gone(_))));
            if stale.len() < 1_000 {
                stale.push_back(id);
            }
        }
    }
    (taken, totals)
}

/// A thread of peers: they come, check what comes to them, and go. At the end they stay until the
/// server ends them. Returns each session's id, frames seen and end.
fn receive(
    address: SocketAddr,
    handle: &Handle,
    count: usize,
    seed: u64,
    (over, drained): (&AtomicBool, &AtomicBool),
) -> Vec<(SessionId, u64, End)> {
    let mut random = Random::new(seed);
    let mut scratch = vec![0; 64 * 1024];
    let (mut ended, mut stranded) = (Vec::new(), 0);
    let mut peers: Vec<_> = (0..count).map(|_| Peer::connect(address).unwrap()).collect();
    let mut quiet_since = Instant::now();
    while !peers.is_empty() {
        let is_over = over.load(Ordering::Relaxed);
        let is_drained = drained.load(Ordering::Acquire);
        let mut at = 0;
        while at < peers.len() {
            let peer = &mut peers[at];
            let before = peer.number;
            let mut end = peer.look(&mut scratch);
            if peer.number != before || end.is_some() {
                quiet_since = Instant::now();
            }
            let leaves = end.is_none() && !is_over && random.below(200) == 0;
            match (if leaves { random.below(4) } else { 4 }, peer.id) {
                // The server ends it in order: it is seen to its end.
                (0, Some(id)) => drop(handle.close(id, Close::Drain)),
                (1, Some(id)) => {
                    peer.stopped = true;
                    handle.close(id, Close::Stop);
                }
                // All that the server has had of sockets it has closed.
                (4, None) if end.is_none() && is_drained => end = Some(End::Stranded),
                (0 | 1, None) | (4, _) => {}
                (resets, _) => {
                    end = Some(End::Cut);
                    let linger = (resets == 2).then_some(Duration::ZERO);
                    SockRef::from(&peer.stream).set_linger(linger).unwrap();
                }
            }
            let Some(end) = end else {
                at += 1;
                continue;
            };
            let gone = peers.swap_remove(at);
            stranded += usize::from(end == End::Stranded);
            if let Some(id) = gone.id {
                ended.push((id, gone.number, end));
            }
            drop(gone);
            if !is_over {
                match Peer::connect(address) {
                    Some(peer) => peers.push(peer),
                    None => assert!(over.load(Ordering::Relaxed), "nobody listens"),
                }
            }
        }
        assert!(quiet_since.elapsed() < BOUND, "in vain: {peers:?}, {:?}", handle.stats());
        std::thread::sleep(Duration::from_micros(200)); // a sweep is a poll: it leaves the core
    }
    // A thread connects once at a time, and each worker closes one listener once.
    assert!(stranded <= WORKERS, "{stranded} connections were never answered");
    ended
}

on_every_backend! {
    fn every_frame_arrives_at_its_session_or_comes_back(backend) {
        let _alone = alone();
        let length = Duration::from_secs(setting("WHARF_TEST_SECS", 3));
        let sessions = setting("WHARF_TEST_SESSIONS", 1_000) as usize;
        let live: Arc<Mutex<Vec<SessionId>>> = Arc::default();
        let behaviour = Behaviour::silent().on_opened({
            let live = live.clone();
            move |session| {
                session.send(frame(session.id(), 0));
                lock(&live).push(session.id());
            }
        });
        // Slots are few more than sessions, so that they are used again soon.
        let options =
            pausing().workers(WORKERS).with(|options| {
options.sessions.max = sessions as u32 + 100;
});
        let harness = start(backend, length_framing(), options, behaviour);
        let (address, handle) = (harness.address(), &harness.handle);
        let [over, peers_over, drained] = [(); 3].map(|()| AtomicBool::new(false));

        let ((taken, mut totals), ended, report) = std::thread::scope(|scope| {
            let _over = (SetOnDrop(&over), SetOnDrop(&peers_over));
            let sender = scope.spawn(|| send(handle, &live, &over));
            let (peers_over, drained) = (&peers_over, &drained);
            let peers: Vec<_> = (0..PEER_THREADS)
                .map(|at| {
                    let count = sessions / PEER_THREADS;
                    scope.spawn(move || {
                        receive(address, handle, count, at as u64 + 1, (peers_over, drained))
                    })
                })
                .collect();
            std::thread::sleep(length);
            over.store(true, Ordering::Relaxed);
            let sent = sender.join().unwrap();
            // Whoever is there now stays, and gets what was taken for it.
            peers_over.store(true, Ordering::Relaxed);
            let report = handle.drain(BOUND).unwrap();
            drained.store(true, Ordering::Release);
            let ended = peers.into_iter().flat_map(|peer| peer.join().unwrap()).collect::<Vec<_>>();
            (sent, ended, report)
        });

        let mut seen = HashMap::new();
        for (id, arrived, end) in ended {
            assert_eq!(seen.insert(id, end), None, "{id} had two peers");
            totals.arrived += arrived;
            totals.in_order += u64::from(end == End::InOrder);
            let taken = taken.get(&id).copied().unwrap_or(1);
            assert!(arrived <= taken, "{id}: {arrived} frames came of {taken}");
            let reason = harness.log.closed(id);
            assert_ne!(end, End::Reset, "{id} was reset, {reason}");
            if end == End::InOrder {
                assert_in(reason, &[CloseReason::Local, CloseReason::Drained]);
                assert_eq!(arrived, taken, "{id}, {reason}");
            }
        }
        assert_eq!(report.cut_off, 0, "{report:?}");
        assert_eq!(report.live, report.flushed + report.ended, "{report:?}");
        let stats = harness.finish();
        totals.sessions = stats.opened;
        println!("{backend}: {totals:?}, {report:?}");
        assert!(totals.arrived > 0 && totals.gone > 0, "{totals:?}");
        assert_eq!(stats.handler_panics, 0);
    }
}
