//! A hierarchical timing wheel: its cost does not depend on the number of timers.
//!
//! A deadline is a number of ticks, read as digits to the base 64. A timer waits at the level of the highest
//! digit in which its deadline differs from the current tick, in the slot of that digit. So everything at a
//! level is due before anything at the level above, slots never wrap, and the next thing to do is in the
//! lowest occupied slot of the lowest occupied level: two bit scans. When time reaches a slot above level 0,
//! its timers move down (a cascade), each at most once per level. Six levels reach 21 years. Later timers
//! wait in one list, which is looked at again when the wheel begins its next round.
//!
//! Time is passed in (invariant 11). Deadlines are rounded up to a tick and time down, so no timer fires
//! early, and none more than a tick late if `advance` is called at `next_deadline`.

use std::num::NonZeroU32;
use std::time::Duration;

use crate::clock::Moment;

/// The resolution. A worker wakes for its timers at most a hundred times a second.
pub(crate) const TICK: Duration = Duration::from_millis(10);

const LEVELS: usize = 6;
const DIGIT_BITS: usize = 6;
const SLOTS: usize = 1 << DIGIT_BITS;
/// The ticks of one round of the whole wheel.
const ROUND: u64 = 1 << (LEVELS * DIGIT_BITS);

/// The list of timers for later rounds. Lists before it: level × 64 + slot.
const BEYOND: usize = LEVELS * SLOTS;
/// A timer in no list: it fired or was cancelled.
const NOWHERE: u32 = u32::MAX;
/// The end of a list.
const END: u32 = u32::MAX;

/// Names one inserted timer. Has no effect once that fired or was cancelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TimerId {
    index: u32,
    generation: NonZeroU32,
}

#[derive(Debug)]
struct Node<K> {
    due_tick: u64,
    next: u32,
    previous: u32,
    list: u32,
    generation: NonZeroU32,
    key: K,
}

/// The timers of one port. `K` is the key that a firing timer returns.
#[derive(Debug)]
pub(crate) struct TimingWheel<K> {
    /// The first node of each list.
    lists: Box<[u32]>,
    /// Which slots of a level are not empty.
    occupied: [u64; LEVELS],
    nodes: Vec<Node<K>>,
    /// The first unused node. Unused nodes are linked by `next`.
    free: u32,
    len: usize,
    /// The tick up to which everything has fired.
    current_tick: u64,
}

impl<K: Copy> TimingWheel<K> {
    pub(crate) fn new() -> Self {
        TimingWheel {
            lists: vec![END; BEYOND + 1].into_boxed_slice(),
            occupied: [0; LEVELS],
            nodes: Vec::new(),
            free: END,
            len: 0,
            current_tick: 0,
        }
    }

    /// How many timers wait.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Sets a timer. If its deadline has passed, it fires at the next `advance`.
    pub(crate) fn insert(&mut self, deadline: Moment, key: K) -> TimerId {
        let due_tick = tick_at_or_after(deadline);
        let index = self.allocate(due_tick, key);
        self.link(index);
        self.len += 1;
        TimerId { index, generation: self.nodes[index as usize].generation }
    }

    /// Cancels a timer. Returns whether it was still waiting.
    pub(crate) fn cancel(&mut self, id: TimerId) -> bool {
        let waits = self
            .nodes
            .get(id.index as usize)
            .is_some_and(|node| node.generation == id.generation && node.list != NOWHERE);
        if waits {
            self.unlink(id.index);
            self.release(id.index);
        }
        waits
    }

    /// Frees the memory of more than so many timers, if none waits. No id of an earlier timer may be used afterwards.
    pub(crate) fn shrink_to(&mut self, timers: usize) {
        if self.len == 0 && self.nodes.capacity() > timers {
            (self.nodes, self.free) = (Vec::new(), END);
        }
    }

    /// When to call `advance` next: not after the first timer is due, but perhaps earlier, for a cascade.
    /// `None`: there is no timer.
    pub(crate) fn next_deadline(&self) -> Option<Moment> {
        self.next_list().map(|(_, tick)| moment_of(tick))
    }

    /// Advances to `now`, and pushes the key of every due timer, in no particular order. Costs one step per
    /// timer that fires or cascades, and none for ticks or timers in between.
    pub(crate) fn advance(&mut self, now: Moment, fired: &mut Vec<K>) {
        let now_tick = tick_at_or_before(now);
        while let Some((list, tick)) = self.next_list()
            && tick <= now_tick
        {
            // Rounds in which nothing was due are skipped in one step.
            self.current_tick = if list == BEYOND { now_tick / ROUND * ROUND } else { tick };
            let mut index = self.take_list(list);
            while index != END {
                let node = &self.nodes[index as usize];
                let next = node.next;
                if node.due_tick <= now_tick {
                    fired.push(node.key);
                    self.release(index);
                } else {
                    self.link(index);
                }
                index = next;
            }
        }
        self.current_tick = self.current_tick.max(now_tick);
    }

