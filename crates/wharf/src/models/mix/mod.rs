//! Whole workers under schedules drawn at random: everything at once.
//!
//! Two workers serve a shared port, or each its own; one thread connects, two push, one closes, another
//! counts, and at last somebody drains or stops. The port is a lock with a list: what is posted
//! completes when chance says so, sends in part, receives with bytes, at the peer's end, or not before
//! they are cancelled. Shown, on the workers' own code from end to end: every session that was opened is
//! closed once, and every one that was begun has an end; frames leave in the order in which they were
//! queued, and whole if nothing cut the session; nothing is outstanding twice; the workers end; and no
//! slot and no byte is left behind.

mod port;

use std::collections::{HashMap, HashSet};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use shuttle::rand::{Rng, thread_rng};
use shuttle::scheduler::{PctScheduler, RandomScheduler, Scheduler};
use shuttle::thread;

use self::port::{Drawing, DrawingPort, FRAME_BYTES, PEER};
use crate::clock::{Clock, Moment};
use crate::config::{Backpressure, IdleReceive, Options};
use crate::engine::Engine;
use crate::framing::Framing;
use crate::handle::Handle;
use crate::handler::Handler;
use crate::port::Sockets;
use crate::session::{HalfTable, SessionId};
use crate::worker::{Halves, Session, Worker};
use crate::{Close, CloseReason};

const CONNECTS: usize = 5;
/// Few, so that slots are used again while the ids of before are still around.
const SESSIONS_MAX: u32 = 2;
const PUSHES: u8 = 5;

/// Nothing here waits for time to pass.
#[derive(Clone)]
struct StillClock;

impl Clock for StillClock {
    fn now(&self) -> Moment {
        Moment::default()
    }
}

/// What happened in all schedules, to see that something did.
#[derive(Default)]
struct Totals {
    opened: AtomicUsize,
    drained: AtomicUsize,
    frames_left: AtomicUsize,
}

/// What happened in one. A lock of the standard library's, since nothing happens while it is held.
#[derive(Debug, Default)]
struct Notes {
    inside: HashSet<SessionId>,
    opened: HashSet<SessionId>,
    closed: HashMap<SessionId, CloseReason>,
    connects_failed: HashSet<SessionId>,
    /// Frames that were queued, of each sender.
    queued: HashMap<(SessionId, u8), u8>,
}

#[derive(Clone, Default)]
struct Recorder(Arc<std::sync::Mutex<Notes>>);

impl Recorder {
    fn note<R>(&self, what: impl FnOnce(&mut Notes) -> R) -> R {
        what(&mut self.0.lock().expect("no thread has failed"))
    }

    fn enter(&self, id: SessionId) {
        self.note(|notes| {
            assert!(notes.inside.insert(id), "invariant 8: two callbacks at once");
            assert!(!notes.closed.contains_key(&id), "invariant 8: a callback after `closed`");
        });
        thread::yield_now();
    }

    fn leave(&self, id: SessionId) {
        self.note(|notes| notes.inside.remove(&id));
    }

    fn queued(&self, id: SessionId, sender: u8) {
        self.note(|notes| *notes.queued.entry((id, sender)).or_default() += 1);
    }
}

impl Handler for Recorder {
    /// Frames that were echoed.
    type State = u8;

    fn opened(&self, session: &Session) -> u8 {
        self.enter(session.id());
        self.note(|notes| assert!(notes.opened.insert(session.id()), "opened twice"));
        self.leave(session.id());
        0
    }

    fn received(&self, session: &Session, echoed: &mut u8, frame: &[u8]) {
        self.enter(session.id());
        for frame in frame.chunks(FRAME_BYTES) {
            assert_eq!(frame[0], PEER);
            if session.try_send([PEER, *echoed]).is_ok() {
                self.queued(session.id(), PEER);
                *echoed += 1;
            }
        }
        self.leave(session.id());
    }

    fn closed(&self, session: &Session, _: u8, reason: CloseReason) {
        self.enter(session.id());
        self.note(|notes| {
            assert!(notes.opened.contains(&session.id()));
            assert!(notes.closed.insert(session.id(), reason).is_none(), "closed twice");
        });
        self.leave(session.id());
    }

    fn connect_failed(&self, id: SessionId, _: SocketAddr, _: &io::Error) {
        self.note(|notes| assert!(notes.connects_failed.insert(id), "failed twice"));
    }
}

