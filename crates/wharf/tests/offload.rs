//! Jobs: work of sessions that blocks, on the threads of a pool.
#![forbid(unsafe_code)]

#[macro_use]
mod support;

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, Condvar, Mutex, mpsc};

use support::*;
use wharf::{
    Backend, Builder, Close, CloseReason, Error, Framing, Handler, Lines, Mailer, OffloadError,
    Options, Server, Session, SessionId, Told,
};

const PEERS: usize = 41;
const THREADS: usize = 4;

fn options(jobs_max: u32, jobs_of_session_max: u32) -> Options {
    Options::default().workers(3).with(|options| {
        options.offload.threads = THREADS;
        options.offload.jobs_max = jobs_max;
        options.offload.jobs_of_session_max = jobs_of_session_max;
    })
}

fn builder(options: Options) -> Builder {
    let lines = Framing::lines(Lines::default());
    Server::builder().listen((Ipv4Addr::LOCALHOST, 0)).framing(lines).options(options)
}

/// What jobs wait at, until it is opened.
#[derive(Default)]
struct Gate {
    is_open: Mutex<bool>,
    opens: Condvar,
    waiting: AtomicUsize,
}

impl Gate {
    fn pass(&self) {
        self.waiting.fetch_add(1, Ordering::SeqCst);
        let mut is_open = lock(&self.is_open);
        while !*is_open {
            is_open = self.opens.wait(is_open).unwrap();
        }
        self.waiting.fetch_sub(1, Ordering::SeqCst);
    }

    fn open(&self) {
        *lock(&self.is_open) = true;
        self.opens.notify_all();
    }
}

/// Opens it when it is dropped, so that a test that fails does not hang.
struct Opens(Arc<Gate>);

impl Drop for Opens {
    fn drop(&mut self) {
        self.0.open();
    }
}

fn gate() -> (Arc<Gate>, Opens) {
    let gate = Arc::new(Gate::default());
    (gate.clone(), Opens(gate))
}

fn note(number: u32) -> Note {
    Note { from: 0, number }
}

/// Offloads for each line that comes.
fn offloads(mailer: &Mailer<Note>, work: impl Fn(u32) + Send + Sync + 'static) -> Behaviour {
    let (mailer, work) = (mailer.clone(), Arc::new(work));
    Behaviour::silent().on_received(move |session, line| {
        let number = str::from_utf8(line).unwrap().parse().unwrap();
        let work = work.clone();
        let job = move || {
            work(number);
            note(number)
        };
        mailer.offload(session.id(), job).unwrap();
    })
}

fn write_numbers(peer: &std::net::TcpStream, count: u32) {
    write(peer, (0..count).map(|number| format!("{number}\n")).collect::<String>().as_bytes());
}

fn numbers_told(ledger: &Ledger, id: SessionId) -> Vec<u32> {
    ledger
        .records
        .get(&id)
        .map_or(Vec::new(), |record| record.notes.iter().map(|note| note.number).collect())
}