    /// The list to process next, and its tick.
    fn next_list(&self) -> Option<(usize, u64)> {
        if let Some(level) = self.occupied.iter().position(|slots| *slots != 0) {
            let slot = self.occupied[level].trailing_zeros() as usize;
            let shift = level * DIGIT_BITS;
            let higher_digits = self.current_tick >> (shift + DIGIT_BITS) << (shift + DIGIT_BITS);
            return Some((level * SLOTS + slot, higher_digits | (slot as u64) << shift));
        }
        (self.lists[BEYOND] != END).then(|| (BEYOND, (self.current_tick / ROUND + 1) * ROUND))
    }

    fn list_for(&self, due_tick: u64) -> usize {
        let tick = due_tick.max(self.current_tick);
        let highest_bit = ((tick ^ self.current_tick) | 1).ilog2() as usize;
        let level = highest_bit / DIGIT_BITS;
        if level >= LEVELS {
            return BEYOND;
        }
        level * SLOTS + (tick >> (level * DIGIT_BITS)) as usize % SLOTS
    }

    fn link(&mut self, index: u32) {
        let list = self.list_for(self.nodes[index as usize].due_tick);
        let first = std::mem::replace(&mut self.lists[list], index);
        if first != END {
            self.nodes[first as usize].previous = index;
        }
        let node = &mut self.nodes[index as usize];
        (node.previous, node.next, node.list) = (END, first, list as u32);
        if list != BEYOND {
            self.occupied[list / SLOTS] |= 1 << (list % SLOTS);
        }
    }

    fn unlink(&mut self, index: u32) {
        let node = &self.nodes[index as usize];
        let (previous, next, list) = (node.previous, node.next, node.list as usize);
        if next != END {
            self.nodes[next as usize].previous = previous;
        }
        if previous != END {
            self.nodes[previous as usize].next = next;
        } else if next != END {
            self.lists[list] = next;
        } else {
            self.take_list(list);
        }
    }

    /// Empties a list. Returns its first node; the nodes stay linked.
    fn take_list(&mut self, list: usize) -> u32 {
        if list != BEYOND {
            self.occupied[list / SLOTS] &= !(1 << (list % SLOTS));
        }
        std::mem::replace(&mut self.lists[list], END)
    }

    fn allocate(&mut self, due_tick: u64, key: K) -> u32 {
        let index = self.free;
        if index != END {
            let node = &mut self.nodes[index as usize];
            self.free = node.next;
            (node.due_tick, node.key) = (due_tick, key);
            return index;
        }
        let index = self.nodes.len() as u32;
        assert!(self.nodes.len() < END as usize, "more timers than a TimerId can name");
        let (list, generation) = (NOWHERE, NonZeroU32::MIN);
        self.nodes.push(Node { due_tick, next: END, previous: END, list, generation, key });
        index
    }

    /// Frees a timer that is in no list. A node whose generation would wrap is retired, so that an old id
    /// never names a new timer.
    fn release(&mut self, index: u32) {
        let node = &mut self.nodes[index as usize];
        debug_assert!(node.list != NOWHERE, "a timer is released once");
        node.list = NOWHERE;
        if let Some(generation) = node.generation.checked_add(1) {
            node.generation = generation;
            node.next = self.free;
            self.free = index;
        }
        self.len -= 1;
    }
}

fn tick_at_or_before(moment: Moment) -> u64 {
    (moment.since_start().as_nanos() / TICK.as_nanos()) as u64
}

fn tick_at_or_after(moment: Moment) -> u64 {
    // At the end of time there is no later tick to round up to.
    tick_at_or_before(moment.after(TICK - Duration::from_nanos(1)))
}

