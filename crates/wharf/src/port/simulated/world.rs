//! The world of one run: time, the events to come, threads, sockets, ports, and what happened.
//!
//! All of it is one value under one lock. Only one thread of the run runs at a time (see
//! [`threads`](super::threads)), so the seed alone decides the order of everything.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use oorandom::Rand64;

use super::fault::{Dice, Fault, Faults, LeftOut, random_of};
use super::network::{Network, SocketIndex};
use super::port_state::{PortState, Sizes};
use super::threads::{Governed, Threads, Waits};
use super::trace::{Trace, What};
use crate::clock::{Clock, Moment};
use crate::options::Options;
use crate::port::operation::OperationKind;

/// A run's world, for everything in it.
#[derive(Clone)]
pub(crate) struct World(pub(super) Arc<Shared>);

/// Everything in it would be megabytes.
impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("World").finish_non_exhaustive()
    }
}

#[derive(Debug)]
pub(super) struct Shared {
    /// The standard library's, because this lock is taken at the steps of all other locks.
    state: Mutex<State>,
    /// No scheduler controls its threads, which the contract's tests start.
    is_free: bool,
    /// For such threads: something has changed.
    pub(super) changed: Condvar,
    /// Set in a run that a test which has failed is tried in once more.
    trial: OnceLock<Trial>,
}

/// A run in which a failure is only looked at: its panics are not printed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Trial {
    /// It is cut short at this time.
    pub(crate) deadline: Option<Instant>,
}

/// What a trial that is cut short panics with.
#[derive(Debug)]
pub(crate) struct CutShort;

#[derive(Debug)]
pub(super) struct State {
    pub(super) now: u64,
    /// Decides times and orders. Faults have their own.
    pub(super) random: Rand64,
    /// Decides the distance between preemptions, and their length.
    pub(super) steps: Rand64,
    /// Decides the generations that servers begin with.
    generations: Rand64,
    pub(super) dice: Dice,
    pub(super) threads: Threads,
    pub(super) network: Network,
    pub(super) ports: Vec<PortState>,
    pub(super) trace: Trace,
    pub(super) figures: Figures,
    /// Sockets that were still registered when their port ended.
    pub(super) left_registered: u64,
    pub(super) pace: Pace,
    /// Ports have the sizes asked for, no smaller ones.
    is_roomy: bool,
    events: BinaryHeap<Reverse<(u64, u64, Event)>>,
    events_made: u64,
}

/// A future event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Event {
    /// The OS looks at an outstanding operation.
    Try { port: u32, registration: u32, kind: u8, post: u32 },
    /// A cancel reaches an operation.
    Cancel { port: u32, registration: u32, kind: u8, post: u32 },
    /// What was sent to a peer arrives.
    Arrive { socket: SocketIndex, generation: u32 },
    /// A sleep ends without reason.
    Wake { port: u32 },
}

/// How much was done in a run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Figures {
    /// Operations that ports accepted.
    pub posts: u64,
    /// Completions that ports delivered.
    pub completions: u64,
    /// Sends that a socket took at once, whole or in part, without an operation.
    pub direct_sends: u64,
    /// Batches of completions, empty ones included.
    pub batches: u64,
    /// How often one thread stopped and another went on.
    pub switches: u64,
    /// How many of these switches were between two steps ([`Fault::ThreadPreempted`]).
    pub preemptions: u64,
}

/// How long things take and how often threads switch. Each seed has its own.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    /// Operations usually take less than this.
    pub(super) operation_ns: u64,
    /// A worker usually takes less than this between two waits.
    pub(super) turn_ns: u64,
    /// At one in so many places, another thread runs.
    pub(super) switch_one_in: u64,
    /// The unread bytes that an end of a stream can hold.
    pub(super) window_bytes: usize,
    /// The usual number of steps between two preemptions of a thread.
    pub(super) steps: u64,
}

