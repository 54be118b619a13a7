//! The last frame of a session that a limit ends.
#![forbid(unsafe_code)]

#[macro_use]
mod support;

use std::net::TcpStream;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use support::*;
use wharf::{
    Backend, Close, CloseReason, Farewell, FirstFrameTimeout, Frame, Handler, Options, Server,
    Session, SessionId,
};

const PEERS: usize = 41;

/// What `ending` answers.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Answer {
    #[default]
    Goodbye,
    Nothing,
    TooLarge,
    Panic,
    /// A goodbye, but the session is stopped first.
    Stopped,
}

#[derive(Default)]
struct Limits {
    answer: Answer,
    /// Each call of `ending`.
    asked: Mutex<Vec<(SessionId, CloseReason)>>,
    closed: Mutex<Vec<(SessionId, CloseReason)>>,
}

impl Handler for Limits {
    type State = Answer;

    fn opened(&self, _: &Session) -> Answer {
        self.answer
    }

    fn received(&self, session: &Session, _: &mut Answer, frame: &[u8]) {
        if frame == b"fill" {
            // The last of these does not fit.
            (0..100).for_each(|_| session.send(vec![7; 60_000]));
            assert!(!session.handle().is_open(session.id()));
        }
    }

    fn ending(&self, session: &Session, answer: &mut Answer, reason: CloseReason) -> Option<Frame> {
        lock(&self.asked).push((session.id(), reason));
        assert!(session.try_send("more").is_err());
        match *answer {
            Answer::Goodbye => session.handle().encode(format!("goodbye: {reason}")).ok(),
            Answer::Nothing => None,
            Answer::TooLarge => session.handle().encode(vec![0; Farewell::WIRE_BYTES_MAX - 3]).ok(),
            Answer::Panic => panic_on_purpose(),
            Answer::Stopped => {
                session.close(Close::Stop);
                session.handle().encode("goodbye").ok()
            }
        }
    }

    fn closed(&self, session: &Session, _: Answer, reason: CloseReason) {
        lock(&self.closed).push((session.id(), reason));
    }
}

fn start_limits(
    backend: Backend,
    answer: Answer,
    set: impl FnOnce(&mut Options),
) -> (Server, Arc<Limits>) {
    let limits = Arc::new(Limits { answer, ..Limits::default() });
    let options = Options::default().workers(3).with(|options| {
        options.time.first_frame_timeout = FirstFrameTimeout::Never;
        set(options);
    });
    let builder =
        Server::builder().listen("127.0.0.1:0").framing(length_framing()).options(options);
    let server = builder.backend(backend).start(limits.clone()).unwrap();
    (server, limits)
}

fn crowd(server: &Server) -> Vec<TcpStream> {
    let peers = (0..PEERS).map(|_| connect(server.addresses()[0])).collect();
    eventually("all are open", || server.handle().stats().live == PEERS as u64);
    peers
}

/// The last whole frame before the end of the stream, and how many came before it.
fn last_frame(peer: &TcpStream) -> (usize, Vec<u8>) {
    let bytes = read_to_end(peer);
    let (mut rest, mut frames) = (&bytes[..], 0);
    loop {
        let length = u32::from_be_bytes(rest[..4].try_into().unwrap()) as usize;
        let (frame, after) = rest[4..].split_at(length);
        if after.is_empty() {
            return (frames, frame.to_vec());
        }
        (rest, frames) = (after, frames + 1);
    }
}

fn ended(limits: &Limits, holds: impl Fn(CloseReason) -> bool, asked: usize) {
    eventually("all have ended", || lock(&limits.closed).len() == PEERS);
    assert!(lock(&limits.closed).iter().all(|(_, reason)| holds(*reason)), "{:?}", limits.closed);
    assert_eq!(lock(&limits.asked).len(), asked, "each once");
    let closed = lock(&limits.closed);
    assert!(lock(&limits.asked).iter().all(|asked| closed.contains(asked)));
}

on_every_backend! {
    fn who_is_silent_too_long_hears_why_it_ends(backend) {
        let soon = Duration::from_millis(50);
        type Set = fn(&mut Options, Duration);
        let cases: [(Set, CloseReason); 2] = [
            (|options, soon| options.time.idle_timeout = Some(soon), CloseReason::IdleTimeout),
            (
                |options, soon| options.time.first_frame_timeout = FirstFrameTimeout::After(soon),
                CloseReason::FirstFrameTimeout,
            ),
        ];
        for (set, expected) in cases {
            let (server, limits) =
                start_limits(backend, Answer::Goodbye, |options| set(options, soon));
            let peers: Vec<_> = (0..PEERS).map(|_| connect(server.addresses()[0])).collect();
            for peer in &peers {
                assert_eq!(read_frame(peer), format!("goodbye: {expected}").as_bytes());
                assert!(read_to_end(peer).is_empty(), "its end, in order");
            }
            drop(peers);
            ended(&limits, |reason| reason == expected, PEERS);
        }
    }

    fn who_reads_too_slowly_gets_what_was_queued_and_then_hears_why(backend) {
        let (server, limits) = start_limits(backend, Answer::Goodbye, |_| {});
        let peers = crowd(&server);
        peers.iter().for_each(|peer| write(peer, &wire_default(b"fill")));
        eventually("all are cut", || lock(&limits.asked).len() == PEERS);
        std::thread::scope(|scope| {
            for peer in &peers {
                scope.spawn(move || {
                    let (before, last) = last_frame(peer);
                    assert!(before >= 4, "the queue holds as many");
                    assert!(last.starts_with(b"goodbye: slow consumer"), "{last:?}");
                });
            }
        });
        drop(peers);
        ended(&limits, |reason| matches!(reason, CloseReason::SlowConsumer { .. }), PEERS);
    }

    fn what_the_framing_refuses_is_told_too_and_a_frame_of_a_kib_fits(backend) {
        let (server, limits) = start_limits(backend, Answer::Goodbye, |_| {});
        let peers = crowd(&server);
        for peer in &peers {
            write(peer, &u32::MAX.to_be_bytes());
            write(peer, &[0; 4096]); // the beginning of that frame
            assert!(last_frame(peer).1.starts_with(b"goodbye: frame too large"));
        }
        drop(peers);
        ended(&limits, |reason| matches!(reason, CloseReason::FrameTooLarge { .. }), PEERS);
    }

    fn without_a_frame_it_ends_as_it_would(backend) {
        let answers = [
            (Answer::Nothing, 0),
            (Answer::TooLarge, 0),
            (Answer::Panic, PEERS),
            (Answer::Stopped, 0),
        ];
        for (answer, panics) in answers {
            let soon = Duration::from_millis(50);
            let (server, limits) = start_limits(backend, answer, |options| {
                options.time.idle_timeout = Some(soon);
            });
            let peers: Vec<_> = (0..PEERS).map(|_| connect(server.addresses()[0])).collect();
            peers.iter().for_each(|peer| assert!(read_to_end(peer).is_empty()));
            ended(&limits, |reason| reason == CloseReason::IdleTimeout, PEERS);
            // Workers publish their counts after the turn.
            eventually("each panic is counted", || {
                server.handle().stats().handler_panics == panics as u64
            });
        }
    }

    fn nobody_is_asked_when_the_program_ends_it(backend) {
        let (server, limits) = start_limits(backend, Answer::Goodbye, |_| {});
        let peers = crowd(&server);
        drop(server);
        peers.iter().for_each(wait_ended);
        ended(&limits, |reason| reason == CloseReason::Stopped, 0);
    }
}
