//! The threads of a server.

#[cfg(feature = "simulation")]
use std::ops::Range;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread::JoinHandle;

use crate::engine::Engine;
use crate::error::Result;
use crate::face::Handle;
#[cfg(feature = "simulation")]
use crate::port::simulated::World;

/// The threads of a server.
pub(crate) struct Running {
    pub(super) engine: Arc<Engine>,
    pub(super) threads: Vec<JoinHandle<()>>,
    /// Each worker has a port, and waits until it may begin.
    pub(super) is_ready: bool,
    /// Tells the threads to begin. One whose sender is dropped never begins.
    pub(super) may_begin: Vec<mpsc::Sender<()>>,
    /// How many of the threads are the pool's.
    pub(super) pool_threads: usize,
    /// In a simulation: the threads' places, until they begin.
    #[cfg(feature = "simulation")]
    pub(super) places: Vec<(World, Range<usize>)>,
}

impl Running {
    #[cfg(test)]
    pub(crate) fn engine(&self) -> &Arc<Engine> {
        &self.engine
    }

    pub(super) fn handle(&self) -> Handle {
        Handle::new(self.engine.clone())
    }

    /// Lets the threads begin.
    pub(crate) fn begin(&mut self) {
        #[cfg(feature = "simulation")]
        for (world, places) in self.places.drain(..) {
            world.let_begin(places);
        }
        for thread in self.may_begin.drain(..) {
            let _ = thread.send(());
        }
    }

    /// Waits until the workers have ended, if `call` was not made on one of them.
    pub(super) fn wait(mut self, call: &'static str) -> Result<()> {
        self.engine.refuse_on_a_worker(call)?;
        self.join();
        match self.engine.take_error() {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    /// Waits for the workers, if this thread is none of them.
    fn join(&mut self) {
        if self.engine.is_on_a_worker() {
            return;
        }
        #[cfg(feature = "simulation")]
        if self.is_ready && crate::port::simulated::current().is_some() {
            self.engine.wait_threads_ended(self.pool_threads); // one that is joined must have had its turns
        }
        for thread in self.threads.drain(..) {
            // A worker that panicked has a bug of ours; its sockets are closed all the same.
            let _ = thread.join();
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.engine.stop();
        if self.is_ready {
            self.begin(); // it answers what was begun before it ran
        }
        self.may_begin.clear();
        self.join();
    }
}
