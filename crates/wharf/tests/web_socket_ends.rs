//! How sessions with a WebSocket end: what the program is told, and what the peer.

#![forbid(unsafe_code)]

#[macro_use]
mod support;

use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use support::*;
use wharf::{Backend, Close, CloseReason, EndOfStream, Farewell, Options, SessionId};

const PEERS: usize = 41;
const MILLIS: fn(u64) -> Duration = Duration::from_millis;

fn echo_harness(backend: Backend, options: Options) -> Harness {
    start_web_socket(backend, no_pings(), options, Behaviour::web_echo())
}

/// What the peer finds at the end: the frames, then the code and the reason of a Close.
type Found = (Vec<WsFrame>, Option<(u16, String)>);

fn close_alone(code: u16) -> Found {
    (Vec::new(), Some((code, String::new())))
}

/// Many sessions, of which each ends by what is done to it. Each is told this reason, and its peer that.
#[track_caller]
fn all_end(
    harness: &Harness,
    act: impl Fn(&TcpStream, SessionId),
    (reason, found): (CloseReason, Found),
) {
    let peers = harness.web_sockets(PEERS);
    for (peer, id) in &peers {
        act(peer, *id);
    }
    for (peer, id) in &peers {
        assert_eq!(read_to_close(peer), found);
        assert_eq!(harness.log.closed(*id), reason);
    }
}

/// What breaks a rule: the frames, the code, and a word of the reason.
fn violations() -> Vec<(Vec<u8>, u16, &'static str)> {
    let mut found = Vec::new();
    let mut add = |wire: Vec<u8>, code, word| found.push((wire, code, word));
    for bit in [0x40, 0x20, 0x10] {
        add(masked(FIN | bit | TEXT, b"hello"), 1002, "reserved bit");
        add(masked(FIN | bit | PING, b""), 1002, "reserved bit");
    }
    for opcode in [3, 7, 11, 15] {
        add(masked(FIN | opcode, b""), 1002, "opcode");
    }
    add(unmasked(FIN | TEXT, b"hello"), 1002, "masks");
    add(unmasked(FIN | CLOSE, b""), 1002, "masks");
    for opcode in [CLOSE, PING, PONG] {
        add(masked(opcode, b""), 1002, "control frame is a fragment");
        add(masked(FIN | opcode, &[3; 126]), 1002, "125 bytes");
    }
    add(masked(FIN | CONTINUATION, b"hello"), 1002, "continues no message");
    add(masked(CONTINUATION, b"hello"), 1002, "continues no message");
    add([masked(TEXT, b"one"), masked(FIN | TEXT, b"two")].concat(), 1002, "within another");
    add([masked(BINARY, b""), masked(BINARY, b"")].concat(), 1002, "within another");
    add([&[FIN | BINARY, 0x80 | 126, 0, 5][..], &[0; 9]].concat(), 1002, "shortest");
    add(
        [&[FIN | BINARY, 0x80 | 127, 0, 0, 0, 0, 0, 0, 1, 0][..], &[0; 4]].concat(),
        1002,
        "shortest",
    );
    add([&[FIN | BINARY, 0x80 | 127, 0x80][..], &[0; 11]].concat(), 1002, "shortest");
    add(masked(FIN | CLOSE, &[3]), 1002, "code");
    for code in [0, 999, 1004, 1005, 1006, 1015, 2999, 5000, u16::MAX] {
        add(masked(FIN | CLOSE, &closing(code, "")), 1002, "code");
    }
    add(masked(FIN | CLOSE, b"\x03\xe8\xff"), 1007, "UTF-8");
    add(masked(FIN | TEXT, b"caf\xe9"), 1007, "UTF-8");
    add(masked(FIN | TEXT, b"\xed\xa0\x80"), 1007, "UTF-8");
    add(masked(FIN | TEXT, "cut \u{20ac}".as_bytes().split_last().unwrap().1), 1007, "UTF-8");
    add([masked(TEXT, b"\xe2\x82"), masked(CONTINUATION, b"\x28")].concat(), 1007, "UTF-8");
    add([masked(TEXT, b"\xf4"), masked(FIN | CONTINUATION, b"")].concat(), 1007, "UTF-8");
    add(
        [masked(TEXT, b""), masked(CONTINUATION, b"").repeat(64)].concat(),
        1008,
        "empty fragments",
    );
    found
}