/// The sessions that were begun, for the others to pick from.
#[derive(Clone, Default)]
struct Begun(Arc<std::sync::Mutex<Vec<SessionId>>>);

impl Begun {
    fn all(&self) -> Vec<SessionId> {
        self.0.lock().expect("no thread has failed").clone()
    }

    /// One of them, after some time; `None` if even then none was begun.
    fn pick(&self) -> Option<SessionId> {
        dawdle(100);
        let all = self.all();
        all.get(thread_rng().gen_range(0..all.len().max(1))).copied()
    }

    fn connect(&self, handle: &Handle) {
        for _ in 0..CONNECTS {
            dawdle(50);
            if let Ok(id) = handle.connect(SocketAddr::from(([127, 0, 0, 1], 9))) {
                self.0.lock().expect("no thread has failed").push(id);
            }
        }
    }
}

/// Lets others go first, for as long as chance says.
fn dawdle(turns_max: usize) {
    for _ in 0..thread_rng().gen_range(0..turns_max) {
        thread::yield_now();
    }
}

fn push(sender: u8, handle: &Handle, begun: &Begun, recorder: &Recorder) {
    let mut queued: HashMap<SessionId, u8> = HashMap::new();
    for _ in 0..PUSHES {
        let Some(id) = begun.pick() else { continue };
        let next = queued.entry(id).or_default();
        if handle.send(id, [sender, *next]).is_ok() {
            *next += 1;
            recorder.queued(id, sender);
        }
    }
}

fn close(handle: &Handle, begun: &Begun) {
    if let Some(id) = begun.pick() {
        let how = if thread_rng().gen_bool(0.5) { Close::Drain } else { Close::Stop };
        handle.close(id, how);
    }
}

fn look(handle: &Handle) {
    for _ in 0..2 {
        dawdle(100);
        let stats = handle.stats();
        assert_eq!(stats.opened.wrapping_sub(stats.closed), stats.live, "{stats:?}");
    }
}

fn draw_options(workers: usize) -> Options {
    let pauses = thread_rng().gen_bool(0.5);
    let buffered = thread_rng().gen_bool(0.3);
    Options {
        workers,
        sessions_max: SESSIONS_MAX,
        send_queue_bytes_max: 4 * FRAME_BYTES,
        backpressure: if pauses { Backpressure::PauseReceive } else { Backpressure::default() },
        idle_receive: if buffered { IdleReceive::Buffered } else { IdleReceive::default() },
        send_stall_timeout: None,
        ..Options::default()
    }
}

/// What a thread of the user's does.
type UserThread = Box<dyn FnOnce(&Handle, &Begun, &Recorder) + Send>;

/// One schedule: five threads of the user's and two workers.
fn mix<const SHARED: bool>(totals: &Totals) {
    let engine = Arc::new(Engine::new(SHARED, Framing::raw(), draw_options(2), Sockets::Os));
    let halves: Arc<Halves<Recorder>> = Arc::new(HalfTable::new(SESSIONS_MAX));
    let (recorder, begun) = (Recorder::default(), Begun::default());
    let drawings: Vec<_> =
        if SHARED { vec![Drawing::new(2); 2] } else { (0..2).map(|_| Drawing::new(1)).collect() };
    let mut workers = Vec::new();
    for (index, drawing) in drawings.iter().cloned().enumerate() {
        let (engine, halves, recorder) = (engine.clone(), halves.clone(), recorder.clone());
        workers.push(thread::spawn(move || {
            let port = DrawingPort::<SHARED>(drawing);
            Worker::new(port, index, &engine, &halves, &recorder, StillClock).run();
        }));
    }
    let handle = Handle::new(engine.clone());
    let user = |act: UserThread| {
        let (handle, begun, recorder) = (handle.clone(), begun.clone(), recorder.clone());
        thread::spawn(move || act(&handle, &begun, &recorder))
    };
    let users = [
        user(Box::new(|handle, begun, _| begun.connect(handle))),
        user(Box::new(|handle, begun, recorder| push(1, handle, begun, recorder))),
        user(Box::new(|handle, begun, recorder| push(2, handle, begun, recorder))),
        user(Box::new(|handle, begun, _| close(handle, begun))),
        user(Box::new(|handle, _, _| look(handle))),
    ];
    let ends_amid = thread_rng().gen_bool(0.5);
    if ends_amid {
        dawdle(500);
        end(&handle);
    }
    for user in users {
        user.join().expect("it has not failed");
    }
    if !ends_amid {
        end(&handle);
    }
    for worker in workers {
        worker.join().expect("it has not failed");
    }
    judge(&engine, &begun.all(), &recorder, &drawings, totals);
}