on_every_backend! {
    fn a_sessions_jobs_run_one_after_another_in_their_order_and_what_they_give_is_told_in_it(backend) {
        let mailer = Mailer::new();
        let runs: Arc<Mutex<HashMap<SessionId, (bool, u32)>>> = Arc::default();
        let (again, work) = (mailer.clone(), runs.clone());
        let behaviour = Behaviour::silent().on_received(move |session, line| {
            let number: u32 = str::from_utf8(line).unwrap().parse().unwrap();
            let (id, runs) = (session.id(), work.clone());
            again.offload(id, move || {
                let before = lock(&runs).insert(id, (true, number)).unwrap_or((false, u32::MAX));
                assert_eq!(before, (false, number.wrapping_sub(1)), "one after another");
                std::thread::yield_now();
                lock(&runs).insert(id, (false, number));
                note(number)
            }).unwrap();
        });
        let harness = start_told(backend, builder(options(100_000, 8)), behaviour, &mailer);
        let (count, peers) = (200, [(); PEERS].map(|()| harness.connect_known()));
        for (peer, _) in &peers {
            write_numbers(peer, count);
        }
        for (_, id) in &peers {
            let told = harness.log.wait("all are told", |ledger| {
                let told = numbers_told(ledger, *id);
                (told.len() >= count as usize).then_some(told)
            });
            assert!(told.into_iter().eq(0..count));
        }
        drop(peers);
        harness.settle();
        let stats = harness.finish();
        let all = PEERS as u64 * u64::from(count);
        assert_eq!((stats.run_jobs, stats.told_notes, stats.untold_jobs), (all, all, 0));
    }

    fn jobs_of_different_sessions_run_beside_each_other(backend) {
        let mailer = Mailer::new();
        let together = Arc::new(Barrier::new(THREADS));
        let behaviour = offloads(&mailer, move |_| {
            together.wait(); // for ever, if fewer run at once
        });
        let harness = start_told(backend, builder(options(1_000, 16)), behaviour, &mailer);
        let peers: Vec<_> = (0..THREADS * 10).map(|_| harness.connect_known()).collect();
        peers.iter().for_each(|(peer, _)| write_numbers(peer, 1));
        for (_, id) in &peers {
            harness.log.wait("it is told", |ledger| (numbers_told(ledger, *id) == [0]).then_some(()));
        }
        drop(peers);
        harness.settle();
        harness.finish();
    }

    fn a_session_with_its_share_is_not_received_from_and_keeps_no_other_waiting(backend) {
        let mailer = Mailer::new();
        let (gate, opens) = gate();
        let (waits, came) = (gate.clone(), Arc::new(AtomicU32::new(0)));
        let counted = came.clone();
        let behaviour = {
            let mailer = mailer.clone();
            Behaviour::silent().on_received(move |session, line| {
                let number: u32 = str::from_utf8(line).unwrap().parse().unwrap();
                let waits = (number >= 1_000).then(|| waits.clone());
                if waits.is_some() {
                    counted.fetch_add(1, Ordering::SeqCst);
                }
                mailer.offload(session.id(), move || {
                    if let Some(gate) = waits {
                        gate.pass();
                    }
                    note(number)
                }).unwrap();
            })
        };
        let share = 8;
        let harness = start_told(backend, builder(options(10_000, share)), behaviour, &mailer);
        let (busy, id) = harness.connect_known();
        write(&busy, (1_000..1_500).map(|number| format!("{number}\n")).collect::<String>().as_bytes());
        eventually("its first job waits", || gate.waiting.load(Ordering::SeqCst) == 1);
        eventually("it is paused", || came.load(Ordering::SeqCst) == share);
        let others: Vec<_> = (0..PEERS).map(|_| harness.connect_known()).collect();
        for (peer, _) in &others {
            write_numbers(peer, 100);
        }
        for (_, id) in &others {
            harness.log.wait("the others are told", |ledger| {
                numbers_told(ledger, *id).into_iter().eq(0..100).then_some(())
            });
        }
        assert_eq!(came.load(Ordering::SeqCst), share);
        assert_eq!(harness.handle.stats().held_jobs, u64::from(share));
        drop(opens);
        harness.log.wait("it goes on", |ledger| {
            numbers_told(ledger, id).into_iter().eq(1_000..1_500).then_some(())
        });
        drop((busy, others));
        harness.settle();
        harness.finish();
    }

    fn a_full_pool_gives_the_work_back(backend) {
        let mailer = Mailer::new();
        let not_started = mailer.offload(SessionId::from_bits(7), || note(7)).unwrap_err();
        assert!(matches!(&not_started, OffloadError::NotStarted(_)));
        assert_eq!(not_started.into_work()(), note(7));
        let (gate, opens) = gate();
        let harness = start_told(backend, builder(options(25, 100)), Behaviour::silent(), &mailer);
        let peers: Vec<_> = (0..PEERS).map(|_| harness.connect_known()).collect();
        let job = |number: u32| {
            let gate = gate.clone();
            move || {
                gate.pass();
                note(number)
            }
        };
        for (number, (_, id)) in peers.iter().take(25).enumerate() {
            mailer.offload(*id, job(number as u32)).unwrap();
        }
        let refused = mailer.offload(peers[30].1, job(30)).unwrap_err();
        assert!(matches!(&refused, OffloadError::Full { held: 25, max: 25, .. }), "{refused:?}");
        assert!(refused.to_string().contains("25 of at most 25"));
        drop(opens);
        for (number, (_, id)) in peers.iter().take(25).enumerate() {
            harness.log.wait("it is told", |ledger| {
                (numbers_told(ledger, *id) == [number as u32]).then_some(())
            });
        }
        mailer.offload(peers[30].1, refused.into_work()).unwrap();
        harness.log.wait("it is told", |ledger| {
            (numbers_told(ledger, peers[30].1) == [30]).then_some(())
        });
        let gone = peers[0].1;
        drop(peers);
        harness.settle();
        assert!(matches!(mailer.offload(gone, || note(0)), Err(OffloadError::Gone(_))));
        harness.finish();
    }

    fn jobs_of_a_session_that_ends_are_dropped_told_nowhere_and_counted(backend) {
        struct Dropped(Arc<AtomicUsize>);
        impl Drop for Dropped {
            fn drop(&mut self) {
                self.0.fetch_add(1, Ordering::SeqCst);
            }
        }
        let (mailer, (gate, opens)) = (Mailer::new(), gate());
        let (dropped, jobs) = (Arc::new(AtomicUsize::new(0)), 10);
        let harness = start_told(backend, builder(options(1_000, 100)), Behaviour::silent(), &mailer);
        let peers: Vec<_> = (0..PEERS).map(|_| harness.connect_known()).collect();
        for (_, id) in &peers {
            for number in 0..jobs as u32 {
                let (gate, dropped) = (gate.clone(), Dropped(dropped.clone()));
                let job = move || {
                    gate.pass();
                    drop(dropped);
                    note(number)
                };
                mailer.offload(*id, job).unwrap();
            }
        }
        eventually("some run", || gate.waiting.load(Ordering::SeqCst) == THREADS);
        for (_, id) in &peers {
            harness.handle.close(*id, Close::Stop);
        }
        for (_, id) in &peers {
            harness.log.closed(*id);
        }
        harness.settle();
        eventually("all are dropped that do not run", || {
            dropped.load(Ordering::SeqCst) == PEERS * jobs - THREADS
        });
        assert_eq!(harness.handle.stats().held_jobs, THREADS as u64);
        drop(opens);
        eventually("none is left", || harness.handle.stats().held_jobs == 0);
        let stats = harness.finish();
        assert_eq!(stats.untold_jobs, (PEERS * jobs) as u64);
        assert_eq!((stats.run_jobs, stats.told_notes, stats.untold_notes), (THREADS as u64, 0, 0));
        assert_eq!(dropped.load(Ordering::SeqCst), PEERS * jobs);
    }

    fn a_job_that_panics_ends_its_session_and_no_other(backend) {
        let mailer = Mailer::new();
        let behaviour = offloads(&mailer, |number| {
            if number == 1 {
                panic_dreadfully();
            }
        });
        let harness = start_told(backend, builder(options(1_000, 16)), behaviour, &mailer);
        let peers: Vec<_> = (0..PEERS).map(|_| harness.connect_known()).collect();
        for (number, (peer, _)) in peers.iter().enumerate() {
            write_numbers(peer, 1 + number as u32 % 2);
        }
        for (number, (_, id)) in peers.iter().enumerate() {
            if number % 2 == 1 {
                assert_eq!(harness.log.closed(*id), CloseReason::HandlerPanicked);
            } else {
                harness.log.wait("it is told", |ledger| {
                    (numbers_told(ledger, *id) == [0]).then_some(())
                });
            }
        }
        drop(peers);
        harness.settle();
        let panics = PEERS as u64 / 2;
        let stats = harness.finish_after_panics(panics);
        // What a session's first job gave may come too late.
        assert_eq!(stats.run_jobs, PEERS as u64 + panics);
        assert_eq!(stats.told_notes + stats.untold_jobs, stats.run_jobs);
        assert!(stats.untold_jobs >= panics);
    }

    fn a_job_may_not_wait_for_its_server_and_may_end_it(backend) {
        let mailer = Mailer::<Note>::new();
        let (tells, told) = mpsc::channel();
        let handler = mailer.with(Knows(tells));
        let server = builder(options(10, 10)).backend(backend).start(handler).unwrap();
        let _peer = connect(server.addresses()[0]);
        let (id, None) = told.recv().unwrap() else { panic!("it has opened") };
        let (said, says) = mpsc::channel();
        let job = move || {
            said.send(server.wait()).unwrap(); // and it is dropped here
            note(0)
        };
        mailer.offload(id, job).unwrap();
        match says.recv().unwrap() {
            Err(Error::InCallback { call: "Server::wait" }) => {}
            other => panic!("{other:?}"),
        }
        assert_eq!(told.recv().unwrap(), (id, Some(CloseReason::Stopped)));
    }

    fn without_threads_every_offload_is_refused(backend) {
        let mailer = Mailer::new();
        let options = options(10, 10).with(|options| options.offload.threads = 0);
        let harness = start_told(backend, builder(options), Behaviour::silent(), &mailer);
        let (_peer, id) = harness.connect_known();
        assert!(matches!(mailer.offload(id, || note(0)), Err(OffloadError::NoThreads(_))));
        drop(_peer);
        harness.settle();
        harness.finish();
    }

    fn a_server_that_stops_drops_what_waits_and_waits_for_what_runs(backend) {
        let (mailer, (gate, opens)) = (Mailer::new(), gate());
        let ran = Arc::new(AtomicU32::new(0));
        let harness = start_told(backend, builder(options(1_000, 100)), Behaviour::silent(), &mailer);
        let peers: Vec<_> = (0..PEERS).map(|_| harness.connect_known()).collect();
        for (_, id) in &peers {
            for _ in 0..3 {
                let (gate, ran) = (gate.clone(), ran.clone());
                mailer.offload(*id, move || {
                    gate.pass();
                    ran.fetch_add(1, Ordering::SeqCst);
                    note(0)
                }).unwrap();
            }
        }
        eventually("some run", || gate.waiting.load(Ordering::SeqCst) == THREADS);
        let handle = harness.handle.clone();
        handle.stop();
        eventually("all are closed", || handle.stats().live == 0);
        drop(opens);
        let stats = harness.finish();
        assert_eq!(ran.load(Ordering::SeqCst), THREADS as u32);
        assert_eq!(stats.untold_jobs, 3 * PEERS as u64);
        drop(peers);
    }
}

/// Says which sessions open and close.
struct Knows(mpsc::Sender<(SessionId, Option<CloseReason>)>);

impl Handler for Knows {
    type State = ();

    fn opened(&self, session: &Session) {
        self.0.send((session.id(), None)).unwrap();
    }

    fn received(&self, _: &Session, (): &mut (), _: &[u8]) {}

    fn closed(&self, session: &Session, (): (), reason: CloseReason) {
        self.0.send((session.id(), Some(reason))).unwrap();
    }
}

impl Told<Note> for Knows {
    fn told(&self, _: &Session, (): &mut (), _: Note) {}
}
