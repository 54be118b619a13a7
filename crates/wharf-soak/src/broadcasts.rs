//! Continuous broadcasts while sessions come and go: workers walk over slots that change owners.

use std::io::Read;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use wharf::{
    Backend, Framing, Handle, Handler, LengthPrefix, Options, PublishError, Server, Session,
};

use crate::{panics, watch};

const PUBLISHERS: usize = 2;
const PEERS: usize = 6;
/// Frames that a peer reads before it goes.
const FRAMES_READ: usize = 3;
const FRAME_BYTES: usize = 24;

struct Listener;

impl Handler for Listener {
    type State = ();

    fn opened(&self, _: &Session) {}

    fn received(&self, _: &Session, _: &mut (), _: &[u8]) {}
}

#[derive(Default)]
struct Shared {
    ends: AtomicBool,
    /// The server has ended by itself.
    ended: AtomicBool,
    published: AtomicU64,
    sessions: AtomicU64,
}

/// True: the server lived until it was stopped.
///
/// # Errors
/// If it cannot start.
pub(crate) fn run(
    backend: Backend,
    workers: usize,
    time: Duration,
) -> Result<bool, Box<dyn std::error::Error>> {
    let options = Options::default().workers(workers).backend(backend).with(|options| {
        options.sessions.max = 64;
    });
    let server = Server::builder()
        .listen("127.0.0.1:0")
        .framing(Framing::length_prefixed(LengthPrefix::default()))
        .options(options)
        .start(Listener)?;
    let (handle, shared) = (server.handle(), Arc::new(Shared::default()));
    let address = *server.addresses().first().ok_or("the server has no address")?;
    let mut threads = Vec::new();
    for _ in 0..PUBLISHERS {
        let (handle, shared) = (handle.clone(), shared.clone());
        threads.push(std::thread::spawn(move || publish(&handle, &shared)));
    }
    for _ in 0..PEERS {
        let shared = shared.clone();
        threads.push(std::thread::spawn(move || come_and_go(address, &shared)));
    }
    let started = Instant::now();
    let lives = || panics::last().is_none() && !shared.ended.load(Ordering::Relaxed);
    while started.elapsed() < time && lives() {
        std::thread::sleep(Duration::from_millis(5));
    }
    let lived = lives();
    let seconds = started.elapsed().as_secs_f64();
    println!(
        "{seconds:.1} s: {} broadcasts, {} sessions; {}",
        shared.published.load(Ordering::Relaxed),
        shared.sessions.load(Ordering::Relaxed),
        if lived { "the server lives" } else { "THE SERVER HAS FAILED" }
    );
    shared.ends.store(true, Ordering::Relaxed);
    if let Some(said) = panics::last() {
        println!("{said}");
    }
    let stats = handle.clone();
    watch::begin(move || format!("{:?}\n", stats.stats()));
    watch::stage("the end of the server", Duration::ZERO);
    handle.stop();
    let result = server.wait();
    for thread in threads {
        let _ = thread.join();
    }
    watch::end();
    if let Err(error) = &result {
        println!("{error:?}");
    }
    Ok(lived && result.is_ok())
}

fn publish(handle: &Handle, shared: &Shared) {
    while !shared.ends.load(Ordering::Relaxed) {
        match handle.broadcast([7; FRAME_BYTES]) {
            Ok(()) => drop(shared.published.fetch_add(1, Ordering::Relaxed)),
            Err(PublishError::Ending(_)) => {
                if !shared.ends.load(Ordering::Relaxed) {
                    shared.ended.store(true, Ordering::Relaxed);
                }
                return;
            }
            Err(_) => std::thread::yield_now(),
        }
    }
}

fn come_and_go(address: SocketAddr, shared: &Shared) {
    let mut frames = [0; FRAMES_READ * (4 + FRAME_BYTES)];
    while !shared.ends.load(Ordering::Relaxed) {
        let Ok(mut stream) = TcpStream::connect(address) else { continue };
        let _ = stream.set_read_timeout(Some(Duration::from_secs(1)));
        if stream.read_exact(&mut frames).is_ok() {
            shared.sessions.fetch_add(1, Ordering::Relaxed);
        }
    }
}
