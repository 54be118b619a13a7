//! The threads of a server.

use std::sync::Arc;
use std::thread::JoinHandle;

use crate::engine::Engine;

/// The threads of a server.
pub(crate) struct Running {
    pub(super) engine: Arc<Engine>,
    pub(super) threads: Vec<JoinHandle<()>>,
    /// Whether workers serve: those that never began end without a word.
    pub(super) has_begun: bool,
}

impl Running {
    #[cfg(test)]
    pub(crate) fn engine(&self) -> &Arc<Engine> {
        &self.engine
    }

    /// Waits for the workers, if this thread is none of them.
    pub(super) fn join(&mut self) {
        if self.engine.is_on_a_worker() {
            return;
        }
        #[cfg(feature = "simulation")]
        if self.has_begun && crate::port::simulated::current().is_some() {
            self.engine.wait_ended(None); // a thread that is joined must have had its turns
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
        self.join();
    }
}
