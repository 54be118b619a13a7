//! Frames sent by id arrive at the session they were addressed to, or come back: while sessions
//! end and begin all the time, and socket numbers with them.
//!
//! `WHARF_TEST_SECS` says how long (default 3); `WHARF_TEST_SESSIONS` how many at once (default 300).

#![forbid(unsafe_code)]

#[macro_use]
mod support;

use std::io::Read;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use support::*;
use wharf::{Backend, Close, Framing, Handle, LengthPrefix, SendError, SessionId};

const FRAME_BYTES: usize = 16; // the id it is addressed to, and its number among those

fn from_environment(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |value| value.parse().expect("a number"))
}

fn frame(id: SessionId, number: u64) -> [u8; FRAME_BYTES] {
    let mut frame = [0; FRAME_BYTES];
    frame[..8].copy_from_slice(&id.to_bits().to_be_bytes());
    frame[8..].copy_from_slice(&number.to_be_bytes());
    frame
}

/// What one peer saw.
struct Seen {
    id: SessionId,
    frames: u64,
}

/// A peer's life: learns its id from frame 0, checks that every further frame names it and is the
/// next, and leaves after so many, by an end of stream, a reset, or when the server ends it.
fn live(address: SocketAddr, frames_max: u64, by_reset: bool) -> Option<Seen> {
    let peer = std::net::TcpStream::connect_timeout(&address, BOUND).ok()?;
    peer.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    let mut seen: Option<Seen> = None;
    let mut wire = Vec::new();
    let mut chunk = [0; 4096];
    let began = Instant::now();
    loop {
        match (&peer).read(&mut chunk) {
            Ok(0) => break,
            Ok(count) => wire.extend_from_slice(&chunk[..count]),
            Err(error) if is_reset(&error) => break,
            Err(error) if is_time_out(&error) => {
                // Nobody may be sending to it just then.
                if began.elapsed() > Duration::from_secs(2) {
                    break;
                }
            }
            Err(error) => panic!("{error}"),
        }
        while wire.len() >= 4 + FRAME_BYTES {
            assert_eq!(wire[..4], (FRAME_BYTES as u32).to_be_bytes());
            let id = u64::from_be_bytes(wire[4..12].try_into().unwrap());
            let number = u64::from_be_bytes(wire[12..20].try_into().unwrap());
            wire.drain(..4 + FRAME_BYTES);
            let id = SessionId::from_bits(id);
            let seen = seen.get_or_insert(Seen { id, frames: 0 });
            assert_eq!((id, number), (seen.id, seen.frames), "a stranger's frame, or a gap");
            seen.frames += 1;
        }
        if seen.as_ref().is_some_and(|seen| seen.frames >= frames_max) {
            break;
        }
    }
    if by_reset {
        reset(peer);
    }
    seen
}

/// Sends to sessions at random until told to stop: how many were sent, and how many came back.
/// It keeps ids long after they are gone, on purpose.
fn send_all_over(
    handle: &Handle,
    going: &AtomicBool,
    news: &Mutex<mpsc::Receiver<SessionId>>,
    seed: u64,
) -> (u64, u64) {
    let mut random = Random::new(seed);
    let mut known: Vec<(SessionId, u64)> = Vec::new();
    let (mut sent, mut gone) = (0, 0);
    while going.load(Ordering::Relaxed) {
        // Each id goes to one sender, so the numbers of a session's frames have no gap.
        known.extend(lock(news).try_iter().take(64).map(|id| (id, 1)));
        if known.is_empty() {
            std::thread::yield_now();
            continue;
        }
        for _ in 0..256 {
            let at = (random.next() % known.len() as u64) as usize;
            let (id, number) = (known[at].0, &mut known[at].1);
            let bytes = frame(id, *number);
            match handle.try_send(id, bytes) {
                Ok(()) => {
                    *number += 1;
                    sent += 1;
                }
                Err(SendError::Gone(back)) => {
                    assert_eq!(back, bytes);
                    gone += 1;
                    if random.next().is_multiple_of(8) {
                        known.swap_remove(at);
                        if known.is_empty() {
                            break;
                        }
                    }
                }
                Err(SendError::Full { bytes: back, .. }) => assert_eq!(back, bytes),
                Err(refusal) => panic!("{refusal}"),
            }
            if random.next().is_multiple_of(2000) {
                handle.close(id, Close::Stop); // gone or not
            }
        }
    }
    (sent, gone)
}

on_every_backend! {
    fn every_frame_arrives_where_it_was_addressed_or_comes_back(backend) {
        let _alone = alone();
        let duration = Duration::from_secs(from_environment("WHARF_TEST_SECS", 3));
        let peers = from_environment("WHARF_TEST_SESSIONS", 300);
        let (tell, news) = mpsc::channel();
        let (tell, news) = (Mutex::new(tell), Mutex::new(news));
        let behaviour = Behaviour::silent().on_opened(move |session| {
            session.send(frame(session.id(), 0));
            let _ = lock(&tell).send(session.id());
        });
        let options = pausing().workers(2).with(|options| {
options.sessions.max = 2048;
});
        let framing = Framing::length_prefixed(LengthPrefix::default());
        let harness = start(backend, framing, options, behaviour);
        let going = AtomicBool::new(true);
        let (sessions, arrived) = (AtomicU64::new(0), AtomicU64::new(0));
        let (sent, gone) = std::thread::scope(|scope| {
            for seed in 0..peers {
                let (going, sessions, arrived) = (&going, &sessions, &arrived);
                let address = harness.address();
                std::thread::Builder::new()
                    .stack_size(128 * 1024)
                    .spawn_scoped(scope, move || {
                        let mut random = Random::new(1 + seed);
                        while going.load(Ordering::Relaxed) {
                            let frames_max = 1 + random.next() % 500;
                            let by_reset = random.next().is_multiple_of(2);
                            if let Some(seen) = live(address, frames_max, by_reset) {
                                sessions.fetch_add(1, Ordering::Relaxed);
                                arrived.fetch_add(seen.frames, Ordering::Relaxed);
                            }
                        }
                    })
                    .unwrap();
            }
            let senders = [101, 102].map(|seed| {
                let (handle, going, news) = (&harness.handle, &going, &news);
                scope.spawn(move || send_all_over(handle, going, news, seed))
            });
            std::thread::sleep(duration);
            going.store(false, Ordering::Relaxed);
            senders.map(|sender| sender.join().unwrap()).into_iter().fold((0, 0), |sum, part| {
                (sum.0 + part.0, sum.1 + part.1)
            })
        });
        let (sessions, arrived) = (sessions.into_inner(), arrived.into_inner());
        println!("{backend}: {sessions} sessions; {sent} frames sent, {arrived} seen, {gone} came back");
        assert!(sessions > peers && sent > 10 * peers && gone > 0, "too little happened");
        assert!(arrived <= sent + sessions, "more arrived than was sent");
        harness.settle();
        harness.finish();
    }
}
