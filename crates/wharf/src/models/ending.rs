//! The end of all sessions against a session that arrives: one of the two sees the other.
//!
//! One thread ends the server. A worker of a shared port gets the mail and walks the table, while another
//! worker opens a session. Shown: the session is asked to close, by the walk or by the worker that opens it,
//! so no end of a server leaves one behind; and the walk misses no session and releases none wrongly. A
//! session in the table is already counted, so no worker ends before it has come.

use loom::thread;

use super::{engine, explore};
use crate::CloseReason;
use crate::close::Close;
use crate::engine::{Engine, Mail};
use crate::session::SessionId;

/// As a worker that admits a session and opens it.
fn arrive(engine: &Engine) -> SessionId {
    let id = engine.admit(None, 0).expect("there is room");
    let slot = engine.table.held(id).expect("it has the session's own count");
    if let Some((reason, how)) = engine.ending() {
        engine.ask_to_close(id, slot, reason, how);
    }
    id
}

fn the_end_and_an_arrival(end: fn(&Engine), ended: (CloseReason, Close), earlier_sessions: usize) {
    let (engine, port) = engine(true, 4);
    let mut ids: Vec<_> = (0..earlier_sessions).map(|_| engine.admit(None, 0).unwrap()).collect();
    let arriving = thread::spawn({
        let engine = engine.clone();
        move || arrive(&engine)
    });
    let ending = thread::spawn({
        let engine = engine.clone();
        move || end(&engine)
    });
    let (share, mut mails) = (&engine.ports[0], Vec::new());
    while mails.is_empty() {
        if share.mailbox.may_sleep() {
            port.wait();
        }
        share.mailbox.take(&mut mails);
    }
    assert!(matches!(mails[..], [Mail::Drain | Mail::Stop]), "{mails:?}");
    engine.ask_all_to_close(0, ended.0, ended.1, |_, was_last| {
        assert!(!was_last, "every session has its own count");
        assert!(share.assigned_sessions() > 0, "it stands in the table, and was not counted");
    });
    ids.push(arriving.join().unwrap());
    ending.join().unwrap();
    for id in ids {
        let closing = engine.table.held(id).unwrap().closing();
        let closing = closing.map(|closing| (closing.reason, closing.how));
        assert_eq!(closing, Some(ended), "the end passed a session by");
    }
}

#[test]
fn a_stop_and_an_arrival_see_each_other() {
    explore("ending: a stop, its walk, an arrival", || {
        the_end_and_an_arrival(Engine::stop, (CloseReason::Stopped, Close::Stop), 0);
    });
}

#[test]
fn a_drain_and_an_arrival_see_each_other_beside_an_older_session() {
    explore("ending: a drain, its walk, an arrival beside another", || {
        the_end_and_an_arrival(Engine::drain, (CloseReason::Drained, Close::Drain), 1);
    });
}
