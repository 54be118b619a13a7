//! Tests of the send queue.

use super::super::policy::Policy;
use super::*;
use crate::buffer::{BatchPool, Envelope, SharedFrame};
use crate::close::Close;

const SOCKET: u32 = 7;

fn push(queue: &mut SendQueue, bytes: &[u8]) -> Result<Pushed, Refusal> {
    queue.push(Frame::One { envelope: &Envelope::EMPTY, body: bytes }, 10, &BatchPool::new(0))
}

fn drain(reason: CloseReason) -> Closing {
    Closing { reason, how: Close::Drain, takes_published: false }
}

/// Completes a send as a port does, at time 1: so many bytes of the batch leave.
fn send(queue: &mut SendQueue, mut batch: Box<SendBatch>, count: usize) -> Sent {
    batch.advance(count);
    queue.sent(batch, count, 1, 10)
}

#[test]
fn the_first_push_arms_and_the_completion_that_finds_nothing_disarms() {
    let mut queue = SendQueue::default();
    assert!(push(&mut queue, b"ab").unwrap().armed);
    assert!(!push(&mut queue, b"c").unwrap().armed);
    let batch = queue.take(|| 0).unwrap();
    assert_eq!((batch.bytes(), batch.frames()), (3, 2));
    assert!(!push(&mut queue, b"de").unwrap().armed, "the send is outstanding");
    assert!(queue.take(|| 0).is_none(), "a second send beside the first");
    let sent = send(&mut queue, batch, 3);
    assert!(sent.goes_on && sent.left.is_some());
    let batch = queue.take(|| 0).unwrap();
    assert_eq!(batch.bytes(), 2);
    let sent = send(&mut queue, batch, 2);
    assert!(!sent.goes_on);
    assert!(push(&mut queue, b"f").unwrap().armed);
}

#[test]
fn nothing_is_queued_behind_the_end_of_our_direction() {
    let published = SharedFrame::new([b"", b"p"]);
    let publish = |queue: &mut SendQueue| {
        queue.push_published(&published, Policy::Close, 10, &BatchPool::new(0))
    };
    let local = drain(CloseReason::Local);
    let farewell = SharedFrame::new([b"", b"bye"]);
    // It is asked for before earlier publications are handed over.
    let mut queue = SendQueue::default();
    assert!(queue.finish(true) && !queue.finish(true));
    assert_eq!(push(&mut queue, b"a"), Err(Refusal::Closing));
    publish(&mut queue).unwrap();
    assert!(!queue.is_to_finish());
    assert!(queue.publications_end() && !queue.publications_end());
    assert_eq!(publish(&mut queue), Err(Refusal::Closing));
    assert!(!queue.is_to_finish(), "it has not left");
    let batch = queue.take(|| 0).unwrap();
    assert!(send(&mut queue, batch, 1).closing && queue.is_to_finish());
    assert!(queue.finished());
    assert!(queue.has_finished() && !queue.is_to_finish());
    // Nor is anything by a close that comes then.
    assert!(queue.close_with(Closing { takes_published: true, ..local }, farewell.clone()));
    assert_eq!(publish(&mut queue), Err(Refusal::Closing));
    assert!(queue.publications_end() && queue.has_drained());
    // A close that comes before the end still has its last word.
    let mut queue = SendQueue::default();
    push(&mut queue, b"a").unwrap();
    assert!(queue.finish(false) && queue.close_with(local, farewell.clone()));
    let batch = queue.take(|| 0).unwrap();
    assert_eq!(batch.bytes(), 4);
    assert!(send(&mut queue, batch, 4).closing && queue.has_drained());
    // Also if the worker has seen already that the end is due.
    let mut queue = SendQueue::default();
    assert!(queue.finish(false) && queue.is_to_finish());
    assert!(queue.close_with(local, farewell) && !queue.finished() && !queue.has_finished());
    assert_eq!(queue.take(|| 0).unwrap().bytes(), 3);
}

