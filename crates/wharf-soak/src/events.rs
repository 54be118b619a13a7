//! A loop that owns the world takes what happens as events ([`wharf::events`]), and stands still at times while peers
//! send as fast as they can. Nothing may be lost or reordered, and what waits has its bound.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use wharf::{
    Backend, CloseReason, Event, Events, Framing, Handle, LengthPrefix, Options, Server, SessionId,
};

use crate::{panics, process, watch};

const PEERS: u64 = 41;
/// A peer's number, the frame's, and what fills it.
const FRAME_BYTES: usize = 100;
/// What a frame counts of the bound.
const COUNTED_BYTES: u64 = FRAME_BYTES as u64 + 32;
const BYTES_MAX: u64 = 4 << 20;
/// Beyond the bound waits one frame of each session.
const WAITING_BYTES_MAX: u64 = BYTES_MAX + PEERS * COUNTED_BYTES;
/// What the events that wait take of memory: their frames as they are allocated, in lists that grow by doubling.
const EVENTS_BYTES_MAX: u64 = 3 * BYTES_MAX;
const WORKERS: usize = 2;
/// So many frames are written at once.
const BATCH: u64 = 100;
const LOOKS_AFTER: Duration = Duration::from_millis(10);
/// The last frame of a peer has this number.
const LAST: u64 = u64::MAX;

/// What the threads share.
#[derive(Default)]
struct Shared {
    /// Peers are to send their last frame.
    ends: AtomicBool,
    sent: AtomicU64,
    taken: AtomicU64,
    /// The loop stands still.
    stands: AtomicBool,
    is_over: AtomicBool,
}

/// What was seen of memory.
#[derive(Default)]
struct Memory {
    waiting_bytes_max: u64,
    growth_bytes_max: u64,
}

/// True: nothing was lost or reordered, and memory kept its bounds.
///
/// # Errors
/// If it cannot start.
pub(crate) fn run(
    backend: Backend,
    stop: Duration,
    stops: u32,
) -> Result<bool, Box<dyn std::error::Error>> {
    let (handler, events) = wharf::events(BYTES_MAX as usize);
    let options = Options::default().workers(WORKERS).backend(backend).with(|options| {
        // What the bound of memory has beside the events is to be little. What has come when a session is paused must
        // find room, so the kernel's buffers are small.
        options.receiving.kernel_bytes = Some(64 << 10);
        options.receiving.queues_bytes_max = Some(64 << 20);
        options.sending.publications_bytes_max = 1 << 20;
        options.sessions.notes_of_port_max = 1_024;
    });
    let memory = options.memory();
    let growth_bytes_bound =
        memory.at_rest_bytes + WORKERS as u64 * memory.worker_bytes_max + EVENTS_BYTES_MAX;
    let server = Server::builder()
        .listen("127.0.0.1:0")
        .framing(Framing::length_prefixed(LengthPrefix::default()))
        .options(options)
        .start(handler)?;
    let (handle, shared) = (server.handle(), Arc::new(Shared::default()));
    let address = *server.addresses().first().ok_or("the server has no address")?;
    let stats = handle.clone();
    watch::begin(move || format!("{:?}\n", stats.stats()));
    watch::stage("the traffic", (stop + stop) * stops);
    let taking = {
        let (handle, shared) = (handle.clone(), shared.clone());
        std::thread::spawn(move || take(events, &handle, &shared, stop, stops))
    };
    let watching = {
        let (handle, shared) = (handle.clone(), shared.clone());
        let before = process::resident_bytes();
        std::thread::spawn(move || look(&handle, &shared, before))
    };
    let peers: Vec<_> = (0..PEERS)
        .map(|number| {
            let shared = shared.clone();
            std::thread::spawn(move || send(address, number, &shared))
        })
        .collect();
    let mut faults = Vec::new();
    for peer in peers {
        match peer.join() {
            Ok(Ok(())) => {}
            other => faults.push(format!("a peer: {other:?}")),
        }
    }
    watch::stage("the end of the server", Duration::ZERO);
    handle.stop();
    if let Err(error) = server.wait() {
        faults.push(error.to_string());
    }
    faults.extend(taking.join().unwrap_or_else(|_| vec!["the loop has panicked".to_owned()]));
    shared.is_over.store(true, Ordering::Relaxed);
    let memory = watching.join().unwrap_or_default();
    watch::end();
    faults.extend(panics::last());
    let (sent, taken) = (shared.sent.load(Ordering::Relaxed), shared.taken.load(Ordering::Relaxed));
    if sent != taken {
        faults.push(format!("{taken} of {sent} frames were taken"));
    }
    let Memory { waiting_bytes_max, growth_bytes_max } = memory;
    // The bound counts what was taken together until the last of it was given to the loop: this looks at less.
    if !(BYTES_MAX / 2..=WAITING_BYTES_MAX).contains(&waiting_bytes_max) {
        faults.push("what waited was not at its bound".to_owned());
    }
    if growth_bytes_max > growth_bytes_bound {
        faults.push("memory has grown beyond its bound".to_owned());
    }
    println!(
        "{backend}: {taken} frames of {PEERS} sessions; the loop stood still {stops} times for {stop:?}; \
         {waiting_bytes_max} bytes waited at most, of {WAITING_BYTES_MAX}; resident memory grew by \
         {growth_bytes_max} at most, of {growth_bytes_bound}"
    );
    faults.iter().for_each(|fault| println!("BROKEN: {fault}"));
    Ok(faults.is_empty())
}

