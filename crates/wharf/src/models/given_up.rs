//! A session that is given up before it arrives, because its worker has ended.
//!
//! One worker accepts a session for another, which asks all its sessions to end and ends itself, at any
//! moment between taking the slot and the mail. A third thread knows the session's id, closes it and joins it
//! to a group. Shown: the holder of the last count releases it, once; the worker waits for sessions that it
//! has found; and the next session, which may get the slot at once, is new: it takes a frame, and can be
//! closed. The same for a connect begun by a program's thread, whose context is dropped once, and which is answered
//! once, whoever holds it.

use std::net::SocketAddr;
use std::sync::Arc;

use loom::thread;

use super::{explore, ports};
use crate::CloseReason;
use crate::close::Close;
use crate::engine::{Content, Engine, Group, Mail};
use crate::face::Handle;
use crate::options::Target;
use crate::session::SessionId;
use crate::sync::yield_now;

const PEER: ([u8; 4], u16) = ([127, 0, 0, 1], 9);

/// A context, of which each copy counts.
#[derive(Clone, Default)]
struct Counted(Arc<()>);

/// The end of port 0's only worker: its walk, and what `Floor::take_last_mail` does.
fn end_port_0(engine: &Engine, reason: CloseReason, how: Close) -> usize {
    let mut answered = 0;
    let share = &engine.ports[0];
    let mut to_release = Vec::new();
    engine.ask_all_to_close(0, reason, how, |id, was_last| {
        if was_last {
            to_release.push(id);
        }
    });
    let mut answer = |mails: &mut Vec<Mail>| {
        for mail in mails.drain(..) {
            match mail {
                Mail::Arrival(id, ..) => engine.abandon(id),
                Mail::Connect(id, ..) => engine.give_up_connect(id, |_| answered += 1),
                Mail::Release(id) => to_release.push(id),
                Mail::Attend(_)
                | Mail::End(_)
                | Mail::Groups
                | Mail::Budget
                | Mail::Announce
                | Mail::StopAccepting
                | Mail::Drain
                | Mail::Stop => {}
            }
        }
        to_release.drain(..).for_each(|id| engine.release(id, 0));
    };
    let mut mails = Vec::new();
    loop {
        share.mailbox.take(&mut mails);
        answer(&mut mails);
        if share.assigned_sessions() == 0 {
            break;
        }
        yield_now();
    }
    answer(&mut share.mailbox.close());
    answered
}

/// As `Worker::admit`, for another port. Returns how many answers are due: none.
fn accept_for_port_0(engine: &Engine) -> usize {
    let id = engine.admit(None, 0).expect("there is room");
    assert_eq!(engine.table.held(id).expect("the hold is there").port(), 0);
    let socket = engine.sockets.to_connect(&SocketAddr::from(PEER).into()).expect("a socket");
    if engine.ports[0].mailbox.post(Mail::Arrival(id, socket, None)).is_err() {
        engine.abandon(id);
    }
    0
}

fn use_next(engine: &Engine, id: SessionId) {
    assert!(engine.send(id, Content::Plain(b"frame")));
    let slot = engine.table.held(id).unwrap();
    assert!(!slot.has_context() && engine.contexts.of(id, slot).is_none());
    assert!(!slot.is_opened() && !slot.is_in_groups() && !slot.count.is_closing());
    let mut queue = slot.send_queue.lock();
    assert_eq!(queue.queued_bytes(), 5, "something of another session's is queued");
    assert_eq!(queue.take(|| 0).map(|batch| batch.bytes()), Some(5));
    drop(queue);
    assert!(engine.ask_to_close(id, slot, CloseReason::Local, Close::Stop));
    assert!(slot.count.is_closing());
}

/// `begin` returns how many answers are due.
fn a_session_is_given_up(
    begin: impl Fn(&Arc<Engine>) -> usize,
    how: Close,
    others: fn(&Handle, SessionId),
) {
    let (engine, _) = ports(1);
    let reason = if how == Close::Drain { CloseReason::Drained } else { CloseReason::Stopped };
    let ending = thread::spawn({
        let engine = engine.clone();
        move || end_port_0(&engine, reason, how)
    });
    let other = thread::spawn({
        let handle = Handle::new(engine.clone());
        move || others(&handle, SessionId::new(0, 0))
    });
    let due = begin(&engine);
    // Its next session takes the slot as soon as it is free; by the end at the latest.
    let next = engine.admit(Some(1), 0).inspect(|next| use_next(&engine, *next));
    assert_eq!(ending.join().unwrap(), due, "of the connects that were begun");
    other.join().unwrap();
    assert_eq!(engine.ports[0].assigned_sessions(), 0);
    let next = next.unwrap_or_else(|| {
        let next = engine.admit(Some(1), 0).expect("the slot was given back");
        use_next(&engine, next);
        next
    });
    assert!(engine.ports[0].groups.has_no_members());
    assert_eq!(format!("{:?}", engine.contexts), "Contexts(0)", "one has outlived its session");
    assert!(engine.table.held(next).unwrap().count.lower());
    engine.release(next, 1);
}

#[test]
fn a_session_accepted_for_a_worker_that_drains_and_ends_leaves_the_slot_new() {
    explore("given up: an arrival, a drain, a close", || {
        let close = |handle: &Handle, id| {
            handle.close(id, Close::Drain);
        };
        a_session_is_given_up(|engine| accept_for_port_0(engine), Close::Drain, close);
    });
}

#[test]
fn a_session_accepted_for_a_worker_that_stops_and_ends_is_no_member_of_anything() {
    explore("given up: an arrival, a stop, a join", || {
        let join = |handle: &Handle, id| {
            let _ = handle.join(id, Group(1));
        };
        a_session_is_given_up(|engine| accept_for_port_0(engine), Close::Stop, join);
    });
}

#[test]
fn a_connect_that_its_worker_has_no_time_for_leaves_the_slot_new() {
    explore("given up: a connect, a drain, a send", || {
        let connect = |engine: &Arc<Engine>, counted: &Counted| {
            let target = Target::new(SocketAddr::from(PEER)).context(counted.clone());
            usize::from(Handle::new(engine.clone()).connect(target).is_ok())
        };
        let send = |handle: &Handle, id| {
            let _ = handle.send(id, b"early");
        };
        let counted = Counted::default();
        a_session_is_given_up(|engine| connect(engine, &counted), Close::Drain, send);
        assert_eq!(Arc::strong_count(&counted.0), 1, "a context was kept");
    });
}