#[test]
fn a_farewell_is_last_and_beyond_the_bound_and_a_stop_takes_it_away() {
    let farewell = SharedFrame::new([b"", b"bye"]);
    let local = drain(CloseReason::Kicked { code: 7 });
    let mut queue = SendQueue::default();
    push(&mut queue, &[0; 10]).unwrap();
    assert!(queue.close_with(Closing { takes_published: true, ..local }, farewell.clone()));
    assert!(!queue.close_with(local, farewell.clone()), "it has one");
    assert_eq!(queue.queued_bytes(), 10, "it waits for what was published");
    assert!(queue.publications_end());
    assert_eq!(queue.take(|| 0).unwrap().bytes(), 13);
    let mut queue = SendQueue::default();
    push(&mut queue, &[0; 10]).unwrap();
    queue.close_with(Closing { takes_published: true, ..local }, farewell);
    assert!(queue.close(Closing::stop(CloseReason::DrainTimeout)));
    queue.publications_end();
    assert_eq!(queue.queued_bytes(), 10);
    assert_eq!(queue.closing().unwrap().reason, CloseReason::DrainTimeout, "it was cut short");
}

#[test]
fn room_is_there_when_as_much_has_left_and_once() {
    let mut queue = SendQueue::default();
    push(&mut queue, &[0; 8]).unwrap();
    queue.want_room(5);
    queue.want_room(3);
    assert!(!queue.has_wanted_room(10), "the most that was asked for");
    let batch = queue.take(|| 0).unwrap();
    assert!(!send(&mut queue, batch, 2).has_wanted_room);
    let batch = queue.take(|| 0).unwrap();
    assert!(send(&mut queue, batch, 1).has_wanted_room && queue.has_wanted_room(10));
    queue.room_is_told();
    assert!(!queue.has_wanted_room(10));
    queue.want_room(1);
    queue.close(drain(CloseReason::Local));
    assert!(!queue.has_wanted_room(10), "it takes no more");
}

/// A task that counts its wakes.
#[derive(Default)]
struct Woken(std::sync::atomic::AtomicUsize);

impl std::task::Wake for Woken {
    fn wake(self: std::sync::Arc<Self>) {
        self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    }
}

fn wakes(woken: &std::sync::Arc<Woken>) -> Wakes {
    Wakes::Task(woken.clone().into())
}

#[test]
fn who_waits_is_told_when_there_is_room_or_there_will_be_none_and_once() {
    let woken: [_; 3] = std::array::from_fn(|_| std::sync::Arc::<Woken>::default());
    let told = || woken.each_ref().map(|woken| woken.0.load(std::sync::atomic::Ordering::Relaxed));
    let tell = |queue: &mut SendQueue| queue.take_told(10).calls().for_each(|call| call());
    let mut queue = SendQueue::default();
    push(&mut queue, &[0; 8]).unwrap();
    let (found, unused) = queue.look_for_room(2, 10, None, wakes(&woken[0]));
    assert!(found == RoomFound::Yes && unused.is_some());
    let keys = [3, 5, 9].map(|bytes| {
        match queue.look_for_room(bytes, 10, None, wakes(&woken[bytes / 4])) {
            (RoomFound::Waits(key), None) => key,
            other => panic!("{other:?}"),
        }
    });
    let again = queue.look_for_room(5, 10, Some(keys[1]), wakes(&woken[1]));
    assert!(again.0 == RoomFound::Waits(keys[1]) && again.1.is_some(), "in its own place");
    assert!(!queue.has_told(10));
    let batch = queue.take(|| 0).unwrap();
    assert!(send(&mut queue, batch, 3).has_wanted_room && queue.has_told(10));
    tell(&mut queue);
    assert_eq!(told(), [1, 1, 0], "all that have room");
    assert!(!queue.has_told(10) && queue.forget_waiter(keys[0]).is_none());
    queue.close(drain(CloseReason::Local));
    assert!(queue.has_told(10));
    tell(&mut queue);
    assert_eq!(told(), [1, 1, 1]);
    assert_eq!(queue.look_for_room(1, 10, None, wakes(&woken[0])).0, RoomFound::Never);
    assert_eq!(queue.wait_for_room(1, None, wakes(&woken[0])).0, RoomFound::Never);
    assert!(!queue.has_told(10));
}

