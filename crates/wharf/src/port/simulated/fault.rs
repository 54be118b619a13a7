//! What can go wrong, by name, how often, and how often it did.
//!
//! Each fault draws from a random sequence of its own, so turning one off changes nothing of when the
//! others fire, as long as the run is the same until there. That is what makes a failing run small:
//! faults, and single firings, are taken away for as long as it still fails.

use std::fmt;
use std::ops::Range;

use oorandom::Rand64;

/// One in so many opportunities, before a seed makes it rarer or more frequent.
macro_rules! faults {
    ($($(#[doc = $doc:literal])* $variant:ident $name:literal 1/$one_in:literal $who:ident,)*) => {
        /// A fault that the simulated network, port, clock or scheduler can produce.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[non_exhaustive]
        pub enum Fault {
            $($(#[doc = $doc])* $variant,)*
        }

        impl Fault {
            /// All of them.
            pub const ALL: &[Fault] = &[$(Fault::$variant,)*];

            /// Its name: a word for each, joined by hyphens.
            pub fn name(self) -> &'static str {
                match self { $(Fault::$variant => $name,)* }
            }

            fn one_in(self) -> u64 {
                match self { $(Fault::$variant => $one_in,)* }
            }

            fn who(self) -> Who {
                match self { $(Fault::$variant => Who::$who,)* }
            }
        }
    };
}

/// Who notices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Who {
    /// The library alone: peers and handlers see the same, at another time.
    Library,
    /// Sessions end by it, or are refused.
    Sessions,
    /// Made by whoever plays the peers or the handler: [`Simulation::fires`](crate::simulation::Simulation::fires) decides when.
    Scenario,
}

faults! {
    /// An operation takes far longer than usual, seconds perhaps.
    CompletionDelayed "completion-delayed" 1/200 Library,
    /// The completions of a batch come in another order, between sessions and between directions.
    CompletionsReordered "completions-reordered" 1/8 Library,
    /// A batch of completions has one completion.
    BatchOfOne "batch-of-one" 1/8 Library,
    /// More completions are there than the queue holds: a receive that goes on ends with its next bytes.
    CompletionQueueOverflowed "completion-queue-overflowed" 1/64 Library,
    /// Posts reach the system at once, in the middle of a worker's turn.
    SubmissionQueueFull "submission-queue-full" 1/32 Library,
    /// A receive brings one byte.
    ReceiveOfOneByte "receive-of-one-byte" 1/24 Library,
    /// A receive brings a part of what has come.
    ReceiveInPart "receive-in-part" 1/8 Library,
    /// A receive that goes on ends all the same, with bytes.
    ReceiveEnds "receive-ends" 1/32 Library,
    /// No lent buffer is left for a receive.
    BuffersExhausted "buffers-exhausted" 1/64 Library,
    /// One byte of a send leaves.
    SendOfOneByte "send-of-one-byte" 1/24 Library,
    /// A part of a send leaves.
    SendInPart "send-in-part" 1/8 Library,
    /// A cancel takes far longer than usual.
    CancelDelayed "cancel-delayed" 1/8 Library,
    /// A cancelled operation succeeds.
    CancelLosesRace "cancel-loses-race" 1/2 Library,
    /// A cancelled accept brings a socket.
    CancelledAcceptSucceeds "cancelled-accept-succeeds" 1/2 Library,
    /// A receive brings bytes after its session was shut down.
    CompletionAfterShutdown "completion-after-shutdown" 1/4 Library,
    /// A wait is interrupted, and brings nothing.
    WaitInterrupted "wait-interrupted" 1/32 Library,
    /// A sleep ends without reason.
    WakeSpurious "wake-spurious" 1/32 Library,
    /// A thread stands still, for up to ten seconds.
    ThreadStalls "thread-stalls" 1/2000 Library,
    /// An accept that goes on ends all the same, with a socket.
    AcceptEnds "accept-ends" 1/16 Library,
    /// Accepting finds no descriptor (EMFILE).
    AcceptWithoutDescriptors "accept-without-descriptors" 1/64 Library,
    /// Accepting finds no memory (ENOMEM, ENOBUFS).
    AcceptWithoutMemory "accept-without-memory" 1/64 Library,
    /// A peer gives up before it is accepted (ECONNABORTED).
    AcceptAborted "accept-aborted" 1/64 Sessions,
    /// A receive fails (ETIMEDOUT, EHOSTUNREACH, ENOMEM).
    ReceiveFails "receive-fails" 1/2000 Sessions,
    /// A send fails (ENOBUFS, EPERM, EHOSTUNREACH).
    SendFails "send-fails" 1/2000 Sessions,
    /// A post is refused (ENOMEM).
    PostRefused "post-refused" 1/2000 Sessions,
    /// A registration is refused (ENOMEM).
    RegisterRefused "register-refused" 1/200 Sessions,
    /// A connect is refused (ECONNREFUSED).
    ConnectRefused "connect-refused" 1/16 Sessions,
    /// A connect is not answered (ETIMEDOUT).
    ConnectTimesOut "connect-times-out" 1/16 Sessions,
    /// A connect is not answered at all.
    ConnectUnanswered "connect-unanswered" 1/16 Sessions,
    /// The clock goes ahead by up to two hours at once, as after a suspended virtual machine.
    ClockJumps "clock-jumps" 1/20000 Sessions,
    /// Waiting fails (ENOMEM): the worker, and with it the server, ends.
    PortFails "port-fails" 1/2000000 Sessions,
    /// A worker meets a fault of wharf's own, and ends by it: the server ends.
    WorkerFaults "worker-faults" 1/2000000 Sessions,
    /// A peer stops reading, for long or for ever.
    PeerStalls "peer-stalls" 1/64 Scenario,
    /// A peer vanishes: neither bytes nor an end come from it any more.
    PeerVanishes "peer-vanishes" 1/256 Scenario,
    /// A peer ends its stream and reads on.
    PeerHalfCloses "peer-half-closes" 1/64 Scenario,
    /// A peer resets, in the middle of a frame perhaps.
    PeerResets "peer-resets" 1/64 Scenario,
    /// A peer closes without reading what has come, which resets too.
    PeerClosesUnread "peer-closes-unread" 1/64 Scenario,
    /// A peer sends bytes that are none of its protocol.
    BytesCorrupted "bytes-corrupted" 1/256 Scenario,
    /// A callback of the handler panics.
    HandlerPanics "handler-panics" 1/512 Scenario,
    /// A destructor of the program's panics: of a session's state, or of what a callback panicked with.
    DestructorPanics "destructor-panics" 1/64 Scenario,
    /// Bytes that the program sends panic, or call back in, when they are looked at or dropped.
    BytesMisbehave "bytes-misbehave" 1/128 Scenario,
    /// A callback blocks, for a second or two perhaps.
    CallbackBlocks "callback-blocks" 1/512 Scenario,
    /// The program closes a session.
    LocalClose "local-close" 1/64 Scenario,
    /// A thread is kept from going on between two steps, while others go on some hundred times perhaps. An
    /// opportunity comes about every 30, 100 or 1,000 steps, as the seed says.
    ThreadPreempted "thread-preempted" 1/1 Library,
    /// A worker meets a fault of wharf's own while it has a session in hand that is to go to another.
    AdmissionFaults "admission-faults" 1/100000 Sessions,
    /// A port that has failed ends without telling what came of what was outstanding.
    PortEndsUntold "port-ends-untold" 1/2 Sessions,
    /// A connect gets the very port that it connects to, and reaches itself.
    ConnectMeetsItself "connect-meets-itself" 1/16 Sessions,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Which faults there are in a run, and how often.
#[derive(Debug, Clone)]
pub struct Faults {
    /// The chance of each, of 2^32 opportunities; 0: never.
    chances: Vec<u64>,
    /// Firings that do not happen, counted from 0 over all faults of a run.
    muted: Vec<Range<u64>>,
}

const CERTAIN: u64 = 1 << 32;

impl Faults {
    /// None: everything is delivered at once and whole. Threads still run in any order.
    pub fn none() -> Self {
        Faults { chances: vec![0; Fault::ALL.len()], muted: Vec::new() }
    }

    /// Those that a peer and a handler do not notice, but for time: what must not change the outcome
    /// of a test.
    pub fn unnoticed() -> Self {
        Self::chosen(|fault| fault.who() == Who::Library)
    }

    /// All that the simulation produces by itself.
    pub fn all() -> Self {
        Self::chosen(|_| true)
    }

    fn chosen(of: impl Fn(Fault) -> bool) -> Self {
        let mut faults = Self::none();
        for fault in Fault::ALL.iter().filter(|fault| of(**fault)) {
            faults.chances[*fault as usize] = CERTAIN / fault.one_in();
        }
        faults
    }

    /// The same, but each fault left out in every second seed, and five times rarer or more frequent
    /// in some: a run with few kinds reaches what one with all of them hides.
    /// (Groce et al., "Swarm Testing", ISSTA 2012.)
    pub fn swarm(mut self, seed: u64) -> Self {
        let mut random = random_of(seed, u64::MAX);
        for chance in &mut self.chances {
            *chance = match random.rand_range(0..8) {
                0..4 => 0,
                4 => *chance / 5,
                5 => (*chance * 5).min(CERTAIN / 2),
                _ => *chance,
            };
        }
        self
    }

    /// Leaves one out.
    pub fn without(mut self, fault: Fault) -> Self {
        self.chances[fault as usize] = 0;
        self
    }

    /// Lets one fire once in so many opportunities.
    pub fn with(mut self, fault: Fault, one_in: u64) -> Self {
        self.chances[fault as usize] = CERTAIN / one_in.max(1);
        self
    }

    /// Leaves firings out, by their numbers in the run.
    pub fn muted(mut self, firings: impl IntoIterator<Item = Range<u64>>) -> Self {
        self.muted.extend(firings);
        self
    }

    /// Those that can fire.
    pub fn present(&self) -> impl Iterator<Item = Fault> {
        Fault::ALL.iter().copied().filter(|fault| self.chances[*fault as usize] > 0)
    }
}

/// Decides when a fault fires, and counts.
#[derive(Debug)]
pub(super) struct Dice {
    faults: Faults,
    random: Vec<Rand64>,
    pub(super) fired: Vec<u64>,
    firings: u64,
    /// While this is set none fires: to see that all is well again afterwards.
    pub(super) quiet: bool,
}

impl Dice {
    pub(super) fn new(seed: u64, faults: Faults) -> Self {
        let random = (0..Fault::ALL.len() as u64).map(|fault| random_of(seed, fault)).collect();
        let fired = vec![0; Fault::ALL.len()];
        Dice { faults, random, fired, firings: 0, quiet: false }
    }

    /// The number of the firing, if it fires.
    pub(super) fn fires(&mut self, fault: Fault) -> Option<u64> {
        let index = fault as usize;
        let chance = self.faults.chances[index];
        if chance == 0 || self.random[index].rand_u64() >> 32 >= chance || self.quiet {
            return None;
        }
        let firing = self.firings;
        self.firings += 1;
        if self.faults.muted.iter().any(|range| range.contains(&firing)) {
            return None;
        }
        self.fired[index] += 1;
        Some(firing)
    }

    /// Whether this one can fire in the run.
    pub(super) fn has(&self, fault: Fault) -> bool {
        self.faults.chances[fault as usize] > 0
    }

    pub(super) fn firings(&self) -> u64 {
        self.firings
    }
}

/// One of the random sequences of a seed.
pub(super) fn random_of(seed: u64, sequence: u64) -> Rand64 {
    // Seeds that follow each other must not give sequences that are alike.
    let mixed = (seed ^ sequence.wrapping_mul(0x9E37_79B9_7F4A_7C15))
        .wrapping_mul(0xD6E8_FEB8_6659_FD93)
        .rotate_left(32);
    Rand64::new(u128::from(mixed) << 64 | u128::from(sequence ^ seed.rotate_left(17)))
}
