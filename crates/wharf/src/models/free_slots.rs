//! The queue of free slots: three threads take and return them (invariant 6).
//!
//! Shown: no slot has two owners, no id appears twice, there are never more than `sessions_max`, and the next
//! owner of a slot sees everything that its last owner did.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use loom::thread;

use super::explore;
use super::watched::Watched;
use crate::session::{SessionId, SessionTable};

const SESSIONS_MAX: u32 = 2;

struct Model {
    table: SessionTable,
    slots: [Watched; SESSIONS_MAX as usize],
    live: AtomicUsize,
}

impl Model {
    fn insert_and_release(&self) -> Option<SessionId> {
        let id = self.table.insert(0, 0)?;
        assert!(self.live.fetch_add(1, Ordering::Relaxed) < SESSIONS_MAX as usize);
        let mine = &self.slots[id.index() as usize];
        mine.write(id.to_bits());
        assert!(self.table.held(id).unwrap().count.lower());
        assert_eq!(mine.read(), id.to_bits(), "the slot was handed out twice");
        self.live.fetch_sub(1, Ordering::Relaxed);
        self.table.release(id);
        Some(id)
    }
}

#[test]
fn no_slot_is_handed_out_twice() {
    explore("free slots: three threads take and give back", || {
        let model = Arc::new(Model {
            table: SessionTable::new(SESSIONS_MAX, 0),
            slots: [Watched::new(0), Watched::new(0)],
            live: AtomicUsize::new(0),
        });
        let threads = [2, 1].map(|rounds| {
            let model = model.clone();
            thread::spawn(move || {
                (0..rounds).filter_map(|_| model.insert_and_release()).collect::<Vec<_>>()
            })
        });
        let mut ids: Vec<_> = (0..2).filter_map(|_| model.insert_and_release()).collect();
        for thread in threads {
            ids.extend(thread.join().unwrap());
        }
        let distinct: HashSet<_> = ids.iter().collect();
        assert_eq!(distinct.len(), ids.len(), "an id came twice");
        // Nothing was lost: there is room for as many as before.
        assert!(model.table.insert(0, 0).is_some() && model.table.insert(0, 0).is_some());
        assert!(model.table.insert(0, 0).is_none());
    });
}
