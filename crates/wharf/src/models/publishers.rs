//! Those who wait for room to publish, against the end of the server.
//!
//! Shown: one who asks while the end begins is told once, or refused; never neither, and never both.

use std::sync::Arc;

use loom::thread;

use super::{engine, explore, join_all};
use crate::error::RoomError;
use crate::session::Wakes;
use crate::sync::{AtomicU32, Ordering};

#[test]
fn one_who_asks_while_the_end_begins_is_told_or_refused() {
    explore("publishers: one who asks, while the end begins", || {
        let (engine, _port) = engine(false, 1);
        let told = Arc::new(AtomicU32::new(0));
        let asker = {
            let (engine, told) = (engine.clone(), told.clone());
            thread::spawn(move || {
                let wakes = Wakes::Callback(Box::new(move |_| {
                    told.fetch_add(1, Ordering::Relaxed);
                }));
                engine.tell_of_room_to_publish(wakes).is_err_and(|error| error == RoomError::Ending)
            })
        };
        // As the last worker, which does not look again.
        let ender = {
            let engine = engine.clone();
            thread::spawn(move || {
                engine.stop();
                engine.take_told_publishers().into_iter().for_each(|tell| tell());
                false
            })
        };
        let [is_refused, _] = join_all([asker, ender]);
        let told = told.load(Ordering::Relaxed);
        assert_eq!(told + u32::from(is_refused), 1, "told {told} times, refused: {is_refused}");
    });
}