/// The loop. Returns what was amiss.
fn take(
    mut events: Events,
    handle: &Handle,
    shared: &Shared,
    stop: Duration,
    stops: u32,
) -> Vec<String> {
    let (mut next, mut faults) = (HashMap::<SessionId, (Option<u64>, u64)>::new(), Vec::new());
    let (mut stood, mut goes_on_at) = (0, Instant::now() + stop);
    while !events.is_over() {
        if stood == stops {
            shared.ends.store(true, Ordering::Relaxed);
        } else if Instant::now() >= goes_on_at {
            shared.stands.store(true, Ordering::Relaxed);
            std::thread::sleep(stop);
            shared.stands.store(false, Ordering::Relaxed);
            (stood, goes_on_at) = (stood + 1, Instant::now() + stop);
        }
        let Some(event) = events.next_timeout(LOOKS_AFTER) else { continue };
        let what = match event {
            Event::Opened { id, .. } => next.insert(id, (None, 0)).map(|_| "opened twice"),
            Event::Frame { id, bytes } => {
                shared.taken.fetch_add(1, Ordering::Relaxed);
                let of = next.get_mut(&id);
                of.map_or(Some("a frame of nobody's"), |of| frame_comes(handle, id, &bytes, of))
            }
            Event::Closed { id, reason } => match (next.remove(&id), reason) {
                // The server's end may come before it has seen the peer's.
                (Some((_, LAST)), CloseReason::PeerClosed | CloseReason::Stopped) => None,
                _ => Some("closed before all had come"),
            },
            _ => Some("another event"),
        };
        faults.extend(what.filter(|_| faults.len() < 5).map(str::to_owned));
    }
    if !next.is_empty() {
        faults.push(format!("{} sessions are not over", next.len()));
    }
    faults
}

/// `of`: the peer, and the number of its next frame. Returns what is amiss.
fn frame_comes(
    handle: &Handle,
    id: SessionId,
    bytes: &[u8],
    (peer, next): &mut (Option<u64>, u64),
) -> Option<&'static str> {
    let word = |at: usize| bytes.get(at..at + 8)?.try_into().ok().map(u64::from_be_bytes);
    let (Some(from), Some(number)) = (word(0), word(8)) else { return Some("a torn frame") };
    if *peer.get_or_insert(from) != from {
        return Some("a frame of another session's");
    }
    if number == LAST {
        let count = next.to_be_bytes();
        *next = LAST;
        return handle.send(id, count).err().map(|_| "it is gone before its answer");
    }
    let is_next = number == *next && bytes.len() == FRAME_BYTES;
    *next = number + 1;
    (!is_next).then_some("a frame out of order")
}

/// Sends as fast as it can, until it is to end; then all that it has sent must have come.
fn send(address: SocketAddr, peer: u64, shared: &Shared) -> io::Result<()> {
    let mut stream = TcpStream::connect(address)?;
    let (mut sent, mut bytes) = (0_u64, Vec::new());
    let put = |bytes: &mut Vec<u8>, number: u64| {
        bytes.extend((FRAME_BYTES as u32).to_be_bytes());
        bytes.extend(peer.to_be_bytes());
        bytes.extend(number.to_be_bytes());
        bytes.resize(bytes.len() + FRAME_BYTES - 16, number as u8);
    };
    while !shared.ends.load(Ordering::Relaxed) {
        bytes.clear();
        (sent..sent + BATCH).for_each(|number| put(&mut bytes, number));
        stream.write_all(&bytes)?;
        sent += BATCH;
    }
    bytes.clear();
    put(&mut bytes, LAST);
    stream.write_all(&bytes)?;
    shared.sent.fetch_add(sent + 1, Ordering::Relaxed);
    let mut answer = [0; 12]; // a length and a count
    stream.read_exact(&mut answer)?;
    if answer[4..] != sent.to_be_bytes() {
        return Err(io::Error::other(format!("{sent} were sent, and the answer is {answer:?}")));
    }
    Ok(())
}

/// Looks at memory, and, as long as the loop stands still, at what waits: all that was received and not taken.
fn look(handle: &Handle, shared: &Shared, resident_before: u64) -> Memory {
    let mut memory = Memory::default();
    while !shared.is_over.load(Ordering::Relaxed) {
        std::thread::sleep(LOOKS_AFTER);
        let growth = process::resident_bytes().saturating_sub(resident_before);
        memory.growth_bytes_max = memory.growth_bytes_max.max(growth);
        if !shared.stands.load(Ordering::Relaxed) {
            continue;
        }
        let taken = shared.taken.load(Ordering::Relaxed);
        let received = handle.stats().received_frames;
        if shared.stands.load(Ordering::Relaxed) {
            // The workers may publish their figures later than the loop takes.
            let waiting_bytes = received.saturating_sub(taken) * COUNTED_BYTES;
            memory.waiting_bytes_max = memory.waiting_bytes_max.max(waiting_bytes);
        }
    }
    memory
}
