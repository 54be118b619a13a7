//! The lives of sessions, in any order that their rules allow, compared with a plain model: the table and the
//! count here, the send queue in `sending`, the receive half and its queue in `receiving`.
//!
//! A step that no holder could take (lowering a count that nobody holds, taking back what was not lent) is
//! skipped, because it would be a bug and is asserted against. All others are taken, including late look-ups
//! with ids of sessions that ended long ago.

mod receiving;
mod sending;

use std::collections::VecDeque;
use std::io;

use arbitrary::{Arbitrary, Unstructured};

use crate::buffer::BatchPool;
use crate::close::{Close, CloseReason};
use crate::session::Slot;
use crate::session::{Closing, HalfTable, Reference, SessionId, SessionTable};

use receiving::{Half, ReceiveStep, Receiving};
use sending::{SendStep, Sending};

/// Few, so that slots are used again soon.
const SESSIONS_MAX: u32 = 3;

#[derive(Debug, Arbitrary)]
enum Step {
    Insert {
        port: u8,
    },
    /// Of any id that there ever was.
    LookUp {
        which: u8,
    },
    /// Of an id that was made up.
    LookUpBits {
        bits: u64,
    },
    /// Of one of the sessions that are not released.
    Of {
        which: u8,
        step: LifeStep,
    },
}

#[derive(Debug, Arbitrary)]
enum LifeStep {
    EndReference,
    Raise,
    Lower,
    Close { reason: Reason, stop: bool },
    GiveUpOwnCount,
    Release,
    Register { registration: u32 },
    NoteTimeCame,
    TakeTimeCame,
    Send(SendStep),
    Receive(ReceiveStep),
}

#[derive(Clone, Copy, Debug, Arbitrary)]
enum Reason {
    Drained,
    Local,
    SlowConsumer(u8),
    Io,
}

/// The target.
pub fn session(bytes: &[u8]) {
    let (table, halves) = (SessionTable::new(SESSIONS_MAX, 0), HalfTable::new(SESSIONS_MAX));
    let mut world = World {
        table: &table,
        halves: &halves,
        pool: BatchPool::new(1),
        lives: Vec::new(),
        ids: Vec::new(),
        resting: VecDeque::new(),
        touched: 0,
    };
    let mut input = Unstructured::new(bytes);
    while let Ok(step) = Step::arbitrary(&mut input)
        && !input.is_empty()
    {
        world.take(step);
        world.check();
    }
    world.end();
}

struct World<'a> {
    table: &'a SessionTable,
    halves: &'a HalfTable<Half>,
    pool: BatchPool,
    /// The sessions that are not released.
    lives: Vec<Life<'a>>,
    /// All that there ever were.
    ids: Vec<SessionId>,
    /// Slots in the order in which they became free.
    resting: VecDeque<u32>,
    touched: u32,
}

/// One session, from its insertion to its release.
struct Life<'a> {
    id: SessionId,
    slot: &'a Slot,
    /// Its place among all that there ever were: so are its bytes known from others'.
    serial: u64,
    port: usize,
    references: Vec<Reference<'a>>,
    own_count: bool,
    /// Counts held for operations, the outstanding ones included.
    operations: u32,
    closing: Option<Closing>,
    last_word_is_due: bool,
    registration: Option<u32>,
    time_came: bool,
    sending: Sending,
    receiving: Receiving<'a>,
}

impl<'a> World<'a> {
    fn take(&mut self, step: Step) {
        match step {
            Step::Insert { port } => self.insert(port.into()),
            Step::LookUp { which } if !self.ids.is_empty() => {
                self.look_up(self.ids[usize::from(which) % self.ids.len()]);
            }
            Step::LookUp { .. } => {}
            Step::LookUpBits { bits } => self.look_up(SessionId::from_bits(bits)),
            Step::Of { which, step } if !self.lives.is_empty() => {
                let which = usize::from(which) % self.lives.len();
                match step {
                    LifeStep::Release => self.release(which),
                    step => self.lives[which].take(step, self.halves, &self.pool),
                }
            }
            Step::Of { .. } => {}
        }
    }

