//! SessionId → session, for any thread, without a lock.
//!
//! A look-up is two loads and a compare-and-swap on the slot's word. Only taking and returning a slot use a
//! lock (a queue of free slots, first in, first out, so that each rests as long as possible: invariant 6).
//!
//! A session has a *place*, of which there are `sessions_max`, until its `closed` begins, and its slot until
//! `closed` has returned. So there are a few more slots than places, and a session that is begun in `closed`
//! finds a place.

use std::collections::VecDeque;

use crate::sync::Mutex;

use super::id::SessionId;
use super::send_queue::Unsent;
use super::slot::Slot;
use crate::chunks::{CHUNK_LEN, Chunks};

#[derive(Debug)]
pub(crate) struct SessionTable {
    slots: Chunks<Slot>,
    free: Mutex<FreeSlots>,
    sessions_max: u32,
    slots_max: u32,
    /// The generation of each slot's first session.
    first_generation: u64,
}

#[derive(Debug, Default)]
struct FreeSlots {
    resting: VecDeque<u32>,
    /// Slots below this have been used.
    touched: u32,
    /// Slots that will not be used again.
    retired: u32,
    /// Places that are taken.
    places: u32,
}

impl FreeSlots {
    fn in_use(&self) -> u32 {
        self.touched - self.retired - self.resting.len() as u32
    }
}

impl SessionTable {
    /// Places for so many sessions, and `ending_max` extra slots for sessions that are ending.
    pub(crate) fn new(sessions_max: u32, ending_max: u32) -> Self {
        assert!(sessions_max <= 1 << SessionId::INDEX_BITS);
        let slots_max = sessions_max.saturating_add(ending_max).min(1 << SessionId::INDEX_BITS);
        SessionTable {
            slots: Chunks::new(slots_max),
            free: Mutex::default(),
            sessions_max,
            slots_max,
            first_generation: 0,
        }
    }

    /// Sets the generation of each slot's first session. Called before the first insertion.
    pub(crate) fn begin_generations_at(&mut self, first_generation: u64) {
        self.first_generation = first_generation;
    }

    pub(crate) fn sessions_max(&self) -> u32 {
        self.sessions_max
    }

    /// Above the index of every id.
    pub(crate) fn slots_max(&self) -> u32 {
        self.slots_max
    }

    /// Takes a place and a slot for a new session at this port, with this framing. The slot has a count of 1,
    /// which belongs to the caller. `None`: there are `sessions_max` sessions, or too many slots are retired.
    ///
    /// Prefers new slots to rested ones until about as many rest as are in use. So a table that is never full
    /// grows to at most about twice the number of live sessions.
    pub(crate) fn insert(&self, port: usize, framing: u8) -> Option<SessionId> {
        let (index, first) = {
            let mut free = self.free.lock();
            if free.places == self.sessions_max {
                return None;
            }
            let grow = free.touched < self.slots_max
                && (free.resting.len() as u32) <= free.in_use().min(RESTING_SLOTS_MIN);
            let taken = if grow {
                free.touched += 1;
                (free.touched - 1, Some(self.first_generation))
            } else {
                (free.resting.pop_front()?, None)
            };
            free.places += 1;
            taken
        };
        let slot = self.slots.get_or_grow(index);
        assert!(slot.is_new(), "invariant 4: something is left of the slot's last session");
        slot.set_port(port);
        slot.set_framing(framing);
        Some(SessionId::new(index, slot.count.begin(first)))
    }

    /// Frees the session's place, when its `closed` begins. (A session without `closed` frees it with its
    /// slot.)
    pub(crate) fn leave_place(&self, slot: &Slot) {
        if slot.leaves_place() {
            self.free.lock().places -= 1;
        }
    }

