//! Notes that threads tell a session, while its worker sleeps, tells it some, puts the others off, or ends it.
//!
//! Shown: every note that was taken is told, without any further event (one that is not told is a deadlock), once, in
//! the order of who tells it; and of a session that closes each is told, forgotten or given back, and none is left.

use std::sync::Arc;

use loom::thread;

use super::port::ModelPort;
use super::{engine, explore};
use crate::close::{Close, CloseReason};
use crate::engine::{Engine, Follows, Mail, Notes};
use crate::session::SessionId;

/// Who tells, and how much before.
type Note = (u32, u32);

struct Model {
    engine: Arc<Engine>,
    port: Arc<ModelPort>,
    id: SessionId,
    notes: Box<[Notes<Note>]>,
}

impl Model {
    fn new() -> Arc<Self> {
        let (engine, port) = engine(false, 1);
        let id = engine.admit(None, 0).unwrap();
        Arc::new(Model { engine, port, id, notes: Box::new([Notes::default()]) })
    }

    /// Returns how many came back.
    fn tell(&self, from: u32, count: u32) -> usize {
        let tell = |number| self.engine.tell(&self.notes, self.id, (from, number));
        (0..count).filter(|number| tell(*number).is_err()).count()
    }

    fn close(&self) {
        self.engine.with_session(self.id, |slot| {
            let changed = self.engine.ask_to_close(self.id, slot, CloseReason::Local, Close::Stop);
            ((), Follows { changed, ..Follows::default() })
        });
    }

    /// As `Floor::tell_due`, with one note as the share of a turn. True: the session is put off.
    fn tell_due(&self, told: &mut Vec<Note>) -> bool {
        let slot = self.engine.table.held(self.id).unwrap();
        slot.send_queue.lock().take_due();
        if slot.count.is_closing() {
            return false;
        }
        let Some(note) = self.notes[0].pop(self.id) else { return false };
        told.push(note.note);
        let mut queue = slot.send_queue.lock();
        queue.set_due();
        queue.put_due_off();
        true
    }

    /// The worker's turns, until so many were told or the session closes. Returns those that were told, and how many
    /// were forgotten.
    fn serve(&self, count: usize) -> (Vec<Note>, usize) {
        let (share, slot) = (&self.engine.ports[0], self.engine.table.held(self.id).unwrap());
        let (mut mails, mut told, mut is_put_off) = (Vec::new(), Vec::new(), false);
        while told.len() < count && !slot.count.is_closing() {
            let goes_on = std::mem::take(&mut is_put_off) && slot.send_queue.lock().due_goes_on();
            if !goes_on && share.mailbox.may_sleep() {
                let sent = self.port.wait();
                assert!(sent.is_none(), "nothing is sent");
            }
            share.mailbox.take(&mut mails);
            let attends = mails.drain(..).any(|mail| matches!(mail, Mail::Attend(_))) || goes_on;
            if attends && slot.send_queue.lock().is_due() {
                is_put_off = self.tell_due(&mut told);
            }
        }
        // As `Floor::finish`, which comes when no thread holds the session any more.
        let forgotten = std::iter::from_fn(|| self.notes[0].pop(self.id)).count();
        (told, forgotten)
    }
}

#[test]
fn notes_of_two_threads_are_all_told() {
    explore("notes: two that tell, a worker that sleeps", || {
        let model = Model::new();
        let tellers = [0, 1].map(|from| {
            let model = model.clone();
            thread::spawn(move || model.tell(from, 1))
        });
        let (mut told, forgotten) = model.serve(2);
        for teller in tellers {
            assert_eq!(teller.join().unwrap(), 0);
        }
        assert_eq!(forgotten, 0);
        told.sort_unstable();
        assert_eq!(told, [(0, 0), (1, 0)]);
    });
}

#[test]
fn of_a_session_that_closes_each_note_is_told_or_forgotten_or_comes_back() {
    explore("notes: one that tells, one that closes, a worker", || {
        let model = Model::new();
        let teller = {
            let model = model.clone();
            thread::spawn(move || model.tell(0, 2))
        };
        let closer = {
            let model = model.clone();
            thread::spawn(move || model.close())
        };
        let (told, mut forgotten) = model.serve(usize::MAX);
        let back = teller.join().unwrap();
        closer.join().unwrap();
        // Nobody holds it any more.
        forgotten += std::iter::from_fn(|| model.notes[0].pop(model.id)).count();
        assert!(told.is_sorted(), "{told:?}");
        assert_eq!(told.len() + forgotten + back, 2);
        assert!(model.tell(0, 1) == 1 && model.notes[0].pop(model.id).is_none());
    });
}
