//! The budget: how much may wait to be sent in a whole server, and how its ports share it.
//!
//! It is counted in pages, and what waits is *charged* to the port that it waits at. The server has the free pages.
//! A port draws them in leases of 1 MiB, and gives them back when it has more than two to spare. So two workers
//! write one cache line only once in a megabyte.
//!
//! A port whose leases are used up, and that gets no other, is *out*. It then has a reserve, one lease beyond the
//! budget, for sessions whose peers read. Its worker ends sessions whose peers do not, until there is room again
//! (`worker/budget.rs`).

use std::sync::Arc;
use std::time::Duration;

use crate::buffer::PAGE_BYTES;
use crate::clock::Moment;
use crate::sync::{AtomicBool, AtomicU32, AtomicU64, Ordering};

/// What a port draws at once.
pub(crate) const LEASE_BYTES: usize = 1024 * 1024;
const LEASE_PAGES: u32 = (LEASE_BYTES / PAGE_BYTES) as u32;
/// What a port that is out has beyond the budget.
pub(super) const RESERVE_PAGES: u32 = LEASE_PAGES;
/// A port that has more to spare keeps one lease of it.
const SPARE_LEASES_MAX: u32 = 2;
/// A port that was out has room again when this part of the budget is free for it, or a lease.
const RECOVERED_PART: u32 = 16;

/// The budget of servers that do not look at the machine, in bytes.
pub(crate) const BUDGET_BYTES: usize = 1 << 30;

/// What a server has.
#[derive(Debug)]
#[repr(align(64))]
pub(crate) struct Budget {
    free_pages: AtomicU32,
    pages: u32,
}

/// What a port has of it.
#[derive(Debug)]
#[repr(align(64))]
pub(crate) struct PortBudget {
    counts: OwnLine,
    is_out: AtomicBool,
    /// A worker of the port knows that it is out.
    is_told: AtomicBool,
    /// The most pages that were refused at once since the port is out.
    refused_pages: AtomicU32,
    /// Sends were refused since then.
    sends_were_refused: AtomicBool,
    /// Another port is out, and nobody who does not read is left there.
    is_asked: AtomicBool,
    /// When a worker looks for sessions to end, while the port is out.
    next_look: AtomicU64,
    /// Since when the port is out without having ended any, as a worker has seen it. 0: it is not.
    out_since: AtomicU64,
    server: Arc<Budget>,
}

/// Apart from what other threads read whenever they send.
#[derive(Debug)]
#[repr(align(64))]
struct OwnLine(AtomicU64);

/// In pages. One word, so that each change of both is one step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Counts {
    leased: u32,
    charged: u32,
}

impl Counts {
    fn of(bits: u64) -> Self {
        Counts { leased: (bits >> 32) as u32, charged: bits as u32 }
    }

    fn bits(self) -> u64 {
        u64::from(self.leased) << 32 | u64::from(self.charged)
    }

    fn spare(self) -> u32 {
        self.leased.saturating_sub(self.charged)
    }
}

impl Budget {
    /// So many bytes, at least a page and less than 16 TiB.
    pub(crate) fn of_bytes(bytes: usize) -> Arc<Self> {
        let pages = u32::try_from(bytes / PAGE_BYTES).unwrap_or(u32::MAX).clamp(1, u32::MAX / 2);
        Arc::new(Budget { free_pages: AtomicU32::new(pages), pages })
    }

    /// Takes at most so many pages, and returns how many.
    fn draw(&self, pages: u32) -> u32 {
        let rest = |free: u32| (free > 0).then(|| free.saturating_sub(pages));
        let before = self.free_pages.fetch_update(Ordering::AcqRel, Ordering::Acquire, rest);
        before.unwrap_or(0).min(pages)
    }

    fn give(&self, pages: u32) {
        if pages > 0 {
            let before = self.free_pages.fetch_add(pages, Ordering::AcqRel);
            debug_assert!(pages <= self.pages - before, "more was given back than was drawn");
        }
    }
}

impl PortBudget {
    pub(crate) fn new(server: Arc<Budget>) -> Arc<Self> {
        Arc::new(PortBudget {
            counts: OwnLine(AtomicU64::new(0)),
            is_out: AtomicBool::new(false),
            is_told: AtomicBool::new(false),
            refused_pages: AtomicU32::new(0),
            sends_were_refused: AtomicBool::new(false),
            is_asked: AtomicBool::new(false),
            next_look: AtomicU64::new(0),
            out_since: AtomicU64::new(0),
            server,
        })
    }

    fn counts(&self) -> Counts {
        Counts::of(self.counts.0.load(Ordering::Acquire))
    }

