//! What can go wrong: by name, how often, and how often it did.
//!
//! Each fault draws from its own random sequence. So switching one off does not change when the others fire,
//! as long as the run is the same up to there. That makes failing runs easy to shrink: faults and single
//! firings are removed as long as the run still fails.

use std::fmt;
use std::ops::Range;

use oorandom::Rand64;

/// One in so many opportunities, before a seed makes it rarer or more frequent.
macro_rules! faults {
    ($($(#[doc = $doc:literal])* $variant:ident $name:literal 1/$one_in:literal $who:ident,)*) => {
        /// Something that goes wrong in a simulation.
        ///
        /// Most faults happen by themselves: the simulated network, port, clock or scheduler produces them.
        /// The others are those that peers, handlers and the program commit ([`PeerResets`](Self::PeerResets),
        /// [`HandlerPanics`](Self::HandlerPanics) and the like). Here the seed only says when: the test asks
        /// [`Simulation::fires`](crate::simulation::Simulation::fires), a handler asks
        /// [`fires`](crate::simulation::fires), and does it.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[non_exhaustive]
        pub enum Fault {
            $($(#[doc = $doc])* $variant,)*
        }

        impl Fault {
            /// All of them.
            pub const ALL: &[Fault] = &[$(Fault::$variant,)*];

            /// Its name: lower-case words, joined by hyphens.
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

/// Who notices it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Who {
    /// The library alone: peers and handlers see the same, at another time.
    Library,
    /// Sessions end by it, or are refused.
    Sessions,
    /// Made by whoever plays the peers or the handler.
    Scenario,
}

faults! {
    /// An operation takes far longer than usual, up to 2 s.
    CompletionDelayed "completion-delayed" 1/200 Library,
    /// The completions of a batch come in another order. Those of one direction of a session keep theirs.
    CompletionsReordered "completions-reordered" 1/8 Library,
    /// A batch has one completion, though more are there.
    BatchOfOne "batch-of-one" 1/8 Library,
    /// The completion queue overflows: a multishot receive ends with its next bytes.
    CompletionQueueOverflowed "completion-queue-overflowed" 1/64 Library,
    /// The submission queue is full: posts reach the system at once, in the middle of a worker's turn.
    SubmissionQueueFull "submission-queue-full" 1/32 Library,
    /// A receive brings one byte.
    ReceiveOfOneByte "receive-of-one-byte" 1/24 Library,
    /// A receive brings a part of the bytes that have come.
    ReceiveInPart "receive-in-part" 1/8 Library,
    /// A multishot receive ends with its next bytes.
    ReceiveEnds "receive-ends" 1/32 Library,
    /// No lent buffer is left for a receive.
    BuffersExhausted "buffers-exhausted" 1/64 Library,
    /// One byte of a send leaves.
    SendOfOneByte "send-of-one-byte" 1/24 Library,
    /// A part of a send leaves.
    SendInPart "send-in-part" 1/8 Library,
    /// A cancel takes far longer than usual.
    CancelDelayed "cancel-delayed" 1/8 Library,
    /// A cancelled operation succeeds all the same.
    CancelLosesRace "cancel-loses-race" 1/2 Library,
    /// A cancelled accept brings a socket all the same.
    CancelledAcceptSucceeds "cancelled-accept-succeeds" 1/2 Library,
    /// A receive brings bytes after its session was shut down.
    CompletionAfterShutdown "completion-after-shutdown" 1/4 Library,
    /// A worker's wait is interrupted, and brings nothing.
    WaitInterrupted "wait-interrupted" 1/32 Library,
    /// A worker's sleep ends without a reason.
    WakeSpurious "wake-spurious" 1/32 Library,
    /// A thread stands still for up to 10 s.
    ThreadStalls "thread-stalls" 1/2000 Library,
    /// A multishot accept ends with its next socket.
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
    /// A connect times out in the system (ETIMEDOUT).
    ConnectTimesOut "connect-times-out" 1/16 Sessions,
    /// A connect is never answered.
    ConnectUnanswered "connect-unanswered" 1/16 Sessions,
    /// The clock jumps ahead by up to 2 hours, as after a virtual machine was suspended.
    ClockJumps "clock-jumps" 1/20000 Sessions,
    /// A worker's wait fails (ENOMEM). This ends the worker, and with it the server.
    PortFails "port-fails" 1/2000000 Sessions,
    /// A worker meets a fault of wharf's own. This ends the worker, and with it the server.
    WorkerFaults "worker-faults" 1/2000000 Sessions,
    /// A peer stops reading, for a while or for ever.
    PeerStalls "peer-stalls" 1/64 Scenario,
    /// A peer vanishes: neither bytes nor an end come from it any more.
    PeerVanishes "peer-vanishes" 1/256 Scenario,
    /// A peer ends its stream and reads on.
    PeerHalfCloses "peer-half-closes" 1/64 Scenario,
    /// A peer resets, perhaps in the middle of a frame.
    PeerResets "peer-resets" 1/64 Scenario,
    /// A peer closes without reading what has come, which is a reset too.
    PeerClosesUnread "peer-closes-unread" 1/64 Scenario,
    /// A peer sends bytes that are not of its protocol.
    BytesCorrupted "bytes-corrupted" 1/256 Scenario,
    /// A callback of the handler panics.
    HandlerPanics "handler-panics" 1/512 Scenario,
    /// A destructor of the program panics: of a session's state, or of the value that a callback panicked with.
    DestructorPanics "destructor-panics" 1/64 Scenario,
    /// Bytes that the program sends panic, or call the server, when they are read or dropped.
    BytesMisbehave "bytes-misbehave" 1/128 Scenario,
    /// A callback blocks, for seconds perhaps.
    CallbackBlocks "callback-blocks" 1/512 Scenario,
    /// The program closes a session.
    LocalClose "local-close" 1/64 Scenario,
    /// A thread is stopped between two [steps](crate::simulation#steps), while other threads run up to 512
    /// times. There is an opportunity about every 30, 100 or 1,000 steps, as the seed says.
    ThreadPreempted "thread-preempted" 1/1 Library,
    /// A worker meets a fault of wharf's own while it admits a session. The server ends.
    AdmissionFaults "admission-faults" 1/100000 Sessions,
    /// A port that has failed ends without the completions of its outstanding operations.
    PortEndsUntold "port-ends-untold" 1/2 Sessions,
    /// A connect gets the TCP port that it connects to as its own, and so reaches itself.
    ConnectMeetsItself "connect-meets-itself" 1/16 Sessions,
    /// A peer sends the head that begins a WebSocket, its request or its answer, a byte at a time.
    WebSocketHeadDribbled "web-socket-head-dribbled" 1/8 Scenario,
    /// A peer sends frames behind the head before the WebSocket stands.
    WebSocketHeadMerged "web-socket-head-merged" 1/8 Scenario,
    /// A peer sends the frames of a WebSocket a byte at a time.
    WebSocketFramesCut "web-socket-frames-cut" 1/16 Scenario,
    /// A peer sends many frames of a WebSocket in one piece.
    WebSocketFramesMerged "web-socket-frames-merged" 1/16 Scenario,
    /// A message of a WebSocket comes in fragments, some of one byte and some empty.
    WebSocketFragments "web-socket-fragments" 1/8 Scenario,
    /// A control frame of a WebSocket stands between two fragments.
    WebSocketControlBetween "web-socket-control-between" 1/4 Scenario,
    /// A peer stops reading, and sends pings.
    WebSocketPingFlood "web-socket-ping-flood" 1/128 Scenario,
    /// A peer and the program close a WebSocket at the same time.
    WebSocketClosesCross "web-socket-closes-cross" 1/128 Scenario,
    /// A peer that leaves ends its stream without a Close frame.
    WebSocketEndsUnsaid "web-socket-ends-unsaid" 1/4 Scenario,
    /// A peer sends messages behind its Close frame.
    WebSocketGoesOn "web-socket-goes-on" 1/4 Scenario,
    /// A peer resets after the Close frames, before the end of the stream.
    WebSocketLingerCut "web-socket-linger-cut" 1/4 Scenario,
    /// A peer sends a frame that breaks a rule of WebSocket.
    WebSocketFrameInvalid "web-socket-frame-invalid" 1/128 Scenario,
    /// A peer reads, but says nothing more and answers no ping.
    WebSocketMute "web-socket-mute" 1/256 Scenario,
    /// A request for a WebSocket is refused, or refuses itself: it is no proper one.
    WebSocketUpgradeRefused "web-socket-upgrade-refused" 1/16 Scenario,
    /// The head that begins a WebSocket does not come to its end.
    WebSocketUpgradeStalls "web-socket-upgrade-stalls" 1/32 Scenario,
    /// What comes in place of the head that begins a WebSocket is not HTTP.
    WebSocketUpgradeGarbage "web-socket-upgrade-garbage" 1/32 Scenario,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Which faults happen in a run, and how often.
///
/// ```
/// use wharf::simulation::{Fault, Faults};
///
/// // What no test should notice, without late completions, and with many short receives.
/// let faults = Faults::unnoticed()
///     .without(Fault::CompletionDelayed)
///     .with(Fault::ReceiveOfOneByte, 2);
/// # let _ = faults;
/// ```
#[derive(Clone)]
pub struct Faults {
    /// The chance of each, out of 2^32 per opportunity. 0: never.
    chances: Vec<u64>,
}

/// What is left out of a run, whatever its seed and its [`Faults`] say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LeftOut {
    /// Faults that do not happen.
    pub without: Vec<Fault>,
    /// Firings that do not happen, counted from 0 over all faults of a run.
    pub muted: Vec<Range<u64>>,
}

const CERTAIN: u64 = 1 << 32;

impl Faults {
    /// None. Threads still run in any order.
    pub fn none() -> Self {
        Faults { chances: vec![0; Fault::ALL.len()] }
    }

    /// Those that a peer and a handler cannot notice, except by the time that things take. The outcome of a
    /// test must be the same with them as without.
    pub fn unnoticed() -> Self {
        Self::chosen(|fault| fault.who() == Who::Library)
    }

    /// All. Some of them end sessions, or the server.
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

    /// Leaves out half of the faults, as the seed says, and makes some of the others 5 times rarer or more
    /// frequent: a run with few kinds of faults reaches what a run with all of them hides.
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

    /// Leaves out a fault.
    pub fn without(mut self, fault: Fault) -> Self {
        self.chances[fault as usize] = 0;
        self
    }

    /// Lets a fault happen at one in so many opportunities.
    pub fn with(mut self, fault: Fault, one_in: u64) -> Self {
        self.chances[fault as usize] = CERTAIN / one_in.max(1);
        self
    }

    /// The faults that can happen.
    pub fn present(&self) -> impl Iterator<Item = Fault> {
        Fault::ALL.iter().copied().filter(|fault| self.chances[*fault as usize] > 0)
    }
}

/// In a line: there are many.
impl fmt::Debug for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.present().map(Fault::name).collect();
        write!(f, "Faults({})", names.join(", "))
    }
}

/// Decides when a fault fires, and counts.
#[derive(Debug)]
pub(super) struct Dice {
    faults: Faults,
    left_out: LeftOut,
    random: Vec<Rand64>,
    pub(super) fired: Vec<u64>,
    firings: u64,
    /// While set, none fires, to check that everything recovers.
    pub(super) quiet: bool,
}

impl Dice {
    pub(super) fn new(seed: u64, faults: Faults) -> Self {
        let random = (0..Fault::ALL.len() as u64).map(|fault| random_of(seed, fault)).collect();
        let fired = vec![0; Fault::ALL.len()];
        Dice { faults, left_out: LeftOut::default(), random, fired, firings: 0, quiet: false }
    }

    pub(super) fn set_faults(&mut self, faults: Faults) {
        let without = self.left_out.without.iter();
        self.faults = without.fold(faults, |faults, fault| faults.without(*fault));
    }

    pub(super) fn leave_out(&mut self, left_out: LeftOut) {
        self.left_out = left_out;
        self.set_faults(self.faults.clone());
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
        if self.left_out.muted.iter().any(|range| range.contains(&firing)) {
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
    // Consecutive seeds must not give similar sequences.
    let mixed = (seed ^ sequence.wrapping_mul(0x9E37_79B9_7F4A_7C15))
        .wrapping_mul(0xD6E8_FEB8_6659_FD93)
        .rotate_left(32);
    Rand64::new(u128::from(mixed) << 64 | u128::from(sequence ^ seed.rotate_left(17)))
}
