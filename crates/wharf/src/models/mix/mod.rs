//! Whole workers under random schedules: everything at once.
//!
//! Two workers serve a shared port, or each its own. One thread connects, one pushes, two join, publish,
//! push, leave and close, one closes, another counts, and at last one drains or stops. The port is a lock
//! with a list: what is posted completes at random, sends in part, receives with bytes, at the peer's end, or
//! only after they are cancelled.
//!
//! Shown, with the workers' complete code: every opened session is closed once, and every session that was
//! begun ends; frames leave in the order in which they were queued, and completely if nothing cut the
//! session; each publication leaves once, in one order for all, to its receivers only, and before a close
//! that the same thread asked for later; a drain is told once, before any session is drained; a session that is
//! closed is no member, and has its context; a connect with something to send is not given up for a drain;
//! nothing is outstanding twice; the workers end; and no slot, member or byte is left behind.

mod judge;
mod port;
mod users;

use std::collections::{HashMap, HashSet};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use shuttle::rand::{Rng, thread_rng};
use shuttle::scheduler::{PctScheduler, RandomScheduler, Scheduler};
use shuttle::thread;

use self::judge::judge;
use self::port::{Drawing, DrawingPort, FRAME_BYTES, PEER};
use self::users::{Begun, Publishing, close, dawdle, look, publish, push};
use crate::CloseReason;
use crate::clock::{Clock, Moment};
use crate::close::Close;
use crate::engine::{Engine, Group};
use crate::face::{Handle, Handler, Session};
use crate::framing::Framing;
use crate::options::{Backpressure, Options, Target};
use crate::port::Sockets;
use crate::session::{Closing, HalfTable, SessionId};
use crate::worker::{Halves, Worker};

const CONNECTS: usize = 5;
/// Few, so that slots are reused while the old ids are still around.
const SESSIONS_MAX: u32 = 2;
const PUSHES: u8 = 5;
const PUBLISHERS_STEPS: u8 = 7;
/// One thread pushes, the others do everything else. Each has its own group, with its own number.
const PUSHER: u8 = 1;
const PUBLISHERS: [u8; 2] = [2, 3];
/// Every session is begun with it.
const CONTEXT: u64 = 41;
/// In a published frame, beside the publisher's number; otherwise the frame was pushed.
const PUBLISHED: u8 = 100;

/// Nothing here waits for time.
#[derive(Clone)]
struct StillClock;

impl Clock for StillClock {
    fn now(&self) -> Moment {
        Moment::default()
    }
}

/// What happened in all schedules, to check that something did.
#[derive(Default)]
struct Totals {
    opened: AtomicUsize,
    drained: AtomicUsize,
    /// Of them, or of those that were closed with a drain.
    publications_awaited: AtomicUsize,
    frames_left: AtomicUsize,
}

/// What happened in one schedule. Uses the standard library's lock, because no switch happens while it is
/// held.
#[derive(Debug, Default)]
struct Notes {
    inside: HashSet<SessionId>,
    opened: HashSet<SessionId>,
    closed: HashMap<SessionId, CloseReason>,
    drain_was_told: bool,
    connects_failed: HashSet<SessionId>,
    /// Frames that each sender queued.
    queued: HashMap<(SessionId, u8), u8>,
    /// What each publisher published, in order.
    published: HashMap<u8, Vec<Published>>,
    /// Who asked to close it, how, and after how many of its own publications.
    closes: HashMap<SessionId, Vec<(u8, Close, usize)>>,
}

/// A publication, and its receivers.
#[derive(Debug, Default)]
struct Published {
    /// For all sessions; otherwise for the members.
    is_for_all: bool,
    /// Sessions that must get it, if nothing cuts them: they were open or members.
    awaited_by: HashSet<SessionId>,
    except: Option<SessionId>,
}

#[derive(Clone)]
struct Recorder {
    notes: Arc<std::sync::Mutex<Notes>>,
    engine: Arc<Engine>,
}

impl Recorder {
    fn note<R>(&self, what: impl FnOnce(&mut Notes) -> R) -> R {
        what(&mut self.notes.lock().expect("no thread has failed"))
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

    fn closes(&self, id: SessionId, closer: u8, how: Close, published: usize) {
        self.note(|notes| notes.closes.entry(id).or_default().push((closer, how, published)));
    }

    fn queued(&self, id: SessionId, sender: u8) {
        self.note(|notes| *notes.queued.entry((id, sender)).or_default() += 1);
    }
}

impl Handler for Recorder {
    /// The number of echoed frames.
    type State = u8;