    /// The session's slot, with a count on it for as long as the reference lives. `None`: it is gone. The
    /// slot's own worker needs no reference, see [`SessionTable::held`].
    pub(crate) fn look_up(&self, id: SessionId) -> Option<Reference<'_>> {
        self.hold(id).map(|slot| Reference { slot, id })
    }

    /// The session's slot, with a count on it that the caller must lower. `None`: it is gone.
    pub(crate) fn hold(&self, id: SessionId) -> Option<&Slot> {
        let slot = self.slots.get(id.index())?;
        slot.count.refer(id.generation()).then_some(slot)
    }

    /// The slot of a session on which the caller knows a count to be held. `None`: the slot has another
    /// generation.
    pub(crate) fn held(&self, id: SessionId) -> Option<&Slot> {
        let slot = self.slots.get(id.index())?;
        (slot.count.generation() == id.generation()).then_some(slot)
    }

    /// Returns the slot of a session whose count reached 0, as new. Returns what still waited to be sent.
    pub(crate) fn release(&self, id: SessionId) -> Unsent {
        let Some(slot) = self.held(id) else {
            unreachable!("invariant 4: released twice");
        };
        let has_place = slot.has_place();
        let unsent = slot.renew();
        let fit = slot.count.release();
        let mut free = self.free.lock();
        free.places -= u32::from(has_place);
        if fit {
            free.resting.push_back(id.index());
        } else {
            free.retired += 1;
        }
        unsent
    }

    /// The sessions of a port; each is live when the walk reaches it. This is the only walk. A slot proves
    /// nothing before its owner is known, so the walk yields ids, and callers get the slot by
    /// [`held`](Self::held) or [`look_up`](Self::look_up) as usual.
    pub(crate) fn sessions_of(&self, port: usize) -> impl Iterator<Item = SessionId> {
        self.touched_slots()
            .filter_map(move |(index, slot)| Some(SessionId::new(index, slot.live_at(port)?)))
    }

    /// How many slots a walk looks at.
    pub(crate) fn touched(&self) -> u32 {
        self.free.lock().touched
    }

    /// Bytes in the send queues of all sessions.
    pub(crate) fn queued_bytes(&self) -> u64 {
        self.touched_slots().map(|(_, slot)| slot.send_queue.lock().queued_bytes() as u64).sum()
    }

    fn touched_slots(&self) -> impl Iterator<Item = (u32, &Slot)> {
        (0..self.touched()).filter_map(|index| Some((index, self.slots.get(index)?)))
    }
}

/// Slots that rest before one is reused while the table may still grow. Generations make reuse safe; resting
/// only spreads them.
const RESTING_SLOTS_MIN: u32 = 1024;

/// Slots that a table with room for so many has beyond its sessions: those that rest, and the rest of a chunk.
pub(crate) fn slots_at_first(slots_max: u64) -> u64 {
    let chunk_len = CHUNK_LEN as u64;
    slots_max.min(u64::from(RESTING_SLOTS_MIN) + chunk_len).next_multiple_of(chunk_len)
}

/// A look-up's hold on a session: one count.
#[derive(Debug)]
pub(crate) struct Reference<'a> {
    slot: &'a Slot,
    id: SessionId,
}

impl<'a> Reference<'a> {
    pub(crate) fn slot(&self) -> &'a Slot {
        self.slot
    }

    /// Ends the hold. True: it was the last count, and the session's worker must be told to release it. (A
    /// plain drop would lose this information, so it is a bug.)
    #[must_use]
    pub(crate) fn end(self) -> bool {
        let last = self.slot.count.lower();
        std::mem::forget(self);
        last
    }
}

