//! What reaching a session's state costs.
//!
//! - Notes: two threads tell 1,000 sessions in random order, beside sends of 64 B by the same threads. CPU time of the
//!   teller and of the worker for each note, and notes a second.
//! - Timers: a million are armed, of 9,000 sessions, and 10,000 fire a second and are set anew. CPU time of the worker
//!   for setting and for firing one, how late they come, and bytes of memory for each.
//!
//! Worker on core 0, the others on core 1. WHARF_BACKEND chooses the port.
//!
//! Exit codes: 0; 2, it could not be measured.
#![forbid(unsafe_code)]

use std::error::Error;
use std::net::TcpStream;
use std::process::ExitCode;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::{Duration, Instant};

use rustix::thread::{CpuSet, sched_setaffinity};
use rustix::time::{ClockId, clock_gettime};
use wharf::{Builder, Handler, Mailer, Server, Session, SessionId, TellError, Told};

const SESSIONS: usize = 1_000;
const NOTES: usize = 1_000_000;
const TELLERS: usize = 2;
const ROUNDS: usize = 7;
const FRAME: [u8; 64] = [7; 64];

const SESSIONS_WITH_TIMERS: usize = 9_000;
const TIMERS_EACH: u64 = 112;
const PERIOD: Duration = Duration::from_secs(100);
const WATCHED: Duration = Duration::from_secs(20);

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn main() -> ExitCode {
    match notes().and_then(|()| timers()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(2)
        }
    }
}

/// Counts what it is told, and says its sessions' ids.
struct Counts(Sender<SessionId>);

impl Handler for Counts {
    type State = u64;

    fn opened(&self, session: &Session) -> u64 {
        let _ = self.0.send(session.id()); // the other end lives until the server does not
        0
    }

    fn received(&self, _: &Session, _: &mut u64, _: &[u8]) {}
}

impl Told<u64> for Counts {
    fn told(&self, _: &Session, sum: &mut u64, note: u64) {
        *sum += note;
    }
}

fn notes() -> Result<()> {
    let (mailer, (opens, opened)) = (Mailer::new(), mpsc::channel());
    run_on(0)?; // the worker's thread inherits it
    let server = builder()?.start(mailer.with(Counts(opens)))?;
    run_on(1)?;
    let (peers, ids) = connect(&server, SESSIONS, &opened)?;
    let mut found: [Vec<f64>; 4] = Default::default();
    for _ in 0..ROUNDS {
        let (began, before) = (Instant::now(), (process_ns(), server.handle().stats().told_notes));
        let teller_ns = on_threads(|random| {
            for _ in 0..NOTES / TELLERS {
                let mut note = 1;
                while let Err(TellError::Full { note: back, .. }) =
                    mailer.tell(ids[random.below(SESSIONS)], note)
                {
                    note = back;
                    thread::yield_now();
                }
            }
        })?;
        while server.handle().stats().told_notes < before.1 + NOTES as u64 {
            thread::sleep(Duration::from_millis(1));
        }
        let worker_ns = process_ns() - before.0 - teller_ns;
        found[0].push(teller_ns / NOTES as f64);
        found[1].push(worker_ns / NOTES as f64);
        found[2].push(NOTES as f64 / began.elapsed().as_secs_f64() / 1e6);
        // As many frames as no queue refuses.
        let (handle, frames) = (server.handle(), NOTES / 2);
        let sender_ns = on_threads(|random| {
            for _ in 0..frames / TELLERS {
                let _ = handle.try_send(ids[random.below(SESSIONS)], FRAME);
            }
        })?;
        found[3].push(sender_ns / frames as f64);
        peers.iter().for_each(drain);
    }
    let [teller, worker, rate, sender] = found.map(median);
    println!(
        "a note: {teller:.0} ns of the teller, {worker:.0} ns of the worker, {rate:.2} million a second from {TELLERS} \
         threads to {SESSIONS} sessions; a send of {} B: {sender:.0} ns of the sender (medians of {ROUNDS})",
        FRAME.len()
    );
    Ok(())
}

/// What the timers of a session's are due at, and how late each has come.
struct Late(Sender<SessionId>, Sender<Duration>);

impl Handler for Late {
    type State = Vec<Instant>;

    fn opened(&self, session: &Session) -> Vec<Instant> {
        let (mut due, now) = (Vec::new(), Instant::now());
        let nth = session.id().to_bits() as u32 % SESSIONS_WITH_TIMERS as u32;
        for key in 0..TIMERS_EACH {
            // Spread over a period.
            let part = (key as f64 + f64::from(nth) / SESSIONS_WITH_TIMERS as f64) / TIMERS_EACH as f64;
            let after = Duration::from_secs(20) + PERIOD.mul_f64(part);
            session.set_timer(key, after).expect("it may have so many");
            due.push(now + after);
        }
        let _ = self.0.send(session.id());
        due
    }

    fn received(&self, _: &Session, _: &mut Vec<Instant>, _: &[u8]) {}

