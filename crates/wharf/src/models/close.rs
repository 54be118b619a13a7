//! Two threads close a session, for different reasons and in different ways, and its worker ends it.
//!
//! Shown: all see the same, first reason; a stop overrides a drain in either order; the worker learns of it
//! without any further event; it gives up the session's own count once; and the worker releases the session
//! once, whoever held the last count (invariant 4).

use loom::thread;

use super::{engine, explore};
use crate::CloseReason;
use crate::close::Close;
use crate::engine::Mail;
use crate::engine::{Engine, Follows};
use crate::session::{Closing, SessionId};

/// Asks as a handle does. Returns the close that the session then had.
fn close(engine: &Engine, id: SessionId, reason: CloseReason, how: Close) -> Option<Closing> {
    engine
        .with_session(id, |slot| {
            let changed = engine.ask_to_close(id, slot, reason, how);
            (slot.send_queue.lock().closing(), Follows { changed, ..Follows::default() })
        })
        .map(|closing| closing.expect("it was just asked"))
}

#[test]
fn the_first_reason_stays_and_the_session_is_released_once() {
    explore("close: a drain, a stop, the worker", || {
        let (engine, port) = engine(false, 1);
        let id = engine.admit(None, 0).unwrap();
        let asks = [(CloseReason::Local, Close::Drain), (CloseReason::Reset, Close::Stop)];
        let closers = asks.map(|(reason, how)| {
            let engine = engine.clone();
            thread::spawn(move || close(&engine, id, reason, how))
        });

        let (share, slot) = (&engine.ports[0], engine.table.held(id).unwrap());
        let (mut mails, mut own_count, mut released) = (Vec::new(), true, None);
        while released.is_none() {
            if share.mailbox.may_sleep() {
                port.wait();
            }
            share.mailbox.take(&mut mails);
            for mail in mails.drain(..) {
                let zero = match mail {
                    // A stop ends it; with a drain nothing has to leave first.
                    Mail::Attend(_) if own_count && engine.table.held(id).is_some() => {
                        assert!(slot.closing().is_some(), "nobody asked");
                        own_count = false;
                        slot.count.lower()
                    }
                    Mail::Attend(_) => false,
                    Mail::Release(_) => true,
                    other => panic!("{other:?}"),
                };
                if zero {
                    assert!(!own_count && released.is_none(), "released twice or too soon");
                    released = slot.closing();
                    engine.release(id, 0);
                }
            }
        }
        let seen: Vec<_> =
            closers.into_iter().filter_map(|closer| closer.join().unwrap()).collect();
        let released = released.unwrap();
        assert!(!seen.is_empty());
        assert!(seen.iter().all(|seen| seen.reason == released.reason), "{seen:?} {released:?}");
        // The other may have come too late to find the session.
        assert!(seen.contains(&released), "{seen:?} {released:?}");
        if seen.len() == 2 {
            assert_eq!(released.how, Close::Stop);
        }
        let mut after = Vec::new();
        share.mailbox.take(&mut after);
        assert!(after.iter().all(|mail| matches!(mail, Mail::Attend(_))), "released twice");
        assert_eq!(share.assigned_sessions(), 0);
    });
}
