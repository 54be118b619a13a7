//! The peers: crowds of sockets, one crowd per thread.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use socket2::SockRef;

use crate::facts::Asked;
use crate::frames::Request;
use crate::handler::{ACTIONS, Action};
use crate::plan::Plan;
use crate::random::Random;
use crate::reader::Reader;
use crate::truth::{Truth, lock};
use crate::wires::Wire;

/// How a peer's stream ended, as it saw it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum End {
    /// It did not.
    #[default]
    None,
    /// The server's end of stream came.
    Stream,
    Reset,
    /// The peer has reset the connection, or closed it, itself.
    Own,
}

/// What is known of a peer when the round is over.
#[derive(Debug, Default)]
pub(crate) struct PeerFacts {
    pub(crate) number: u32,
    /// The server has connected to it.
    pub(crate) was_connected_to: bool,
    /// A gateway lies between it and the server.
    pub(crate) via_gateway: bool,
    pub(crate) reader: Reader,
    /// Whole requests that it has written.
    pub(crate) sent: u32,
    /// It has ended its own stream before it saw an end.
    pub(crate) ended_first: bool,
    /// It has reset, closed without reading, or sent what is no request.
    pub(crate) is_rude: bool,
    /// It has read all the time.
    pub(crate) always_read: bool,
    /// It was silent for no longer than this between two writes, or until it saw the end.
    pub(crate) silence_max: Duration,
    pub(crate) end: End,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Talks,
    Listens,
    StalledUntil(Instant),
    Vanished,
    /// The server has finished: it asks for so much more, and then finishes too.
    GoesOn(u64),
}

struct Peer {
    stream: TcpStream,
    facts: PeerFacts,
    mode: Mode,
    out: Vec<u8>,
    written: usize,
    /// Whole requests in `out`.
    waiting: u32,
    /// Requests until it does something else.
    requests: u64,
    /// When it last began to write something that was taken, or came.
    wrote_at: Instant,
    /// It reads little at a time, and again at this time.
    reads_slowly_at: Option<Instant>,
    /// It may still send a byte of urgent data. (A second one would make the first a part of the stream.)
    may_be_urgent: bool,
    /// A write has told of a reset: what the next read says of it is an end of stream.
    was_reset: bool,
    /// It goes on when the server has finished.
    goes_on: bool,
}

/// What all threads of peers share.
pub(crate) struct Town {
    pub(crate) plan: Arc<Plan>,
    pub(crate) truth: Arc<Truth>,
    /// The server's listeners.
    pub(crate) server: Vec<(SocketAddr, Wire)>,
    pub(crate) gateway: Option<SocketAddr>,
    pub(crate) next_number: AtomicU32,
    /// The server has ended: whatever is left is read out.
    pub(crate) ended: AtomicBool,
}

