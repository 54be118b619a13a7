//! A port for models: one socket, whose sends complete as soon as a thread waits for completions.

use crate::buffer::SendBatch;
use crate::port::{PostAnywhere, Refused, Registration, Wake};
use crate::sync::{Condvar, Mutex};

/// The only socket's.
pub(super) const REGISTRATION: Registration = Registration(0);

#[derive(Debug)]
pub(super) struct ModelPort {
    is_shared: bool,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    wakes: usize,
    send: Option<Box<SendBatch>>,
}

impl ModelPort {
    pub(super) fn new(is_shared: bool) -> Self {
        ModelPort { is_shared, state: Mutex::default(), changed: Condvar::new() }
    }

    /// Sleeps until there is a completion, which it returns, or a wake.
    pub(super) fn wait(&self) -> Option<Box<SendBatch>> {
        let mut state = self.state.lock();
        while state.wakes == 0 && state.send.is_none() {
            state = self.changed.wait(state).expect("no thread has failed");
        }
        let send = state.send.take();
        if send.is_none() {
            // On a shared port a wake ends one wait; a worker's own wakes may be merged.
            state.wakes = if self.is_shared { state.wakes - 1 } else { 0 };
        }
        send
    }

    /// Posts a send for the worker that has the port.
    pub(super) fn post(&self, batch: Box<SendBatch>) {
        let mut state = self.state.lock();
        assert!(state.send.is_none(), "invariant 1: a second send while one is outstanding");
        state.send = Some(batch);
        drop(state);
        self.changed.notify_one();
    }
}

impl Wake for ModelPort {
    fn wake(&self) {
        self.state.lock().wakes += 1;
        self.changed.notify_one();
    }
}

impl PostAnywhere for ModelPort {
    fn post_send(
        &self,
        registration: Registration,
        batch: Box<SendBatch>,
    ) -> Result<(), Refused<Box<SendBatch>>> {
        assert_eq!(registration, REGISTRATION);
        self.post(batch);
        Ok(())
    }
}
