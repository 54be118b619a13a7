//! The world of one run: time, what is to happen, who runs, sockets, ports, and what happened.
//!
//! All of it is one value under one lock. Whoever calls in is the only thread of the run that runs at
//! all (see [`threads`](super::threads)), so the order of everything is the seed's alone.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use oorandom::Rand64;

use super::fault::{Dice, Fault, Faults, random_of};
use super::network::{Network, SocketIndex};
use super::port_state::{PortState, Sizes};
use super::threads::Threads;
use super::trace::{Trace, What};
use crate::clock::{Clock, Moment};
use crate::options::Options;
use crate::port::operation::OperationKind;

/// A run's world, for all who live in it.
#[derive(Clone)]
pub(crate) struct World(pub(super) Arc<Shared>);

/// All of it would be megabytes.
impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("World").finish_non_exhaustive()
    }
}

#[derive(Debug)]
pub(super) struct Shared {
    /// The standard library's: at the steps of any other lock this one is taken.
    state: Mutex<State>,
    /// No schedule governs its threads, which the contract's tests start.
    is_free: bool,
    /// For them: something has changed.
    pub(super) changed: Condvar,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) now: u64,
    /// Of when and in which order; faults have their own.
    pub(super) random: Rand64,
    /// Of how far apart the steps are at which threads are preempted, and for how long they are.
    pub(super) steps: Rand64,
    /// Of the generations that servers begin with.
    generations: Rand64,
    pub(super) dice: Dice,
    pub(super) threads: Threads,
    pub(super) network: Network,
    pub(super) ports: Vec<PortState>,
    pub(super) trace: Trace,
    pub(super) figures: Figures,
    pub(super) pace: Pace,
    /// Ports are made no smaller than asked.
    is_roomy: bool,
    events: BinaryHeap<Reverse<(u64, u64, Event)>>,
    events_made: u64,
}

/// What is to happen at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Event {
    /// The system looks at an outstanding operation.
    Try { port: u32, registration: u32, kind: u8, post: u32 },
    /// A cancel reaches an operation.
    Cancel { port: u32, registration: u32, kind: u8, post: u32 },
    /// What came for a peer reaches it.
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
    /// Completions that they delivered.
    pub completions: u64,
    /// Times that a socket took bytes at once, without an operation.
    pub direct_sends: u64,
    /// Batches of completions, empty ones included.
    pub batches: u64,
    /// Times that another thread went on.
    pub switches: u64,
    /// Of these, times that it did so between two steps: [`Fault::ThreadPreempted`].
    pub preemptions: u64,
    /// The most batches that a worker with a port of its own took between what a callback had queued for
    /// its session, as [`note_queued`](crate::simulation::note_queued) says, and the send of it.
    pub send_batches_max: u64,
    /// Sockets that were still registered when their port ended.
    pub left_registered: u64,
}

/// How long things take, and how often threads change; each seed has its own.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    /// The usual time of an operation is below this.
    pub(super) operation_ns: u64,
    /// The usual time between two waits of a worker is below this.
    pub(super) turn_ns: u64,
    /// Another thread goes on at one in so many places where it could.
    pub(super) switch_one_in: u64,
    /// The bytes that an end of a stream holds unread.
    pub(super) window_bytes: usize,
    /// The usual number of steps from one at which a thread is preempted to its next.
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
                pace,
                is_roomy: false,
                events: BinaryHeap::new(),
                events_made: 0,
            }),
            changed: Condvar::new(),
        }))
    }

    pub(super) fn shared(&self) -> &Shared {
        &self.0
    }

    /// Lets threads look again that wait and that no schedule governs.
    pub(super) fn tell_free_threads(&self) {
        if self.0.is_free {
            self.0.changed.notify_all();
        }
    }

    pub(super) fn is(&self, other: &World) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Does something to the state.
    pub(super) fn with<R>(&self, act: impl FnOnce(&mut State) -> R) -> R {
        act(&mut self.0.lock())
    }

    /// The generation of a server's first sessions: each server in the world has its own.
    pub(crate) fn first_generation(&self, bits: u32) -> u64 {
        self.with(|state| state.generations.rand_u64() >> (u64::BITS - bits))
    }

    /// How many workers a server has that does not say: one to four.
    pub(crate) fn workers(&self) -> usize {
        1 + self.with(|state| state.below(4)) as usize
    }

    /// The sizes of a server's port: no larger than its options say, and often so small that they are
    /// reached.
    pub(crate) fn sizes(&self, options: &Options) -> Sizes {
        self.with(|state| {
            if state.is_roomy {
                let buffers = usize::from(options.receive_buffers);
                let buffer_bytes = options.receive_buffer_bytes;
                return Sizes { buffers, buffer_bytes, ..Sizes::default() };
            }
            // Few buffers that are small too would only be a storm of receives that find none.
            let (buffers, buffer_bytes) = match state.below(4) {
                0 => (2, 65_536),
                1 => (16, 4_096),
                2 => (128, 16),
                _ => (256, 65_536),
            };
            let mut among = |choices: [usize; 4]| choices[state.below(4) as usize];
            Sizes {
                buffers: usize::from(options.receive_buffers).min(buffers),
                buffer_bytes: options.receive_buffer_bytes.min(buffer_bytes),
                ready_max: among([8, 64, 4_096, 4_096]),
                batch_max: if buffers < 64 { 1_024 } else { among([1, 4, 64, 1_024]) },
            }
        })
    }

    /// Whether a worker of it has a port open.
    pub(super) fn is_served(&self) -> bool {
        self.with(|state| state.ports.iter().any(|port| port.handles > 0))
    }

    /// A number below `below` that the seed decides.
    pub(crate) fn below(&self, below: u64) -> u64 {
        self.with(|state| state.below(below))
    }

    pub(crate) fn fires(&self, fault: Fault) -> bool {
        self.with(|state| state.fires(fault))
    }

    /// The callback that runs on this thread has queued something for its session.
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
        self.with(|state| {
            let waits = state.ports.iter().filter(|port| !port.is_shared);
            let send_batches_max = waits.map(|port| port.send_waits_max).max().unwrap_or(0);
            Figures { send_batches_max, ..state.figures }
        })
    }

    pub(crate) fn hash(&self) -> u64 {
        self.with(|state| state.trace.hash())
    }

    pub(crate) fn be_roomy(&self) {
        self.with(|state| state.is_roomy = true);
    }

    pub(crate) fn switch_in_calls(&self) {
        self.with(|state| state.threads.switches_in_calls = true);
        crate::sync::steps::begin(); // the driver has them now
    }

    pub(crate) fn keep_trace(&self) {
        self.with(|state| state.trace.keep());
    }

    pub(crate) fn trace(&self, about: &[u64]) -> Vec<String> {
        self.with(|state| state.trace.lines(about))
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

    /// A length of time between the two, with each order of magnitude as likely as any other.
    pub(super) fn long_ns(&mut self, least: Duration, most: Duration) -> u64 {
        let (least, most) = (least.as_nanos() as u64, most.as_nanos() as u64);
        let magnitudes = u64::from((most / least).ilog2());
        let shift = self.below(magnitudes + 1);
        let base = least << shift;
        (base + self.below(base)).min(most)
    }

    /// How long an operation takes from now on.
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

    /// Lets everything happen whose time has come.
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

    /// Has the system look at an outstanding operation of a socket, if there is one.
    pub(super) fn look_at(&mut self, socket: SocketIndex, kind: OperationKind) {
        let Some((port, registration)) = self.network.registered(socket) else { return };
        self.schedule_try(port, registration, kind);
    }
}
