//! Sending: `send` ends who cannot take a frame, `try_send` never does, a session's and a handle's are alike,
//! and a frame that is encoded once is as good as its bytes.

#![forbid(unsafe_code)]

#[macro_use]
mod support;

use std::collections::HashMap;
use std::net::TcpStream;
use std::sync::{Arc, Barrier, Mutex};

use support::*;
use wharf::{
    Backend, Backpressure, Close, CloseReason, EncodeError, Framing, Gone, Group, LengthPrefix,
    Options, PublishError, SendError, Session, SessionId,
};

const QUEUE: usize = 256 * 1024;
/// Smaller than what may leave at once.
const CHUNK: usize = 2 * 1024;
const CHUNKS: usize = QUEUE / CHUNK;
const BOTH: [Backpressure; 2] = [Backpressure::None, Backpressure::PauseReceive];
const WORKERS: usize = 3;
const CROWD: usize = 41;

fn chunk(number: usize) -> Vec<u8> {
    vec![number as u8; CHUNK]
}

fn chunks(count: usize) -> Vec<u8> {
    (0..count).flat_map(chunk).collect()
}

fn options(backpressure: Backpressure) -> Options {
    Options::default().workers(WORKERS).with(|options| {
        options.sending.queue_bytes_max = QUEUE;
        options.receiving.backpressure = backpressure;
    })
}

/// How often a session could be sent to in one callback, in which nothing leaves; and what the last said.
fn send_until_refused(session: &Session, how: u8) -> (usize, Option<SendError<Vec<u8>>>) {
    let (handle, id) = (session.handle(), session.id());
    for number in 0.. {
        let frame = chunk(number);
        let refused = match how {
            b's' => {
                session.send(&frame);
                (!handle.is_open(id)).then_some(SendError::Gone(frame))
            }
            b'h' => handle.send(id, frame).err().map(SendError::from),
            b't' => session.try_send(frame).err(),
            _ => handle.try_send(id, frame).err(),
        };
        if refused.is_some() {
            return (number, refused);
        }
        assert_eq!(session.queued_bytes(), (number + 1) * CHUNK);
        assert_eq!(handle.queued_bytes(id), Some((number + 1) * CHUNK));
    }
    unreachable!()
}

fn lengths(frame_bytes_max: usize) -> Framing {
    Framing::length_prefixed(LengthPrefix::default().frame_bytes_max(frame_bytes_max))
}

/// Peers that only listen, three workers.
fn crowd(backend: Backend, framing: Framing, options: Options, behaviour: Behaviour) -> Harness {
    let options = options.with(|options| {
        options.time.first_frame_timeout = wharf::FirstFrameTimeout::Never;
    });
    start(backend, framing, options, behaviour)
}

fn peers(harness: &Harness, count: usize) -> Vec<(TcpStream, SessionId)> {
    (0..count).map(|_| harness.connect_known()).collect()
}