/// Room for a whole segment of the loopback device: with less, each waits for a timer.
const SMALL_BUFFER_BYTES: usize = 64 * 1024;
const LARGE_BUFFER_BYTES: usize = 1024 * 1024;
const SLOW_READ_EVERY: Duration = Duration::from_millis(20);
const SLOW_READ_BYTES: usize = 4 * 1024;
/// Requests that a flooder sends at once.
const FLOOD: usize = 3_000;
/// An end that has not come so long after the server's own will not come.
const END_PATIENCE: Duration = Duration::from_secs(10);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Runs one crowd until the server has ended and all of it saw an end.
pub(crate) fn crowd(
    town: &Town,
    thread: u64,
    size: u64,
    listener: Option<TcpListener>,
) -> Vec<PeerFacts> {
    let mut random = Random::new(town.plan.seed, (2 << 32) + thread);
    let mut buffer = vec![0; 64 * 1024];
    let (mut peers, mut gone) = (Vec::new(), Vec::new());
    let mut connects_at = Instant::now();
    // Whom the listener has, came after it was last found empty.
    let mut listened_at = Instant::now();
    while !town.ended.load(Ordering::SeqCst) {
        let mut is_quiet = true;
        let listening_at = Instant::now();
        while let Some(stream) = listener.as_ref().and_then(|listener| listener.accept().ok()) {
            peers.extend(Peer::new(
                stream.0,
                listened_at,
                town,
                (Way::Connected, Wire::Length),
                &mut random,
            ));
        }
        listened_at = listening_at;
        let is_due = (peers.len() as u64) < size && connects_at <= Instant::now();
        if is_due && !town.truth.is_ending() && !town.truth.is_quiet() {
            let began = Instant::now();
            connects_at = began + random.millis(0..6);
            let (address, way) = match town.gateway.filter(|_| random.one_in(3)) {
                Some(gateway) => ((gateway, Wire::Length), Way::ViaGateway),
                None => (random.pick(&town.server), Way::Accepted),
            };
            let (address, wire) = address;
            let connected = TcpStream::connect_timeout(&address, CONNECT_TIMEOUT).ok();
            let peer = |stream| Peer::new(stream, began, town, (way, wire), &mut random);
            peers.extend(connected.and_then(peer));
        }
        for peer in &mut peers {
            is_quiet &= !peer.turn(town, &mut buffer, &mut random);
        }
        peers = sort_out(peers, &mut gone, size, &mut random);
        if is_quiet {
            std::thread::sleep(Duration::from_micros(300));
        }
    }
    drop(listener);
    for peer in &mut peers {
        if matches!(peer.mode, Mode::GoesOn(_)) {
            peer.facts.silence_max = peer.silence_max();
        }
        peer.mode = Mode::Listens;
        let _ = SockRef::from(&peer.stream).set_recv_buffer_size(LARGE_BUFFER_BYTES);
    }
    let until = Instant::now() + END_PATIENCE;
    while !peers.is_empty() && Instant::now() < until {
        for peer in &mut peers {
            peer.read(town, &mut buffer);
        }
        let (over, left): (Vec<_>, Vec<_>) = peers.into_iter().partition(Peer::is_over);
        gone.extend(over.into_iter().map(|peer| peer.facts));
        peers = left;
        std::thread::sleep(Duration::from_millis(1));
    }
    gone.extend(peers.into_iter().map(|peer| peer.facts));
    gone
}

/// Takes out those that are over, and some of those that have vanished if they are many.
fn sort_out(
    peers: Vec<Peer>,
    gone: &mut Vec<PeerFacts>,
    size: u64,
    random: &mut Random,
) -> Vec<Peer> {
    let vanished = peers.iter().filter(|peer| peer.mode == Mode::Vanished).count() as u64;
    let (mut kept, mut excess) = (Vec::new(), vanished.saturating_sub(size / 4));
    for mut peer in peers {
        if peer.mode == Mode::Vanished && excess > 0 && !peer.is_over() {
            excess -= 1;
            peer.cut(random.one_in(2));
        }
        if peer.is_over() { gone.push(peer.facts) } else { kept.push(peer) }
    }
    kept
}

/// How a peer and its session came together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Accepted,
    ViaGateway,
    /// By a connect of the server's.
    Connected,
}

impl Peer {
    /// `began`: no later than its connection.
    fn new(
        stream: TcpStream,
        began: Instant,
        town: &Town,
        (way, wire): (Way, Wire),
        random: &mut Random,
    ) -> Option<Peer> {
        stream.set_nonblocking(true).ok()?;
        if random.one_in(3) {
            // What it does not read soon fills the server's queue.
            SockRef::from(&stream).set_recv_buffer_size(SMALL_BUFFER_BYTES).ok()?;
        }
        let facts = PeerFacts {
            number: town.next_number.fetch_add(1, Ordering::Relaxed),
            was_connected_to: way == Way::Connected,
            via_gateway: way == Way::ViaGateway,
            always_read: true,
            reader: Reader::of(wire),
            ..PeerFacts::default()
        };
        let mode = if random.one_in(5) { Mode::Listens } else { Mode::Talks };
        let requests = random.within(1..40);
        let hazards = &town.plan.hazards;
        let is_slow = hazards.slow_readers && random.one_in(6);
        Some(Peer {
            stream,
            facts: PeerFacts { always_read: !is_slow, ..facts },
            mode,
            out: Vec::new(),
            written: 0,
            waiting: 0,
            requests,
            wrote_at: began,
            reads_slowly_at: is_slow.then(Instant::now),
            may_be_urgent: hazards.urgent_data && random.one_in(4),
            was_reset: false,
            goes_on: random.one_in(2),
        })
    }