impl Shared {
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl World {
    pub(crate) fn new(seed: u64, faults: Faults) -> Self {
        let mut random = random_of(seed, u64::MAX - 1);
        let mut among =
            |choices: &[u64]| choices[random.rand_range(0..choices.len() as u64) as usize];
        let pace = Pace {
            operation_ns: among(&[1, 1_000, 20_000, 1_000_000]),
            turn_ns: among(&[100, 2_000, 50_000, 200_000]),
            switch_one_in: among(&[2, 6, 24, 100]),
            window_bytes: among(&[1 << 10, 1 << 12, 1 << 14, 1 << 16]) as usize,
            steps: among(&[30, 30, 100, 1_000]),
        };
        Self::with_pace(seed, faults, pace, false)
    }

    pub(super) fn with_pace(seed: u64, faults: Faults, pace: Pace, is_free: bool) -> Self {
        World(Arc::new(Shared {
            is_free,
            state: Mutex::new(State {
                now: 0,
                random: random_of(seed, u64::MAX - 2),
                steps: random_of(seed, u64::MAX - 3),
                generations: random_of(seed, u64::MAX - 4),
                dice: Dice::new(seed, faults),
                threads: Threads::default(),
                network: Network::default(),
                ports: Vec::new(),
                trace: Trace::default(),
                figures: Figures::default(),
                left_registered: 0,
                pace,
                is_roomy: false,
                events: BinaryHeap::new(),
                events_made: 0,
            }),
            changed: Condvar::new(),
            trial: OnceLock::new(),
        }))
    }

    pub(super) fn shared(&self) -> &Shared {
        &self.0
    }

    /// Lets unscheduled waiting threads look again.
    pub(super) fn tell_free_threads(&self) {
        if self.0.is_free {
            self.0.changed.notify_all();
        }
    }

    pub(super) fn is(&self, other: &World) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Acts on the state.
    pub(super) fn with<R>(&self, act: impl FnOnce(&mut State) -> R) -> R {
        act(&mut self.0.lock())
    }

    /// The generation of a server's first sessions. Each server in the world has its own.
    pub(crate) fn first_generation(&self, bits: u32) -> u64 {
        self.with(|state| state.generations.rand_u64() >> (u64::BITS - bits))
    }

    pub(crate) fn window_bytes(&self) -> usize {
        self.with(|state| state.pace.window_bytes)
    }

    /// The number of workers of a server that does not set it: one to four.
    pub(crate) fn workers(&self) -> usize {
        1 + self.with(|state| state.below(4)) as usize
    }

    /// The sizes of a server's port: at most what its options say, and often small enough to be reached.
    pub(crate) fn sizes(&self, options: &Options) -> Sizes {
        self.with(|state| {
            if state.is_roomy {
                let buffers = usize::from(options.uring.receive_buffers);
                let buffer_bytes = options.uring.receive_buffer_bytes;
                return Sizes { buffers, buffer_bytes, ..Sizes::default() };
            }
            // Few and small buffers would only cause floods of receives that find none.
            let (buffers, buffer_bytes) = match state.below(4) {
                0 => (2, 65_536),
                1 => (16, 4_096),
                2 => (128, 16),
                _ => (256, 65_536),
            };
            let mut among = |choices: [usize; 4]| choices[state.below(4) as usize];
            Sizes {
                buffers: usize::from(options.uring.receive_buffers).min(buffers),
                buffer_bytes: options.uring.receive_buffer_bytes.min(buffer_bytes),
                ready_max: among([8, 64, 4_096, 4_096]),
                batch_max: if buffers < 64 { 1_024 } else { among([1, 4, 64, 1_024]) },
            }
        })
    }

    /// Whether a worker has a port of it open.
    pub(super) fn is_served(&self) -> bool {
        self.with(|state| {
            let is_there = |thread: &Governed| thread.serves && thread.waits != Waits::Absent;
            state.ports.iter().any(|port| port.handles > 0)
                || state.threads.list.iter().any(is_there)
        })
    }

    /// A number below `below` that the seed decides.
    pub(crate) fn below(&self, below: u64) -> u64 {
        self.with(|state| state.below(below))
    }

    pub(crate) fn fires(&self, fault: Fault) -> bool {
        self.with(|state| state.fires(fault))
    }

    /// The callback on this thread has queued something for its session.
    pub(crate) fn note_queued(&self) {
        self.with(|state| {
            if let Some((port, registration)) = state.threads.telling() {
                state.ports[port as usize].note_send_due(registration);
            }
        });
    }

    pub(crate) fn be_quiet(&self) {
        self.with(|state| state.dice.quiet = true);
    }

    pub(crate) fn fired(&self) -> Vec<(Fault, u64)> {
        self.with(|state| {
            Fault::ALL.iter().copied().zip(state.dice.fired.iter().copied()).collect()
        })
    }

    pub(crate) fn firings(&self) -> u64 {
        self.with(|state| state.dice.firings())
    }

    pub(crate) fn figures(&self) -> Figures {
        self.with(|state| state.figures)
    }

    /// The most batches that a worker with a port of its own took between a call of
    /// [`note_queued`](Self::note_queued) and the send of what was queued.
    pub(crate) fn send_batches_max(&self) -> u64 {
        self.with(|state| {
            let own_ports = state.ports.iter().filter(|port| !port.is_shared);
            own_ports.map(|port| port.send_waits_max).max().unwrap_or(0)
        })
    }

    pub(crate) fn left_registered(&self) -> u64 {
        self.with(|state| state.left_registered)
    }

    pub(crate) fn set_faults(&self, faults: Faults) {
        self.with(|state| state.dice.set_faults(faults));
    }

    pub(crate) fn leave_out(&self, left_out: LeftOut) {
        self.with(|state| state.dice.leave_out(left_out));
    }

    /// Makes this run a trial, before anything has happened in it.
    pub(crate) fn be_trial(&self, trial: Trial) {
        let _ = self.0.trial.set(trial);
    }

    pub(super) fn is_trial(&self) -> bool {
        self.0.trial.get().is_some()
    }

    /// Cuts a trial short whose time is over.
    pub(super) fn keep_to_deadline(&self) {
        let deadline = self.0.trial.get().and_then(|trial| trial.deadline);
        let is_over = deadline.is_some_and(|deadline| Instant::now() >= deadline);
        if is_over && !std::thread::panicking() {
            std::panic::resume_unwind(Box::new(CutShort));
        }
    }

    /// The test lets time pass.
    pub(crate) fn let_pass(&self, duration: Duration) {
        self.keep_to_deadline();
        self.sleep(duration);
    }

    /// The same until something is true, at most so long. Says whether it came true.
    pub(crate) fn run_until(&self, timeout: Duration, mut is_true: impl FnMut() -> bool) -> bool {
        let end = self.now().saturating_add(timeout);
        let mut step = Duration::from_micros(10);
        loop {
            if is_true() {
                return true;
            }
            let now = self.now();
            if now >= end {
                return false;
            }
            self.let_pass(step.min(end - now));
            if self.now() == now {
                return is_true(); // this thread is none of the simulation's, so no time passes
            }
            step = (step * 2).min(Duration::from_millis(10));
        }
    }

    pub(crate) fn hash(&self) -> u64 {
        self.with(|state| state.trace.hash())
    }

    pub(crate) fn be_roomy(&self) {
        self.with(|state| state.is_roomy = true);
    }

    pub(crate) fn switch_in_calls(&self) {
        self.with(|state| state.threads.switches_in_calls = true);
        crate::sync::steps::begin(); // the driver's steps begin here
    }

    pub(crate) fn keep_trace(&self) {
        self.with(|state| state.trace.keep());
    }

    pub(crate) fn trace(&self, about: &[u64]) -> Vec<String> {
        self.with(|state| state.trace.lines(about))
    }

    /// The trace without who runs and waits.
    pub(crate) fn trace_of_deeds(&self) -> Vec<String> {
        self.with(|state| state.trace.lines_of_deeds())
    }

    /// Notes what a scenario says.
    pub(crate) fn say(&self, about: u64, words: std::fmt::Arguments<'_>) {
        self.with(|state| {
            let words = state.trace.is_kept().then(|| words.to_string().into_boxed_str());
            let (now, thread) = (state.now, state.threads.running);
            state.trace.note_in_words(now, thread, What::Said { about }, words);
        });
    }

    pub(crate) fn now(&self) -> Duration {
        Duration::from_nanos(self.with(|state| state.now))
    }
}

/// The clock of a simulated server.
impl Clock for World {
    fn now(&self) -> Moment {
        Moment::of_nanos(self.with(|state| state.now))
    }
}

impl State {
    pub(super) fn fires(&mut self, fault: Fault) -> bool {
        let firing = self.dice.fires(fault);
        if let Some(firing) = firing {
            self.note(What::Fault { fault, firing });
        }
        firing.is_some()
    }

