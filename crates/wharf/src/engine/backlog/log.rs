//! The frames that members of one audience lack, each of which they get.

use std::collections::VecDeque;

use super::super::publication::Publication;
use super::place::{Given, Offered, Place};
use crate::session::SessionId;

#[derive(Debug, Default)]
pub(super) struct Log {
    frames: VecDeque<Lacked>,
    /// The number of the first of them.
    first: u64,
}

#[derive(Debug)]
struct Lacked {
    publication: Publication,
    /// Its place among the publications to all audiences.
    order: u64,
    /// How many places are at this frame.
    places: u32,
}

impl Log {
    /// Every place is at a frame.
    pub(super) fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// The number of the next frame.
    pub(super) fn end(&self) -> u64 {
        self.first + self.frames.len() as u64
    }

    /// Keeps a frame at which so many places begin.
    pub(super) fn keep(&mut self, publication: &Publication, order: u64, places: u32) {
        self.frames.push_back(Lacked { publication: publication.clone(), order, places });
    }

    /// Offers a member the frames from its place on, up to this order.
    pub(super) fn give(
        &mut self,
        id: SessionId,
        place: &mut Place,
        until: u64,
        mut offer: impl FnMut(&Publication) -> Offered,
    ) -> Given {
        loop {
            let index = (place.next - self.first) as usize;
            let lacked = &mut self.frames[index];
            let is_meant = lacked.publication.except != Some(id);
            if is_meant && offer(&lacked.publication) == Offered::NoRoom {
                return Given::NoRoom;
            }
            lacked.places -= 1;
            place.next += 1;
            if place.next >= place.end {
                return Given::All;
            }
            let Some(next) = self.frames.get_mut(index + 1) else { return Given::All };
            next.places += 1;
            place.order = next.order;
            if place.order > until {
                return Given::Some;
            }
        }
    }

    /// A place is given up.
    pub(super) fn forget(&mut self, place: &Place) {
        self.frames[(place.next - self.first) as usize].places -= 1;
    }

    /// Lets the frames go that all places have passed. Returns how many bytes those were, without the frames that are
    /// taken over.
    pub(super) fn trim(&mut self, mut is_taken_over: impl FnMut(u64) -> bool) -> usize {
        let mut bytes = 0;
        while let Some(lacked) = self.frames.pop_front() {
            if lacked.places > 0 {
                self.frames.push_front(lacked);
                break;
            }
            if !is_taken_over(lacked.order) {
                bytes += lacked.publication.waiting_bytes();
            }
            self.first += 1;
        }
        if self.frames.len() < self.frames.capacity() / 4 {
            self.frames.shrink_to(2 * self.frames.len());
        }
        bytes
    }
}
