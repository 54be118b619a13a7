//! The frames that members of one audience lack, of which they get the newest of each key.

use std::collections::{BTreeMap, HashMap};

use super::super::publication::Publication;
use super::place::{Given, OPEN, Offered, Place};
use crate::session::SessionId;

/// The numbers are those of the order among the publications to all audiences.
#[derive(Debug, Default)]
pub(super) struct Latest {
    frames: BTreeMap<u64, Kept>,
    /// The number of the newest frame of each key, among those that are kept.
    newest: HashMap<u64, u64>,
    /// How many places are at each number.
    places: BTreeMap<u64, u32>,
    /// How many of them have an end, and the last of these ends.
    ended_places: u32,
    last_end: u64,
}

#[derive(Debug)]
struct Kept {
    publication: Publication,
    /// The number of a newer frame with its key. It is kept all the same for places that end before that.
    superseded_at: u64,
    /// Its bytes count here. If not, they count where every frame is kept, until it goes there.
    counts: bool,
}

impl Kept {
    fn counted_bytes(&self) -> usize {
        if self.counts { self.publication.waiting_bytes() } else { 0 }
    }
}

impl Latest {
    pub(super) fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// Keeps a frame, and says whether its bytes count here. Returns how many bytes counted for the frame of which it
    /// took the place, if there was one.
    pub(super) fn keep(
        &mut self,
        publication: &Publication,
        order: u64,
        counts: bool,
    ) -> Option<usize> {
        let before = publication.key.and_then(|key| self.newest.insert(key, order));
        let superseded = before.and_then(|before| {
            if self.ended_places == 0 || before >= self.last_end {
                return self.frames.remove(&before).map(|kept| kept.counted_bytes());
            }
            self.frames.get_mut(&before)?.superseded_at = order;
            Some(0)
        });
        let kept = Kept { publication: publication.clone(), superseded_at: OPEN, counts };
        self.frames.insert(order, kept);
        superseded
    }

    /// A member falls behind at this number.
    pub(super) fn begin(&mut self, order: u64) {
        *self.places.entry(order).or_default() += 1;
    }

    /// Nothing from this number on is for this place.
    pub(super) fn end_place(&mut self, place: &mut Place, end: u64) {
        if place.end == OPEN {
            self.last_end = if self.ended_places == 0 { end } else { self.last_end.max(end) };
            self.ended_places += 1;
            place.end = end;
        }
    }

    /// Offers a member the frames from its place on, up to this order.
    pub(super) fn give(
        &mut self,
        id: SessionId,
        place: &mut Place,
        until: u64,
        mut offer: impl FnMut(&Publication) -> Offered,
    ) -> Given {
        let begun_at = place.next;
        let given = loop {
            if place.next >= place.end {
                break Given::All;
            }
            let for_place = |(_, kept): &(&u64, &Kept)| kept.superseded_at >= place.end;
            let mut frames = self.frames.range(place.next..place.end).filter(for_place);
            let Some((order, kept)) = frames.next() else { break Given::All };
            (place.next, place.order) = (*order, *order);
            if *order > until {
                break Given::Some;
            }
            let is_meant = kept.publication.except != Some(id);
            if is_meant && offer(&kept.publication) == Offered::NoRoom {
                break Given::NoRoom;
            }
            place.next += 1;
        };
        if place.next != begun_at {
            self.begin(place.next);
            self.leave(begun_at);
        }
        given
    }

    /// The frame with this number goes where every frame is kept. Whether its bytes count here from now on.
    pub(super) fn takes_over(&mut self, number: u64) -> bool {
        self.frames.get_mut(&number).is_some_and(|kept| !std::mem::replace(&mut kept.counts, true))
    }

    /// A place is given up.
    pub(super) fn forget(&mut self, place: &Place) {
        self.ended_places -= u32::from(place.end != OPEN);
        self.leave(place.next);
    }

    fn leave(&mut self, number: u64) {
        if let Some(places) = self.places.get_mut(&number) {
            *places -= 1;
            if *places == 0 {
                self.places.remove(&number);
            }
        }
    }

    /// Lets the frames go that all places have passed. Returns how many bytes those were.
    pub(super) fn trim(&mut self) -> usize {
        let first = self.places.first_key_value().map_or(OPEN, |(number, _)| *number);
        let mut bytes = 0;
        while let Some(entry) = self.frames.first_entry()
            && *entry.key() < first
        {
            let (number, kept) = entry.remove_entry();
            bytes += kept.counted_bytes();
            if let Some(key) = kept.publication.key
                && self.newest.get(&key) == Some(&number)
            {
                self.newest.remove(&key);
            }
        }
        if self.newest.len() < self.newest.capacity() / 4 {
            self.newest.shrink_to(2 * self.newest.len());
        }
        bytes
    }
}
