//! What other threads ask of the worker, or the workers, of a port.
//!
//! A queue, and a flag "the owner is about to sleep". While the owner is awake a post costs a lock and a
//! load, and no system call. Only the first post that finds it asleep wakes its port.
//!
//! No wake is lost: the owner sets the flag and *then* checks the queue once more before it sleeps; a sender
//! adds its mail and *then* checks the flag. Both are sequentially consistent, so one of the two sees the
//! other.
//!
//! The queue is bounded by its content: for each session at most one arrival, one release, and a few requests
//! to attend (it was armed, it closes, it passed the pause mark). Requests to groups wait in
//! [`Groups`](super::groups::Groups); here is only one word for them. A word (groups, announce, drain, stop) is queued
//! once, however often it is posted.

use std::net::SocketAddr;

use crate::peer_address::PeerAddress;
use crate::port::{Socket, Waker};
use crate::session::SessionId;
use crate::sync::{AtomicBool, Mutex, OnceLock, Ordering};

#[derive(Debug)]
pub(crate) enum Mail {
    /// A session was accepted and assigned to this worker. Carries the acceptor's count.
    Arrival(SessionId, Socket, Option<SocketAddr>),
    /// A session is to be connected. Carries a count.
    Connect(SessionId, Socket, PeerAddress),
    /// Something about the session has changed: attend to it.
    Attend(SessionId),
    /// The session was asked to end because it is slow: attend to it, but to few such in one turn.
    End(SessionId),
    /// The session's count reached 0 on another thread: release it.
    Release(SessionId),
    /// The port's groups have requests.
    Groups,
    /// The port's budget is used up, or another port's.
    Budget,
    /// Tell the handler that a drain begins, if no worker has; then the drain begins.
    Announce,
    /// Stop accepting.
    StopAccepting,
    /// Stop accepting, and end every session after its queued bytes have left.
    Drain,
    /// End every session now.
    Stop,
}

impl Mail {
    /// Mail that is queued once, however often it is posted: one bit each. 0: mail about a session.
    fn word(&self) -> u8 {
        match self {
            Mail::Groups => 1,
            Mail::Drain => 2,
            Mail::Stop => 4,
            Mail::Announce => 8,
            Mail::Budget => 16,
            Mail::StopAccepting => 32,
            Mail::Arrival(..) | Mail::Connect(..) => 0,
            Mail::Attend(_) | Mail::End(_) | Mail::Release(_) => 0,
        }
    }
}

#[derive(Debug)]
pub(crate) struct Mailbox {
    queue: Mutex<Queue>,
    /// The thread that clears this must wake the port. A port's only owner sets it when it is about to sleep.
    /// On a shared port it is set unless a wake is on its way, because any worker may be asleep.
    to_be_woken: AtomicBool,
    is_shared: bool,
    waker: OnceLock<Waker>,
}

#[derive(Debug, Default)]
struct Queue {
    mails: Vec<Mail>,
    /// The words in the queue.
    words: u8,
    /// The worker has ended: later mail is returned to the sender.
    closed: bool,
}

impl Queue {
    /// False: it is a word that is there.
    fn push(&mut self, mail: Mail) -> bool {
        let word = mail.word();
        let is_new = self.words & word == 0;
        if is_new {
            self.words |= word;
            self.mails.push(mail);
        }
        is_new
    }
}

impl Mailbox {
    /// The mailbox of a port of one worker, or of a shared port.
    pub(crate) fn new(is_shared: bool) -> Self {
        Mailbox {
            queue: Mutex::default(),
            to_be_woken: AtomicBool::new(is_shared),
            is_shared,
            waker: OnceLock::new(),
        }
    }

    pub(crate) fn set_waker(&self, waker: Waker) {
        let set = self.waker.set(waker);
        debug_assert!(set.is_ok() || self.is_shared, "a mailbox has one owner");
    }

    /// Returns the mail if the worker has ended. Only an arrival and a connect need handling then: nothing is
    /// left to attend to, release, drain or stop.
    pub(crate) fn post(&self, mail: Mail) -> Result<(), Mail> {
        {
            let mut queue = self.queue.lock();
            if queue.closed {
                return Err(mail);
            }
            if !queue.push(mail) {
                return Ok(()); // the first thread that posted it wakes the owner
            }
        }
        self.wake_if_asleep();
        Ok(())
    }