#[test]
fn who_has_missed_a_publication_since_a_limit_gets_no_later_one_with_its_last_word() {
    let (published, farewell) =
        (SharedFrame::new([b"", b"p"]), Some(SharedFrame::new([b"", b"bye"])));
    let of_a_limit = |how, takes_published| Closing {
        reason: CloseReason::FrameTooLarge { bytes: 9, max: 1 },
        how,
        takes_published,
    };
    for (how, takes_published) in
        [(Close::Stop, false), (Close::Drain, false), (Close::Drain, true)]
    {
        let (mut queue, pool) = (SendQueue::default(), BatchPool::new(0));
        let takes = |queue: &mut SendQueue| {
            queue.push_published(&published, Policy::Close, 10, &pool).is_ok()
        };
        assert!(queue.close(of_a_limit(how, takes_published)));
        assert_eq!(takes(&mut queue), takes_published);
        queue.ask_for_last_word();
        assert!(queue.answer_last_word(farewell.clone()));
        assert_eq!(takes(&mut queue), takes_published);
        assert_eq!(queue.publications_end(), takes_published);
        let leaves = queue.take(|| 0).unwrap().bytes();
        assert_eq!(leaves, if takes_published { 5 } else { 3 });
    }
}

#[test]
fn the_handler_is_asked_for_a_last_word_once_and_only_after_a_limit() {
    let limit = || Closing::stop(CloseReason::IdleTimeout);
    let farewell = || Some(SharedFrame::new([b"", b"bye"]));
    for reason in [CloseReason::Stopped, CloseReason::Reset, CloseReason::DrainTimeout] {
        let mut queue = SendQueue::default();
        assert!(queue.close(Closing::stop(reason)) && !queue.is_last_word_due());
    }
    // With an answer it drains, and the answer leaves.
    let mut queue = SendQueue::default();
    assert!(queue.close(limit()) && queue.is_last_word_due() && !queue.has_drained());
    assert!(!queue.close(drain(CloseReason::Local)), "it is closing");
    assert!(!queue.close(Closing::stop(CloseReason::SlowConsumer { queued: 1 })), "a limit too");
    assert_eq!(queue.ask_for_last_word(), Some(CloseReason::IdleTimeout));
    assert!(!queue.is_last_word_due() && !queue.has_drained());
    assert!(queue.answer_last_word(farewell()));
    assert_eq!(queue.closing(), Some(drain(CloseReason::IdleTimeout)));
    assert_eq!(queue.take(|| 0).unwrap().bytes(), 3);
    // Without one it ends as it was to.
    let mut queue = SendQueue::default();
    queue.close(limit());
    queue.ask_for_last_word();
    assert!(!queue.answer_last_word(None) && queue.has_drained());
    assert_eq!(queue.closing(), Some(limit()));
    // A stop before the answer has its way, and one after it too.
    for stops_at in 0..3 {
        let mut queue = SendQueue::default();
        let stop = |queue: &mut SendQueue, at| {
            stops_at != at || queue.close(Closing::stop(CloseReason::Stopped))
        };
        queue.close(limit());
        assert!(stop(&mut queue, 0));
        assert_eq!(queue.ask_for_last_word().is_some(), stops_at > 0);
        if stops_at > 0 {
            assert!(stop(&mut queue, 1));
            assert_eq!(queue.answer_last_word(farewell()), stops_at == 2);
            assert!(stop(&mut queue, 2));
        }
        assert_eq!(queue.closing(), Some(limit()), "{stops_at}");
        assert!(!queue.is_last_word_due());
        // (What was queued before a stop stays there, and is not sent.)
        assert_eq!(queue.take(|| 0).is_some(), stops_at == 2);
    }
}

#[test]
fn what_is_queued_before_the_connection_stands_waits_for_it() {
    let mut queue = SendQueue::default();
    queue.hold_back(true);
    assert!(push(&mut queue, b"early").unwrap().armed);
    assert!(queue.take(|| 0).is_none());
    queue.hold_back(false);
    assert_eq!(queue.take(|| 0).unwrap().bytes(), 5);
}

#[test]
fn what_has_left_in_part_goes_before_what_waits() {
    let mut queue = SendQueue::default();
    push(&mut queue, b"abc").unwrap();
    let batch = queue.take(|| 0).unwrap();
    push(&mut queue, b"de").unwrap();
    let sent = send(&mut queue, batch, 2);
    assert!(sent.goes_on && sent.left.is_none());
    assert_eq!(sent.queued_bytes, 3);
    assert_eq!(queue.take(|| 0).unwrap().bytes(), 1);
}

