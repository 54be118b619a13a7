//! Those who wait for room to publish.

use crate::error::RoomError;
use crate::session::Wakes;
use crate::sync::{AtomicBool, Mutex, Ordering};

/// The most tasks and callbacks that wait to publish at one server.
pub(super) const PUBLISHERS_MAX: usize = 1024;

#[derive(Debug, Default)]
pub(super) struct Publishers {
    /// So that a worker need not take the lock to see that nobody waits.
    some_wait: AtomicBool,
    waiting: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    publishers: Vec<(u32, Wakes)>,
    next_key: u32,
}

impl Publishers {
    pub(super) fn some_wait(&self) -> bool {
        self.some_wait.load(Ordering::SeqCst)
    }

    /// Notes one, in the place of what was noted with this key. Returns its key. What is the program's own is dropped
    /// outside the lock.
    pub(super) fn note(&self, key: Option<u32>, wakes: Wakes) -> Result<u32, RoomError> {
        let mut waiting = self.waiting.lock();
        let noted = waiting.publishers.iter_mut().find(|(noted, _)| Some(*noted) == key);
        let (noted, _unused) = if let Some((key, before)) = noted {
            let key = *key;
            (Ok(key), Some(std::mem::replace(before, wakes)))
        } else if waiting.publishers.len() >= PUBLISHERS_MAX {
            (Err(RoomError::TooManyWait { max: PUBLISHERS_MAX }), Some(wakes))
        } else {
            let key = waiting.next_key;
            waiting.next_key = key.wrapping_add(1);
            waiting.publishers.push((key, wakes));
            (Ok(key), None)
        };
        self.some_wait.store(true, Ordering::SeqCst);
        drop(waiting);
        noted
    }

    /// The one with this key waits no more. False: it was told.
    pub(super) fn forget(&self, key: u32) -> bool {
        let mut waiting = self.waiting.lock();
        let at = waiting.publishers.iter().position(|(noted, _)| *noted == key);
        let forgotten = at.map(|at| waiting.publishers.swap_remove(at));
        drop(waiting);
        forgotten.is_some()
    }

    pub(super) fn take(&self) -> Vec<Wakes> {
        let mut waiting = self.waiting.lock();
        self.some_wait.store(false, Ordering::SeqCst);
        std::mem::take(&mut waiting.publishers).into_iter().map(|(_, wakes)| wakes).collect()
    }
}