    /// Posts several at once, so that one turn takes them all. Of a worker that has ended nothing is asked.
    pub(crate) fn post_all(&self, mails: impl Iterator<Item = Mail>) {
        let has_new = {
            let mut queue = self.queue.lock();
            !queue.closed && mails.fold(false, |has_new, mail| queue.push(mail) | has_new)
        };
        if has_new {
            self.wake_if_asleep();
        }
    }

    fn wake_if_asleep(&self) {
        if self.to_be_woken.load(Ordering::SeqCst) && self.to_be_woken.swap(false, Ordering::SeqCst)
        {
            self.wake();
        }
    }

    /// Whether mail would wake the port's only owner. May change at any time.
    pub(crate) fn owner_sleeps(&self) -> bool {
        !self.is_shared && self.to_be_woken.load(Ordering::Relaxed)
    }

    /// Wakes another worker of a shared port without mail.
    pub(crate) fn wake_others(&self) {
        if self.is_shared {
            self.wake();
        }
    }

    fn wake(&self) {
        if let Some(waker) = self.waker.get() {
            waker.wake();
        }
    }

    fn set_to_be_woken(&self, to_be_woken: bool) {
        // A swap, as in the senders, so that the changes of the flag form one order, and a late change by a
        // sender cannot overwrite this one. (On x86-64 a sequentially consistent store costs the same.)
        self.to_be_woken.swap(to_be_woken, Ordering::SeqCst);
    }

    /// Called by a worker that is about to sleep. False: there is mail, so it must not sleep.
    pub(crate) fn may_sleep(&self) -> bool {
        self.set_to_be_woken(true);
        if self.queue.lock().mails.is_empty() {
            return true;
        }
        self.set_to_be_woken(self.is_shared);
        false
    }

    /// Called by a worker that woke: it will take its mail before it sleeps again. Other workers of a shared
    /// port may still be asleep.
    pub(crate) fn woke(&self) {
        if !self.is_shared {
            self.set_to_be_woken(false);
        }
    }

    /// Called by a worker: swaps all mail with this empty vector.
    pub(crate) fn take(&self, into: &mut Vec<Mail>) {
        debug_assert!(into.is_empty());
        self.set_to_be_woken(self.is_shared);
        let mut queue = self.queue.lock();
        queue.words = 0;
        std::mem::swap(&mut queue.mails, into);
    }

    /// Called by the last worker at its end: takes the last mail and closes the mailbox.
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
        let mailbox = Mailbox::new(false);
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
    fn workers_that_share_a_port_are_woken_for_all_mail_that_none_has_taken() {
        let mailbox = Mailbox::new(true);
        let waker = Arc::new(CountingWaker::default());
        mailbox.set_waker(waker.clone());
        mailbox.post(Mail::Drain).unwrap();
        assert_eq!(waker.0.load(Ordering::SeqCst), 1, "any of them may be asleep");
        mailbox.post(Mail::Stop).unwrap();
        assert_eq!(waker.0.load(Ordering::SeqCst), 1, "that wake is on its way");
        let mut mails = Vec::new();
        mailbox.take(&mut mails);
        assert_eq!(mails.len(), 2);
        // The worker that took it may be busy with it for long.
        mailbox.post(Mail::Stop).unwrap();
        assert_eq!(waker.0.load(Ordering::SeqCst), 2);
    }

    #[test]
    fn what_is_said_again_and_again_to_a_worker_that_does_not_listen_waits_once() {
        let mailbox = Mailbox::new(false);
        for _ in 0..2 {
            for _ in 0..10_000 {
                for word in [Mail::Groups, Mail::Announce, Mail::Drain, Mail::Stop] {
                    mailbox.post(word).unwrap();
                }
            }
            let mut mails = Vec::new();
            mailbox.take(&mut mails);
            assert_eq!(mails.len(), 4);
            assert!(
                matches!(mails[..], [Mail::Groups, Mail::Announce, Mail::Drain, Mail::Stop]),
                "{mails:?}"
            );
        }
        let id = SessionId::from_bits(7);
        for _ in 0..2 {
            mailbox.post(Mail::Attend(id)).unwrap();
        }
        assert_eq!(mailbox.close().len(), 2, "what is of a session is no word");
    }

    #[test]
    fn what_comes_after_the_end_is_given_back() {
        let mailbox = Mailbox::new(false);
        mailbox.post(Mail::Stop).unwrap();
        assert_eq!(mailbox.close().len(), 1);
        assert!(matches!(mailbox.post(Mail::Drain), Err(Mail::Drain)));
        assert!(mailbox.close().is_empty());
    }
}
