//! What other threads ask of a worker.
//!
//! A queue and a flag "the owner is about to sleep". While the owner is awake a post costs a lock
//! and a load, and no system call; only the first post that finds it asleep wakes its port.
//!
//! No wake is lost: the owner sets the flag and *then* looks at the queue once more before it
//! sleeps, and a sender puts its mail in and *then* looks at the flag. Both steps are sequentially
//! consistent, so one of the two sees the other.
//!
//! Bounded by what it carries: for each session at most one arrival, one release, and a few
//! requests to attend (it was armed, it closes, it passed the pause mark).

use std::net::SocketAddr;
use std::sync::OnceLock;

use socket2::Socket;

use crate::port::Waker;
use crate::session::SessionId;
use crate::sync::{AtomicBool, Mutex, Ordering};

#[derive(Debug)]
pub(crate) enum Mail {
    /// A session was accepted, and given to this worker with the acceptor's hold on it.
    Arrival(SessionId, Socket, Option<SocketAddr>),
    /// A session is to be connected; the hold comes with it.
    Connect(SessionId, Socket, SocketAddr),
    /// Something of the session's has changed: look at it.
    Attend(SessionId),
    /// The session's count came to zero on another thread: release it.
    Release(SessionId),
    /// Stop accepting, and end every session when what is queued for it has left.
    Drain,
    /// End every session now.
    Stop,
}

#[derive(Debug, Default)]
pub(crate) struct Mailbox {
    queue: Mutex<Queue>,
    asleep: AtomicBool,
    waker: OnceLock<Waker>,
}

#[derive(Debug, Default)]
struct Queue {
    mails: Vec<Mail>,
    /// The worker has ended: what comes now is given back.
    closed: bool,
}

impl Mailbox {
    pub(crate) fn set_waker(&self, waker: Waker) {
        let set = self.waker.set(waker);
        debug_assert!(set.is_ok(), "a mailbox has one owner");
    }

    /// Gives the mail back if the worker has ended. Only an arrival and a connect need an answer
    /// then: nothing else is left to be attended to, released, drained or stopped.
    pub(crate) fn post(&self, mail: Mail) -> Result<(), Mail> {
        {
            let mut queue = self.queue.lock();
            if queue.closed {
                return Err(mail);
            }
            queue.mails.push(mail);
        }
        if self.asleep.load(Ordering::SeqCst)
            && self.asleep.swap(false, Ordering::SeqCst)
            && let Some(waker) = self.waker.get()
        {
            waker.wake();
        }
        Ok(())
    }

    /// For the owner: says that it is about to sleep. False: there is mail, so it must not.
    pub(crate) fn may_sleep(&self) -> bool {
        self.asleep.store(true, Ordering::SeqCst);
        if self.queue.lock().mails.is_empty() {
            return true;
        }
        self.asleep.store(false, Ordering::SeqCst);
        false
    }

    /// For the owner: takes all mail, leaving the (empty) vector it was given in its place.
    pub(crate) fn take(&self, into: &mut Vec<Mail>) {
        debug_assert!(into.is_empty());
        self.asleep.store(false, Ordering::SeqCst);
        std::mem::swap(&mut self.queue.lock().mails, into);
    }

    /// For the owner, at its end: takes the last mail; nothing comes after it.
    pub(crate) fn close(&self) -> Vec<Mail> {
        let mut queue = self.queue.lock();
        queue.closed = true;
        std::mem::take(&mut queue.mails)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::AtomicUsize;

    #[derive(Debug, Default)]
    struct CountingWaker(AtomicUsize);

    impl crate::port::Wake for CountingWaker {
        fn wake(&self) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn only_a_sleeping_owner_is_woken_and_only_once() {
        let mailbox = Mailbox::default();
        let waker = Arc::new(CountingWaker::default());
        mailbox.set_waker(waker.clone());
        mailbox.post(Mail::Drain).unwrap();
        assert_eq!(waker.0.load(Ordering::SeqCst), 0, "it was awake");
        assert!(!mailbox.may_sleep(), "there is mail");
        let mut mails = Vec::new();
        mailbox.take(&mut mails);
        assert_eq!(mails.len(), 1);
        assert!(mailbox.may_sleep());
        mailbox.post(Mail::Drain).unwrap();
        mailbox.post(Mail::Stop).unwrap();
        assert_eq!(waker.0.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn what_comes_after_the_end_is_given_back() {
        let mailbox = Mailbox::default();
        mailbox.post(Mail::Stop).unwrap();
        assert_eq!(mailbox.close().len(), 1);
        assert!(matches!(mailbox.post(Mail::Drain), Err(Mail::Drain)));
        assert!(mailbox.close().is_empty());
    }
}
