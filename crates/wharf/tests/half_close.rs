//! Each direction of a session's stream ends by itself.
#![forbid(unsafe_code)]

#[macro_use]
mod support;

use std::net::Shutdown;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use support::*;
use wharf::{
    Backend, CloseReason, EndOfStream, Gone, Handler, Options, SendError, Server, Session,
    SessionId,
};

const PEERS: usize = 41;
const ANSWER_FRAMES: u32 = 60;

/// Answers when its peer has finished, with more than its queue holds.
#[derive(Default)]
struct Answers {
    finished: AtomicU64,
    closed: Mutex<Vec<(SessionId, CloseReason)>>,
}

#[derive(Default)]
struct Asked {
    frames: u32,
    /// What is left of the answer; `None`: the peer has not finished.
    owed: Option<u32>,
}

impl Answers {
    fn go_on(&self, session: &Session, asked: &mut Asked) {
        let frame = vec![asked.frames as u8; 10_000];
        while let Some(owed @ 1..) = asked.owed {
            match session.try_send(&frame) {
                Ok(()) => asked.owed = Some(owed - 1),
                Err(SendError::Full { .. } | SendError::Gone(_)) => return,
                Err(error) => panic!("{error}"),
            }
        }
        session.finish();
    }
}

impl Handler for Answers {
    type State = Asked;

    fn opened(&self, _: &Session) -> Asked {
        Asked::default()
    }

    fn received(&self, _: &Session, asked: &mut Asked, _: &[u8]) {
        assert_eq!(asked.owed, None, "its peer has finished");
        asked.frames += 1;
    }

    fn peer_finished(&self, session: &Session, asked: &mut Asked) {
        self.finished.fetch_add(1, Ordering::SeqCst);
        assert!(asked.owed.replace(ANSWER_FRAMES).is_none(), "told twice");
        self.go_on(session, asked);
    }

    fn writable(&self, session: &Session, asked: &mut Asked) {
        self.go_on(session, asked);
    }

    fn closed(&self, session: &Session, _: Asked, reason: CloseReason) {
        lock(&self.closed).push((session.id(), reason));
    }
}

fn told() -> Options {
    Options::default().workers(3).with(|options| {
        options.receiving.end_of_stream = EndOfStream::Told;
    })
}

fn start_answers(backend: Backend, options: Options) -> (Server, Arc<Answers>) {
    let answers = Arc::new(Answers::default());
    let builder = Server::builder().listen("127.0.0.1:0").framing(length_framing());
    let server = builder.options(options).backend(backend).start(answers.clone()).unwrap();
    (server, answers)
}

on_every_backend! {
    fn a_peer_that_has_finished_gets_its_whole_answer_and_then_our_end(backend) {
        let (server, answers) = start_answers(backend, told());
        let peers: Vec<_> = (0..PEERS).map(|_| connect(server.addresses()[0])).collect();
        std::thread::scope(|scope| {
            for (nth, peer) in peers.iter().enumerate() {
                scope.spawn(move || {
                    write(peer, &wire_default(b"asked").repeat(nth));
                    peer.shutdown(Shutdown::Write).unwrap();
                    let answer = wire_default(&vec![nth as u8; 10_000]);
                    assert_same(&read_to_end(peer), &answer.repeat(ANSWER_FRAMES as usize));
                });
            }
        });
        eventually("both directions have ended", || lock(&answers.closed).len() == PEERS);
        assert!(lock(&answers.closed).iter().all(|(_, reason)| *reason == CloseReason::PeerClosed));
        assert_eq!(answers.finished.load(Ordering::SeqCst), PEERS as u64);
    }

    fn who_finishes_first_goes_on_receiving(backend) {
        let behaviour = Behaviour::silent().on_received(|session, frame| {
            if frame == b"finish" {
                session.send(b"the last");
                session.finish();
                assert_eq!(session.handle().send(session.id(), b"late"), Err(Gone(b"late")));
                assert!(!session.handle().is_open(session.id()));
                assert!(!session.handle().finish(session.id()), "it has been asked to");
            }
        });
        let harness = start(backend, length_framing(), told(), behaviour);
        let peers: Vec<_> = (0..PEERS).map(|_| harness.connect_known()).collect();
        for (peer, _) in &peers {
            write(peer, &wire_default(b"finish"));
        }
        for (peer, id) in &peers {
            assert_eq!(read_to_end(peer), wire_default(b"the last"));
            write(peer, &wire_default(b"more").repeat(100));
            harness.log.wait("it hears all of it", |ledger| {
                ledger.records.get(id).filter(|record| record.frame_count == 101).map(|_| ())
            });
            assert_eq!(harness.log.record(*id).closed, None);
            peer.shutdown(Shutdown::Write).unwrap();
            assert_eq!(harness.log.closed(*id), CloseReason::PeerClosed);
        }
        harness.settle();
        harness.finish();
    }

    fn a_peer_that_ends_inside_a_frame_ends_its_session_all_the_same(backend) {
        let (server, answers) = start_answers(backend, told());
        let peer = connect(server.addresses()[0]);
        write(&peer, &wire_default(b"cut off")[..6]);
        peer.shutdown(Shutdown::Write).unwrap();
        assert_eq!(read_to_end(&peer), b"");
        eventually("it ends", || lock(&answers.closed).len() == 1);
        let (_, reason) = lock(&answers.closed)[0];
        assert_eq!(reason, CloseReason::PeerClosedInFrame { bytes: 6 });
        assert_eq!(answers.finished.load(Ordering::SeqCst), 0);
    }

    fn who_has_finished_is_idle_when_it_is_sent_nothing(backend) {
        let options = told().with(|options| {
            options.time.idle_timeout = Some(Duration::from_millis(200));
        });
        let harness = start(backend, length_framing(), options, Behaviour::silent());
        let (peer, id) = harness.connect_known();
        peer.shutdown(Shutdown::Write).unwrap();
        for _ in 0..10 {
            std::thread::sleep(Duration::from_millis(50)); // more than the limit, in all
            harness.handle.send(id, b"still here").unwrap();
            assert_eq!(read_frame(&peer), b"still here");
        }
        assert_eq!(harness.log.closed(id), CloseReason::IdleTimeout);
        harness.finish();
    }

    fn without_the_option_the_peers_end_is_the_sessions(backend) {
        let (server, answers) = start_answers(backend, Options::default().workers(3));
        let peer = connect(server.addresses()[0]);
        peer.shutdown(Shutdown::Write).unwrap();
        assert_eq!(read_to_end(&peer), b"");
        eventually("it ends", || lock(&answers.closed).len() == 1);
        assert_eq!(lock(&answers.closed)[0].1, CloseReason::PeerClosed);
        assert_eq!(answers.finished.load(Ordering::SeqCst), 0);
    }
}