    fn opened(&self, session: &Session) -> u8 {
        self.enter(session.id());
        self.note(|notes| assert!(notes.opened.insert(session.id()), "opened twice"));
        assert_eq!(session.context().as_deref(), Some(&CONTEXT));
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
            assert!(reason != CloseReason::Drained || notes.drain_was_told, "a drain untold");
        });
        assert_eq!(session.context().as_deref(), Some(&CONTEXT));
        let (own, groups) = (session.id(), PUBLISHERS.map(|number| Group(number.into())));
        assert!(groups.iter().all(|group| !session.handle().members(*group).contains(&own)));
        self.leave(session.id());
    }

    fn draining(&self) {
        thread::yield_now();
        self.note(|notes| {
            assert!(!std::mem::replace(&mut notes.drain_was_told, true), "told twice");
        });
    }

    fn connect_failed(&self, id: SessionId, target: &Target, error: &io::Error) {
        let context = target.context.as_ref().and_then(|context| context.downcast_ref());
        assert_eq!(context, Some(&CONTEXT));
        let slot = self.engine.table.held(id).expect("it has its end before its slot");
        let may_be_given_up = {
            let queue = slot.send_queue.lock();
            let is_cut = queue.closing().is_none_or(Closing::is_stop) || self.engine.is_ending();
            is_cut || queue.has_drained()
        };
        self.note(|notes| {
            assert!(notes.connects_failed.insert(id), "failed twice");
            let is_given_up = error.kind() == io::ErrorKind::ConnectionAborted;
            assert!(!is_given_up || may_be_given_up, "{id} has something to send");
        });
    }
}

fn draw_options(workers: usize) -> Options {
    let pauses = thread_rng().gen_bool(0.5);
    Options::default().workers(workers).with(|options| {
        options.sessions.max = SESSIONS_MAX;
        options.sending.queue_bytes_max = thread_rng().gen_range(4..=10) * FRAME_BYTES;
        options.receiving.backpressure =
            if pauses { Backpressure::PauseReceive } else { Backpressure::default() };
        options.time.send_stall_timeout = None;
    })
}

/// The actions of a user's thread.
type UserThread = Box<dyn FnOnce(&Handle, &Begun, &Recorder) + Send>;

/// One schedule: six user threads and two workers.
fn mix<const SHARED: bool>(totals: &Totals) {
    let engine = Arc::new(Engine::new(SHARED, Framing::raw(), draw_options(2), Sockets::Os));
    let halves: Arc<Halves<Recorder>> = Arc::new(HalfTable::new(engine.table.slots_max()));
    let (notes, begun) = (Arc::default(), Begun::default());
    let recorder = Recorder { notes, engine: engine.clone() };
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
        user(Box::new(|handle, begun, recorder| push(handle, begun, recorder))),
        user(Box::new(|handle, begun, recorder| {
            publish(Publishing::new(PUBLISHERS[0], handle, recorder), begun);
        })),
        user(Box::new(|handle, begun, recorder| {
            publish(Publishing::new(PUBLISHERS[1], handle, recorder), begun);
        })),
        user(Box::new(|handle, begun, recorder| close(handle, begun, recorder))),
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
    judge(&engine, &begun.all(), &recorder, &drawings, ends_amid, totals);
}

fn end(handle: &Handle) {
    if thread_rng().gen_bool(0.5) {
        let report = handle.drain(Duration::from_secs(3600)).expect("on a thread of the user's");
        assert_eq!((report.unfinished, report.workers_blocked), (0, 0), "{report:?}");
    } else {
        handle.stop();
    }
}

/// Schedules per test.
fn schedules() -> usize {
    std::env::var("SHUTTLE_SCHEDULES").map_or(1_000, |number| number.parse().expect("a number"))
}

fn run(name: &str, scheduler: impl Scheduler + 'static, schedule: fn(&Totals)) {
    let mut config = shuttle::Config::new();
    config.stack_size = 256 * 1024;
    let (totals, started) = (Arc::new(Totals::default()), Instant::now());
    let counted = totals.clone();
    let schedules = shuttle::Runner::new(scheduler, config).run(move || schedule(&counted));
    let Totals { opened, drained, publications_awaited, frames_left } = &*totals;
    let [opened, drained, publications_awaited, frames_left] =
        [opened, drained, publications_awaited, frames_left].map(|n| n.load(Ordering::Relaxed));
    println!(
        "mix {name:<36} 9 threads, {schedules:>7} schedules, {:>6.1} s: {opened} sessions opened, \
         {drained} of them drained, {frames_left} frames left, {publications_awaited} publications \
         that had to",
        started.elapsed().as_secs_f64()
    );
    let tried = [drained, publications_awaited, frames_left];
    assert!(opened > schedules && tried.iter().all(|count| *count > 0), "little was tried");
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
