//! A session changes its framing while others send to it.
//!
//! Its worker changes from raw frames to length-prefixed ones and sends a frame. Another thread sends one, or one that is
//! encoded already. Shown: each frame is whole, in one of the two forms, and no raw frame stands behind one that has a
//! length: the peer reads by the new framing from the worker's frame on.

use std::sync::Arc;

use loom::thread;

use super::explore;
use crate::engine::{AtOnce, Content, Engine};
use crate::framing::{Framing, Framings, LengthPrefix};
use crate::options::Options;
use crate::port::Sockets;
use crate::session::SessionTable;

fn two_framings() -> Arc<Engine> {
    let framings = [Framing::raw(), Framing::length_prefixed(LengthPrefix::default())];
    let options = Options::default().workers(1).with(|options| options.sessions.max = 1);
    let framings = Framings::with_further(&framings, 1);
    let mut engine = Engine::new(false, framings, options, Sockets::Os);
    engine.table = SessionTable::new(1, 0);
    Arc::new(engine)
}

fn a_frame_is_sent_while_the_framing_changes(is_encoded: bool) {
    let engine = two_framings();
    let id = engine.admit(None, 0).unwrap();
    let sender = thread::spawn({
        let engine = engine.clone();
        move || {
            let encoded = is_encoded.then(|| engine.encode(Content::Plain(b"s")).unwrap());
            let content = encoded.as_ref().map_or(Content::Plain(b"s"), Content::Encoded);
            assert_eq!(engine.try_send(id, content), Ok(()));
        }
    });
    let slot = engine.table.held(id).unwrap();
    assert!(engine.change_framing(id, slot, 0));
    assert_eq!(engine.push(slot, Content::Plain(b"w"), AtOnce::No).0, Ok(0));
    sender.join().unwrap();
    let batch = slot.send_queue.lock().take(|| 0).unwrap();
    let mut slices = [std::io::IoSlice::new(b""); 4];
    let count = batch.gather(&mut slices);
    let wire = slices[..count].iter().flat_map(|slice| slice.iter().copied()).collect::<Vec<_>>();
    let allowed: [&[u8]; 3] =
        [b"s\0\0\0\x01w", b"\0\0\0\x01s\0\0\0\x01w", b"\0\0\0\x01w\0\0\0\x01s"];
    assert!(allowed.contains(&&wire[..]), "{wire:?}");
}

#[test]
fn no_frame_in_the_old_form_stands_behind_one_in_the_new() {
    explore("change of framing: a frame", || a_frame_is_sent_while_the_framing_changes(false));
}

#[test]
fn no_encoded_frame_in_the_old_form_stands_behind_one_in_the_new() {
    explore("change of framing: an encoded frame", || {
        a_frame_is_sent_while_the_framing_changes(true);
    });
}