fn moment_of(tick: u64) -> Moment {
    Moment::at(Duration::from_millis(tick.saturating_mul(TICK.as_millis() as u64)))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    const HOUR: Duration = Duration::from_secs(3_600);
    const YEAR: Duration = Duration::from_secs(365 * 24 * 3_600);

    fn at_ms(ms: u64) -> Moment {
        Moment::at(Duration::from_millis(ms))
    }

    fn fired_at<K: Copy + Ord>(wheel: &mut TimingWheel<K>, now: Moment) -> Vec<K> {
        let mut fired = Vec::new();
        wheel.advance(now, &mut fired);
        fired.sort();
        fired
    }

    /// Calls `advance` whenever the wheel asks for it until something fires. Returns when, what, and the
    /// number of calls.
    fn run_until_fired<K: Copy + Ord>(wheel: &mut TimingWheel<K>) -> (Moment, Vec<K>, usize) {
        for calls in 1.. {
            let now = wheel.next_deadline().expect("a timer waits");
            let fired = fired_at(wheel, now);
            if !fired.is_empty() {
                return (now, fired, calls);
            }
        }
        unreachable!()
    }

    fn xorshift(mut state: u64) -> impl FnMut(u64) -> u64 {
        move |below| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 11) % below
        }
    }

    #[test]
    fn a_deadline_between_two_ticks_is_rounded_up() {
        let mut wheel = TimingWheel::new();
        wheel.insert(Moment::at(Duration::from_millis(20) + Duration::from_nanos(1)), 'a');
        wheel.insert(at_ms(20), 'b');
        assert_eq!(fired_at(&mut wheel, at_ms(19)), []);
        assert_eq!(wheel.next_deadline(), Some(at_ms(20)));
        assert_eq!(fired_at(&mut wheel, at_ms(20)), ['b']);
        assert_eq!(wheel.next_deadline(), Some(at_ms(30)));
        assert_eq!(fired_at(&mut wheel, at_ms(29)), []);
        assert_eq!(fired_at(&mut wheel, at_ms(30)), ['a']);
        assert_eq!((wheel.next_deadline(), wheel.len()), (None, 0));
    }

    #[test]
    fn a_deadline_that_has_passed_fires_at_the_next_advance_even_within_the_tick() {
        let mut wheel = TimingWheel::new();
        assert_eq!(fired_at(&mut wheel, at_ms(1_234)), [(); 0]);
        wheel.insert(at_ms(5), ());
        assert!(wheel.next_deadline().unwrap() <= at_ms(1_234));
        assert_eq!(fired_at(&mut wheel, at_ms(1_234)), [()]);
    }

    #[test]
    fn a_timer_of_every_level_fires_in_its_tick_after_few_cascades() {
        for start in [0, 7, 63, 4_095, 123_456_789] {
            for bits in 0..41 {
                // 2^41 ticks are beyond the end of time
                let mut wheel = TimingWheel::new();
                fired_at(&mut wheel, moment_of(start));
                let due = moment_of(start + (1 << bits) + bits);
                wheel.insert(due, bits);
                let (when, fired, calls) = run_until_fired(&mut wheel);
                assert_eq!((when, fired), (due, vec![bits]), "from {start}");
                assert!(calls <= LEVELS + 1 + (1 << bits >> 36), "{calls} calls for 2^{bits}");
            }
        }
    }

    #[test]
    fn a_cancelled_timer_does_not_fire_and_its_neighbours_do() {
        let mut wheel = TimingWheel::new();
        let ids = [0, 1, 2, 3].map(|key| wheel.insert(at_ms(500), key));
        for key in [0, 3, 1] {
            assert!(wheel.cancel(ids[key]));
            assert!(!wheel.cancel(ids[key]), "it is gone");
        }
        assert_eq!(wheel.len(), 1);
        assert_eq!(fired_at(&mut wheel, at_ms(500)), [2]);
        let far = wheel.insert(Moment::at(40 * YEAR), 4);
        assert!(wheel.cancel(far));
        assert_eq!((wheel.next_deadline(), wheel.len()), (None, 0));
    }

    #[test]
    fn an_old_id_does_not_touch_the_timer_that_took_its_place() {
        let mut wheel = TimingWheel::new();
        let old = wheel.insert(at_ms(10), 'a');
        assert_eq!(fired_at(&mut wheel, at_ms(10)), ['a']);
        let new = wheel.insert(at_ms(20), 'b');
        assert_eq!(new.index, old.index);
        assert!(!wheel.cancel(old));
        assert_eq!(fired_at(&mut wheel, at_ms(20)), ['b']);
    }

    #[test]
    fn a_node_whose_generation_would_wrap_is_retired() {
        let mut wheel = TimingWheel::new();
        wheel.insert(at_ms(10), 'a');
        wheel.nodes[0].generation = NonZeroU32::MAX;
        let last = TimerId { index: 0, generation: NonZeroU32::MAX };
        assert!(wheel.cancel(last));
        assert!(!wheel.cancel(last));
        assert_eq!(wheel.insert(at_ms(10), 'b').index, 1);
    }

    #[test]
    fn an_id_and_the_lack_of_one_take_eight_bytes() {
        assert_eq!(size_of::<Option<TimerId>>(), 8);
    }

    #[test]
    fn deadlines_of_days_and_of_the_end_of_time_keep_their_place() {
        let mut wheel = TimingWheel::new();
        wheel.insert(Moment::at(Duration::MAX), 4); // 584 years
        for (key, deadline) in [48 * HOUR, 30 * 24 * HOUR, YEAR, 100 * YEAR].iter().enumerate() {
            wheel.insert(Moment::at(*deadline), key);
        }
        assert_eq!(fired_at(&mut wheel, Moment::at(48 * HOUR - TICK)), []);
        assert_eq!(fired_at(&mut wheel, Moment::at(48 * HOUR)), [0]);
        assert_eq!(fired_at(&mut wheel, Moment::at(YEAR - TICK)), [1]);
        assert_eq!(run_until_fired(&mut wheel).0, Moment::at(YEAR));
        assert_eq!(run_until_fired(&mut wheel).0, Moment::at(100 * YEAR));
        assert_eq!(fired_at(&mut wheel, Moment::at(500 * YEAR)), []);
        assert_eq!(fired_at(&mut wheel, Moment::at(Duration::MAX)), [4]);
    }

    #[test]
    fn advancing_with_nothing_due_touches_none_of_many_timers() {
        let mut wheel = TimingWheel::new();
        let timers = if cfg!(miri) { 300 } else { 100_000 };
        for key in 0..timers {
            wheel.insert(at_ms(60_000 + key * 7), key);
        }
        let links = |wheel: &TimingWheel<u64>| -> Vec<_> {
            wheel.nodes.iter().map(|node| (node.next, node.previous, node.list)).collect()
        };
        let before = links(&wheel);
        let quiet_until = wheel.next_deadline().unwrap();
        assert!(quiet_until >= at_ms(30_000), "{quiet_until:?}");
        let mut now = Moment::default();
        let (started, mut ticks) = (std::time::Instant::now(), 0);
        while now.after(TICK) < quiet_until {
            now = now.after(TICK);
            ticks += 1;
            assert_eq!(fired_at(&mut wheel, now), []);
            assert_eq!(wheel.next_deadline(), Some(quiet_until));
        }
        println!(
            "{timers} timers, none due: {:?} for each of {ticks} ticks",
            started.elapsed() / ticks
        );
        assert_eq!(links(&wheel), before);
        assert_eq!(fired_at(&mut wheel, now.after(HOUR)).len(), timers as usize);
    }

    /// Inserts, cancels and steps of every size, compared with a map of the same timers. Every other step
    /// goes exactly to where the wheel asks to be called.
    #[test]
    fn the_wheel_fires_what_a_plain_map_of_deadlines_would() {
        let (seeds, steps) = if cfg!(miri) { (1, 200) } else { (20, 5_000) };
        for seed in 1..=seeds {
            let mut random = xorshift(seed * 0x9E37_79B9_7F4A);
            let mut wheel = TimingWheel::new();
            let mut model = BTreeMap::new();
            let mut now = Moment::default();
            for key in 0..steps {
                let bits = 1 + random(61);
                let nanos = random(1 << bits);
                let deadline = Moment::at(
                    (now.since_start() + Duration::from_nanos(nanos)).saturating_sub(TICK),
                );
                model.insert(key, (deadline, wheel.insert(deadline, key)));
                if random(3) == 0 {
                    let victim = random(key + 1);
                    if let Some((_, id)) = model.remove(&victim) {
                        assert!(wheel.cancel(id));
                        assert!(!wheel.cancel(id));
                    }
                }
                let earliest = model.values().map(|(deadline, _)| *deadline).min();
                assert_eq!(wheel.next_deadline().is_some(), earliest.is_some());
                if random(2) == 0 {
                    let asked = wheel.next_deadline().unwrap_or(now);
                    assert!(earliest.is_none_or(|due| asked < now.max(due).after(TICK)), "late");
                    now = now.max(asked);
                } else {
                    let bits = 1 + random(50);
                    now = now.after(Duration::from_nanos(random(1 << bits)));
                }
                let fired = fired_at(&mut wheel, now);
                // A timer that is due within the current tick has not fired yet.
                let passed = at_ms((now.since_start().as_millis() / 10 * 10) as u64);
                let due: Vec<u64> = model
                    .iter()
                    .filter(|(_, (deadline, _))| *deadline <= passed)
                    .map(|(key, _)| *key)
                    .collect();
                assert_eq!(fired, due, "seed {seed}, at {now:?}");
                for key in &fired {
                    let (deadline, id) = model.remove(key).expect("it waited");
                    assert!(deadline <= now, "it fired early");
                    assert!(!wheel.cancel(id), "its id is stale");
                }
                assert_eq!(wheel.len(), model.len());
            }
            assert!(
                now.since_start() > HOUR && (model.len() as u64) < steps * 4 / 5,
                "the test went somewhere"
            );
            wheel.advance(now.after(200 * YEAR), &mut Vec::new());
            assert_eq!((wheel.len(), wheel.next_deadline()), (0, None));
        }
    }
}
