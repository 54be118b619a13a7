//! So many sessions in a simulated world, each with a timer and in a group: all are echoed once, get one broadcast, see
//! their timers fire, and are drained. `ci/show/million.sh` runs it under callgrind, which writes its counts before each
//! function `phase_…`.
//!
//! ```text
//! cargo run --release -p wharf-sim --example million -- SESSIONS
//! ```
//!
//! Prints the bytes that are allocated for each session, and of these the simulated network's.

#![forbid(unsafe_code)]

use std::alloc::System;
use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};
use wharf::simulation::for_wharf_sim::held_bytes;
use wharf::simulation::{Faults, Peer, Ports, Simulation, now};
use wharf::{
    CloseReason, DrainReport, Framing, Group, Handler, LengthPrefix, Options, Server, Session,
};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Decides how long things take. With this one all that is there is told in one batch.
const SEED: u64 = 3;
/// So many connect, or speak, before the next do.
const WAVE: usize = 1_000;
const EVERYONE: Group = Group(1);
const LONG: Duration = Duration::from_secs(3_600);
/// When timers begin to fire, in virtual time, and within which time all do.
const TIMERS_FROM: Duration = Duration::from_secs(30);
const TIMERS_WITHIN: Duration = Duration::from_secs(1);
/// With its length before it.
const FRAME: [u8; 64] = {
    let mut frame = [7; 64];
    [frame[0], frame[1], frame[2], frame[3]] = 60_u32.to_be_bytes();
    frame
};

/// What the callbacks have seen.
#[derive(Default)]
struct Seen {
    opened: AtomicU64,
    received: AtomicU64,
    timers: AtomicU64,
    closed: AtomicU64,
}

struct Echo(Arc<Seen>);

impl Handler for Echo {
    type State = u64;

    fn opened(&self, session: &Session) -> u64 {
        let number = self.0.opened.fetch_add(1, Ordering::Relaxed);
        let at = TIMERS_FROM + TIMERS_WITHIN * (number % 1_000) as u32 / 1_000;
        session
            .set_timer(1, at.saturating_sub(now().unwrap_or_default()))
            .expect("it has no other");
        session.join(EVERYONE).expect("there is room");
        number
    }

    fn received(&self, session: &Session, _: &mut u64, frame: &[u8]) {
        session.send(frame);
        self.0.received.fetch_add(1, Ordering::Relaxed);
    }

    fn timer(&self, _: &Session, _: &mut u64, _: u64) {
        self.0.timers.fetch_add(1, Ordering::Relaxed);
    }

    fn closed(&self, _: &Session, _: u64, _: CloseReason) {
        self.0.closed.fetch_add(1, Ordering::Relaxed);
    }
}

/// The world, and the server in it.
struct Million {
    simulation: Simulation,
    server: Server,
    seen: Arc<Seen>,
    peers: Vec<Peer>,
    /// Allocated, and of these the world's, before the first session.
    bytes_before: (usize, usize),
}

fn allocated_bytes() -> usize {
    let stats = ALLOCATOR.stats();
    stats.bytes_allocated - stats.bytes_deallocated
}

impl Million {
    fn new(sessions: usize) -> Result<Million> {
        // Nothing fails, so that each session costs what it does in a quiet network.
        let simulation = Simulation::new(SEED).faults(Faults::none()).ports(Ports::OneEach);
        let simulation = simulation.roomy_ports();
        let options = Options::default().workers(1).with(|options| {
            options.sessions.max = sessions as u32;
            options.sending.queued_bytes_max = Some(64 << 30);
        });
        let framing = Framing::length_prefixed(LengthPrefix::default());
        let builder = Server::builder().listen("10.0.0.1:7000").framing(framing).options(options);
        let seen = Arc::new(Seen::default());
        let server = simulation.start(builder, Echo(seen.clone()))?;
        let peers = Vec::with_capacity(sessions);
        let bytes_before = (allocated_bytes(), held_bytes(&simulation));
        Ok(Million { simulation, server, seen, peers, bytes_before })
    }

    fn wait_for(&self, what: impl Fn(&Seen) -> &AtomicU64, count: usize) -> Result<()> {
        let count_is = || what(&self.seen).load(Ordering::Relaxed) >= count as u64;
        if self.simulation.run_until(LONG, count_is) { Ok(()) } else { Err("it hangs".into()) }
    }