fn end(handle: &Handle) {
    if thread_rng().gen_bool(0.5) {
        handle.drain(Duration::from_secs(3600));
    } else {
        handle.stop();
    }
}

fn judge(
    engine: &Engine,
    begun: &[SessionId],
    recorder: &Recorder,
    drawings: &[Arc<Drawing>],
    totals: &Totals,
) {
    let stats = engine.stats();
    assert_eq!((stats.live, stats.queued_bytes, stats.stale_completions), (0, 0, 0));
    assert!(engine.ports.iter().all(|port| port.assigned_sessions() == 0), "a slot is left");
    assert!(engine.take_error().is_none());
    let wire: HashMap<_, _> = drawings.iter().flat_map(|port| port.take_wire()).collect();
    recorder.note(|notes| {
        assert_eq!(begun.iter().collect::<HashSet<_>>().len(), begun.len(), "an id came twice");
        for id in begun {
            let opened = notes.opened.contains(id);
            assert_eq!(notes.closed.contains_key(id), opened, "{id}");
            assert!(opened != notes.connects_failed.contains(id), "{id} has not one end");
        }
        totals.opened.fetch_add(notes.opened.len(), Ordering::Relaxed);
        for (id, reason) in &notes.closed {
            let left = wire.get(&id.to_bits()).map_or(&[][..], Vec::as_slice);
            let mut next: HashMap<u8, u8> = HashMap::new();
            for frame in left.chunks_exact(FRAME_BYTES) {
                let next = next.entry(frame[0]).or_default();
                assert_eq!(frame[1], *next, "{id}: out of order: {left:?}");
                *next += 1;
                totals.frames_left.fetch_add(1, Ordering::Relaxed);
            }
            let of_session = |((of, sender), frames): (&(SessionId, u8), &u8)| {
                (of == id).then_some((*sender, *frames))
            };
            let queued: HashMap<_, _> = notes.queued.iter().filter_map(of_session).collect();
            if *reason == CloseReason::Drained {
                totals.drained.fetch_add(1, Ordering::Relaxed);
                assert_eq!(next, queued, "{id}: it was drained, and not all has left");
            }
        }
    });
}

/// Schedules for each of the tests.
fn schedules() -> usize {
    std::env::var("SHUTTLE_SCHEDULES").map_or(1_000, |number| number.parse().expect("a number"))
}

fn run(name: &str, scheduler: impl Scheduler + 'static, schedule: fn(&Totals)) {
    let mut config = shuttle::Config::new();
    config.stack_size = 256 * 1024;
    let (totals, started) = (Arc::new(Totals::default()), Instant::now());
    let counted = totals.clone();
    let schedules = shuttle::Runner::new(scheduler, config).run(move || schedule(&counted));
    let [opened, drained, frames_left] =
        [&totals.opened, &totals.drained, &totals.frames_left].map(|n| n.load(Ordering::Relaxed));
    println!(
        "mix {name:<36} 8 threads, {schedules:>7} schedules, {:>6.1} s: {opened} sessions opened, \
         {drained} of them drained, {frames_left} frames left",
        started.elapsed().as_secs_f64()
    );
    assert!(opened > schedules && drained > 0 && frames_left > 0, "little was tried");
}

#[test]
fn workers_that_share_a_port_on_random_schedules() {
    run("shared port, random", RandomScheduler::new(schedules()), mix::<true>);
}

#[test]
fn workers_that_share_a_port_on_schedules_of_few_preemptions() {
    run("shared port, few preemptions (PCT)", PctScheduler::new(4, schedules()), mix::<true>);
}

#[test]
fn workers_with_a_port_each_on_random_schedules() {
    run("a port each, random", RandomScheduler::new(schedules()), mix::<false>);
}

#[test]
fn workers_with_a_port_each_on_schedules_of_few_preemptions() {
    run("a port each, few preemptions (PCT)", PctScheduler::new(4, schedules()), mix::<false>);
}