#[test]
fn a_frame_is_queued_whole_or_refused_and_what_is_being_sent_still_counts() {
    let mut queue = SendQueue::default();
    push(&mut queue, &[0; 6]).unwrap();
    let batch = queue.take(|| 0).unwrap();
    assert_eq!(push(&mut queue, &[0; 5]), Err(Refusal::Full { queued_bytes: 6 }));
    send(&mut queue, batch, 1);
    assert_eq!(push(&mut queue, &[0; 5]).unwrap().queued_bytes, 10);
    assert_eq!(push(&mut queue, &[0; 1]), Err(Refusal::Full { queued_bytes: 10 }));
}

#[test]
fn a_pause_begins_above_its_mark_and_ends_at_a_lower_one() {
    let mut queue = SendQueue::default();
    push(&mut queue, &[0; 6]).unwrap();
    assert!(!queue.pause_is_to_change(6, 2) && !queue.is_paused(6, 2));
    push(&mut queue, &[0; 1]).unwrap();
    assert!(queue.pause_is_to_change(6, 2) && queue.is_paused(6, 2));
    assert!(!queue.pause_is_to_change(6, 2), "it has it");
    let batch = queue.take(|| 0).unwrap();
    assert!(send(&mut queue, batch, 4).paused);
    assert!(queue.is_paused(6, 2), "between the marks");
    let batch = queue.take(|| 0).unwrap();
    assert!(send(&mut queue, batch, 1).paused, "who looks next ends it");
    assert!(queue.pause_is_to_change(6, 2) && !queue.is_paused(6, 2));
}

#[test]
fn a_stall_is_counted_from_when_bytes_last_left_or_began_to() {
    let mut queue = SendQueue::default();
    assert_eq!(queue.waits_since(), None);
    push(&mut queue, b"abc").unwrap();
    let batch = queue.take(|| 7).unwrap();
    assert_eq!(queue.waits_since(), Some(7));
    send(&mut queue, batch, 1);
    assert_eq!(queue.waits_since(), Some(1));
    let batch = queue.take(|| 9).unwrap();
    assert_eq!(queue.waits_since(), Some(1), "it goes on, it does not begin");
    send(&mut queue, batch, 2);
    push(&mut queue, b"later").unwrap();
    assert_eq!(queue.waits_since(), None, "the silence before it is no stall");
}

/// A socket with room for so many bytes, and what it took.
#[derive(Debug)]
struct Room(usize, std::sync::Mutex<Vec<u8>>);

impl Room {
    fn took(&self) -> Vec<u8> {
        std::mem::take(&mut self.1.lock().unwrap())
    }
}