    /// Every peer has got so many frames since the last look. Its memory for them is given back.
    fn everyone_got(&self, frames: usize) -> Result<()> {
        for peer in &self.peers {
            let mut came = Vec::new();
            let all_came = || {
                came.extend(peer.received());
                came.len() >= frames * FRAME.len()
            };
            if !self.simulation.run_until(LONG, all_came) || came != FRAME.repeat(frames) {
                return Err("a peer did not get what it should".into());
            }
        }
        self.settle();
        Ok(())
    }

    /// Until all that has come about was attended to.
    fn settle(&self) {
        self.simulation.sleep(Duration::from_millis(100));
    }

    #[inline(never)]
    fn phase_open(&mut self, sessions: usize) -> Result<()> {
        let address = self.server.addresses()[0];
        while self.peers.len() < sessions {
            for _ in 0..WAVE.min(sessions - self.peers.len()) {
                self.peers.push(self.simulation.connect(address).ok_or("nobody listens")?);
            }
            self.wait_for(|seen| &seen.opened, self.peers.len())?;
        }
        self.settle();
        Ok(())
    }

    #[inline(never)]
    fn phase_echo(&mut self) -> Result<()> {
        let mut spoken = 0;
        for wave in self.peers.chunks(WAVE) {
            wave.iter().for_each(|peer| peer.send(&FRAME));
            spoken += wave.len();
            self.wait_for(|seen| &seen.received, spoken)?;
        }
        self.everyone_got(1)
    }

    #[inline(never)]
    fn phase_broadcast(&mut self) -> Result<()> {
        self.server.handle().publish(EVERYONE, &FRAME[4..])?;
        self.everyone_got(1)
    }

    #[inline(never)]
    fn phase_timers(&mut self) -> Result<()> {
        if self.simulation.now() >= TIMERS_FROM {
            return Err("a timer may have fired before".into());
        }
        self.simulation.sleep(TIMERS_FROM + TIMERS_WITHIN - self.simulation.now());
        self.wait_for(|seen| &seen.timers, self.peers.len())
    }

    #[inline(never)]
    fn phase_drain(&mut self) -> Result<DrainReport> {
        let (sessions, handle) = (self.peers.len(), self.server.handle());
        let report = Arc::new(std::sync::OnceLock::new());
        self.simulation.spawn({
            let report = report.clone();
            move || drop(report.set(handle.drain(LONG)))
        })?;
        for peer in self.peers.drain(..) {
            if !self.simulation.run_until(LONG, || peer.is_ended() || peer.is_reset()) {
                return Err("a session did not end".into());
            }
        }
        self.wait_for(|seen| &seen.closed, sessions)?;
        self.simulation.run_until(LONG, || report.get().is_some());
        match report.get() {
            Some(Ok(report)) => Ok(*report),
            other => Err(format!("the drain: {other:?}").into()),
        }
    }

    /// The last counts before it are of the drain.
    #[inline(never)]
    fn phase_over(self) -> Result<()> {
        Ok(self.server.wait()?)
    }

    /// Prints what sessions take by now.
    fn print_bytes(&self, when: &str) {
        let (all_before, world_before) = self.bytes_before;
        let world = held_bytes(&self.simulation) - world_before;
        let wharf = (allocated_bytes() - all_before).saturating_sub(world);
        let count = self.peers.len();
        println!("bytes {when}: wharf {}, simulated {}", wharf / count, world / count);
    }
}

fn main() -> Result<()> {
    let sessions: usize = std::env::args().nth(1).ok_or("how many sessions?")?.parse()?;
    let mut million = Million::new(sessions)?;
    million.phase_open(sessions)?;
    million.print_bytes("opened");
    million.phase_echo()?;
    million.print_bytes("echoed");
    million.phase_broadcast()?;
    million.print_bytes("broadcast");
    million.phase_timers()?;
    million.print_bytes("timers fired");
    let report = million.phase_drain()?;
    println!("{report:?}");
    if report.flushed != sessions as u64 {
        return Err("not every session was drained".into());
    }
    println!("virtual time: {:.1} s", million.simulation.now().as_secs_f64());
    million.phase_over()
}