    fn insert(&mut self, port: usize) {
        let Some(id) = self.table.insert(port, 0) else {
            assert_eq!(self.lives.len(), SESSIONS_MAX as usize, "refused with room left");
            return;
        };
        assert!(self.lives.len() < SESSIONS_MAX as usize, "one too many");
        assert!(!self.ids.contains(&id), "{id} came twice");
        if id.index() == self.touched {
            self.touched += 1;
        } else {
            assert_eq!(Some(id.index()), self.resting.pop_front(), "first in, first out");
        }
        let serial = self.ids.len() as u64;
        self.ids.push(id);
        self.lives.push(Life {
            id,
            slot: self.table.held(id).expect("it was just inserted"),
            serial,
            port,
            references: Vec::new(),
            own_count: true,
            operations: 0,
            closing: None,
            last_word_is_due: false,
            registration: None,
            time_came: false,
            sending: Sending::default(),
            receiving: Receiving::default(),
        });
    }

    fn look_up(&mut self, id: SessionId) {
        let life = self.lives.iter_mut().find(|life| life.id == id);
        if self.ids.contains(&id) {
            assert_eq!(self.table.held(id).is_some(), life.is_some());
        }
        let found = self.table.look_up(id);
        match life.filter(|life| life.count() > 0) {
            Some(life) => {
                let reference = found.expect("the session lives");
                assert!(std::ptr::eq(reference.slot(), life.slot));
                life.references.push(reference);
            }
            None => assert!(found.is_none(), "{id} is gone"),
        }
    }

    fn release(&mut self, which: usize) {
        if self.lives[which].count() > 0 {
            return;
        }
        let mut life = self.lives.swap_remove(which);
        life.receiving.end(life.id.index(), self.halves);
        // The slot is left as it is: that its next session finds it new is the release's doing.
        life.sending.end(life.serial, self.table.release(life.id).batches, &self.pool);
        self.resting.push_back(life.id.index());
    }

    fn check(&self) {
        for life in &self.lives {
            life.check();
        }
        assert_eq!(self.table.touched(), self.touched);
        let mut found = 0;
        for port in 0..=u8::MAX.into() {
            for id in self.table.sessions_of(port) {
                let life = self.lives.iter().find(|life| life.id == id).expect("it lives");
                assert_eq!(life.port, port);
                found += 1;
            }
        }
        assert_eq!(found, self.lives.iter().filter(|life| life.count() > 0).count());
    }

    /// Ends all sessions, after which there is room for as many as ever.
    fn end(mut self) {
        while let Some(life) = self.lives.last_mut() {
            life.bring_to_zero(self.halves, &self.pool);
            self.release(self.lives.len() - 1);
        }
        for id in &self.ids {
            assert!(self.table.look_up(*id).is_none(), "{id} is gone");
        }
        for _ in 0..=SESSIONS_MAX {
            self.insert(0);
        }
        assert_eq!(self.lives.len(), SESSIONS_MAX as usize);
        self.check();
    }
}

impl<'a> Life<'a> {
    fn count(&self) -> u32 {
        u32::from(self.own_count) + self.operations + self.references.len() as u32
    }

    /// Operations that are outstanding; their counts are theirs.
    fn outstanding(&self) -> u32 {
        u32::from(self.sending.is_outstanding()) + u32::from(self.receiving.is_lent())
    }

