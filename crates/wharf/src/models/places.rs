//! A member without room for a publication: its place, against the completion that refills its send queue.
//!
//! On a shared port one worker hands a publication over while another has a completion of the member's. Shown: in
//! every order the member gets the frame without any further event, and what it is sent after it stands behind it;
//! a leave keeps what was published before, and nothing else; a member that ends leaves nothing behind.

use std::io::IoSlice;
use std::sync::Arc;
use std::time::Duration;

use loom::thread;

use super::{engine, explore};
use crate::clock::Moment;
use crate::engine::{
    Audience, Content, Due, Engine, Group, HandedOver, Offered, Publication, Share,
};
use crate::face::Handle;
use crate::session::{SessionId, Slot};

const ROOM: Group = Group(1);

/// A member whose send queue is full, with all of it being sent.
struct Member {
    engine: Arc<Engine>,
    id: SessionId,
}

impl Member {
    fn full() -> Member {
        let (mut engine, _port) = engine(true, 1);
        let options = &mut Arc::get_mut(&mut engine).expect("nobody else has it yet").options;
        options.sending.queue_bytes_max = 4;
        let id = engine.admit(None, 0).unwrap();
        let handle = Handle::new(engine.clone());
        assert!(handle.join(id, ROOM).unwrap());
        let member = Member { engine, id };
        member.hand_over();
        handle.send(id, b"full").expect("there is room");
        member
    }

    fn clone(&self) -> Member {
        Member { engine: self.engine.clone(), id: self.id }
    }

    fn slot(&self) -> &Slot {
        self.engine.table.held(self.id).unwrap()
    }

    fn publish(&self, bytes: &[u8]) {
        Handle::new(self.engine.clone()).publish(ROOM, bytes).unwrap();
    }

    /// As the worker that is told of requests.
    fn hand_over(&self) {
        let groups = &self.engine.ports[0].groups;
        let (now, slow_after) = (Moment::default(), Duration::from_secs(5));
        groups.work_off(Share::everything(), now, slow_after, |due| {
            let Due::Publication(publication, to, without_room) = due else { return 1 };
            for id in to.ids.expect("it is for members") {
                let Some(reference) = self.engine.table.look_up(*id) else { continue };
                let slot = reference.slot();
                let form = |_| publication.frame.only_form().unwrap();
                let HandedOver { has_room, .. } = match publication.to {
                    Audience::One(_) => {
                        self.engine.push_placed(slot, &publication.frame, to.policy, false)
                    }
                    _ => self.engine.push_published(slot, form, to.policy),
                };
                if !has_room {
                    without_room.push((*id, to.policy));
                }
                assert!(!reference.end(), "the session's own count is there");
            }
            1
        });
    }

    /// As the worker that has the completion of what is being sent. Returns what has left.
    fn complete(&self) -> Vec<u8> {
        let (slot, max) = (self.slot(), self.engine.options.sending.queue_bytes_max);
        let Some(mut batch) = slot.send_queue.lock().take(|| 0) else { return Vec::new() };
        let mut left = Vec::new();
        while batch.bytes() > 0 {
            let mut slices = [IoSlice::new(&[]); 4];
            let count = batch.gather(&mut slices);
            let bytes: Vec<u8> = slices[..count].iter().flat_map(|slice| slice.to_vec()).collect();
            batch.advance(bytes.len());
            left.extend(bytes);
        }
        let sent = slot.send_queue.lock().sent(batch, left.len(), 0, max);
        if sent.has_wanted_room {
            self.refill();
        }
        left
    }

    fn refill(&self) {
        if !self.slot().send_queue.lock().is_to_refill() {
            return;
        }
        let slot = self.slot();
        let offer = |publication: &Publication, policy| {
            let is_placed = matches!(publication.to, Audience::One(_));
            match self.engine.push_lacked(slot, &publication.frame, policy, is_placed).0 {
                true => Offered::Taken,
                false => Offered::NoRoom,
            }
        };
        self.engine.ports[0].groups.refill(self.id, offer, |_| slot.send_queue.lock().caught_up(0));
    }

    /// What leaves from now on, if nothing else happens.
    fn all(&self) -> Vec<u8> {
        let mut all = Vec::new();
        loop {
            let left = self.complete();
            if left.is_empty() {
                break;
            }
            all.extend(left);
        }
        let queue = self.slot().send_queue.lock();
        assert!(!queue.is_behind(), "it lacks something that nobody sees to");
        all
    }
}

#[test]
fn a_frame_without_room_is_not_lost_between_its_place_and_the_completion() {
    explore("places: a frame without room, a completion", || {
        let member = Member::full();
        let other = member.clone();
        let completes = thread::spawn(move || other.complete());
        member.publish(b"a");
        member.hand_over();
        let mut left = completes.join().unwrap();
        left.extend(member.all());
        assert_eq!(left, b"fulla");
    });
}

#[test]
fn a_send_stands_behind_the_publications_that_the_session_lacks() {
    explore("places: a frame, a send, a completion", || {
        let member = Member::full();
        let other = member.clone();
        let completes = thread::spawn(move || other.complete());
        member.publish(b"a");
        member.hand_over();
        let sent = member.engine.send(member.id, Content::Plain(b"b"));
        let mut left = completes.join().unwrap();
        member.hand_over(); // the send, if it waits its turn
        left.extend(member.all());
        assert!(sent, "it lacks a frame, or has room");
        assert_eq!(left, b"fullab");
    });
}

#[test]
fn who_leaves_gets_what_was_published_before_and_nothing_else() {
    explore("places: a frame, a leave, a frame; a completion", || {
        let member = Member::full();
        let other = member.clone();
        let completes = thread::spawn(move || other.complete());
        member.publish(b"a");
        member.engine.leave(member.id, ROOM);
        member.publish(b"b");
        member.hand_over();
        let mut left = completes.join().unwrap();
        left.extend(member.all());
        assert_eq!(left, b"fulla");
    });
}

#[test]
fn who_ends_while_it_lacks_something_leaves_nothing_behind() {
    explore("places: a frame without room, an end", || {
        let member = Member::full();
        let other = member.clone();
        let hands_over = thread::spawn(move || other.hand_over());
        member.publish(b"a");
        member.hand_over();
        hands_over.join().unwrap();
        member.engine.end_memberships(member.id, member.slot());
        member.hand_over();
        let groups = &member.engine.ports[0].groups;
        assert!(groups.has_no_members() && groups.holds_nothing());
    });
}
