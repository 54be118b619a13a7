//! What it costs a thread to look a session up by its id and to queue a frame of 64 B for it, while the
//! session's worker is awake: CPU time of the thread, in bursts that no queue refuses, to 1,000 sessions in
//! random order. Worker on core 0, sender on core 1.
//!
//! Exit codes: 0, not more than [`ASKED_NS`]; 1, more; 2, it could not be measured.
#![forbid(unsafe_code)]

use std::collections::HashSet;
use std::error::Error;
use std::io::Read;
use std::net::TcpStream;
use std::process::ExitCode;
use std::sync::mpsc::{self, Sender};
use std::thread;
use std::time::{Duration, Instant};

use rustix::thread::{CpuSet, sched_setaffinity};
use rustix::time::{ClockId, clock_gettime};
use wharf::{Framing, Handler, LengthPrefix, Options, Server, Session, SessionId};

const ASKED_NS: f64 = 150.0;
const SESSIONS: usize = 1_000;
const FRAME: [u8; 64] = [7; 64];
/// 68 B on the wire each, so 68 KB for a session: within its send queue of 256 KiB.
const FRAMES_PER_BURST: usize = 1_000 * SESSIONS;
/// Sent before it counts: by then the worker is awake.
const FRAMES_BEFORE: usize = 20 * SESSIONS;
const BURSTS: usize = 20;

struct Tells(Sender<SessionId>);

impl Handler for Tells {
    type State = ();

    fn opened(&self, session: &Session) {
        // The other end lives until the server does not.
        let _ = self.0.send(session.id());
    }

    fn received(&self, _: &Session, _: &mut (), _: &[u8]) {}
}

fn main() -> ExitCode {
    match measure() {
        Ok(mut found) => {
            found.sort_by(f64::total_cmp);
            let [quartile_1, median, quartile_3] = [1, 2, 3].map(|nth| found[nth * BURSTS / 4]);
            println!(
                "look-up and queueing: {median:.0} ns of the sender's CPU for each frame \
                 ({quartile_1:.0} to {quartile_3:.0}, {BURSTS} bursts of {FRAMES_PER_BURST} frames to \
                 {SESSIONS} sessions); asked: {ASKED_NS:.0}"
            );
            ExitCode::from(u8::from(median > ASKED_NS))
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(2)
        }
    }
}

fn measure() -> Result<Vec<f64>, Box<dyn Error>> {
    run_on(0)?; // the worker's thread inherits it
    let (tells, told) = mpsc::channel();
    let server = Server::builder().listen("127.0.0.1:0")
        .framing(Framing::length_prefixed(LengthPrefix::default()))
        .options(Options::default().workers(1))
        .start(Tells(tells))?;
    run_on(1)?;
    let connect = |_| TcpStream::connect(server.addresses()[0]);
    let peers = (0..SESSIONS).map(connect).collect::<Result<Vec<_>, _>>()?;
    let ids = (0..SESSIONS).map(|_| told.recv()).collect::<Result<Vec<_>, _>>()?;
    assert_eq!(ids.iter().collect::<HashSet<_>>().len(), SESSIONS);

    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let order: Vec<SessionId> =
        (0..FRAMES_PER_BURST).map(|_| ids[random.below(SESSIONS)]).collect();
    let handle = server.handle();
    let send = |frames: &[SessionId]| -> Result<(), Box<dyn Error>> {
        frames.iter().try_for_each(|id| Ok(handle.send(*id, FRAME)?))
    };
    let mut found = Vec::new();
    for _ in 0..BURSTS {
        send(&order[..FRAMES_BEFORE])?;
        let before = own_cpu_ns();
        send(&order)?;
        found.push((own_cpu_ns() - before) as f64 / FRAMES_PER_BURST as f64);
        take_everything(&peers, FRAMES_BEFORE + FRAMES_PER_BURST)?;
    }
    Ok(found)
}

/// Reads all that was sent, by a thread, as the kernel does not hold it for all sessions.
fn take_everything(peers: &[TcpStream], frames: usize) -> Result<(), Box<dyn Error>> {
    let bytes = frames * (4 + FRAME.len());
    let deadline = Instant::now() + Duration::from_secs(60);
    let mut buffer = vec![0; 1 << 20];
    let mut came = 0;
    while came < bytes {
        for mut peer in peers {
            peer.set_nonblocking(true)?;
            match peer.read(&mut buffer) {
                Ok(0) => return Err("a session ended".into()),
                Ok(count) => came += count,
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error.into()),
            }
        }
        if Instant::now() > deadline {
            return Err(format!("{came} of {bytes} bytes came within a minute").into());
        }
        thread::yield_now();
    }
    if came > bytes { Err("more came than was sent".into()) } else { Ok(()) }
}

fn own_cpu_ns() -> u64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

fn run_on(core: usize) -> rustix::io::Result<()> {
    let mut cores = CpuSet::new();
    cores.set(core);
    sched_setaffinity(None, &cores)
}

/// xorshift64.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % bound as u64) as usize
    }
}
