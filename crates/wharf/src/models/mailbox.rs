//! The mailbox: the sleep flag against a post.
//!
//! Shown: whatever is posted is taken without anything else having to happen (a worker that slept on
//! would be a deadlock), on a port of one worker and on one that two share; and what is posted while
//! the last worker ends is either taken or given back.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use loom::thread;

use super::port::ModelPort;
use super::{explore, join_all};
use crate::session::SessionId;
use crate::worker::mailbox::{Mail, Mailbox};

struct Model {
    mailbox: Mailbox,
    port: Arc<ModelPort>,
    taken: AtomicUsize,
}

impl Model {
    fn new(is_shared: bool) -> Arc<Self> {
        let (mailbox, port) = (Mailbox::new(is_shared), Arc::new(ModelPort::new(is_shared)));
        mailbox.set_waker(port.clone());
        Arc::new(Model { mailbox, port, taken: AtomicUsize::new(0) })
    }

    fn post(&self, slots: impl IntoIterator<Item = u32>) {
        for slot in slots {
            self.mailbox.post(Mail::Attend(SessionId::new(slot, 0))).unwrap();
        }
    }

    /// A worker's turns until so many mails were taken, by it or by another.
    fn serve(&self, mails_in_all: usize) {
        let mut mails = Vec::new();
        while self.taken.load(Ordering::Relaxed) < mails_in_all {
            if self.mailbox.may_sleep() {
                self.port.wait();
            }
            self.mailbox.take(&mut mails);
            self.taken.fetch_add(mails.drain(..).count(), Ordering::Relaxed);
        }
        // As a worker that ends does.
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
        model.serve(3);
        join_all(posters);
        assert_eq!(model.taken.load(Ordering::Relaxed), 3);
    });
}

#[test]
fn one_thread_posts_to_two_workers_of_a_shared_port() {
    explore("mailbox: one poster, two workers of a port", || {
        let model = Model::new(true);
        let poster = thread::spawn({
            let model = model.clone();
            move || model.post(0..2)
        });
        let worker = thread::spawn({
            let model = model.clone();
            move || model.serve(2)
        });
        model.serve(2);
        poster.join().unwrap();
        worker.join().unwrap();
        assert_eq!(model.taken.load(Ordering::Relaxed), 2);
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