    pub(super) fn note(&mut self, what: What) {
        self.trace.note(self.now, self.threads.running, what);
    }

    /// A number below `below`, which is not 0.
    pub(super) fn below(&mut self, below: u64) -> u64 {
        self.random.rand_range(0..below.max(1))
    }

    /// A duration between the two, with each order of magnitude equally likely.
    pub(super) fn long_ns(&mut self, least: Duration, most: Duration) -> u64 {
        let (least, most) = (least.as_nanos() as u64, most.as_nanos() as u64);
        let magnitudes = u64::from((most / least).ilog2());
        let shift = self.below(magnitudes + 1);
        let base = least << shift;
        (base + self.below(base)).min(most)
    }

    /// How long an operation takes, starting now.
    pub(super) fn operation_ns(&mut self) -> u64 {
        if self.fires(Fault::CompletionDelayed) {
            return self.long_ns(Duration::from_micros(100), Duration::from_secs(2));
        }
        self.below(self.pace.operation_ns)
    }

    pub(super) fn after(&mut self, ns: u64, event: Event) {
        self.events_made += 1;
        self.events.push(Reverse((self.now.saturating_add(ns), self.events_made, event)));
    }

    pub(super) fn next_event_at(&self) -> Option<u64> {
        self.events.peek().map(|Reverse((at, ..))| *at)
    }

    /// Runs every event whose time has come.
    pub(super) fn run_due(&mut self) {
        while let Some(Reverse((at, _, event))) = self.events.peek().copied()
            && at <= self.now
        {
            self.events.pop();
            match event {
                Event::Try { port, registration, kind, post } => {
                    self.try_operation(port, registration, kind, post);
                }
                Event::Cancel { port, registration, kind, post } => {
                    self.cancel_now(port, registration, kind, post);
                }
                Event::Arrive { socket, generation } => self.arrive(socket, generation),
                Event::Wake { port } => self.ports[port as usize].spurious = true,
            }
        }
    }

    /// Lets the OS look at a socket's outstanding operation, if there is one.
    pub(super) fn look_at(&mut self, socket: SocketIndex, kind: OperationKind) {
        let Some((port, registration)) = self.network.registered(socket) else { return };
        self.schedule_try(port, registration, kind);
    }
}
