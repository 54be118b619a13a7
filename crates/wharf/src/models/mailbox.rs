//! The mailbox: the sleep flag against a post.
//!
//! Shown: whatever is posted is taken without any further event (a worker that keeps sleeping would be a
//! deadlock), on a port of one worker and on one that two share; a worker that is busy with its mail does not
//! keep the rest from the other; what is posted while the last worker ends is either taken or returned; and
//! if a word is posted several times and taken once, the taker sees what each poster did before.

use std::sync::Arc;

use loom::thread;

use super::port::ModelPort;
use super::{explore, join_all};
use crate::engine::{Mail, Mailbox};
use crate::session::SessionId;
use crate::sync::{AtomicBool, Condvar, Mutex, Ordering};

struct Model {
    mailbox: Mailbox,
    port: Arc<ModelPort>,
    taken: Mutex<usize>,
    changed: Condvar,
}

impl Model {
    fn new(is_shared: bool) -> Arc<Self> {
        let (mailbox, port) = (Mailbox::new(is_shared), Arc::new(ModelPort::new(is_shared)));
        mailbox.set_waker(port.clone());
        Arc::new(Model { mailbox, port, taken: Mutex::new(0), changed: Condvar::new() })
    }

    fn post(&self, slots: impl IntoIterator<Item = u32>) {
        for slot in slots {
            self.mailbox.post(Mail::Attend(SessionId::new(slot, 0))).unwrap();
        }
    }

    /// A worker's turns until this many mails were taken, by any worker. A worker that `is_busy` returns from
    /// its mail only then.
    fn serve(&self, mails_in_all: usize, is_busy: bool) {
        let mut mails = Vec::new();
        while *self.taken.lock() < mails_in_all {
            if self.mailbox.may_sleep() {
                self.port.wait();
                self.mailbox.woke(); // as with the first completion
            }
            self.mailbox.take(&mut mails);
            if mails.is_empty() {
                continue;
            }
            let mut taken = self.taken.lock();
            *taken += mails.drain(..).count();
            self.changed.notify_all();
            while is_busy && *taken < mails_in_all {
                taken = self.changed.wait(taken).expect("no thread has failed");
            }
        }
        // As a worker that ends.
        self.mailbox.wake_others();
    }
}

#[test]
fn two_threads_post_to_a_worker_that_sleeps() {
    explore("mailbox: two posters, one worker", || {
        let model = Model::new(false);
        let posters = [0..2, 2..3].map(|slots| {
            let model = model.clone();
            thread::spawn(move || model.post(slots))
        });
        model.serve(3, false);
        join_all(posters);
        assert_eq!(*model.taken.lock(), 3);
    });
}

#[test]
fn one_thread_posts_to_two_busy_workers_of_a_shared_port() {
    explore("mailbox: one poster, two busy workers of a port", || {
        let model = Model::new(true);
        let poster = thread::spawn({
            let model = model.clone();
            move || model.post(0..2)
        });
        let worker = thread::spawn({
            let model = model.clone();
            move || model.serve(2, true)
        });
        model.serve(2, true);
        poster.join().unwrap();
        worker.join().unwrap();
        assert_eq!(*model.taken.lock(), 2);
    });
}

#[test]
fn whoever_says_a_word_that_waits_already_is_heard() {
    explore("mailbox: two say the same word, one worker", || {
        let model = Model::new(false);
        let done = Arc::new([AtomicBool::new(false), AtomicBool::new(false)]);
        let posters = [0, 1].map(|poster| {
            let (model, done) = (model.clone(), done.clone());
            thread::spawn(move || {
                done[poster].store(true, Ordering::Relaxed);
                model.mailbox.post(Mail::Stop).unwrap();
            })
        });
        let (mut mails, mut heard) = (Vec::new(), [false; 2]);
        while heard != [true; 2] {
            if model.mailbox.may_sleep() {
                model.port.wait();
            }
            model.mailbox.take(&mut mails);
            for _ in mails.drain(..) {
                heard = [0, 1].map(|poster: usize| done[poster].load(Ordering::Relaxed));
            }
        }
        join_all(posters);
    });
}

#[test]
fn what_is_posted_while_the_worker_ends_is_taken_or_given_back() {
    explore("mailbox: two posters, a worker that ends", || {
        let model = Model::new(false);
        let posters = [0, 1].map(|slot| {
            let model = model.clone();
            thread::spawn(move || {
                usize::from(model.mailbox.post(Mail::Attend(SessionId::new(slot, 0))).is_err())
            })
        });
        let mut mails = Vec::new();
        model.mailbox.take(&mut mails);
        let taken = mails.len() + model.mailbox.close().len();
        let given_back: usize = join_all(posters).iter().sum();
        assert_eq!(taken + given_back, 2);
    });
}
