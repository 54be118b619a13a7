//! Groups on a shared port: all its workers process publications, in one order.

use std::io::Read;
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};

use super::Trial;
use crate::{Framing, Group, LengthPrefix, Options, PublishError};

const ROOM: Group = Group(1);
const PUBLISHERS: usize = 3;
const EACH: u32 = 1_500;

fn next(mut peer: &TcpStream) -> Vec<u8> {
    let mut length = [0; 4];
    peer.read_exact(&mut length).unwrap();
    let mut frame = vec![0; u32::from_be_bytes(length) as usize];
    peer.read_exact(&mut frame).unwrap();
    frame
}

/// Frames of both kinds, copied and shared.
fn saying(publisher: usize, number: u32) -> Vec<u8> {
    let mut frame = vec![publisher as u8];
    frame.extend(number.to_be_bytes());
    frame.resize(if number.is_multiple_of(10) { 2_000 } else { 20 }, number as u8);
    frame
}

#[test]
fn four_workers_hand_over_in_the_order_of_publishing_while_members_come_and_go() {
    let framing = Framing::length_prefixed(LengthPrefix::default());
    let options = Options::default().with(|options| {
        options.sending.queue_bytes_max = 64 << 20;
    });
    // A small turn, so that the work goes from worker to worker.
    let options = options.with(|options| {
        options.sending.publications_bytes_max = 64 * 1024;
    });
    let trial = Trial::of(options, framing, |session, _| {
        // Handlers publish too, which keeps workers busy.
        let _ = session.handle().publish(Group(2), b"to nobody");
    });
    let members: Vec<_> = (0..6).map(|_| trial.connect_known()).collect();
    for (_, id) in &members {
        trial.handle().join(*id, ROOM).unwrap();
    }
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (trial, over, members) = (&trial, &over, &members);
        for _ in 0..2 {
            scope.spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    let peer = trial.connect();
                    // Any recent session: this one or another, perhaps ended.
                    let last = *trial.notes.opened.lock().unwrap().last().unwrap();
                    if !members.iter().any(|(_, member)| *member == last) {
                        let _ = trial.handle().join(last, ROOM);
                        trial.handle().leave(last, ROOM);
                        let _ = trial.handle().join(last, ROOM);
                    }
                    drop(peer);
                }
            });
        }
        let publishers: Vec<_> = (0..PUBLISHERS)
            .map(|publisher| {
                scope.spawn(move || {
                    for number in 0..EACH {
                        let mut frame = saying(publisher, number);
                        while let Err(error) = trial.handle().publish(ROOM, frame) {
                            assert!(matches!(error, PublishError::Full { .. }), "{error}");
                            frame = error.into_inner();
                            std::thread::yield_now();
                        }
                    }
                })
            })
            .collect();
        let readers: Vec<_> = members
            .iter()
            .map(|(peer, _)| {
                scope.spawn(move || {
                    let (mut numbers, mut order) = ([0; PUBLISHERS], Vec::new());
                    while numbers != [EACH; PUBLISHERS] {
                        let frame = next(peer);
                        let publisher = usize::from(frame[0]);
                        assert!(
                            frame == saying(publisher, numbers[publisher]),
                            "{:?}",
                            &frame[..5]
                        );
                        numbers[publisher] += 1;
                        order.push(publisher);
                    }
                    order
                })
            })
            .collect();
        publishers.into_iter().for_each(|publisher| publisher.join().unwrap());
        let orders: Vec<_> = readers.into_iter().map(|reader| reader.join().unwrap()).collect();
        assert!(orders.iter().all(|order| *order == orders[0]), "members saw different orders");
        over.store(true, Ordering::Relaxed);
    });
    trial.finish();
}