impl Drop for Reference<'_> {
    fn drop(&mut self) {
        debug_assert!(std::thread::panicking(), "the reference to {} was not ended", self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    fn end(table: &SessionTable, id: SessionId) {
        assert!(table.held(id).unwrap().count.lower());
        table.release(id);
    }

    #[test]
    fn it_holds_sessions_max_and_no_more_and_no_id_returns() {
        let table = SessionTable::new(3, 0);
        assert_eq!(table.sessions_max(), 3);
        let mut seen = HashSet::new();
        for _ in 0..50 {
            let ids: Vec<_> = (0..3).map(|_| table.insert(0, 0).unwrap()).collect();
            assert!(table.insert(0, 0).is_none());
            for id in ids {
                assert!(seen.insert(id), "{id} came twice");
                end(&table, id);
            }
        }
    }

    #[test]
    fn a_session_that_ends_leaves_its_place_once_and_keeps_its_slot_for_as_long_as_it_needs_it() {
        let table = SessionTable::new(2, 1);
        assert_eq!((table.sessions_max(), table.slots_max()), (2, 3));
        let [first, second] = [(); 2].map(|()| table.insert(0, 0).unwrap());
        assert!(table.insert(0, 0).is_none(), "there is a slot, and no place");
        let ending = table.held(first).unwrap();
        table.leave_place(ending);
        table.leave_place(ending);
        let third = table.insert(0, 0).unwrap();
        assert_eq!(third.index(), 2);
        assert!(table.insert(0, 0).is_none());
        table.leave_place(table.held(second).unwrap());
        assert!(table.insert(0, 0).is_none(), "there is a place, and no slot: two are ending");
        end(&table, first);
        let fourth = table.insert(0, 0).unwrap();
        assert_eq!(fourth.index(), first.index());
        assert!(table.insert(0, 0).is_none(), "that was the second's place");
        end(&table, second);
        assert!(table.insert(0, 0).is_none());
        end(&table, third); // its place was not given up before
        table.insert(0, 0).unwrap();
    }

    #[test]
    fn the_first_session_of_each_slot_has_the_generation_that_the_server_has_drawn() {
        let mut table = SessionTable::new(2, 0);
        let first = (1 << SessionId::FIRST_GENERATION_BITS) - 1;
        table.begin_generations_at(first);
        let ids = [(); 2].map(|()| table.insert(0, 0).unwrap());
        assert_eq!(ids, [0, 1].map(|index| SessionId::new(index, first)));
        for index in [0, 1] {
            assert!(table.look_up(SessionId::new(index, 0)).is_none(), "of another server");
        }
        end(&table, ids[1]);
        assert_eq!(table.insert(0, 0), Some(SessionId::new(1, first + 1)));
        assert!(table.look_up(ids[1]).is_none());
        let sessions_left = SessionId::GENERATION_MAX - first + 1;
        assert_eq!(sessions_left, 1 << 39, "that a slot serves at least");
    }

    #[test]
    fn slots_are_used_again_in_the_order_they_were_freed() {
        let table = SessionTable::new(4, 0);
        let ids: Vec<_> = (0..4).map(|_| table.insert(0, 0).unwrap()).collect();
        for which in [2, 0, 3, 1] {
            end(&table, ids[which]);
        }
        let again: Vec<_> = (0..4).map(|_| table.insert(0, 0).unwrap().index()).collect();
        assert_eq!(again, [2, 0, 3, 1].map(|which| ids[which].index()));
    }

    #[test]
    fn a_late_look_up_finds_nothing_and_an_early_one_neither() {
        let table = SessionTable::new(1, 0);
        let first = table.insert(5, 0).unwrap();
        let reference = table.look_up(first).unwrap();
        assert_eq!(reference.slot().port(), 5);
        assert!(!reference.end());
        assert!(table.look_up(SessionId::new(0, first.generation() + 1)).is_none());
        end(&table, first);
        assert!(table.look_up(first).is_none());
        let second = table.insert(0, 0).unwrap();
        assert_eq!(second.index(), first.index());
        assert!(table.look_up(first).is_none());
        assert!(table.held(first).is_none());
        assert!(!table.look_up(second).unwrap().end());
        assert!(table.look_up(SessionId::from_bits(u64::MAX)).is_none());
    }

    #[test]
    fn a_walk_names_the_live_sessions_of_its_port_and_of_no_other() {
        let table = SessionTable::new(4, 0);
        let ids = [0, 1, 0, 1].map(|port| table.insert(port, 0).unwrap());
        let walk = |port| table.sessions_of(port).collect::<Vec<_>>();
        assert_eq!((walk(0), walk(1)), (vec![ids[0], ids[2]], vec![ids[1], ids[3]]));
        end(&table, ids[0]);
        assert_eq!(walk(0), [ids[2]], "its slot rests, and still has the port of before");
        let next = table.insert(1, 0).unwrap();
        assert_eq!(next.index(), ids[0].index());
        assert_eq!((walk(0), walk(1)), (vec![ids[2]], vec![next, ids[1], ids[3]]));
    }

    #[test]
    #[should_panic(expected = "something is left")]
    fn a_slot_that_was_not_left_as_new_is_not_handed_out() {
        let table = SessionTable::new(1, 0);
        let id = table.insert(0, 0).unwrap();
        end(&table, id);
        table.slots.get(id.index()).unwrap().note_time_came();
        table.insert(0, 0);
    }

    #[test]
    fn a_retired_slot_is_never_used_again() {
        let table = SessionTable::new(2, 0);
        let first = table.insert(0, 0).unwrap();
        end(&table, first);
        // Brings the slot to its last generation, as 2^40 sessions would.
        let slot = table.slots.get(first.index()).unwrap();
        *table.free.lock() = FreeSlots { resting: [0].into(), touched: 1, ..FreeSlots::default() };
        slot.count.set_generation(SessionId::GENERATION_MAX);
        let other = table.insert(0, 0).unwrap();
        let last = if other.index() == 0 { other } else { table.insert(0, 0).unwrap() };
        assert_eq!(last.generation(), SessionId::GENERATION_MAX);
        end(&table, last);
        assert!(table.look_up(last).is_none());
        if other != last {
            end(&table, other);
        }
        for _ in 0..10 {
            let id = table.insert(0, 0).unwrap();
            assert_eq!(id.index(), 1, "slot 0 is retired");
            assert!(table.insert(0, 0).is_none(), "and is one session less");
            end(&table, id);
        }
    }

    #[test]
    fn a_table_grows_to_no_more_than_twice_what_was_live_and_a_retired_slot_is_not_live() {
        let table = SessionTable::new(100, 0);
        end(&table, table.insert(0, 0).unwrap());
        table.slots.get(0).unwrap().count.set_generation(SessionId::GENERATION_MAX);
        let last = table.insert(0, 0).unwrap();
        assert_eq!(last.generation(), SessionId::GENERATION_MAX);
        end(&table, last);
        for _ in 0..3 {
            let alone = table.insert(0, 0).unwrap();
            assert_eq!(alone.index(), 1, "the first beside the retired one, over and over");
            end(&table, alone);
        }
        for _ in 0..10 {
            let ids = [(); 5].map(|()| table.insert(0, 0).unwrap());
            for id in ids {
                assert!((1..=10).contains(&id.index()), "{id}");
                end(&table, id);
            }
        }
    }

    #[test]
    #[cfg(debug_assertions)]
    #[should_panic(expected = "was not ended")]
    fn a_reference_that_is_merely_dropped_is_caught() {
        let table = SessionTable::new(1, 0);
        let id = table.insert(0, 0).unwrap();
        drop(table.look_up(id));
    }

    #[test]
    fn look_ups_closes_and_the_last_completion_race_and_one_of_them_releases() {
        let table = SessionTable::new(8, 0);
        let rounds = if cfg!(miri) { 20 } else { 2_000 };
        for _ in 0..rounds {
            let id = table.insert(0, 0).unwrap();
            let slot = table.held(id).unwrap();
            slot.count.raise(); // the receive
            slot.count.raise(); // the send
            let releases: usize = std::thread::scope(|scope| {
                let completions = [0, 1].map(|_| scope.spawn(|| usize::from(slot.count.lower())));
                let closer = scope.spawn(|| {
                    slot.ask_to_stop(crate::CloseReason::Local);
                    usize::from(slot.count.lower())
                });
                let looker = scope.spawn(|| {
                    (0..20)
                        .filter_map(|_| table.look_up(id))
                        .map(|r| usize::from(r.end()))
                        .sum::<usize>()
                });
                let mut releases = closer.join().unwrap() + looker.join().unwrap();
                for completion in completions {
                    releases += completion.join().unwrap();
                }
                releases
            });
            assert_eq!(releases, 1);
            table.release(id);
        }
    }
}
