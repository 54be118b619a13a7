//! The accounts, in a database that takes its time; and the threads that wait for it.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

const TAKES: Duration = Duration::from_millis(20);
/// So many logins wait at most.
const WAITING_MAX: usize = 4_096;

/// The account of a token, if there is one.
pub(crate) fn account_of(token: &[u8]) -> Option<u32> {
    thread::sleep(TAKES); // as a query would block
    std::str::from_utf8(token).ok()?.strip_prefix("player-")?.parse().ok()
}

type Work = Box<dyn FnOnce() + Send>;

/// Threads for what blocks.
pub(crate) struct Pool {
    work: SyncSender<Work>,
}

impl Pool {
    pub(crate) fn new(threads: usize) -> Pool {
        let (work, to_do) = sync_channel(WAITING_MAX);
        let to_do = Arc::new(Mutex::new(to_do));
        for _ in 0..threads {
            let to_do = to_do.clone();
            thread::spawn(move || {
                while let Some(work) = next(&to_do) {
                    work()
                }
            });
        }
        Pool { work }
    }

    /// Returns whether it will be done: not if too much waits.
    pub(crate) fn run(&self, work: impl FnOnce() + Send + 'static) -> bool {
        self.work.try_send(Box::new(work)).is_ok()
    }
}

fn next(to_do: &Mutex<Receiver<Work>>) -> Option<Work> {
    to_do.lock().unwrap_or_else(PoisonError::into_inner).recv().ok()
}
