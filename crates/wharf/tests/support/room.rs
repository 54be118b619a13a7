//! Waiting for room without a runtime.

use std::future::Future;
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::task::{Context, Poll, Wake, Waker};

use wharf::{Handle, RoomError};

use super::BOUND;

struct Wakes(Sender<()>);

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        let _ = self.0.send(());
    }
}

/// Waits until there is room for a publication.
pub(crate) fn wait_for_room_to_publish(handle: &Handle) -> Result<(), RoomError> {
    let (wakes, woken) = channel();
    let waker = Waker::from(Arc::new(Wakes(wakes)));
    let mut when_room = std::pin::pin!(handle.when_room_to_publish());
    loop {
        match when_room.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(told) => return told,
            Poll::Pending => woken.recv_timeout(BOUND).unwrap(),
        }
    }
}
