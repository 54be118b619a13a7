//! Jobs of a session, which threads of the pool run while its worker tells what they gave, or ends it.
//!
//! Shown: every job that was taken runs, without any further event, beside no other of its session and in order, and is
//! told; and of a session that closes each is told, dropped or given back, and none keeps its place.

use std::sync::Arc;

use loom::sync::atomic::{AtomicBool, Ordering};
use loom::thread;

use super::port::ModelPort;
use super::{engine, explore};
use crate::close::{Close, CloseReason};
use crate::engine::{Engine, Follows, Job, Mail, Notes};
use crate::session::SessionId;

struct Model {
    engine: Arc<Engine>,
    port: Arc<ModelPort>,
    id: SessionId,
    notes: Box<[Notes<u32>]>,
    runs: AtomicBool,
}

struct Work(Arc<Model>, u32);

impl Job for Work {
    fn run(self: Box<Self>) {
        let Work(model, number) = *self;
        assert!(!model.runs.swap(true, Ordering::SeqCst), "jobs of a session exclude each other");
        model.runs.store(false, Ordering::SeqCst);
        model.engine.job_has_run(&model.notes, model.id, Some(number));
    }
}

impl Model {
    fn new() -> Arc<Self> {
        let (engine, port) = engine(false, 1);
        engine.pool_starts();
        let id = engine.admit(None, 0).unwrap();
        let (notes, runs) = (Box::new([Notes::default()]) as Box<[_]>, AtomicBool::new(false));
        Arc::new(Model { engine, port, id, notes, runs })
    }

    /// Returns how many came back.
    fn offload(self: &Arc<Self>, count: u32) -> u32 {
        let is_refused = |number: &u32| {
            let job = Box::new(Work(self.clone(), *number));
            self.engine.offload(self.id, job).is_err()
        };
        (0..count).filter(is_refused).count() as u32
    }

    fn close(&self) {
        self.engine.with_session(self.id, |slot| {
            let changed = self.engine.ask_to_close(self.id, slot, CloseReason::Local, Close::Stop);
            ((), Follows { changed, ..Follows::default() })
        });
    }

    /// The worker's turns, until so many were told or the session closes. Returns what was told, and how many were
    /// forgotten, of those whose notes waited.
    fn serve(&self, count: usize) -> (Vec<u32>, u32) {
        let (share, slot) = (&self.engine.ports[0], self.engine.table.held(self.id).unwrap());
        let (mut mails, mut told) = (Vec::new(), Vec::new());
        while told.len() < count && !slot.count.is_closing() {
            if share.mailbox.may_sleep() {
                let sent = self.port.wait();
                assert!(sent.is_none(), "nothing is sent");
            }
            share.mailbox.take(&mut mails);
            let attends = mails.drain(..).any(|mail| matches!(mail, Mail::Attend(_)));
            if attends && slot.send_queue.lock().take_due() {
                while let Some(waiting) = self.notes[0].pop(self.id) {
                    assert!(waiting.is_of_job);
                    self.engine.job_is_told(self.id, slot);
                    told.push(waiting.note);
                }
            }
        }
        // As `Floor::forget_due`.
        let mut forgotten = 0;
        if slot.count.is_closing() {
            forgotten = std::iter::from_fn(|| self.notes[0].pop(self.id)).count() as u32;
            self.engine.forget_jobs(self.id, slot);
        }
        (told, forgotten)
    }
}

#[test]
fn jobs_that_two_threads_run_are_told_in_order() {
    explore("jobs: one that offloads two, two that run one each, a worker that sleeps", || {
        let model = Model::new();
        let pool = [(); 2].map(|()| {
            let model = model.clone();
            thread::spawn(move || model.engine.next_job().unwrap().run())
        });
        assert_eq!(model.offload(2), 0);
        let (told, forgotten) = model.serve(2);
        assert_eq!((told, forgotten), (vec![0, 1], 0));
        pool.into_iter().for_each(|thread| thread.join().unwrap());
        assert_eq!(model.engine.stats().held_jobs, 0);
    });
}

#[test]
fn of_a_session_that_closes_each_job_is_told_or_dropped_or_comes_back() {
    explore("jobs: one that offloads, one that runs, one that closes, a worker", || {
        let model = Model::new();
        let pool = {
            let model = model.clone();
            thread::spawn(move || {
                while let Some(job) = model.engine.next_job() {
                    job.run();
                }
            })
        };
        let offloader = {
            let model = model.clone();
            thread::spawn(move || {
                let back = model.offload(1);
                model.close();
                back
            })
        };
        let (told, forgotten) = model.serve(usize::MAX);
        let back = offloader.join().unwrap();
        model.engine.worker_ended(None);
        pool.join().unwrap();
        let stats = model.engine.stats();
        assert!(forgotten <= 1 && back == 0);
        assert_eq!((told.len() as u64 + stats.untold_jobs, stats.held_jobs), (1, 0));
        assert_eq!(model.offload(1), 1);
        assert!(model.notes[0].pop(model.id).is_none());
    });
}
