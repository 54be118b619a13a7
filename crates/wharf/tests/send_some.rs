//! Sending as many bytes as there is room for.
#![forbid(unsafe_code)]

#[macro_use]
mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use support::*;
use wharf::{
    Backend, Close, CloseReason, Farewell, FirstFrameTimeout, Framing, Gone, Handler, Options,
    Server, Session,
};

const PEERS: usize = 41;
const QUEUE_MAX: usize = 60_000;
const ASKED_BYTES: usize = 1_000_017;

/// The byte at a place of the stream.
fn byte_at(at: usize) -> u8 {
    (at % 251) as u8
}

/// Sends each peer a stream, as there is room.
#[derive(Default)]
struct Source {
    in_parts: AtomicU64,
}

impl Source {
    fn go_on(&self, session: &Session, sent: &mut usize) {
        let end = ASKED_BYTES.min(*sent + 3 * QUEUE_MAX);
        let rest: Vec<u8> = (*sent..end).map(byte_at).collect();
        let taken = session.send_some(&rest);
        assert!(taken <= 2 * QUEUE_MAX, "more than a queue and what leaves at once");
        *sent += taken;
        if taken < rest.len() {
            self.in_parts.fetch_add(1, Ordering::Relaxed);
        } else {
            assert_eq!(session.send_some(b""), 0);
            session.close(Close::Drain);
        }
    }
}

impl Handler for Source {
    type State = usize;

    fn opened(&self, _: &Session) -> usize {
        0
    }

    fn received(&self, session: &Session, sent: &mut usize, _: &[u8]) {
        self.go_on(session, sent);
    }

    fn writable(&self, session: &Session, sent: &mut usize) {
        self.go_on(session, sent);
    }
}

fn options() -> Options {
    Options::default().workers(3).with(|options| {
        options.time.first_frame_timeout = FirstFrameTimeout::Never;
        options.sending.queue_bytes_max = QUEUE_MAX;
    })
}

on_every_backend! {
    fn a_handler_sends_a_stream_that_is_much_larger_than_its_queue(backend) {
        let source = Arc::new(Source::default());
        let builder = Server::builder().listen("127.0.0.1:0").options(options()).backend(backend);
        let server = builder.start(source.clone()).unwrap();
        let peers: Vec<_> = (0..PEERS).map(|_| connect(server.addresses()[0])).collect();
        std::thread::scope(|scope| {
            for peer in &peers {
                scope.spawn(move || {
                    write(peer, b"!");
                    let stream = read_to_end(peer);
                    let expected: Vec<u8> = (0..ASKED_BYTES).map(byte_at).collect();
                    assert_same(&stream, &expected);
                });
            }
        });
        let in_parts = source.in_parts.load(Ordering::Relaxed);
        assert!(in_parts >= PEERS as u64, "{in_parts}: the queue is smaller than the stream");
    }

    fn threads_share_a_queue_and_each_keeps_its_order(backend) {
        let harness = start(backend, Framing::raw(), options(), Behaviour::silent());
        let handle = &harness.handle;
        let (peer, id) = harness.connect_known();
        const BYTES: usize = 200_000;
        let stream = std::thread::scope(|scope| {
            for thread in 0..3u8 {
                scope.spawn(move || {
                    let mut sent = 0;
                    while sent < BYTES {
                        // Each byte says whose it is, and its place in turns of 64.
                        let part: Vec<_> = (sent..BYTES.min(sent + 70_000))
                            .map(|at| thread << 6 | (at % 64) as u8)
                            .collect();
                        match handle.send_some(id, &part).unwrap() {
                            0 => std::thread::yield_now(),
                            taken => sent += taken,
                        }
                        assert!(handle.room(id).unwrap() <= QUEUE_MAX);
                    }
                });
            }
            read(&peer, 3 * BYTES)
        });
        let mut next = [0; 3];
        for byte in stream {
            let next = &mut next[usize::from(byte >> 6)];
            assert_eq!(byte & 63, (*next % 64) as u8);
            *next += 1;
        }
        assert_eq!(next, [BYTES; 3]);
        drop(peer);
        harness.settle();
        harness.finish();
    }

    fn a_frame_with_a_header_is_queued_whole_or_not_at_all(backend) {
        let behaviour = Behaviour::silent().on_received(|session, _| {
            session.send("an answer, so that nothing leaves at once");
            let frame = vec![5; QUEUE_MAX / 2];
            assert_eq!(session.send_some(&frame), frame.len());
            assert_eq!(session.send_some(&frame), 0, "the headers do not fit");
            assert_eq!(session.send_some(&frame[..1000]), 1000);
            assert_eq!(session.handle().send_some(session.id(), &frame), Ok(0));
        });
        let harness = start(backend, length_framing(), options(), behaviour);
        let (peer, id) = harness.connect_known();
        write(&peer, &wire_default(b"!"));
        assert_eq!(read_frame(&peer).len(), 41);
        assert_eq!([(); 2].map(|()| read_frame(&peer).len()), [QUEUE_MAX / 2, 1000]);
        // What could never be sent ends the session, as with `send`.
        let large = vec![0; QUEUE_MAX];
        assert_eq!(harness.handle.send_some(id, &large), Err(Gone(&large[..])));
        let expected = CloseReason::FrameTooLargeToSend { bytes: QUEUE_MAX, max: QUEUE_MAX - 4 };
        assert_eq!(harness.log.closed(id), expected);
        assert_eq!(harness.handle.send_some(id, b"late"), Err(Gone(&b"late"[..])));
        drop(peer);
        harness.settle();
        harness.finish();
    }

    fn a_full_queue_with_a_farewell_has_no_room_and_takes_nothing(backend) {
        let behaviour = Behaviour::silent().on_received(|session, _| {
            session.send(""); // an answer, so that nothing leaves at once
            session.send(vec![5; QUEUE_MAX - 8]);
            assert_eq!(session.room(), 0);
            session.close_with(Farewell::new(1).frame("bye")).unwrap();
            assert!(session.queued_bytes() > QUEUE_MAX);
            assert_eq!(session.room(), 0);
            assert_eq!(session.handle().room(session.id()), Some(0));
            assert_eq!(session.send_some(b"more"), 0);
        });
        let harness = start(backend, length_framing(), options(), behaviour);
        let (peer, id) = harness.connect_known();
        write(&peer, &wire_default(b"!"));
        assert_eq!([(); 2].map(|()| read_frame(&peer).len()), [0, QUEUE_MAX - 8]);
        assert_eq!(read_frame(&peer), b"bye");
        drop(peer);
        assert_eq!(harness.log.closed(id), CloseReason::Kicked { code: 1 });
        harness.settle();
        harness.finish();
    }
}
