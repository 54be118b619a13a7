//! Sessions whose frames a loop of the program's takes as events, from a queue that one frame fills.
//!
//! Shown: a session that was paused for want of room goes on as soon as the loop has made room, or has gone, without any
//! further event (one that stays paused is a deadlock). No frame is lost, and those of a session come in order.

use std::sync::Arc;
use std::time::Duration;

use loom::thread;

use super::port::ModelPort;
use super::{engine, explore, ports};
use crate::engine::{Engine, Mail};
use crate::face::{Desk, Event, EventHandler, Events, Handle, Handler, Session, events};
use crate::peer_address::Peer;
use crate::session::SessionId;

/// The worker of a session for which so many frames are there: it sleeps while the session is paused. Returns how many
/// were received before the session closes.
fn serve(
    engine: &Arc<Engine>,
    port: &ModelPort,
    handler: &EventHandler,
    id: SessionId,
    frames: u8,
) -> u8 {
    let slot = engine.table.held(id).expect("it has its own count");
    let mailbox = &engine.ports[slot.port()].mailbox;
    let session = Session::new(Desk::new(Handle::new(engine.clone()), 0));
    handler.opened(session.be(id, Peer::Unknown));
    let mut mails = Vec::new();
    for number in 0..frames {
        while slot.is_asked_to_pause() {
            if mailbox.may_sleep() {
                port.wait();
            }
            mailbox.take(&mut mails);
            mails.drain(..).for_each(|mail| assert!(matches!(mail, Mail::Attend(_)), "{mail:?}"));
        }
        if slot.closing().is_some() {
            return number;
        }
        handler.received(&session, &mut (), &[number]);
    }
    frames
}

/// Takes so many frames of each session, and looks once more.
fn take(events: &mut Events, sessions: usize, frames: u8) {
    let mut next: Vec<(SessionId, u8)> = Vec::new();
    while next.len() < sessions || next.iter().any(|(_, next)| *next < frames) {
        match events.next_timeout(Duration::MAX) {
            Some(Event::Opened { id, .. }) => next.push((id, 0)),
            Some(Event::Frame { id, bytes }) => {
                let (_, next) = next.iter_mut().find(|(of, _)| *of == id).expect("it has opened");
                assert_eq!(bytes, [*next]);
                *next += 1;
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(events.drain().next().is_none());
}

fn is_paused(engine: &Engine, id: SessionId) -> bool {
    engine.table.held(id).expect("it has its own count").is_asked_to_pause()
}

#[test]
fn a_session_is_not_left_paused_when_the_loop_has_taken_all() {
    explore("events: a session of two frames, a loop", || {
        let (engine, port) = engine(false, 1);
        let id = engine.admit(None, 0).expect("there is room");
        let (handler, mut events) = events(1);
        let taking = thread::spawn(move || {
            take(&mut events, 1, 2);
            events
        });
        assert_eq!(serve(&engine, &port, &handler, id, 2), 2);
        let _events = taking.join().expect("it has not failed");
        assert!(!is_paused(&engine, id));
    });
}

#[test]
fn sessions_of_two_workers_are_not_left_paused_when_the_loop_has_taken_all() {
    explore("events: two workers, a loop", || {
        let (engine, ports) = ports(2);
        let ids = [0, 1].map(|port| engine.admit(Some(port), 0).expect("there is room"));
        let (handler, mut events) = events(1);
        let handler = Arc::new(handler);
        let serving = {
            let (engine, handler, port) = (engine.clone(), handler.clone(), ports[1].clone());
            thread::spawn(move || serve(&engine, &port, &handler, ids[1], 1))
        };
        let taking = thread::spawn(move || {
            take(&mut events, 2, 1);
            events
        });
        assert_eq!(serve(&engine, &ports[0], &handler, ids[0], 1), 1);
        assert_eq!(serving.join().expect("it has not failed"), 1);
        let _events = taking.join().expect("it has not failed");
        assert!(!ids.iter().any(|id| is_paused(&engine, *id)));
    });
}

#[test]
fn a_session_is_not_left_paused_when_the_loop_has_gone() {
    explore("events: a session, a loop that goes", || {
        let (engine, port) = engine(false, 1);
        let id = engine.admit(None, 0).expect("there is room");
        let (handler, events) = events(1);
        let going = thread::spawn(move || drop(events));
        serve(&engine, &port, &handler, id, 2);
        going.join().expect("it has not failed");
        assert!(!is_paused(&engine, id));
    });
}