    fn take(&mut self, step: LifeStep, halves: &'a HalfTable<Half>, pool: &BatchPool) {
        if self.count() == 0 {
            return; // Nobody is left to take it.
        }
        match step {
            LifeStep::EndReference => {
                let Some(reference) = self.references.pop() else { return };
                assert_eq!(reference.end(), self.count() == 0);
            }
            LifeStep::Raise => self.raise(),
            LifeStep::Lower => {
                if self.operations > self.outstanding() {
                    self.operations -= 1;
                    assert_eq!(self.slot.count.lower(), self.count() == 0);
                }
            }
            LifeStep::Close { reason, stop } => self.close(reason, stop),
            LifeStep::GiveUpOwnCount => {
                if std::mem::take(&mut self.own_count) {
                    assert_eq!(self.slot.count.lower(), self.count() == 0);
                }
            }
            LifeStep::Register { registration } => {
                // The highest number stands for none.
                self.registration = (registration < u32::MAX).then_some(registration);
                self.slot.set_registration(self.registration);
            }
            LifeStep::NoteTimeCame => {
                self.slot.note_time_came();
                self.time_came = true;
            }
            LifeStep::TakeTimeCame => {
                assert_eq!(self.slot.take_time_came(), std::mem::take(&mut self.time_came));
            }
            LifeStep::Send(step) => {
                // A send that is taken is outstanding, with a count raised before.
                if matches!(step, SendStep::Take { .. }) {
                    self.raise();
                }
                let closing = self.closing.is_some();
                let queue = &mut self.slot.send_queue.lock();
                self.sending.take(step, self.serial, closing, queue, pool);
            }
            LifeStep::Receive(step) => {
                if matches!(step, ReceiveStep::Lend) {
                    self.raise();
                }
                self.receiving.take(step, self.serial, self.id.index(), halves);
            }
            LifeStep::Release => unreachable!("it ends the life"),
        }
    }

    fn raise(&mut self) {
        self.slot.count.raise();
        self.operations += 1;
    }

    fn close(&mut self, reason: Reason, stop: bool) {
        let how = if stop { Close::Stop } else { Close::Drain };
        let reason = match reason {
            Reason::Drained => CloseReason::Drained,
            Reason::Local => CloseReason::Local,
            Reason::SlowConsumer(queued) => CloseReason::SlowConsumer { queued: queued.into() },
            Reason::Io => CloseReason::Io { kind: io::ErrorKind::Other, code: Some(1) },
        };
        let is_limit = matches!(reason, CloseReason::SlowConsumer { .. });
        let is_empty = self.sending.queued_bytes() == 0;
        let changed = match &mut self.closing {
            None => {
                self.closing = Some(Closing { reason, how, takes_published: false });
                self.last_word_is_due = is_limit;
                true
            }
            Some(_) if !stop || self.last_word_is_due && is_limit => false,
            Some(first) if first.is_stop() && !self.last_word_is_due => false,
            Some(first) => {
                let promises = matches!(first.reason, CloseReason::Drained | CloseReason::Local);
                if promises && !is_empty {
                    first.reason = reason;
                }
                first.how = Close::Stop;
                self.last_word_is_due = false;
                true
            }
        };
        let asked = if stop {
            self.slot.ask_to_stop(reason)
        } else {
            self.slot.ask_to_drain(reason, false)
        };
        assert_eq!(asked, changed);
    }

    fn check(&self) {
        assert_eq!(self.slot.count.generation(), self.id.generation());
        assert_eq!(self.slot.port(), self.port);
        assert_eq!(self.slot.registration(), self.registration);
        assert_eq!(self.slot.time_came(), self.time_came);
        assert_eq!(self.slot.closing(), self.closing);
        assert_eq!(self.slot.send_queue.lock().is_last_word_due(), self.last_word_is_due);
        assert_eq!(self.slot.count.is_closing(), self.closing.is_some());
        self.sending.check(&self.slot.send_queue.lock());
    }

    /// Everything that is outstanding completes, and everyone lets go; the last of them is told.
    fn bring_to_zero(&mut self, halves: &'a HalfTable<Half>, pool: &BatchPool) {
        self.take(LifeStep::Receive(ReceiveStep::TakeBack), halves, pool);
        self.take(LifeStep::Send(SendStep::PutBack), halves, pool);
        while !self.references.is_empty() {
            self.take(LifeStep::EndReference, halves, pool);
        }
        while self.operations > 0 {
            self.take(LifeStep::Lower, halves, pool);
        }
        self.take(LifeStep::GiveUpOwnCount, halves, pool);
        assert_eq!(self.count(), 0);
    }
}
