//! The count against look-ups and the release (invariants 3, 4 and 6).
//!
//! The last completion, a close and a late look-up meet at one session. Shown: exactly one of them brings the
//! count to 0; it sees everything that the others did while they held the session, so it may free what they
//! used; and a look-up finds the session that it asked for or nothing, even if the next session takes the
//! slot at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use loom::thread;

use super::watched::Watched;
use super::{explore, join_all};
use crate::CloseReason;
use crate::session::{SessionId, SessionTable};

struct Model {
    table: SessionTable,
    id: SessionId,
    /// Belongs to the slot's session: holders of a count read it; only the release, and the acceptor of the
    /// next session, write it. Contains the generation.
    belongings: Watched,
    releases: AtomicUsize,
}

impl Model {
    fn of_one_slot() -> Self {
        let table = SessionTable::new(1, 0);
        let id = table.insert(0, 0).unwrap();
        let belongings = Watched::new(id.generation());
        Model { table, id, belongings, releases: AtomicUsize::new(0) }
    }

    /// Uses the session, as a holder of a count may, then gives the count up.
    fn use_and_lower(&self) {
        assert_eq!(self.belongings.read(), self.id.generation());
        if self.table.held(self.id).unwrap().count.lower() {
            self.release();
        }
    }

    fn release(&self) {
        self.releases.fetch_add(1, Ordering::Relaxed);
        self.belongings.write(u64::MAX);
        self.table.release(self.id);
        // The slot is reused at once.
        let next = self.table.insert(0, 0).unwrap();
        assert_eq!((next.index(), next.generation()), (self.id.index(), self.id.generation() + 1));
        self.belongings.write(next.generation());
    }

    fn look_up_and_use(&self) {
        let Some(reference) = self.table.look_up(self.id) else { return };
        assert_eq!(self.belongings.read(), self.id.generation(), "a look-up found another session");
        if reference.end() {
            self.release();
        }
    }
}

#[test]
fn the_last_completion_a_close_and_look_ups_release_once() {
    explore("count: completion, close, look-ups", || {
        let model = Arc::new(Model::of_one_slot());
        let slot = model.table.held(model.id).unwrap();
        slot.count.raise(); // the outstanding operation
        let completion = thread::spawn({
            let model = model.clone();
            move || model.use_and_lower()
        });
        let looker = thread::spawn({
            let model = model.clone();
            move || {
                model.look_up_and_use();
                model.look_up_and_use();
            }
        });
        slot.ask_to_stop(CloseReason::Local);
        model.use_and_lower(); // the session's own count
        completion.join().unwrap();
        looker.join().unwrap();
        assert_eq!(model.releases.load(Ordering::Relaxed), 1);
        assert!(model.table.look_up(model.id).is_none());
    });
}

#[test]
fn two_look_ups_and_the_only_holder_release_once() {
    explore("count: the only holder, two look-ups", || {
        let model = Arc::new(Model::of_one_slot());
        let lookers = [(); 2].map(|()| {
            let model = model.clone();
            thread::spawn(move || model.look_up_and_use())
        });
        model.use_and_lower();
        // By now it may be released and the slot reused.
        model.look_up_and_use();
        join_all(lookers);
        assert_eq!(model.releases.load(Ordering::Relaxed), 1);
    });
}

#[test]
fn what_the_acceptor_prepared_is_seen_by_whoever_finds_the_session() {
    explore("count: an acceptor, two look-ups", || {
        let table = Arc::new(SessionTable::new(1, 0));
        let expected = SessionId::new(0, 0); // as if a peer had sent it
        let lookers = [(); 2].map(|()| {
            let table = table.clone();
            thread::spawn(move || {
                if let Some(reference) = table.look_up(expected) {
                    assert_eq!(reference.slot().port(), 7, "found before it was prepared");
                    assert!(!reference.end());
                }
            })
        });
        assert_eq!(table.insert(7, 0), Some(expected));
        join_all(lookers);
    });
}