on_every_backend! {
    fn who_breaks_a_rule_is_answered_what_it_sent_before_and_told_which_code(backend) {
        let harness = echo_harness(backend, one_worker());
        let cases = violations();
        let peers = harness.web_sockets(2 * cases.len());
        let behind = masked(FIN | TEXT, b"never delivered");
        for (nth, (peer, _)) in peers.iter().enumerate() {
            let wire = [masked(FIN | TEXT, b"before"), cases[nth / 2].0.clone(), behind.clone()].concat();
            // In one piece, and with the bytes of the violation apart.
            let at = if nth % 2 == 0 { wire.len() } else { 12 + nth % 3 };
            write(peer, &wire[..at]);
            write(peer, &wire[at..]);
        }
        let before = WsFrame { first: FIN | TEXT, payload: b"before".to_vec() };
        for (nth, (peer, id)) in peers.iter().enumerate() {
            let (wire, code, word) = &cases[nth / 2];
            let found = read_to_close(peer);
            assert_eq!(found, (vec![before.clone()], Some((*code, String::new()))), "{wire:x?}");
            let CloseReason::ProtocolError { code: told, reason } = harness.log.closed(*id) else {
                panic!("{}: {wire:x?}", harness.log.closed(*id))
            };
            assert!(told == *code && reason.contains(word), "{told}, {reason}: {wire:x?}");
            assert_eq!(harness.log.record(*id).frame_count, 1);
        }
        drop(peers);
        harness.settle();
        harness.finish();
    }

    fn a_message_that_is_too_long_ends_by_what_its_head_says(backend) {
        let web_socket = no_pings().message_bytes_max(1_000);
        let harness = start_web_socket(backend, web_socket, one_worker(), Behaviour::web_echo());
        let head = |first, bytes: u64| [&[first, 0x80 | 127][..], &bytes.to_be_bytes(), &[0; 4]].concat();
        for bytes in [1 << 16, 1 << 30, u64::MAX / 2] {
            let reason = CloseReason::FrameTooLarge { bytes, max: 1_000 };
            all_end(&harness, |peer, _| write(peer, &head(FIN | BINARY, bytes)), (reason, close_alone(1009)));
        }
        // Together they are.
        let together = [masked(TEXT, &[b'a'; 600]), masked(CONTINUATION, &[b'b'; 401])[..8].to_vec()].concat();
        let reason = CloseReason::FrameTooLarge { bytes: 1_001, max: 1_000 };
        all_end(&harness, |peer, _| write(peer, &together), (reason, close_alone(1009)));
        let (peer, _) = harness.web_socket();
        write(&peer, &masked(FIN | BINARY, &[7; 1_000]));
        expect_ws(&peer, FIN | BINARY, &[7; 1_000]);
        drop(peer);
        harness.settle();
        harness.finish();
    }

    fn a_drained_session_sends_what_is_queued_and_closes_with_1000(backend) {
        let harness = echo_harness(backend, one_worker());
        let queued: Vec<_> = (0..20_u8).map(|n| WsFrame { first: FIN | BINARY, payload: vec![n; 9_000] }).collect();
        let found = (queued.clone(), Some((1000, String::new())));
        all_end(&harness, |_, id| {
            queued.iter().for_each(|frame| harness.handle.send(id, &frame.payload).unwrap());
            assert!(harness.handle.close(id, Close::Drain));
        }, (CloseReason::Local, found));
        harness.settle();
        harness.finish();
    }

    fn a_stopped_session_says_nothing(backend) {
        let harness = echo_harness(backend, one_worker());
        let stop = |_: &TcpStream, id| assert!(harness.handle.close(id, Close::Stop));
        all_end(&harness, stop, (CloseReason::Local, (Vec::new(), None)));
        harness.settle();
        harness.finish();
    }

    fn a_servers_drain_closes_with_1001_and_ends_those_that_establish(backend) {
        let harness = echo_harness(backend, one_worker());
        let peers = harness.web_sockets(PEERS);
        let halves: Vec<_> = (0..PEERS).map(|_| harness.connect()).collect();
        for (nth, peer) in halves.iter().enumerate() {
            write(peer, &request().as_bytes()[..3 * nth]);
        }
        let stats = || harness.handle.stats();
        let halves_bytes: usize = (0..PEERS).map(|nth| 3 * nth).sum();
        let heads_bytes = PEERS * request().len();
        eventually("all have come", || stats().received_bytes == (halves_bytes + heads_bytes) as u64);
        eventually("all establish", || stats().establishing == PEERS as u64);
        let report = std::thread::scope(|scope| {
            let drain = scope.spawn(|| harness.handle.drain(BOUND).unwrap());
            for peer in &halves {
                assert_eq!(read_to_end(peer), b"");
            }
            for (peer, id) in &peers {
                expect_close(peer, 1001);
                assert_eq!(harness.log.closed(*id), CloseReason::Drained);
            }
            drain.join().unwrap()
        });
        assert_eq!((report.live, report.flushed), (PEERS as u64, PEERS as u64));
        let stats = harness.finish();
        assert_eq!(stats.establish_failures, PEERS as u64);
    }

    fn a_kicked_peer_gets_the_last_message_and_then_the_code_and_the_reason(backend) {
        let harness = echo_harness(backend, one_worker());
        let word = |first, said: &str| vec![WsFrame { first, payload: said.as_bytes().to_vec() }];
        let long = "é".repeat(100);
        let cases = [
            (Farewell::new(4001).text("why"), word(FIN | TEXT, "why"), (4001, "why")),
            (Farewell::new(3000).frame("why"), word(FIN | BINARY, "why"), (3000, "")),
            (Farewell::new(4999).text(long.clone()), word(FIN | TEXT, &long), (4999, &long[..122])),
            (Farewell::new(1011), Vec::new(), (1011, "")),
            // Codes that nobody may send.
            (Farewell::new(7).text("so"), word(FIN | TEXT, "so"), (1008, "so")),
            (Farewell::new(1006), Vec::new(), (1008, "")),
            (Farewell::new(70_000), Vec::new(), (1008, "")),
        ];
        for (farewell, frames, (code, said)) in cases {
            let reason = CloseReason::Kicked { code: farewell.code };
            let kick = |_: &TcpStream, id| assert_eq!(harness.handle.close_with(id, farewell.clone()), Ok(true));
            all_end(&harness, kick, (reason, (frames, Some((code, said.to_owned())))));
        }
        harness.settle();
        harness.finish();
    }

    fn a_peers_close_comes_back_and_nothing_behind_it_is_delivered(backend) {
        let harness = echo_harness(backend, one_worker());
        let echoed = vec![WsFrame { first: FIN | TEXT, payload: b"last".to_vec() }];
        let cases = [
            (closing(1000, ""), 1000), (closing(4321, "I am tired"), 4321), (Vec::new(), 1005),
            (closing(1001, &"r".repeat(123)), 1001),
        ];
        for ends_too in [false, true] {
            for (payload, code) in &cases {
                let closes = |peer: &TcpStream, _| {
                    let close = masked(FIN | CLOSE, payload);
                    let behind = [masked(FIN | TEXT, b"late"), masked(FIN | PING, b"late"), close.clone()].concat();
                    write(peer, &[masked(FIN | TEXT, b"last"), close, behind].concat());
                    if ends_too {
                        peer.shutdown(Shutdown::Write).unwrap();
                    }
                };
                let found = (echoed.clone(), Some((*code, String::new())));
                all_end(&harness, closes, (CloseReason::PeerClosedWith { code: *code }, found));
            }
        }
        harness.settle();
        let stats = harness.finish();
        assert_eq!((stats.pongs, stats.received_frames), (0, 8 * PEERS as u64));
    }

    fn a_close_that_crosses_another_is_one(backend) {
        let harness = echo_harness(backend, one_worker());
        let peers = harness.web_sockets(5 * PEERS);
        for (peer, id) in &peers {
            write(peer, &masked(FIN | CLOSE, &closing(4000, "")));
            harness.handle.close(*id, Close::Drain);
        }
        for (peer, id) in &peers {
            let (frames, close) = read_to_close(peer);
            assert_eq!(frames, []);
            let expected = match harness.log.closed(*id) {
                CloseReason::Local => 1000,
                reason => {
                    assert_eq!(reason, CloseReason::PeerClosedWith { code: 4000 });
                    4000
                }
            };
            assert_eq!(close, Some((expected, String::new())));
        }
        drop(peers);
        harness.settle();
        harness.finish();
    }

    fn a_stream_that_ends_without_a_close_ends_without_one(backend) {
        let harness = echo_harness(backend, one_worker());
        let ends_after = |wire: Vec<u8>| move |peer: &TcpStream, _: SessionId| {
            write(peer, &wire);
            peer.shutdown(Shutdown::Write).unwrap();
        };
        all_end(&harness, ends_after(Vec::new()), (CloseReason::PeerClosed, (Vec::new(), None)));
        let echoed = vec![WsFrame { first: FIN | TEXT, payload: b"last".to_vec() }];
        let last = masked(FIN | TEXT, b"last");
        all_end(&harness, ends_after(last), (CloseReason::PeerClosed, (echoed, None)));
        harness.settle();
        harness.finish();
    }

    fn a_stream_that_ends_inside_a_message_is_told_from_one_that_does_not(backend) {
        let harness = echo_harness(backend, one_worker());
        let whole = masked(FIN | BINARY, b"payload");
        let fragment = |payload| masked(BINARY, payload);
        let cuts = [
            whole[..1].to_vec(), whole[..5].to_vec(), whole[..6].to_vec(), whole[..7].to_vec(),
            fragment(b""), fragment(b"frag"), masked(FIN | PING, b"ping")[..8].to_vec(),
        ];
        for wire in cuts {
            for (peer, id) in harness.web_sockets(5) {
                write(&peer, &wire);
                peer.shutdown(Shutdown::Write).unwrap();
                expect_no_close(&peer);
                let reason = harness.log.closed(id);
                assert!(matches!(reason, CloseReason::PeerClosedInFrame { .. }), "{reason}: {wire:x?}");
            }
        }
        harness.settle();
        harness.finish();
    }

    fn where_the_end_of_a_stream_is_told_only_one_between_messages_is(backend) {
        let options = one_worker().with(|options| {
            options.receiving.end_of_stream = EndOfStream::Told;
        });
        let harness = echo_harness(backend, options);
        let told = |wire: Vec<u8>| {
            let (peer, id) = harness.web_socket();
            write(&peer, &wire);
            peer.shutdown(Shutdown::Write).unwrap();
            (peer, id)
        };
        for _ in 0..PEERS {
            let (peer, id) = told(masked(FIN | TEXT, b"last"));
            expect_ws(&peer, FIN | TEXT, b"last");
            harness.handle.send(id, "and on").unwrap();
            expect_ws(&peer, FIN | BINARY, b"and on");
            assert!(harness.handle.finish(id));
            expect_close(&peer, 1000);
            assert_eq!(harness.log.closed(id), CloseReason::PeerClosed);
            let (peer, id) = told(masked(BINARY, b""));
            expect_no_close(&peer);
            let reason = harness.log.closed(id);
            assert!(matches!(reason, CloseReason::PeerClosedInFrame { bytes: 0 }), "{reason}");
        }
        harness.settle();
        harness.finish();
    }

    fn a_reset_is_a_reset(backend) {
        let harness = echo_harness(backend, one_worker());
        for (nth, (peer, id)) in harness.web_sockets(PEERS).into_iter().enumerate() {
            let part = &masked(FIN | BINARY, b"part of a message")[..nth % 12];
            let before = harness.handle.stats().received_bytes;
            write(&peer, part);
            eventually("it has come", || harness.handle.stats().received_bytes == before + part.len() as u64);
            reset(peer);
            let reason = harness.log.closed(id);
            assert!(is_end_by_reset(reason), "{reason}");
        }
        harness.settle();
        harness.finish();
    }

    fn who_has_finished_still_hears_until_the_peer_closes(backend) {
        let behaviour = Behaviour::silent().on_received(|session, frame| {
            if frame == b"finish" {
                session.send("the last");
                session.finish();
            }
        });
        let harness = start_web_socket(backend, no_pings(), one_worker(), behaviour);
        let peers = harness.web_sockets(PEERS);
        for (peer, _) in &peers {
            write(peer, &masked(FIN | TEXT, b"finish"));
        }
        for (peer, id) in &peers {
            expect_ws(peer, FIN | BINARY, b"the last");
            expect_ws(peer, FIN | CLOSE, &closing(1000, ""));
            assert_eq!(read_to_end(peer), b"");
            write(peer, &[masked(FIN | TEXT, b"and yet"), masked(FIN | CLOSE, &closing(1000, ""))].concat());
            peer.shutdown(Shutdown::Write).unwrap();
            assert_eq!(harness.log.closed(*id), CloseReason::PeerClosedWith { code: 1000 });
            assert_eq!(harness.log.record(*id).frames, [&b"finish"[..], b"and yet"]);
        }
        drop(peers);
        harness.settle();
        harness.finish();
    }

    fn a_callback_that_panics_ends_its_session_without_a_word(backend) {
        let behaviour = Behaviour::silent().on_received(|_, _| panic_on_purpose());
        let harness = start_web_socket(backend, no_pings(), one_worker(), behaviour);
        let panics = |peer: &TcpStream, _| write(peer, &masked(FIN | TEXT, b"panic"));
        all_end(&harness, panics, (CloseReason::HandlerPanicked, (Vec::new(), None)));
        harness.settle();
        harness.finish_after_panics(PEERS as u64);
    }

    fn who_is_silent_is_told_that_its_time_is_over(backend) {
        let options = one_worker().with(|options| options.time.idle_timeout = Some(MILLIS(100)));
        let harness = echo_harness(backend, options);
        all_end(&harness, |_, _| {}, (CloseReason::IdleTimeout, close_alone(1001)));
        harness.settle();
        harness.finish();
    }

    fn who_answers_no_ping_ends(backend) {
        let web_socket = no_pings().ping_after(Some(MILLIS(50)));
        let harness = start_web_socket(backend, web_socket, one_worker(), Behaviour::web_echo());
        let ping = vec![WsFrame { first: FIN | PING, payload: Vec::new() }];
        let found = (ping, Some((1001, String::new())));
        all_end(&harness, |_, _| {}, (CloseReason::PingTimeout, found));
        harness.settle();
        let stats = harness.finish();
        assert_eq!(stats.pings, PEERS as u64);
        assert_eq!(stats.closed_like(CloseReason::PingTimeout), PEERS as u64);
    }

    fn who_answers_pings_or_speaks_lives(backend) {
        let web_socket = no_pings().ping_after(Some(MILLIS(1_000)));
        let harness = start_web_socket(backend, web_socket, one_worker(), Behaviour::web_echo());
        let peers = harness.web_sockets(9);
        for _ in 0..3 {
            for (nth, (peer, _)) in peers.iter().enumerate() {
                expect_ws(peer, FIN | PING, b"");
                match nth % 3 {
                    0 => write(peer, &masked(FIN | PONG, b"")),
                    1 => write(peer, &masked(FIN | TEXT, b"I speak")),
                    _ => write(peer, &masked(FIN | PING, b"you?")),
                }
            }
            for (nth, (peer, id)) in peers.iter().enumerate() {
                match nth % 3 {
                    0 => {}
                    1 => expect_ws(peer, FIN | TEXT, b"I speak"),
                    _ => expect_ws(peer, FIN | PONG, b"you?"),
                }
                assert!(harness.handle.is_open(*id));
            }
        }
        drop(peers);
        harness.settle();
        let stats = harness.finish();
        assert_eq!(stats.closed_like(CloseReason::PeerClosed), 9);
    }
}