on_every_backend! {
    fn a_full_session_ends_by_send_and_never_by_try_send_of_session_and_handle_alike(backend) {
        if backend == Backend::Iocp {
            return; // a handle posts its sends at once there: no queue fills within one callback
        }
        for backpressure in BOTH {
            let said: Arc<Mutex<HashMap<SessionId, _>>> = Arc::default();
            let noted = said.clone();
            let behaviour = Behaviour::silent().on_received(move |session, frame| {
                let (id, how) = (session.id(), frame[0]);
                let (count, refused) = send_until_refused(session, how);
                let is_open = session.handle().is_open(id);
                noted.lock().unwrap().insert(id, (count, refused, is_open));
            });
            let harness = start(backend, Framing::raw(), options(backpressure), behaviour);
            let peers = peers(&harness, CROWD);
            for (index, (peer, _)) in peers.iter().enumerate() {
                write(peer, &b"shtu"[index % 4..][..1]);
            }
            for (index, (peer, id)) in peers.iter().enumerate() {
                let how = b"shtu"[index % 4];
                eventually("it was refused", || said.lock().unwrap().contains_key(id));
                let (count, refused, is_open) = said.lock().unwrap().remove(id).unwrap();
                assert_eq!(count, CHUNKS, "{}", how as char);
                let refused = refused.unwrap();
                if how == b's' || how == b'h' {
                    assert!(refused == SendError::Gone(chunk(count)), "the frame came back");
                    assert!(!is_open);
                    assert_eq!(harness.log.closed(*id), CloseReason::SlowConsumer { queued: QUEUE });
                } else {
                    let full = SendError::Full { bytes: chunk(count), queued: QUEUE, max: QUEUE };
                    assert!(refused == full, "the frame came back");
                    assert!(is_open);
                    assert_same(&read(peer, QUEUE), &chunks(CHUNKS));
                    eventually("it has left", || harness.handle.queued_bytes(*id) == Some(0));
                    harness.handle.send(*id, b"alive").unwrap();
                    assert_eq!(read(peer, 5), b"alive");
                }
            }
            harness.finish();
        }
    }

    fn from_another_thread_send_ends_who_does_not_read_and_try_send_does_not(backend) {
        for backpressure in BOTH {
            let harness = start(backend, Framing::raw(), options(backpressure), Behaviour::silent());
            let handle = &harness.handle;
            let (_deaf, deaf) = harness.connect_known();
            let (patient, patient_id) = harness.connect_known();
            let mut sent = 0;
            let frame = loop {
                match handle.send(deaf, chunk(sent)) {
                    Ok(()) => sent += 1,
                    Err(Gone(frame)) => break frame,
                }
            };
            assert!(frame == chunk(sent), "the frame came back");
            assert!(!handle.is_open(deaf));
            let reason = harness.log.closed(deaf);
            assert!(
                matches!(reason, CloseReason::SlowConsumer { queued } if queued <= QUEUE),
                "{reason:?}"
            );
            assert_eq!(handle.queued_bytes(deaf), None);
            // The same of one that reads when it was refused often.
            let (mut taken, mut refused) = (0, 0);
            while refused < 1_000 {
                match handle.try_send(patient_id, chunk(taken)) {
                    Ok(()) => taken += 1,
                    Err(SendError::Full { bytes, max: QUEUE, .. }) if bytes == chunk(taken) => {
                        refused += 1;
                    }
                    Err(error) => panic!("{}", error),
                }
            }
            assert!(handle.is_open(patient_id));
            assert_same(&read(&patient, taken * CHUNK), &chunks(taken));
            assert!(handle.is_open(patient_id));
            harness.finish();
        }
    }

    fn a_frame_that_could_never_be_sent_ends_by_send_only_of_session_and_handle_alike(backend) {
        // By the framing, and by the queue.
        for (frame_bytes_max, queue, max) in [(1_000, QUEUE, 1_000), (1_000, 800, 796)] {
            let behaviour = Behaviour::silent().on_received(move |session, how| {
                let (handle, id, frame) = (session.handle(), session.id(), vec![7; max + 1]);
                let too_large = || SendError::TooLarge { bytes: frame.clone(), max };
                match how {
                    b"s" => session.send(&frame),
                    b"h" => assert_eq!(handle.send(id, frame.clone()), Err(Gone(frame))),
                    b"t" => assert_eq!(session.try_send(frame.clone()), Err(too_large())),
                    b"u" => assert_eq!(handle.try_send(id, frame.clone()), Err(too_large())),
                    _ => assert_eq!(
                        handle.send_many(&[id], frame.clone()),
                        Err(EncodeError::TooLarge { bytes: frame.clone(), max })
                    ),
                }
                session.send([8; 1]);
                session.send(vec![9; 700]);
            });
            let options = options(Backpressure::None).with(|options| {
                options.sending.queue_bytes_max = queue;
            });
            let harness = start(backend, lengths(frame_bytes_max), options, behaviour);
            for how in [b"s", b"h", b"t", b"u", b"m"] {
                let (peer, id) = harness.connect_known();
                write(&peer, &wire_default(how));
                if how == b"s" || how == b"h" {
                    let reason = CloseReason::FrameTooLargeToSend { bytes: max + 1, max };
                    assert_eq!(harness.log.closed(id), reason);
                } else {
                    assert_eq!(read_frame(&peer), [8; 1]);
                    assert_eq!(read_frame(&peer), [9; 700], "what is within the bound is sent");
                }
            }
            harness.finish();
        }
    }

    fn send_many_reaches_the_others_whether_one_is_gone_or_full_and_counts_them(backend) {
        let gate = Arc::new(Barrier::new(2));
        let in_handler = gate.clone();
        let behaviour = Behaviour::silent().on_received(move |session, _| {
            let (count, _) = send_until_refused(session, b't');
            assert_eq!(count, CHUNKS);
            in_handler.wait(); // its queue is full, and stays so
            in_handler.wait();
        });
        let harness = crowd(backend, Framing::raw(), options(Backpressure::None), behaviour);
        let handle = &harness.handle;
        let peers = peers(&harness, CROWD);
        let ids: Vec<_> = peers.iter().map(|(_, id)| *id).collect();
        let (gone, full, well) = (&ids[..5], ids[5], &ids[6..]);
        for id in gone {
            handle.close(*id, Close::Stop);
            harness.log.closed(*id);
        }
        write(&peers[5].0, b"!");
        gate.wait();
        let frame = handle.encode(b"to many").unwrap();
        assert_eq!(handle.send_many(&ids, &frame).unwrap(), well.len());
        assert!(!handle.is_open(full), "it must not miss a frame and go on");
        assert_eq!(handle.send_many(&ids, b", and again"), Ok(well.len()));
        assert_eq!(handle.send_many(gone, b"nobody"), Ok(0));
        assert_eq!(handle.send_many(&[], b"nobody"), Ok(0));
        // As often as it is named.
        assert_eq!(handle.send_many(&[well[0], full, well[0]], b"!"), Ok(2));
        gate.wait();
        assert_eq!(harness.log.closed(full), CloseReason::SlowConsumer { queued: QUEUE });
        assert_eq!(read(&peers[6].0, 20), b"to many, and again!!");
        for (peer, _) in &peers[7..] {
            assert_eq!(read(peer, 18), b"to many, and again");
        }
        let stats = harness.finish();
        assert_eq!(stats.opened, CROWD as u64);
    }

    fn a_frame_is_kept_and_sent_in_every_way_small_and_large_to_all_of_a_crowd(backend) {
        const ROOM: Group = Group(3);
        let options = options(Backpressure::None).with(|options| {
            options.sending.queue_bytes_max = 16 << 20;
        });
        let kept: Arc<Mutex<Option<wharf::Frame>>> = Arc::default();
        let in_handler = kept.clone();
        let behaviour = Behaviour::silent().on_received(move |session, _| {
            let frame = in_handler.lock().unwrap().clone().unwrap();
            session.send(&frame);
            session.send(frame.clone());
            session.try_send(&frame).unwrap();
        });
        let harness = crowd(backend, lengths(1 << 20), options, behaviour);
        let handle = &harness.handle;
        let peers = peers(&harness, CROWD);
        let ids: Vec<_> = peers.iter().map(|(_, id)| *id).collect();
        ids.iter().for_each(|id| assert_eq!(handle.join(*id, ROOM), Ok(true)));
        // One byte to more than is copied, and more than 64 KiB.
        for bytes in [0, 1, 300, 5_000, 65_537, 300_000] {
            let content = Random::new(bytes as u64).bytes(bytes);
            let frame = handle.encode(&content).unwrap();
            assert_eq!(frame.body_bytes(), bytes);
            *kept.lock().unwrap() = Some(frame.clone());
            for id in &ids {
                handle.send(*id, &frame).unwrap();
                handle.try_send(*id, frame.clone()).unwrap();
            }
            assert_eq!(handle.send_many(&ids, &frame).unwrap(), CROWD);
            handle.publish(ROOM, &frame).unwrap();
            handle.publish_except(ROOM, ids[0], &frame).unwrap();
            handle.broadcast(&frame).unwrap();
            peers.iter().for_each(|(peer, _)| write(peer, &wire_default(b"?")));
            for (index, (peer, _)) in peers.iter().enumerate() {
                for _ in 0..if index == 0 { 8 } else { 9 } {
                    assert_same(&read_frame(peer), &content);
                }
            }
        }
        harness.finish();
    }

    fn a_frame_of_another_server_arrives_in_the_wire_form_and_within_the_bounds_of_this_one(backend) {
        const ROOM: Group = Group(3);
        let raw = crowd(backend, Framing::raw(), options(Backpressure::None), Behaviour::silent());
        let large = crowd(backend, lengths(QUEUE / 2), options(Backpressure::None), Behaviour::silent());
        let kept: Arc<Mutex<Option<wharf::Frame>>> = Arc::default();
        let in_handler = kept.clone();
        let behaviour = Behaviour::silent().on_received(move |session, _| {
            session.send(in_handler.lock().unwrap().clone().unwrap());
        });
        // The same framing as that of `large`, and other bounds.
        let options = options(Backpressure::None).with(|options| {
            options.sending.queue_bytes_max = 40_000;
        });
        let harness = crowd(backend, lengths(QUEUE / 2), options, behaviour);
        let handle = &harness.handle;
        let peers = peers(&harness, CROWD);
        let ids: Vec<_> = peers.iter().map(|(_, id)| *id).collect();
        ids.iter().for_each(|id| assert_eq!(handle.join(*id, ROOM), Ok(true)));
        let to_all = |frame: &wharf::Frame, content: &[u8]| {
            *kept.lock().unwrap() = Some(frame.clone());
            let ways: [&dyn Fn(); 6] = [
                &|| ids.iter().for_each(|id| handle.send(*id, frame).unwrap()),
                &|| ids.iter().for_each(|id| handle.try_send(*id, frame).unwrap()),
                &|| assert_eq!(handle.send_many(&ids, frame).unwrap(), CROWD),
                &|| handle.publish(ROOM, frame).unwrap(),
                &|| handle.broadcast(frame).unwrap(),
                &|| peers.iter().for_each(|(peer, _)| write(peer, &wire_default(b"?"))),
            ];
            for way in ways {
                way();
                peers.iter().for_each(|(peer, _)| assert_same(&read_frame(peer), content));
            }
        };
        for bytes in [1, 300, 5_000] {
            let content = Random::new(bytes as u64).bytes(bytes);
            for other in [&raw, &large] {
                to_all(&other.handle.encode(&content).unwrap(), &content);
            }
        }
        for other in [&raw, &large] {
            let frame = other.handle.encode(vec![1; 50_000]).unwrap();
            const MAX: usize = 40_000 - 4;
            let error = handle.try_send(ids[0], &frame).unwrap_err();
            assert!(matches!(error, SendError::TooLarge { max: MAX, .. }), "{error}");
            let error = handle.send_many(&ids, &frame).unwrap_err();
            assert!(matches!(error, EncodeError::TooLarge { max: MAX, .. }), "{error}");
            let error = handle.publish(ROOM, &frame).unwrap_err();
            assert!(matches!(error, PublishError::TooLarge { max: MAX, .. }), "{error}");
            let error = handle.encode(&frame).unwrap_err();
            assert!(matches!(error, EncodeError::TooLarge { max: MAX, .. }), "{error}");
        }
        assert!(ids.iter().all(|id| handle.is_open(*id)), "nobody ends by these");
        for (id, other) in ids.iter().zip([&raw, &large]) {
            let frame = other.handle.encode(vec![1; 50_000]).unwrap();
            assert!(handle.send(*id, &frame).is_err());
            let reason = CloseReason::FrameTooLargeToSend { bytes: 50_000, max: 40_000 - 4 };
            assert_eq!(harness.log.closed(*id), reason);
        }
        for harness in [raw, large, harness] {
            harness.finish();
        }
    }
}