    fn is_over(&self) -> bool {
        self.facts.end != End::None && !matches!(self.mode, Mode::GoesOn(_))
    }

    /// True: something came or went.
    fn turn(&mut self, town: &Town, buffer: &mut [u8], random: &mut Random) -> bool {
        match self.mode {
            Mode::Vanished => return false,
            Mode::StalledUntil(when) if when > Instant::now() => return false,
            Mode::StalledUntil(_) => self.mode = Mode::Talks,
            Mode::GoesOn(left) => return self.go_on(town, left, random),
            Mode::Talks | Mode::Listens => {}
        }
        let is_quiet = town.truth.is_quiet();
        let mut moved = self.read(town, buffer);
        if self.is_over() || self.mode == Mode::Listens {
            if !is_quiet && random.one_in(4_000) && !self.is_over() {
                self.turns_away(town, random);
            }
            return moved;
        }
        if self.out.is_empty() && !is_quiet && random.one_in(3) {
            if self.requests == 0 {
                self.turns_away(town, random);
                return true;
            }
            for _ in 0..random.within(1..4) {
                self.ask(random);
            }
            if town.plan.hazards.flooders && random.one_in(200) {
                (0..FLOOD).for_each(|_| self.ask_for(Action::Nothing.number(), 0));
            }
        }
        moved |= self.write(town);
        if self.may_be_urgent && random.one_in(20) {
            self.may_be_urgent = false;
            let _ = SockRef::from(&self.stream).send_out_of_band(&[0xFF]);
        }
        moved
    }

    fn ask(&mut self, random: &mut Random) {
        let action = random.below(ACTIONS.len() as u64) as u8;
        self.ask_for(action, random.frame_bytes());
        self.requests = self.requests.saturating_sub(1);
    }

    fn ask_for(&mut self, action: u8, bytes: usize) {
        let number = self.facts.sent + self.waiting;
        let request = Request { peer: self.facts.number, number, action };
        request.write(bytes, self.facts.reader.wire, &mut self.out);
        self.waiting += 1;
    }

    /// The server's direction has ended. Its own goes on, for some requests.
    fn go_on(&mut self, town: &Town, left: u64, random: &mut Random) -> bool {
        // Nothing is read any more that would say so.
        self.facts.silence_max = self.silence_max();
        if !self.out.is_empty() {
            return self.write(town);
        }
        if left == 0 {
            let _ = self.stream.shutdown(Shutdown::Write);
            self.facts.ended_first = true;
            self.mode = Mode::Listens;
        } else {
            self.ask(random);
            self.mode = Mode::GoesOn(left - 1);
        }
        true
    }

    /// Says what must reach its session, if it always reads.
    fn note_asked(&self, town: &Town) {
        let Some(session) = self.facts.reader.session else { return };
        let mut asked = lock(&town.truth.asked);
        if self.facts.always_read && !self.facts.is_rude && self.facts.end != End::Own {
            let (sent, ended) = (self.facts.sent, self.facts.ended_first);
            asked.insert(session, Asked { sent, ended });
        } else {
            asked.remove(&session);
        }
    }

