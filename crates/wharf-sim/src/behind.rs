//! The scenario `behind`: members that cannot keep up with what is published, each in a way of its own.
//!
//! Queues are small and publishers publish in bursts. A peer that reads at a pace of its own *stalls* as far as the
//! network knows, and reads so many bytes now and then.

use std::time::Duration;

use oorandom::Rand64;
use wharf::Policy;
use wharf::options::Sending;
use wharf::simulation::Peer;
use wharf::simulation::for_wharf_sim::read_some;

use crate::frames::FRAME_BYTES_MAX;
use crate::scenario::Case;

/// How a peer reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reader {
    /// Whatever comes.
    Steady,
    /// Everything at once, and then nothing for a while.
    InBursts,
    /// A byte at a time.
    ByteByByte,
    /// A little less than the slow rule wants.
    JustUnder,
    /// A little more.
    JustOver,
    /// It stops for a while, and then reads all.
    StopsOnce,
    /// It does not read.
    Never,
}

const READERS: [Reader; 6] = [
    Reader::InBursts,
    Reader::ByteByByte,
    Reader::JustUnder,
    Reader::JustOver,
    Reader::StopsOnce,
    Reader::Never,
];

/// What a seed makes of the scenario.
#[derive(Debug, Clone)]
pub(crate) struct Behind {
    readers: Vec<Reader>,
    /// So many publications follow each other at most.
    pub(crate) burst: u64,
    /// Who cannot publish any more waits until it can.
    pub(crate) waits_to_publish: bool,
    /// Not all memberships have the default policy.
    policies: bool,
    /// Sessions join when they open.
    joins_at_once: bool,
    pub(crate) ends_early: bool,
    /// Nothing goes wrong but what peers do.
    pub(crate) is_calm: bool,
    /// What peers that read at a pace read in `slow_after`, below and above the rule.
    under: u64,
    over: u64,
    slow_after: Duration,
}

impl Behind {
    /// A sequence of its own: what the plans of before are does not depend on it.
    pub(crate) fn new(case: &Case) -> Behind {
        let mut random = Rand64::new(u128::from(case.seed) << 32 | 0x5eed_0005);
        let mut one_in = |count: u64| random.rand_range(0..count) == 0;
        let mut readers: Vec<_> = READERS.into_iter().filter(|_| one_in(2)).collect();
        readers.extend([Reader::Steady; 3]);
        Behind {
            readers,
            waits_to_publish: one_in(2),
            policies: !one_in(3),
            joins_at_once: !one_in(4),
            ends_early: one_in(3),
            is_calm: one_in(4),
            burst: [4, 40, 400][random.rand_range(0..3) as usize],
            under: 0,
            over: 0,
            slow_after: Duration::ZERO,
        }
    }

    /// The slow rule of the plan, and what can lie in the network.
    pub(crate) fn set_rule(&mut self, slow_after: Duration, slow_bytes: usize, window: usize) {
        self.slow_after = slow_after;
        self.under = slow_bytes as u64 * 4 / 5;
        self.over = (slow_bytes as u64 + 2 * window as u64) * 5 / 4;
    }

    /// The groups that a session joins when it opens, and how.
    pub(crate) fn joins(&self, number: u64) -> impl Iterator<Item = u64> {
        let count = if self.joins_at_once { 1 + number % 2 } else { 0 };
        (0..count).map(move |index| (number + index) % crate::frames::GROUPS)
    }

    /// The policy with which somebody joins, by a number that it draws.
    pub(crate) fn policy(&self, number: u64) -> Policy {
        match number % 3 {
            1 if self.policies => Policy::Skip,
            2 if self.policies => Policy::KeepLatest,
            _ => Policy::Close,
        }
    }

    pub(crate) fn pace(&self, random: &mut Rand64, now: Duration) -> Pace {
        let reader = self.readers[random.rand_range(0..self.readers.len() as u64) as usize];
        let (period, count) = match reader {
            Reader::ByteByByte => (self.slow_after / 50, 1),
            Reader::JustUnder => Pace::of(self.slow_after, self.under),
            Reader::JustOver => Pace::of(self.slow_after, self.over),
            _ => (self.slow_after / 4, 0),
        };
        Pace { reader, reads: true, period, count, next_at: Some(now) }
    }
}

/// When members are slow, and how much waits for them. A sequence of its own, as above.
pub(crate) fn draw_slow_rule(sending: &mut Sending, seed: u64) {
    let mut random = Rand64::new(u128::from(seed) << 32 | 0x5eed_0004);
    let mut among = |choices: &[u64]| choices[random.rand_range(0..choices.len() as u64) as usize];
    sending.slow_after = Duration::from_millis(among(&[200, 1_000, 5_000, 5_000]));
    sending.slow_bytes = among(&[1, 1 << 10, 16 << 10, 128 << 10]) as usize;
    let one_frame = FRAME_BYTES_MAX as u64 + 1_024;
    sending.publications_bytes_max = match among(&[0, 0, 4 << 10, one_frame, 64 << 10, 1 << 20]) {
        0 => sending.publications_bytes_max,
        bytes => bytes as usize,
    };
}

/// How much may wait in the whole server: now and then no more than in one send queue. A sequence of its own, as above.
pub(crate) fn draw_budget(sending: &mut Sending, seed: u64) {
    let mut random = Rand64::new(u128::from(seed) << 32 | 0x5eed_0006);
    sending.queued_bytes_max = match random.rand_range(0..6) {
        0 => Some(sending.queue_bytes_max),
        1 => Some(1 << 20),
        _ => None,
    };
}

/// How a peer reads, and when it does something next.
#[derive(Debug, Clone)]
pub(crate) struct Pace {
    reader: Reader,
    /// It reads whatever comes.
    reads: bool,
    period: Duration,
    /// Bytes that it reads in each period.
    count: usize,
    next_at: Option<Duration>,
}

impl Pace {
    /// So many bytes in so long, a part of them now and then.
    fn of(time: Duration, bytes: u64) -> (Duration, usize) {
        let parts = bytes.clamp(1, 20) as u32;
        // A part too many: a time may begin just after one.
        (time / (parts + 1), bytes.div_ceil(parts.into()) as usize)
    }

    pub(crate) fn next_at(&self) -> Option<Duration> {
        self.next_at
    }

    /// It does what is due. Returns whether it reads whatever comes from now on.
    pub(crate) fn goes_on(&mut self, peer: &Peer, random: &mut Rand64, now: Duration) -> bool {
        let some = self.period * random.rand_range(1..9) as u32;
        let (reads, next) = match (self.reader, self.reads) {
            (Reader::Steady, _) => (true, None),
            (Reader::InBursts, true) => (false, Some(some)),
            (Reader::InBursts, false) => (true, Some(some / 8)),
            (Reader::StopsOnce, true) if self.count == 0 => {
                self.count = 1;
                (false, Some(some))
            }
            (Reader::StopsOnce, _) => (true, None),
            (Reader::Never, _) => (false, None),
            (Reader::ByteByByte | Reader::JustUnder | Reader::JustOver, is_first) => {
                if !is_first {
                    read_some(peer, self.count);
                }
                (false, Some(self.period))
            }
        };
        if reads != self.reads {
            peer.stall(!reads);
        }
        self.reads = reads;
        self.next_at = next.map(|next| now + next.max(Duration::from_nanos(1)));
        reads
    }
}
