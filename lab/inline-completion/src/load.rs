//! The peers: one that streams, and quiet ones that measure. And what the handler of any server does.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

const QUIET: usize = 10;
const QUIET_PERIOD: Duration = Duration::from_millis(1);
/// The first byte of each frame says whose it is.
pub const BUSY: u8 = b'b';
pub const QUIET_FRAME: [u8; 8] = *b"quiet...";
/// What a receive brings at most, and what the handler is busy with for so long.
pub const CHUNK_BYTES: usize = 4 * 1024;
const WORK_FOR_CHUNK: Duration = Duration::from_micros(5);
/// An answer that has not come by then has been forgotten.
const PATIENCE: Duration = Duration::from_secs(20);

/// What was seen in one round.
#[derive(Debug, Default)]
pub struct Seen {
    /// For each quiet frame that was sent while the busy session streamed: how much of the stream was
    /// handled between its sending and its answer.
    pub kib_ahead: Vec<f64>,
    pub latency_us: Vec<f64>,
    pub busy_mib_per_second: f64,
    /// Of the server's thread, if it can be told apart.
    pub cpu_us_per_kib: Option<f64>,
    /// Times that the port was waited at.
    pub waits_per_kib: Option<f64>,
}

/// How many bytes of the busy session have been handled: the clock of the quiet ones.
static HANDLED: AtomicU64 = AtomicU64::new(0);

/// The handler, whatever the server: works for what the busy session has sent, and answers a quiet one.
pub fn handle(bytes: &[u8], answer: impl FnOnce(&[u8])) {
    if bytes[0] == BUSY {
        let until = Instant::now() + WORK_FOR_CHUNK * bytes.len() as u32 / CHUNK_BYTES as u32;
        while Instant::now() < until {
            std::hint::spin_loop();
        }
        HANDLED.fetch_add(bytes.len() as u64, Ordering::Relaxed);
    } else {
        answer(&HANDLED.load(Ordering::Relaxed).to_le_bytes());
    }
}

pub fn handled_bytes() -> u64 {
    HANDLED.load(Ordering::Relaxed)
}

/// Runs all peers against a server.
pub fn run(address: SocketAddr, streams_for: Duration) -> Seen {
    let streams = AtomicBool::new(true);
    let (before, started) = (handled_bytes(), Instant::now());
    let mut seen = Seen::default();
    thread::scope(|scope| {
        let quiet: Vec<_> =
            (0..QUIET).map(|_| scope.spawn(|| ask_and_wait(address, &streams))).collect();
        let busy = scope.spawn(|| stream(address, &streams));
        thread::sleep(streams_for);
        streams.store(false, Ordering::Relaxed);
        busy.join().expect("the busy peer");
        for quiet in quiet {
            let (kib_ahead, latency_us) = quiet.join().expect("a quiet peer");
            seen.kib_ahead.extend(kib_ahead);
            seen.latency_us.extend(latency_us);
        }
    });
    let mib = (handled_bytes() - before) as f64 / (1024.0 * 1024.0);
    seen.busy_mib_per_second = mib / started.elapsed().as_secs_f64();
    seen
}

fn stream(address: SocketAddr, streams: &AtomicBool) {
    let mut busy = TcpStream::connect(address).expect("the server");
    let bytes = vec![BUSY; 64 * 1024];
    while streams.load(Ordering::Relaxed) {
        busy.write_all(&bytes).expect("the server reads");
    }
}

fn ask_and_wait(address: SocketAddr, streams: &AtomicBool) -> (Vec<f64>, Vec<f64>) {
    let mut quiet = TcpStream::connect(address).expect("the server");
    quiet.set_nodelay(true).expect("TCP_NODELAY");
    quiet.set_read_timeout(Some(PATIENCE)).expect("a time-out");
    let (mut ahead, mut latency) = (Vec::new(), Vec::new());
    let mut answer = [0; 8];
    loop {
        thread::sleep(QUIET_PERIOD);
        if !streams.load(Ordering::Relaxed) {
            return (ahead, latency);
        }
        let (handled, asked) = (handled_bytes(), Instant::now());
        quiet.write_all(&QUIET_FRAME).expect("the server is there");
        quiet.read_exact(&mut answer).expect("an answer, sooner or later");
        latency.push(asked.elapsed().as_secs_f64() * 1e6);
        ahead.push(u64::from_le_bytes(answer).saturating_sub(handled) as f64 / 1024.0);
    }
}