    fn write(&mut self, town: &Town) -> bool {
        if self.out.is_empty() {
            return false;
        }
        let began = Instant::now();
        match self.stream.write(&self.out[self.written..]) {
            Ok(count) => {
                self.facts.silence_max = self.silence_max();
                self.wrote_at = began;
                self.written += count;
                if self.written == self.out.len() {
                    self.facts.sent += std::mem::take(&mut self.waiting);
                    self.written = 0;
                    self.out.clear();
                    self.note_asked(town);
                }
                count > 0
            }
            Err(error) => {
                if !is_for_later(&error) {
                    // The end is seen by reading, after what has come before it.
                    self.was_reset = true;
                    self.mode = Mode::Listens;
                }
                false
            }
        }
    }

    /// The longest that it was silent, until now.
    fn silence_max(&self) -> Duration {
        self.facts.silence_max.max(self.wrote_at.elapsed())
    }

    fn read(&mut self, town: &Town, mut buffer: &mut [u8]) -> bool {
        if let Some(at) = &mut self.reads_slowly_at
            && !town.ended.load(Ordering::SeqCst)
        {
            let now = Instant::now();
            if *at > now {
                return false;
            }
            *at = now + SLOW_READ_EVERY;
            buffer = &mut buffer[..SLOW_READ_BYTES];
        }
        let moved = self.read_now(town, buffer);
        if self.is_over() {
            self.facts.silence_max = self.silence_max();
        }
        moved
    }

    fn read_now(&mut self, town: &Town, buffer: &mut [u8]) -> bool {
        match self.stream.read(buffer) {
            Ok(0) => {
                self.facts.end = if self.was_reset { End::Reset } else { End::Stream };
                if self.goes_on && self.mode == Mode::Talks && !self.was_reset {
                    self.mode = Mode::GoesOn(self.requests.min(5));
                }
                true
            }
            Ok(count) => {
                let before = self.facts.reader.frames;
                self.facts.reader.take(&buffer[..count], |violation| {
                    town.truth.broken(violation.rule, violation.what);
                });
                let frames = self.facts.reader.frames - before;
                town.truth.frames.fetch_add(frames, Ordering::Relaxed);
                true
            }
            Err(error) if is_for_later(&error) => false,
            Err(_) => {
                self.facts.end = End::Reset;
                true
            }
        }
    }

    /// Its requests are done: it goes in some way or other.
    fn turns_away(&mut self, town: &Town, random: &mut Random) {
        self.requests = 5;
        match random.below(12) {
            0..4 => {
                self.facts.ended_first = true;
                if random.one_in(4) {
                    // The end comes inside a frame.
                    let mut frame = Vec::new();
                    self.facts.reader.wire.write(b"123456789", &mut frame);
                    let _ = self.stream.write(&frame[..6]);
                }
                let _ = self.stream.shutdown(Shutdown::Write);
                self.mode = Mode::Listens;
            }
            4 => self.cut(true),
            5 => self.cut(false),
            6 => {
                self.facts.always_read = false;
                (0..10).for_each(|_| self.ask_for(Action::Flood.number(), 0));
                self.write(town);
                self.mode = Mode::Vanished;
            }
            7 => {
                self.facts.always_read = false;
                self.mode = Mode::StalledUntil(Instant::now() + random.millis(50..800));
            }
            8 if town.plan.hazards.announcements && !town.plan.is_raw => {
                self.facts.is_rude = true;
                let _ = self.stream.write(self.facts.reader.wire.too_large());
                self.mode = Mode::Listens;
            }
            _ => self.mode = Mode::Listens,
        }
        self.note_asked(town);
    }

    /// Ends the connection without reading what has come: by a reset, or as the system does it.
    fn cut(&mut self, by_reset: bool) {
        (self.facts.ended_first, self.facts.is_rude) = (true, true);
        self.facts.end = End::Own;
        self.facts.silence_max = self.silence_max();
        if by_reset {
            let _ = SockRef::from(&self.stream).set_linger(Some(Duration::ZERO));
        }
        // The socket is closed when the peer is dropped, which follows.
    }
}

fn is_for_later(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}
