//! Waiting for room to publish, as a future.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use crate::engine::Engine;
use crate::error::RoomError;
use crate::session::Wakes;

/// Becomes ready when there is room to publish: see
/// [`Handle::when_room_to_publish`](crate::Handle::when_room_to_publish).
#[must_use = "a future does nothing unless it is polled"]
pub struct WhenRoomToPublish {
    engine: Arc<Engine>,
    /// Under which its waker is noted.
    key: Option<u32>,
}

impl WhenRoomToPublish {
    pub(super) fn new(engine: Arc<Engine>) -> Self {
        WhenRoomToPublish { engine, key: None }
    }
}

impl Future for WhenRoomToPublish {
    type Output = Result<(), RoomError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        // Cloned here: a waker is the program's own code, which may not run under a lock of wharf's.
        let wakes = Wakes::Task(context.waker().clone());
        let key = self.key.take();
        match self.engine.look_for_room_to_publish(key, wakes) {
            Ok(Some(key)) => {
                self.key = Some(key);
                Poll::Pending
            }
            Ok(None) => Poll::Ready(Ok(())),
            Err(error) => Poll::Ready(Err(error)),
        }
    }
}

impl Drop for WhenRoomToPublish {
    fn drop(&mut self) {
        if let Some(key) = self.key {
            self.engine.forget_publisher(key);
        }
    }
}

impl fmt::Debug for WhenRoomToPublish {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WhenRoomToPublish").finish_non_exhaustive()
    }
}