    /// Replaces the counts, unless they have changed.
    fn replace(&self, before: Counts, after: Counts) -> bool {
        let (before, after) = (before.bits(), after.bits());
        self.counts.0.compare_exchange(before, after, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// Counts so many pages more. `uses_reserve`: whether they may be of the reserve, if the port is out and so many
    /// of it are then used. False: nothing was counted.
    #[inline]
    pub(crate) fn charge(&self, pages: u32, uses_reserve: impl Fn(u32) -> bool) -> bool {
        let counts = self.counts();
        let after = counts.charged.saturating_add(pages);
        let is_usual =
            after <= counts.leased && self.replace(counts, Counts { charged: after, ..counts });
        is_usual || self.charge_slowly(pages, &uses_reserve)
    }

    /// The same, drawing leases.
    #[cold]
    fn charge_slowly(&self, pages: u32, uses_reserve: &dyn Fn(u32) -> bool) -> bool {
        let mut drawn = 0;
        loop {
            let before = self.counts();
            let charged = before.charged.saturating_add(pages);
            let missing = charged.saturating_sub(before.leased + drawn);
            if missing > 0 {
                drawn += self.server.draw(missing.max(LEASE_PAGES));
            }
            let leased = before.leased + drawn;
            let beyond = charged.saturating_sub(leased);
            let is_out = beyond > 0;
            if is_out && (beyond > RESERVE_PAGES || !uses_reserve(beyond)) {
                self.server.give(drawn);
                self.refused_pages.fetch_max(pages, Ordering::Relaxed);
                self.goes_out();
                return false;
            }
            if self.replace(before, Counts { leased, charged }) {
                if is_out {
                    self.goes_out();
                }
                return true;
            }
        }
    }

    /// Counts so many pages more, whatever the budget. For what is bounded otherwise.
    pub(crate) fn charge_anyway(&self, pages: u32) {
        let mut is_charged = self.charge(pages, |_| true);
        while !is_charged {
            let before = self.counts();
            let charged = before.charged.checked_add(pages);
            let charged = charged.unwrap_or_else(|| unreachable!("16 TiB are charged to one port"));
            is_charged = self.replace(before, Counts { charged, ..before });
        }
    }

    /// A swap, as in [`recovers`](Self::recovers): one of the two sees what the other did before.
    fn goes_out(&self) {
        self.is_out.swap(true, Ordering::SeqCst);
    }

    /// What was refused was a send.
    pub(crate) fn send_was_refused(&self) {
        self.sends_were_refused.store(true, Ordering::SeqCst);
        // Again, if the port has recovered meanwhile.
        self.goes_out();
    }

    /// Counts so many pages less.
    #[inline]
    pub(crate) fn discharge(&self, pages: u32) {
        if pages > 0 {
            self.discharge_some(pages);
        }
    }

    #[inline(never)] // one completion in many
    fn discharge_some(&self, pages: u32) {
        let less = Counts { leased: 0, charged: pages }.bits();
        let before = Counts::of(self.counts.0.fetch_sub(less, Ordering::AcqRel));
        debug_assert!(before.charged >= pages, "more was discharged than was charged");
        if before.spare() + pages > SPARE_LEASES_MAX * LEASE_PAGES {
            self.give_back(LEASE_PAGES);
        }
    }

    /// Gives back what it has to spare but so much.
    #[cold]
    fn give_back(&self, kept_pages: u32) {
        loop {
            let before = self.counts();
            let leased = before.leased.min(before.charged.saturating_add(kept_pages));
            if self.replace(before, Counts { leased, ..before }) {
                self.server.give(before.leased - leased);
                return;
            }
        }
    }

    pub(crate) fn charged_pages(&self) -> u32 {
        self.counts().charged
    }

    /// Whether it needs a worker: it is out, or another port is.
    #[inline]
    pub(crate) fn needs_look(&self) -> bool {
        self.is_out() || self.is_asked.load(Ordering::Relaxed)
    }

    #[inline]
    pub(crate) fn is_out(&self) -> bool {
        self.is_out.load(Ordering::SeqCst)
    }

    /// Whether the caller must tell a worker that the port is out.
    #[inline]
    pub(crate) fn is_to_be_told(&self) -> bool {
        self.is_out.load(Ordering::SeqCst) && !self.is_told.swap(true, Ordering::SeqCst)
    }

    /// Whether sends were refused since the port is out.
    pub(crate) fn were_sends_refused(&self) -> bool {
        self.sends_were_refused.load(Ordering::Relaxed)
    }

    /// The port is out no more if there is room for what was refused, and for more. Returns whether sends were
    /// refused meanwhile; `None`: it is still out.
    pub(crate) fn recovers(&self) -> Option<bool> {
        let enough = LEASE_PAGES.min(self.server.pages / RECOVERED_PART);
        let refused = self.refused_pages.load(Ordering::Relaxed);
        let wanted = refused.max(enough).clamp(1, self.server.pages);
        loop {
            let before = self.counts();
            let missing = before.charged.saturating_add(wanted).saturating_sub(before.leased);
            let drawn = self.server.draw(missing);
            if drawn < missing {
                self.server.give(drawn);
                return None;
            }
            if self.replace(before, Counts { leased: before.leased + drawn, ..before }) {
                break;
            }
            self.server.give(drawn);
        }
        self.out_since.store(0, Ordering::Relaxed);
        self.refused_pages.store(0, Ordering::Relaxed);
        self.is_told.store(false, Ordering::SeqCst);
        // Before the look at who was refused: who is refused later sets it again.
        self.is_out.swap(false, Ordering::SeqCst);
        Some(self.sends_were_refused.swap(false, Ordering::SeqCst))
    }

    /// Another port is out.
    pub(crate) fn ask(&self) {
        self.is_asked.store(true, Ordering::SeqCst);
    }

    /// Whether another port has asked since the last call. If so, this one gives back all that it has to spare.
    pub(crate) fn take_asked(&self) -> bool {
        let is_asked =
            self.is_asked.load(Ordering::Relaxed) && self.is_asked.swap(false, Ordering::SeqCst);
        if is_asked {
            self.give_back(0);
        }
        is_asked
    }

    /// When a worker is to look again. `None`: the port is not out.
    pub(crate) fn next_look(&self) -> Option<Moment> {
        self.is_out().then(|| Moment::of_nanos(self.next_look.load(Ordering::Relaxed)))
    }

    pub(crate) fn look_again_at(&self, at: Moment) {
        self.next_look.store(at.nanos(), Ordering::Relaxed);
    }

    /// How long the port has been out, as far as its workers know, without having ended any session for it.
    pub(crate) fn has_been_out_for(&self, now: Moment) -> Duration {
        let since = self.out_since.load(Ordering::Relaxed);
        if since == 0 {
            self.out_since.store(now.nanos().max(1), Ordering::Relaxed);
            return Duration::ZERO;
        }
        Moment::of_nanos(since).until(now)
    }

    /// Sessions were ended, and may give room.
    pub(crate) fn some_were_ended(&self, now: Moment) {
        self.out_since.store(now.nanos().max(1), Ordering::Relaxed);
    }

    /// Whether the ports hold all that is not free. Only when nothing changes.
    #[cfg(any(debug_assertions, all(test, loom)))]
    pub(crate) fn adds_up<'b>(ports: impl Iterator<Item = &'b PortBudget> + Clone) -> bool {
        let leased = ports.clone().map(|port| u64::from(port.counts().leased)).sum::<u64>();
        ports.clone().next().is_none_or(|port| {
            let Budget { free_pages, pages } = &*port.server;
            leased + u64::from(free_pages.load(Ordering::Acquire)) == u64::from(*pages)
        })
    }
}

impl Default for PortBudget {
    fn default() -> Self {
        let server = Budget::of_bytes(BUDGET_BYTES);
        Arc::into_inner(PortBudget::new(server))
            .unwrap_or_else(|| unreachable!("it is the only one"))
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;

    const LEASE: u32 = LEASE_PAGES;

    /// Linear congruential, so that every run is the same.
    struct Random(u64);

    impl Random {
        fn below(&mut self, end: u32) -> u32 {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            ((self.0 >> 33) % u64::from(end)) as u32
        }
    }

    fn two_ports(pages: u32) -> [Arc<PortBudget>; 2] {
        let server = Budget::of_bytes(pages as usize * PAGE_BYTES);
        [(); 2].map(|()| PortBudget::new(server.clone()))
    }

    fn adds_up(ports: &[Arc<PortBudget>]) -> bool {
        let leased: u32 = ports.iter().map(|port| port.counts().leased).sum();
        leased + ports[0].server.free_pages.load(Ordering::Relaxed) == ports[0].server.pages
    }

    #[test]
    fn a_port_is_refused_what_goes_beyond_the_budget_and_its_reserve() {
        let [port, other] = &two_ports(2 * LEASE);
        assert!(other.charge(1, |_| false), "it draws a lease");
        assert!(port.charge(LEASE, |_| false));
        assert!(!port.is_out() && !port.charge(1, |_| false) && port.is_out(), "the other has one");
        assert!(port.is_to_be_told() && !port.is_to_be_told(), "once");
        assert!(port.charge(LEASE, |_| true), "those who read have the reserve");
        assert!(!port.charge(1, |_| true), "and no more");
        assert!(!other.is_out() && other.charge(LEASE - 1, |_| false), "what it has leased it has");
        assert!(port.recovers().is_none());
        port.discharge(LEASE);
        assert!(port.recovers().is_none(), "nothing is free for it");
        port.discharge(LEASE / 2);
        assert!(port.recovers().is_some() && !port.is_out() && port.charge(LEASE / 2, |_| false));
        assert!(adds_up(&[port.clone(), other.clone()]));
    }

    #[test]
    fn a_port_that_has_refused_more_than_there_is_recovers_when_all_is_free() {
        let [port, _] = &two_ports(2);
        assert!(!port.charge(5, |_| false) && port.is_out());
        assert!(port.recovers().is_some() && !port.is_out());
    }

    #[test]
    fn a_port_gives_back_what_it_does_not_need() {
        let [port, other] = &two_ports(4 * LEASE);
        assert!(port.charge(4 * LEASE, |_| false) && !other.charge(1, |_| false));
        port.discharge(2 * LEASE);
        assert!(other.recovers().is_none(), "two leases are kept to spare");
        port.discharge(1);
        assert_eq!(port.counts(), Counts { leased: 3 * LEASE - 1, charged: 2 * LEASE - 1 });
        assert!(other.recovers().is_some() && other.charge(LEASE + 1, |_| false));
        assert!(!other.charge(1, |_| false));
        port.ask();
        assert!(port.take_asked() && !port.take_asked());
        assert_eq!(port.counts().spare(), 0, "another needs it");
        assert!(other.charge(1, |_| false) && adds_up(&[port.clone(), other.clone()]));
    }

    #[test]
    fn room_is_found_again_for_as_much_as_was_refused() {
        let [port, _] = &two_ports(64 * LEASE);
        assert!(port.charge(62 * LEASE, |_| false) && !port.charge(5 * LEASE, |_| true));
        port.send_was_refused();
        port.discharge(2 * LEASE);
        assert!(port.recovers().is_none());
        port.discharge(LEASE);
        assert_eq!(port.recovers(), Some(true));
        assert!(port.charge(5 * LEASE, |_| false) && !port.is_out());
        assert_eq!(port.recovers(), None);
        port.discharge(5 * LEASE);
        assert_eq!(port.recovers(), Some(false), "nothing was refused since");
    }

    #[test]
    fn what_is_counted_is_what_was_charged_and_not_discharged() {
        let mut random = Random(3);
        for round in 0..if cfg!(miri) { 3 } else { 300 } {
            let pages = [1, LEASE - 1, 3 * LEASE, 10 * LEASE][round % 4];
            let ports = two_ports(pages);
            let mut charged: [Vec<u32>; 2] = Default::default();
            let (mut taken, mut refused) = (0, 0);
            for _ in 0..500 {
                let at = random.below(2) as usize;
                let (port, held) = (&ports[at], &mut charged[at]);
                match random.below(20) {
                    0..10 => {
                        let (pages, is_reader) = (1 + random.below(LEASE), random.below(2) == 0);
                        let has_room = port.charge(pages, |_| is_reader);
                        if has_room {
                            held.push(pages);
                        }
                        taken += u32::from(has_room);
                        refused += u32::from(!has_room);
                        assert!(has_room || port.is_out());
                    }
                    10..18 if !held.is_empty() => {
                        let at = random.below(held.len() as u32) as usize;
                        port.discharge(held.swap_remove(at));
                    }
                    18 if port.is_out() => drop(port.recovers()),
                    19 => {
                        port.ask();
                        assert!(port.take_asked());
                    }
                    _ => {}
                }
                for (port, charged) in ports.iter().zip(&charged) {
                    assert_eq!(port.charged_pages(), charged.iter().sum::<u32>());
                    let Counts { leased, charged } = port.counts();
                    assert!(charged <= leased + LEASE, "no more than the reserve");
                    assert!(leased.saturating_sub(charged) <= 2 * LEASE);
                }
                assert!(adds_up(&ports));
            }
            assert!(taken > 0 && refused > 0, "{taken}, {refused} of {pages}");
        }
    }

    #[test]
    fn ports_that_charge_concurrently_lose_nothing() {
        let ports = two_ports(8 * LEASE);
        let steps = if cfg!(miri) { 30 } else { 20_000 };
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let (ports, port) = (&ports, &ports[thread % 2]);
                scope.spawn(move || {
                    let (mut random, mut charged) = (Random(thread as u64), Vec::new());
                    for _ in 0..steps {
                        let pages = 1 + random.below(LEASE);
                        if random.below(2) == 0 && port.charge(pages, |_| thread < 2) {
                            charged.push(pages);
                        } else if let Some(pages) = charged.pop() {
                            port.discharge(pages);
                        } else {
                            port.recovers();
                            ports[random.below(2) as usize].ask();
                            port.take_asked();
                        }
                    }
                    charged.into_iter().for_each(|pages| port.discharge(pages));
                });
            }
        });
        assert!(ports.iter().all(|port| port.charged_pages() == 0) && adds_up(&ports));
    }
}
