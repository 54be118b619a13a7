//! WebSocket: messages of all sizes and in all pieces, text and bytes, and what holds a session up.

#![forbid(unsafe_code)]

#[macro_use]
mod support;

use std::net::{Shutdown, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use support::*;
use tungstenite::protocol::Role;
use tungstenite::{Message, WebSocket as Stranger};
use wharf::{
    Backend, Close, CloseReason, EncodeError, Framing, Group, Lines, Listener, Options,
    PublishError, SendError, Sends, Server, Text, WebSocket,
};

const PEERS: usize = 41;
const ROOM: Group = Group(7);

fn roomy() -> Options {
    pausing().with(|options| {
        options.sending.queue_bytes_max = 4 << 20;
        options.receiving.queues_bytes_max = Some(64 << 20);
    })
}

fn large() -> WebSocket {
    no_pings().message_bytes_max(1 << 20)
}

/// So many bytes of letters, in one and in two bytes each.
fn letters(bytes: usize) -> Vec<u8> {
    let mut text = "wörd and mask: ".repeat(bytes / 16 + 1).into_bytes();
    text.truncate(bytes);
    if str::from_utf8(&text).is_err() {
        text[bytes - 1] = b'.';
    }
    text
}

/// A message in so many fragments, with a ping before each but the first, and one of them empty.
fn in_fragments(opcode: u8, message: &[u8], pieces: usize, pings: &mut Vec<Vec<u8>>) -> Vec<u8> {
    let (mut wire, step) = (Vec::new(), message.len().div_ceil(pieces).max(1));
    let mut opcode = opcode;
    for (nth, piece) in message.chunks(step).enumerate() {
        wire.extend(masked(opcode, piece));
        opcode = CONTINUATION;
        let ping = vec![nth as u8; nth % 126];
        wire.extend(masked(FIN | PING, &ping));
        pings.push(ping);
        if nth == 1 {
            wire.extend(masked(CONTINUATION, b""));
        }
    }
    wire.extend(masked(FIN | opcode, b""));
    wire
}

/// Sends this wire form in pieces of so many bytes, and reads the echo of its one message and the pongs.
fn exchange(
    peer: &TcpStream,
    wire: &[u8],
    step: usize,
    (opcode, message): (u8, &[u8]),
    pings: &[Vec<u8>],
) {
    std::thread::scope(|scope| {
        scope.spawn(|| wire.chunks(step).for_each(|piece| write(peer, piece)));
        for ping in pings {
            expect_ws(peer, FIN | PONG, ping);
        }
        expect_ws(peer, FIN | opcode, message);
    });
}

on_every_backend! {
    fn messages_of_every_length_come_back_whole_however_they_come(backend) {
        let harness = start_web_socket(backend, large(), roomy(), Behaviour::web_echo());
        let peers = harness.web_sockets(PEERS);
        let (mut messages, mut sent) = (0, 0);
        for (nth, (peer, _)) in peers.iter().enumerate() {
            let long: &[usize] = if nth < 3 { &[65_535, 65_536, 1 << 20] } else { &[] };
            for &bytes in [0, 1, 125, 126, 3_000].iter().chain(long) {
                for opcode in [TEXT, BINARY] {
                    let message = match opcode {
                        TEXT => letters(bytes),
                        _ => Random::new((nth + bytes) as u64).bytes(bytes),
                    };
                    let whole = masked(FIN | opcode, &message);
                    exchange(peer, &whole, usize::MAX, (opcode, &message), &[]);
                    // Of long ones only the front comes in single bytes.
                    let step = if bytes <= 126 { 1 } else { 500 + (nth * 7_919) % 20_011 };
                    exchange(peer, &whole, step, (opcode, &message), &[]);
                    let mut pings = Vec::new();
                    let pieces = in_fragments(opcode, &message, 1 + nth % 9, &mut pings);
                    exchange(peer, &pieces, step, (opcode, &message), &pings);
                    exchange(peer, &pieces, usize::MAX, (opcode, &message), &pings);
                    (messages, sent) = (messages + 4, sent + 4 * bytes as u64);
                }
            }
        }
        for (peer, id) in &peers {
            peer.shutdown(Shutdown::Write).unwrap();
            expect_no_close(peer);
            assert_eq!(harness.log.closed(*id), CloseReason::PeerClosed);
        }
        harness.settle();
        let stats = harness.finish();
        assert_eq!((stats.received_frames, stats.established), (messages, PEERS as u64));
        assert_eq!(stats.sent_frames, messages, "pongs are no frames of the program's");
        assert!(stats.received_bytes > sent);
    }

    fn many_messages_in_one_receive_come_in_order(backend) {
        let harness = start_web_socket(backend, large(), roomy(), Behaviour::web_echo());
        let peers = harness.web_sockets(PEERS);
        let wire: Vec<u8> = (0..2_000_u32).flat_map(|n| masked(FIN | BINARY, &n.to_be_bytes())).collect();
        let expected: Vec<u8> = (0..2_000_u32).flat_map(|n| unmasked(FIN | BINARY, &n.to_be_bytes())).collect();
        peers.iter().for_each(|(peer, _)| write(peer, &wire));
        for (peer, _) in &peers {
            assert_same(&read(peer, expected.len()), &expected);
        }
        drop(peers);
        harness.settle();
        harness.finish();
    }

    fn a_strangers_client_is_understood_and_understands(backend) {
        let web_socket = no_pings().message_bytes_max(1 << 20).subprotocols(["chat.v2"]);
        let harness = start_web_socket(backend, web_socket, roomy(), Behaviour::web_echo());
        for nth in 0..PEERS {
            let url = format!("ws://{}/chat?n={nth}", harness.address());
            let stream = harness.connect();
            let (mut peer, answer) = tungstenite::client(url, stream).unwrap();
            assert_eq!(answer.status(), 101);
            let long = Random::new(nth as u64).bytes(70_000);
            for message in [Message::text("grüße"), Message::binary(vec![0xff; 300]), Message::binary(long)] {
                peer.send(message.clone()).unwrap();
                assert_eq!(peer.read().unwrap(), message);
            }
            peer.send(Message::Ping(vec![7; 125].into())).unwrap();
            assert_eq!(peer.read().unwrap(), Message::Pong(vec![7; 125].into()));
            peer.close(None).unwrap();
            let Message::Close(None) = peer.read().unwrap() else { panic!("its Close comes back") };
            assert!(matches!(peer.read(), Err(tungstenite::Error::ConnectionClosed)));
            drop(peer);
            let id = harness.log.opened(nth);
            assert_eq!(harness.log.closed(id), CloseReason::PeerClosedWith { code: 1005 });
        }
        harness.settle();
        harness.finish();
    }

    fn a_program_tells_text_from_bytes_and_sends_either(backend) {
        let texts = Arc::new(Mutex::new(Vec::new()));
        let noted = texts.clone();
        let behaviour = Behaviour::silent()
            .on_opened(|session| assert!(!session.frame_is_text()))
            .on_received(move |session, frame| {
                lock(&noted).push((session.frame_is_text(), frame.to_vec()));
                session.send(Text("a text"));
                session.send("bytes");
            });
        let harness = start_web_socket(backend, no_pings(), one_worker(), behaviour);
        for (peer, id) in harness.web_sockets(PEERS) {
            write(&peer, &[masked(FIN | TEXT, "ü".as_bytes()), masked(FIN | BINARY, b"\xff")].concat());
            for _ in 0..2 {
                expect_ws(&peer, FIN | TEXT, b"a text");
                expect_ws(&peer, FIN | BINARY, b"bytes");
            }
            harness.handle.send(id, Text("from another thread")).unwrap();
            expect_ws(&peer, FIN | TEXT, b"from another thread");
            harness.handle.send(id, b"\xff\xfe").unwrap();
            expect_ws(&peer, FIN | BINARY, b"\xff\xfe");
        }
        let expected = [(true, "ü".as_bytes().to_vec()), (false, vec![0xff])];
        assert!(lock(&texts).chunks(2).all(|pair| pair == expected));
        assert_eq!(lock(&texts).len(), 2 * PEERS);
        harness.settle();
        harness.finish();
    }

    fn who_sends_text_only_is_refused_what_is_none(backend) {
        let web_socket = no_pings().sends(Sends::Text);
        let behaviour = Behaviour::silent().on_received(|session, frame| {
            assert!(matches!(session.try_send(frame), Err(SendError::Refused { bytes, .. }) if bytes == frame));
            session.send(frame);
        });
        let harness = start_web_socket(backend, web_socket, one_worker(), behaviour);
        let handle = &harness.handle;
        for (peer, id) in harness.web_sockets(PEERS) {
            handle.join(id, ROOM).unwrap();
            assert!(matches!(handle.try_send(id, b"\xff"), Err(SendError::Refused { bytes: b"\xff", .. })));
            assert!(matches!(handle.publish(ROOM, b"\xff"), Err(PublishError::Refused { .. })));
            assert!(matches!(handle.broadcast(b"\xff"), Err(PublishError::Refused { .. })));
            assert!(matches!(handle.encode(b"\xff"), Err(EncodeError::Refused { .. })));
            handle.send(id, "\u{20ac}").unwrap();
            expect_ws(&peer, FIN | TEXT, "\u{20ac}".as_bytes());
            write(&peer, &masked(FIN | BINARY, b"cut \xe2\x82"));
            wait_ended(&peer);
            drop(peer);
            let reason = harness.log.closed(id);
            assert!(matches!(reason, CloseReason::FrameRefusedToSend { .. }), "{reason}");
        }
        harness.settle();
        harness.finish();
    }

    fn between_two_messages_of_one_receive_a_session_pauses_and_goes_on_where_it_was(backend) {
        let behaviour = Behaviour::silent().on_received(|session, frame| {
            if frame == b"pause" {
                session.pause_receiving();
            } else {
                session.send(frame);
            }
        });
        let harness = start_web_socket(backend, no_pings(), one_worker(), behaviour);
        let peers = harness.web_sockets(PEERS);
        for (nth, (peer, _)) in peers.iter().enumerate() {
            let before = masked(FIN | TEXT, b"one");
            let middle = [masked(TEXT, b"tw"), masked(FIN | PING, b"!"), masked(FIN, b"o")].concat();
            let wire = [before, masked(FIN | TEXT, b"pause"), middle, masked(FIN | BINARY, b"three")].concat();
            let (front, back) = wire.split_at(wire.len() - nth % 12);
            write(peer, front);
            expect_ws(peer, FIN | BINARY, b"one");
            write(peer, back);
        }
        for (_, id) in &peers {
            harness.log.wait("it pauses", |ledger| (ledger.records[id].frame_count >= 2).then_some(()));
            assert_eq!(harness.log.record(*id).frames, [&b"one"[..], b"pause"]);
            assert!(harness.handle.resume_receiving(*id));
        }
        for (peer, _) in &peers {
            expect_ws(peer, FIN | PONG, b"!");
            expect_ws(peer, FIN | BINARY, b"two");
            expect_ws(peer, FIN | BINARY, b"three");
        }
        drop(peers);
        harness.settle();
        harness.finish();
    }

    fn who_does_not_read_is_not_read_from_and_loses_nothing(backend) {
        let options = pausing().with(|options| {
            options.sending.queue_bytes_max = 128 * 1024;
            options.sending.kernel_bytes = Some(16 * 1024);
        });
        let web_socket = no_pings().message_bytes_max(40_000);
        let harness = start_web_socket(backend, web_socket, options, Behaviour::web_echo());
        let (reads_not, id) = harness.web_socket();
        let innocents = harness.web_sockets(PEERS);
        let message = |n: u32| [&n.to_be_bytes()[..], &[7; 30_000]].concat();
        let wire: Vec<u8> = (0..300).flat_map(|n| masked(FIN | BINARY, &message(n))).collect();
        let written = write_while_it_is_taken(&reads_not, &wire, Duration::from_millis(300));
        assert!(written < wire.len(), "it is held up");
        assert!(harness.handle.queued_bytes(id).unwrap() <= 128 * 1024);
        for (peer, _) in &innocents {
            write(peer, &masked(FIN | TEXT, b"and I?"));
            expect_ws(peer, FIN | TEXT, b"and I?");
        }
        std::thread::scope(|scope| {
            scope.spawn(|| write(&reads_not, &wire[written..]));
            (0..300).for_each(|n| expect_ws(&reads_not, FIN | BINARY, &message(n)));
        });
        drop((reads_not, innocents));
        harness.settle();
        harness.finish();
    }

    fn timers_heartbeats_and_the_others_work_as_anywhere(backend) {
        let behaviour = Behaviour::silent()
            .on_opened(|session| session.set_timer(5, Duration::from_millis(20)).unwrap())
            .on_timer(|session, key| session.send(format!("timer {key}")))
            .on_received(|session, _| session.set_idle_timeout(Some(Duration::from_millis(50))));
        let options = one_worker().with(|options| {
            options.time.heartbeat = Some(wharf::Heartbeat::new(Duration::from_millis(100), "alive"));
        });
        let harness = start_web_socket(backend, no_pings(), options, behaviour);
        let peers = harness.web_sockets(PEERS);
        for (peer, _) in &peers {
            let mut told = Vec::new();
            while !(told.contains(&b"timer 5".to_vec()) && told.contains(&b"alive".to_vec())) {
                told.push(read_ws(peer).payload);
            }
        }
        for (peer, id) in &peers {
            write(peer, &masked(FIN | TEXT, b"idle"));
            let (frames, close) = read_to_close(peer);
            assert!(frames.iter().all(|frame| frame.payload == b"alive"), "{frames:?}");
            assert_eq!(close, Some((1001, String::new())));
            assert_eq!(harness.log.closed(*id), CloseReason::IdleTimeout);
        }
        drop(peers);
        harness.settle();
        harness.finish();
    }

    fn messages_that_wait_unfinished_have_a_bound_and_who_goes_beyond_it_ends(backend) {
        let options = one_worker().with(|options| options.receiving.queues_bytes_max = Some(66_000));
        let harness = start_web_socket(backend, no_pings(), options, Behaviour::web_echo());
        let (first, first_id) = harness.web_socket();
        let message = vec![3; 65_536];
        let wire = masked(FIN | BINARY, &message);
        let (front, back) = wire.split_at(60_000);
        write(&first, front);
        let opened_bytes = request().len() as u64;
        eventually("it has come", || harness.handle.stats().received_bytes >= opened_bytes + 60_000);
        for _ in 0..5 {
            let (second, id) = harness.web_socket();
            write(&second, front);
            let reason = harness.log.closed(id);
            assert!(matches!(reason, CloseReason::ReceiveQueueFull { .. }), "{reason}");
            wait_ended(&second);
        }
        write(&first, back);
        expect_ws(&first, FIN | BINARY, &message);
        harness.handle.close(first_id, Close::Drain);
        expect_close(&first, 1000);
        drop(first);
        harness.settle();
        harness.finish();
    }

    fn a_session_keeps_its_messages_where_others_may_change_their_framing(backend) {
        let behaviour = Behaviour::silent().on_received(|session, frame| {
            let changed = session.set_framing(usize::from(frame[0] - b'0'));
            session.send(format!("{changed}"));
        });
        let listener = Listener::new("127.0.0.1:0").transport(no_pings());
        let builder = Server::builder().listen(listener).options(one_worker());
        let builder = builder.framings([Framing::lines(Lines::default()), length_framing()]);
        let harness = start_builder(backend, builder, behaviour);
        for _ in 0..PEERS {
            let (peer, _) = harness.web_socket();
            let mut peer = Stranger::from_raw_socket(peer, Role::Client, None);
            for index in 0..3 {
                peer.send(Message::text(format!("{index}"))).unwrap();
                assert_eq!(peer.read().unwrap(), Message::binary(&b"false"[..]));
            }
        }
        harness.settle();
        harness.finish();
    }

    fn settings_that_mean_nothing_are_refused(backend) {
        let refused = |web_socket: WebSocket, options: Options| {
            let listener = Listener::new("127.0.0.1:0").transport(web_socket);
            let builder = Server::builder().listen(listener).options(options).backend(backend);
            builder.start(Nobody).expect_err("it is refused").to_string()
        };
        let says = |web_socket, word: &str| {
            let error = refused(web_socket, one_worker());
            assert!(error.contains(word), "{error}");
        };
        says(no_pings().message_bytes_max(0), "message_bytes_max");
        says(no_pings().message_bytes_max((1 << 30) + 1), "message_bytes_max");
        says(no_pings().subprotocols(["chat v2"]), "subprotocols");
        says(no_pings().ping_after(Some(Duration::from_millis(9))), "ping_after");
        let small = one_worker().with(|options| options.receiving.queues_bytes_max = Some(66_000));
        let error = refused(large(), small);
        assert!(error.contains("queues_bytes_max"), "{error}");
    }
}