    fn timer(&self, session: &Session, due: &mut Vec<Instant>, key: u64) {
        let now = Instant::now();
        let _ = self.1.send(now - due[key as usize]);
        due[key as usize] = now + PERIOD;
        session.set_timer(key, PERIOD).expect("it may have so many");
    }
}

fn timers() -> Result<()> {
    let ((opens, opened), (fires, fired)) = (mpsc::channel(), mpsc::channel());
    run_on(0)?;
    let builder = builder()?;
    let server = builder.start(Late(opens, fires))?;
    run_on(1)?;
    let (before, rss) = (process_ns(), resident_bytes()?);
    let own = thread_ns();
    let began = Instant::now();
    let (_peers, _) = connect(&server, SESSIONS_WITH_TIMERS, &opened)?;
    let armed = SESSIONS_WITH_TIMERS as f64 * TIMERS_EACH as f64;
    let set_ns = (process_ns() - before - (thread_ns() - own)) / armed;
    // Beside what such sessions take: their ids' and dues' 16 B are the program's.
    let bytes = (resident_bytes()? - rss) as f64 / armed - 16.0;
    println!(
        "{armed:.0} timers armed in {:.1} s: {set_ns:.0} ns of the worker for each, with its session's part; {bytes:.0} \
         bytes for each",
        began.elapsed().as_secs_f64()
    );
    fired.recv()?; // the first
    let (before, began) = (process_ns(), Instant::now());
    let mut late = Vec::new();
    while began.elapsed() < WATCHED {
        late.extend(fired.recv_timeout(WATCHED));
        late.extend(fired.try_iter());
        thread::sleep(Duration::from_millis(20));
    }
    let fire_ns = (process_ns() - before) / late.len() as f64;
    late.sort_unstable();
    let part = |part: f64| late[(part * (late.len() - 1) as f64) as usize].as_secs_f64() * 1e3;
    println!(
        "{} fired in {WATCHED:?} ({:.0} a second): {fire_ns:.0} ns of the process for each; late by {:.1} ms (median), \
         {:.1} ms (99 %), {:.1} ms (most)",
        late.len(),
        late.len() as f64 / WATCHED.as_secs_f64(),
        part(0.5),
        part(0.99),
        part(1.0)
    );
    Ok(())
}

fn builder() -> Result<Builder> {
    let backend = std::env::var("WHARF_BACKEND").as_deref().unwrap_or("auto").parse()?;
    let options = wharf::Options::default().workers(1).with(|options| {
        options.sessions.timers_max = TIMERS_EACH as u32;
        options.listening.backlog = 1_024;
    });
    Ok(Server::builder().listen("127.0.0.1:0").options(options).backend(backend))
}

fn connect(
    server: &Server,
    count: usize,
    opened: &Receiver<SessionId>,
) -> Result<(Vec<TcpStream>, Vec<SessionId>)> {
    let (mut peers, mut ids) = (Vec::new(), Vec::new());
    for _ in 0..count {
        let peer = TcpStream::connect(server.addresses()[0])?;
        peer.set_nonblocking(true)?;
        peers.push(peer);
        ids.push(opened.recv()?);
    }
    Ok((peers, ids))
}

/// Runs this on each of the tellers' threads. Returns the CPU time of all.
fn on_threads(act: impl Fn(&mut Random) + Sync) -> Result<f64> {
    thread::scope(|scope| {
        let threads: Vec<_> = (0..TELLERS as u64)
            .map(|nth| {
                let act = &act;
                scope.spawn(move || {
                    let before = thread_ns();
                    act(&mut Random(0x9e37_79b9_7f4a_7c15 + nth));
                    thread_ns() - before
                })
            })
            .collect();
        let ended = threads.into_iter().map(|thread| thread.join().map_err(|_| "a thread fails"));
        Ok(ended.collect::<std::result::Result<Vec<_>, _>>()?.into_iter().sum())
    })
}

fn drain(peer: &TcpStream) {
    let mut bytes = [0; 1 << 16];
    while std::io::Read::read(&mut &*peer, &mut bytes).is_ok_and(|count| count > 0) {}
}

fn run_on(core: usize) -> Result<()> {
    let mut cores = CpuSet::new();
    cores.set(core);
    Ok(sched_setaffinity(None, &cores)?)
}

fn thread_ns() -> f64 {
    nanos(ClockId::ThreadCPUTime)
}

fn process_ns() -> f64 {
    nanos(ClockId::ProcessCPUTime)
}

fn nanos(clock: ClockId) -> f64 {
    let time = clock_gettime(clock);
    time.tv_sec as f64 * 1e9 + time.tv_nsec as f64
}

fn resident_bytes() -> Result<i64> {
    let pages = std::fs::read_to_string("/proc/self/statm")?;
    Ok(pages.split(' ').nth(1).ok_or("no pages")?.parse::<i64>()? * 4_096)
}

fn median(mut found: Vec<f64>) -> f64 {
    found.sort_by(f64::total_cmp);
    found[found.len() / 2]
}

struct Random(u64);

impl Random {
    fn below(&mut self, below: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % below
    }
}