impl Direct for Room {
    fn send(
        &self,
        registration: u32,
        parts: &[std::io::IoSlice<'_>],
    ) -> Result<usize, CloseReason> {
        assert_eq!(registration, SOCKET);
        let bytes = crate::framing::Parts(parts).iter().collect::<Vec<_>>();
        let count = bytes.len().min(self.0);
        self.1.lock().unwrap().extend_from_slice(&bytes[..count]);
        Ok(count)
    }
}

/// Pushes a frame that may leave at once. Returns how many of its bytes did.
fn push_at_once(
    queue: &mut SendQueue,
    mut frame: Frame<'_>,
    bytes_max: usize,
    direct: &dyn Direct,
) -> Result<(Pushed, usize), Refusal> {
    let mut left_bytes = 0;
    if queue.has_nothing_before(&frame, bytes_max) {
        left_bytes = queue.send_at_once(&mut frame, direct, SOCKET, 0)?;
    }
    Ok((queue.push(frame, bytes_max, &BatchPool::new(0))?, left_bytes))
}

#[test]
fn a_frame_leaves_at_once_if_nothing_is_before_it_and_the_rest_is_queued() {
    let body: Vec<u8> = (0..4096).map(|at| at as u8).collect();
    let parts = [&b"head"[..], &body].map(IoSlice::new);
    let frame = Frame::Parts { envelope: &Envelope::EMPTY, parts: &parts, left_bytes: 0 };
    let whole = [b"head", &body[..]].concat();
    for room in [0, 2, 4, 1_000, whole.len()] {
        let room = Room(room, std::sync::Mutex::default());
        let mut queue = SendQueue::default();
        let pushed = push_at_once(&mut queue, frame, 1 << 20, &room).unwrap();
        let rest = whole.len() - room.0;
        assert_eq!(pushed, (Pushed { armed: rest > 0, queued_bytes: rest }, room.0));
        let mut wire = room.took();
        if rest > 0 {
            push_at_once(&mut queue, frame, 1 << 20, &room).unwrap();
            assert!(room.took().is_empty(), "it would overtake the rest");
            let batch = queue.take(|| 0).unwrap();
            push_at_once(&mut queue, frame, 1 << 20, &room).unwrap();
            assert!(room.took().is_empty(), "it would overtake the send");
            let mut slices = [std::io::IoSlice::new(&[]); 4];
            let count = batch.gather(&mut slices);
            slices[..count].iter().for_each(|slice| wire.extend_from_slice(slice));
            assert!(wire == [&whole[..], &whole].concat());
        } else {
            assert!(wire == whole);
        }
    }
}

#[test]
fn what_may_not_leave_yet_is_queued() {
    let parts = [IoSlice::new(&[0; 200])];
    let frame = Frame::Parts { envelope: &Envelope::EMPTY, parts: &parts, left_bytes: 0 };
    let room = Room(usize::MAX, std::sync::Mutex::default());
    let mut queue = SendQueue::default();
    queue.hold_back(true);
    push_at_once(&mut queue, frame, 1 << 20, &room).unwrap();
    let mut queue = SendQueue::default();
    assert!(push_at_once(&mut queue, frame, 100, &room).is_err());
    queue.close(drain(CloseReason::Local));
    assert!(push_at_once(&mut queue, frame, 1 << 20, &room).is_err());
    assert!(room.took().is_empty());
}

/// A socket whose peer has reset.
#[derive(Debug)]
struct Broken;

impl Direct for Broken {
    fn send(&self, _: u32, _: &[std::io::IoSlice<'_>]) -> Result<usize, CloseReason> {
        Err(CloseReason::Reset)
    }
}

#[test]
fn a_socket_that_says_it_has_failed_is_the_reason_whoever_comes_next() {
    let mut queue = SendQueue::default();
    let parts = [IoSlice::new(&[0; 200])];
    let frame = Frame::Parts { envelope: &Envelope::EMPTY, parts: &parts, left_bytes: 0 };
    let pushed = push_at_once(&mut queue, frame, 1 << 20, &Broken);
    assert_eq!((pushed, queue.queued_bytes()), (Err(Refusal::Failed), 0));
    queue.close(drain(CloseReason::PeerClosed));
    assert_eq!(queue.closing(), Some(Closing::stop(CloseReason::Reset)));
    let pushed = push_at_once(&mut queue, frame, 1 << 20, &Broken);
    assert_eq!(pushed, Err(Refusal::Closing));
}

#[test]
fn nothing_is_queued_after_closing_was_asked_and_the_first_reason_stays() {
    let mut queue = SendQueue::default();
    queue.close(drain(CloseReason::Local));
    queue.close(Closing::stop(CloseReason::Reset));
    assert_eq!(queue.closing(), Some(Closing::stop(CloseReason::Local)), "nothing was lost");

    let mut queue = SendQueue::default();
    push(&mut queue, b"a").unwrap();
    assert!(queue.close(drain(CloseReason::Local)));
    assert_eq!(push(&mut queue, b"b"), Err(Refusal::Closing));
    assert!(!queue.close(drain(CloseReason::Reset)));
    assert!(queue.close(Closing::stop(CloseReason::Reset)));
    assert_eq!(queue.closing(), Some(Closing::stop(CloseReason::Reset)), "it was cut short");
    assert!(!queue.is_new());
    assert_eq!(queue.end().batches[1].as_ref().unwrap().bytes(), 1);
    assert!(queue.is_new());
    assert!(push(&mut queue, b"c").unwrap().armed, "the slot's next session begins anew");
}

#[test]
fn what_was_published_before_a_drain_is_queued_and_nothing_else_is() {
    let (mut queue, pool) = (SendQueue::default(), BatchPool::new(0));
    let shared = SharedFrame::new([b"", b"ab"]);
    queue.close(Closing { takes_published: true, ..drain(CloseReason::Local) });
    assert!(!queue.has_drained(), "something may still come");
    assert_eq!(push(&mut queue, b"c"), Err(Refusal::Closing));
    assert_eq!(queue.push(Frame::Shared(&shared), 10, &pool), Err(Refusal::Closing), "nor encoded");
    assert!(queue.push_published(&shared, Policy::Close, 10, &pool).unwrap().armed);
    assert!(queue.publications_end() && !queue.publications_end());
    assert_eq!(queue.push_published(&shared, Policy::Close, 10, &pool), Err(Refusal::Closing));
    assert!(!queue.has_drained());
    let batch = queue.take(|| 0).unwrap();
    send(&mut queue, batch, 2);
    assert!(queue.has_drained());

    let mut queue = SendQueue::default();
    queue.close(Closing { takes_published: true, ..drain(CloseReason::Local) });
    queue.close(Closing::stop(CloseReason::Reset));
    assert_eq!(queue.push_published(&shared, Policy::Close, 10, &pool), Err(Refusal::Closing));
    assert!(!queue.publications_end(), "a stop waits for nothing");
}

#[test]
fn what_the_peer_sends_or_does_not_send_cuts_no_drain_short() {
    for reason in [
        CloseReason::IdleTimeout,
        CloseReason::FirstFrameTimeout,
        CloseReason::ReceiveQueueFull { queued: 1 },
    ] {
        let mut queue = SendQueue::default();
        push(&mut queue, b"a").unwrap();
        let kicked = drain(CloseReason::Kicked { code: 1 });
        assert!(queue.close(kicked) && !queue.close(Closing::stop(reason)));
        assert_eq!(queue.closing(), Some(kicked));
        assert!(queue.close(Closing::stop(CloseReason::Reset)), "which does");
    }
}

#[cfg(feature = "websocket")]
#[test]
fn what_a_transport_says_takes_its_batch_from_the_pool() {
    const FIRST: Frame<'_> = Frame::One { envelope: &Envelope::EMPTY, body: b"first" };
    let pool = BatchPool::new(1);
    let says: [fn(&mut SendQueue, &BatchPool); 3] = [
        |queue, pool| queue.push_first(FIRST, pool),
        |queue, pool| queue.push_ahead(FIRST, pool),
        |queue, pool| queue.say_close(b"close", pool),
    ];
    for say in says {
        let batch = pool.take();
        let pooled = &raw const *batch;
        pool.give_back(batch);
        let mut queue = SendQueue::default();
        say(&mut queue, &pool);
        let batch = queue.take(|| 0).unwrap();
        assert!(std::ptr::eq(&raw const *batch, pooled) && batch.bytes() == 5);
    }
}

#[cfg(feature = "websocket")]
#[test]
fn a_control_frame_that_waits_for_room_does_not_follow_a_newer_one_of_its_kind() {
    let mut queue = SendQueue::default();
    let control = |queue: &mut SendQueue, frame: &[u8]| {
        queue.push_control(frame, 10, IfFull::KeepNewest, &BatchPool::new(0)).is_some()
    };
    assert!(push(&mut queue, b"0123456789").is_ok() && control(&mut queue, &[b'x'; 4_096]));
    assert!(!control(&mut queue, b"pong 1"), "there is no room");
    let batch = queue.take(|| 0).unwrap();
    let rest = send(&mut queue, batch, 20).left;
    assert!(rest.is_none() && control(&mut queue, b"pong 2"));
    let mut left = 20;
    while let Some(batch) = queue.take(|| 0) {
        let bytes = batch.bytes();
        left += bytes;
        send(&mut queue, batch, bytes);
    }
    assert_eq!(left, 10 + 4_096 + b"pong 2".len());
}

#[cfg(feature = "websocket")]
#[test]
fn a_ping_that_still_finds_room_does_not_cost_the_pong_that_waits_for_it() {
    let mut queue = SendQueue::default();
    let control = |queue: &mut SendQueue, frame: &[u8], if_full| {
        queue.push_control(frame, 10, if_full, &BatchPool::new(0)).is_some()
    };
    assert!(push(&mut queue, b"0123456789").is_ok());
    assert!(control(&mut queue, &[b'x'; 4_093], IfFull::KeepNewest));
    assert!(!control(&mut queue, b"pong", IfFull::KeepNewest), "there is no room");
    assert!(control(&mut queue, b"pi", IfFull::Drop), "there is for this one");
    let mut left = 0;
    while let Some(batch) = queue.take(|| 0) {
        let bytes = batch.bytes();
        left += bytes;
        send(&mut queue, batch, bytes);
    }
    assert_eq!(left, 10 + 4_093 + b"pi".len() + b"pong".len());
}
