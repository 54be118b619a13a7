//! Waiting for room in a session's send queue, as a future.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use crate::engine::Engine;
use crate::error::RoomError;
use crate::session::{SessionId, Wakes};

/// Becomes ready when a session's send queue has room: see [`Handle::when_room`](crate::Handle::when_room).
#[must_use = "a future does nothing unless it is polled"]
pub struct WhenRoom {
    engine: Arc<Engine>,
    id: SessionId,
    bytes: usize,
    /// Under which its waker is noted.
    key: Option<u32>,
}

impl WhenRoom {
    pub(super) fn new(engine: Arc<Engine>, id: SessionId, bytes: usize) -> Self {
        WhenRoom { engine, id, bytes, key: None }
    }
}

impl Future for WhenRoom {
    type Output = Result<(), RoomError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        // Cloned here: a waker is the program's own code, which may not run under a lock of wharf's.
        let wakes = Wakes::Task(context.waker().clone());
        match self.engine.look_for_room(self.id, self.bytes, self.key, wakes) {
            Ok(Some(key)) => {
                self.key = Some(key);
                Poll::Pending
            }
            Ok(None) => Poll::Ready(Ok(())),
            Err(error) => Poll::Ready(Err(error)),
        }
    }
}

impl Drop for WhenRoom {
    fn drop(&mut self) {
        if let Some(key) = self.key {
            self.engine.forget_waiter(self.id, key);
        }
    }
}

impl fmt::Debug for WhenRoom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WhenRoom")
            .field("id", &self.id)
            .field("bytes", &self.bytes)
            .finish_non_exhaustive()
    }
}
