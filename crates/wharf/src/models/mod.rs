//! Models of what several threads touch: the production code, run by a model checker.
//!
//! Each file begins with what it shows. Under loom (`ci/loom.sh`) a model has three threads, and goes through
//! *every* execution that the memory model allows, with at most `LOOM_MAX_PREEMPTIONS` preemptions, or any
//! number if that is not set. Waiting in vain is a deadlock, which loom reports, so lost wakes are found.
//! Under shuttle (`ci/shuttle.sh`) whole workers run on random schedules.
//!
//! In a loom model a worker is reduced to what it does with shared state. The shared types (tables, counts,
//! queues, mailboxes, the engine) are the production code.

#[cfg(loom)]
mod announce;
#[cfg(loom)]
mod budget;
#[cfg(loom)]
mod change_of_framing;
#[cfg(loom)]
mod close;
#[cfg(loom)]
mod count;
#[cfg(loom)]
mod end_of_members;
#[cfg(loom)]
mod ending;
#[cfg(loom)]
mod free_slots;
#[cfg(all(loom, unix))]
mod gate;
#[cfg(loom)]
mod given_up;
#[cfg(loom)]
mod half;
#[cfg(loom)]
mod jobs;
#[cfg(loom)]
mod last_member;
#[cfg(loom)]
mod mailbox;
#[cfg(all(shuttle, not(loom)))]
mod mix;
#[cfg(loom)]
mod names;
#[cfg(loom)]
mod notes;
#[cfg(loom)]
mod order;
#[cfg(loom)]
mod places;
#[cfg(loom)]
mod port;
#[cfg(loom)]
mod publishers;
#[cfg(loom)]
mod room;
#[cfg(loom)]
mod send_queue;
#[cfg(loom)]
mod two_ports;
#[cfg(loom)]
mod walk;
#[cfg(loom)]
mod watched;
#[cfg(loom)]
mod worker;

#[cfg(loom)]
use self::loom_only::{engine, explore, join_all, ports};

#[cfg(loom)]
mod loom_only {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::Instant;

    use loom::thread::JoinHandle;

    use super::port::ModelPort;
    use crate::engine::Engine;
    use crate::framing::Framing;
    use crate::options::Options;
    use crate::session::SessionTable;

    /// Includes the model's own thread.
    const THREADS: usize = 3;

    /// The most steps of one execution. More count as endless.
    const STEPS_MAX: usize = 10_000;

    /// Counts executions, and reports the number, also when a model fails.
    struct Executions(String, Arc<AtomicU64>);

    impl Drop for Executions {
        fn drop(&mut self) {
            if std::thread::panicking() {
                println!("model {} fails in execution {}", self.0, self.1.load(Ordering::Relaxed));
            }
        }
    }

    /// Runs a model through all of its executions, and prints how many there were.
    pub(in crate::models) fn explore(name: &str, model: impl Fn() + Send + Sync + 'static) {
        let mut builder = loom::model::Builder::new(); // reads LOOM_MAX_PREEMPTIONS
        builder.max_threads = THREADS;
        builder.max_branches = STEPS_MAX;
        (builder.max_duration, builder.max_permutations) = (None, None); // no limits
        let bound = builder.preemption_bound.map_or("none".to_owned(), |bound| bound.to_string());
        let executions = Executions(name.to_owned(), Arc::default());
        let (counted, started) = (executions.1.clone(), Instant::now());
        builder.check(move || {
            counted.fetch_add(1, Ordering::Relaxed);
            model();
        });
        println!(
            "model {name:<52} {THREADS} threads, preemption bound {bound:>4}, {:>9} executions, {:>7.1} s",
            executions.1.load(Ordering::Relaxed),
            started.elapsed().as_secs_f64(),
        );
    }

    /// The results of the threads. A failed thread fails the model.
    pub(in crate::models) fn join_all<T, const N: usize>(threads: [JoinHandle<T>; N]) -> [T; N] {
        threads.map(|thread| thread.join().unwrap())
    }

    /// An engine with two ports, each with listeners and one worker.
    pub(in crate::models) fn ports(sessions_max: u32) -> (Arc<Engine>, [Arc<ModelPort>; 2]) {
        let options = Options::default().workers(2).with(|options| {
            options.sessions.max = sessions_max;
        });
        let mut engine = Engine::new(false, Framing::raw(), options, crate::port::Sockets::Os);
        engine.table = SessionTable::new(sessions_max, 0); // so that slots are reused at once
        engine.accept_at_each_port();
        let ports = [(); 2].map(|()| Arc::new(ModelPort::new(false)));
        for (share, port) in engine.ports.iter().zip(&ports) {
            share.mailbox.set_waker(port.clone());
        }
        (Arc::new(engine), ports)
    }

    /// An engine with one port, for one worker or shared by two.
    pub(in crate::models) fn engine(
        is_shared: bool,
        sessions_max: u32,
    ) -> (Arc<Engine>, Arc<ModelPort>) {
        let workers = if is_shared { 2 } else { 1 };
        let options = Options::default().workers(workers).with(|options| {
            options.sessions.max = sessions_max;
        });
        let mut engine = Engine::new(is_shared, Framing::raw(), options, crate::port::Sockets::Os);
        engine.table = SessionTable::new(sessions_max, 0);
        let port = Arc::new(ModelPort::new(is_shared));
        engine.ports[0].mailbox.set_waker(port.clone());
        (Arc::new(engine), port)
    }
}
