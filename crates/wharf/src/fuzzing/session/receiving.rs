//! The receive half and its receive queue, compared with where the half is and which bytes wait.

use arbitrary::Arbitrary;

use crate::buffer::RingBuffer;
use crate::fuzzing::bytes_from;
use crate::session::{Asked, HalfInHand, HalfTable, Left, ReceiveQueue};

#[derive(Debug, Arbitrary)]
pub(super) enum ReceiveStep {
    Take,
    TakeOrAsk,
    GiveBack,
    Drop,
    Lend,
    TakeBack,
    Append { count: u16 },
    Consume { count: u16 },
    LendRing { free_min: u16 },
    TakeBackRing { received: u16 },
    Clear,
}

/// What the handler's state and the rest of a half are here.
#[derive(Debug, Default)]
pub(super) struct Half {
    queue: ReceiveQueue,
    /// The ring that is with a receive.
    ring: Option<Box<RingBuffer>>,
}

#[derive(Debug, Default)]
enum Place<'a> {
    #[default]
    Free,
    InAHand(HalfInHand<'a, Half>),
    WithAnOperation,
}

#[derive(Debug, Default)]
pub(super) struct Receiving<'a> {
    place: Place<'a>,
    asked: bool,
    room: Left,
    /// How many bytes came, ever, and how many of them were consumed.
    received: u64,
    consumed: u64,
}

impl<'a> Receiving<'a> {
    pub(super) fn is_lent(&self) -> bool {
        matches!(self.place, Place::WithAnOperation)
    }

    pub(super) fn take(
        &mut self,
        step: ReceiveStep,
        serial: u64,
        index: u32,
        halves: &'a HalfTable<Half>,
    ) {
        match step {
            ReceiveStep::Take => {
                let taken = halves.take(index);
                assert_eq!(taken.is_some(), matches!(self.place, Place::Free));
                if let Some(half) = taken {
                    self.place = Place::InAHand(half);
                }
            }
            ReceiveStep::TakeOrAsk => self.take_or_ask(index, halves),
            ReceiveStep::GiveBack | ReceiveStep::Drop | ReceiveStep::Lend => {
                self.let_go(step, index, halves);
            }
            ReceiveStep::TakeBack => {
                if self.is_lent() {
                    self.place = Place::InAHand(halves.take_back(index));
                    self.asked = false;
                }
            }
            step => self.use_queue(step, serial),
        }
        assert_eq!(halves.is_asked_for(index), self.asked);
    }

    fn take_or_ask(&mut self, index: u32, halves: &'a HalfTable<Half>) {
        let taken = halves.take_or_ask(index);
        let expected = match self.place {
            Place::Free => None,
            Place::InAHand(_) => Some(Asked::InAHand),
            Place::WithAnOperation => Some(Asked::WithAnOperation),
        };
        assert_eq!(taken.as_ref().err(), expected.as_ref());
        match taken {
            Ok(half) => self.place = Place::InAHand(half),
            Err(_) => self.asked = true,
        }
    }

    /// Who asked meanwhile is told of, once; and a half that is asked for is not lent before.
    fn let_go(&mut self, step: ReceiveStep, index: u32, halves: &'a HalfTable<Half>) {
        let half = match std::mem::take(&mut self.place) {
            Place::InAHand(half) => half,
            elsewhere => {
                self.place = elsewhere;
                return;
            }
        };
        let asked = std::mem::take(&mut self.asked);
        match step {
            ReceiveStep::GiveBack => assert_eq!(half.give_back(), asked),
            ReceiveStep::Lend => {
                let lent = half.lend();
                assert_eq!(lent.is_ok(), !asked);
                self.place = match lent {
                    Ok(()) => Place::WithAnOperation,
                    Err(half) => Place::InAHand(half),
                };
            }
            _ => drop(half),
        }
        assert!(!halves.is_asked_for(index));
    }

    /// Who has the half in hand changes what waits in it.
    fn use_queue(&mut self, step: ReceiveStep, serial: u64) {
        let Place::InAHand(half) = &mut self.place else { return };
        let Half { queue, ring } = &mut **half;
        match (step, ring.take()) {
            (ReceiveStep::TakeBackRing { received }, Some(mut lent)) => {
                let count = lent.free().min(received.into());
                let bytes = bytes_from(serial, self.received, count);
                assert_eq!(lent.write(&bytes), count);
                let scanned = lent.scanned(3);
                assert!(queue.take_back(lent, &self.room));
                assert_eq!(queue.scanned(3), scanned);
                self.received += count as u64;
            }
            // While the ring is lent there is no queue.
            (_, lent @ Some(_)) => *ring = lent,
            (ReceiveStep::Append { count }, None) => {
                let bytes = bytes_from(serial, self.received, count.into());
                let scanned = queue.len();
                queue.set_scanned(scanned, 3);
                assert!(queue.append(&bytes, &self.room));
                assert_eq!(queue.scanned(3), scanned);
                self.received += u64::from(count);
            }
            (ReceiveStep::Consume { count }, None) => {
                let count = queue.len().min(count.into());
                let scanned = if count == 0 { queue.scanned(3) } else { 0 };
                queue.consume(count, &self.room);
                assert_eq!(queue.scanned(3), scanned);
                self.consumed += count as u64;
            }
            (ReceiveStep::LendRing { free_min }, None) => {
                let waiting = queue.len();
                let lent = queue.lend(free_min.into());
                assert_eq!(lent.len(), waiting);
                assert!(lent.free() >= usize::from(free_min));
                *ring = Some(lent);
            }
            (ReceiveStep::Clear, None) => {
                queue.clear(&self.room);
                self.consumed = self.received;
            }
            (_, None) => {}
        }
        if ring.is_none() {
            assert_eq!(queue.is_empty(), self.room.bytes() == usize::MAX);
            let waiting = (self.received - self.consumed) as usize;
            assert_eq!((queue.len(), queue.is_empty()), (waiting, waiting == 0));
            let bytes = bytes_from(serial, self.consumed, waiting);
            assert!(queue.contents() == bytes, "in order, each once");
        }
    }

    /// The session ends: its half is made new for the slot's next one.
    pub(super) fn end(&mut self, index: u32, halves: &'a HalfTable<Half>) {
        if matches!(self.place, Place::Free) {
            self.take_or_ask(index, halves);
        }
        let Place::InAHand(mut half) = std::mem::take(&mut self.place) else {
            panic!("released under a receive");
        };
        *half = Half::default();
        assert_eq!(half.give_back(), self.asked);
    }
}
