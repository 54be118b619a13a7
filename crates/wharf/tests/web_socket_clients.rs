//! Sessions with a WebSocket that the program begins.

#![forbid(unsafe_code)]

#[macro_use]
mod support;

use std::collections::HashSet;
use std::io::{self, ErrorKind, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use support::*;
use tungstenite::Message;
use tungstenite::handshake::server::{Request, Response};
use tungstenite::protocol::CloseFrame;
use wharf::{
    Backend, Close, CloseReason, EstablishError, Farewell, Group, Options, Policy, SendError,
    Sends, SessionId, Target, Text,
};

const PEERS: usize = 41;
const ROOM: Group = Group(7);
const HERE: (Ipv4Addr, u16) = (Ipv4Addr::LOCALHOST, 0);

type Failure = (SessionId, ErrorKind, Option<EstablishError>);

/// Sessions that are begun, and the servers that they are begun with.
struct Clients {
    harness: Harness,
    servers: TcpListener,
    /// What was told of connects that failed.
    told: Arc<Mutex<Vec<Failure>>>,
}

fn begin(backend: Backend, options: Options, behaviour: Behaviour) -> Clients {
    let told = Arc::<Mutex<Vec<_>>>::default();
    let noted = told.clone();
    let behaviour = behaviour.on_connect_failed(move |id, error: &io::Error| {
        let source = error.get_ref().and_then(|source| source.downcast_ref());
        lock(&noted).push((id, error.kind(), source.cloned()));
    });
    let harness = start_web_socket(backend, no_pings(), options, behaviour);
    Clients { harness, servers: TcpListener::bind(HERE).unwrap(), told }
}

impl Clients {
    fn target(&self) -> Target {
        Target::new(self.servers.local_addr().unwrap()).transport(no_pings())
    }

    /// A session is begun, and asks.
    #[track_caller]
    fn asks(&self, target: Target) -> (TcpStream, SessionId, String) {
        let id = self.harness.handle.connect(target).unwrap();
        let (server, _) = self.servers.accept().unwrap();
        server.set_read_timeout(Some(BOUND)).unwrap();
        server.set_nodelay(true).unwrap();
        let asks = read_head(&server);
        (server, id, asks)
    }

    /// The same, and is answered.
    #[track_caller]
    fn stands(&self) -> (TcpStream, SessionId) {
        let (server, id, asks) = self.asks(self.target());
        write(&server, answer_to(&asks).as_bytes());
        self.harness.log.wait("it opens", |ledger| ledger.ids.contains(&id).then_some(()));
        (server, id)
    }

    /// What was told of this one.
    #[track_caller]
    fn failed(&self, id: SessionId) -> (ErrorKind, Option<EstablishError>) {
        let told_of = || lock(&self.told).iter().find(|told| told.0 == id).cloned();
        eventually("it has failed", || told_of().is_some());
        let (_, kind, error) = told_of().unwrap();
        (kind, error)
    }

    #[track_caller]
    fn finish(self, failures: usize) {
        self.harness.settle();
        let stats = self.harness.finish();
        assert_eq!(stats.establish_failures, failures as u64);
        assert_eq!(stats.connect_failures, failures as u64);
    }
}

on_every_backend! {
    fn a_client_asks_for_what_it_was_told_and_masks_each_frame_with_a_key_of_its_own(backend) {
        let behaviour = Behaviour::web_echo().on_opened(|session| {
            let establishment = session.establishment().unwrap();
            assert!(establishment.request().is_none());
            assert_eq!(establishment.subprotocol(), Some("chat.v1"));
        });
        let clients = begin(backend, one_worker(), behaviour);
        let transport = no_pings().subprotocols(["chat.v2", "chat.v1"]);
        let target = clients.target().transport(transport).name("example.com:7000").path("/chat?x=1");
        let target = target.header("Cookie", "token=abc").header("Origin", "https://example.com");
        let (mut keys, mut asked_keys) = (HashSet::new(), HashSet::new());
        let mut servers = Vec::new();
        for _ in 0..PEERS {
            let (server, id, asks) = clients.asks(target.clone());
            // Sent before it stands.
            clients.harness.handle.send(id, Text("early")).unwrap();
            let key = asks.lines().find_map(|line| line.strip_prefix("Sec-WebSocket-Key: ")).unwrap();
            assert!(asked_keys.insert(key.to_owned()) && key.len() == 24, "{key}");
            let expected = format!(
                "GET /chat?x=1 HTTP/1.1\r\nHost: example.com:7000\r\nUpgrade: websocket\r\n\
                 Connection: Upgrade\r\nSec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\
                 Sec-WebSocket-Protocol: chat.v2, chat.v1\r\nCookie: token=abc\r\n\
                 Origin: https://example.com\r\n\r\n"
            );
            assert_eq!(asks, expected);
            let answer = answer_to(&asks).replace(
                "\r\n\r\n",
                "\r\nSec-WebSocket-Protocol: chat.v1\r\n\r\n",
            );
            servers.push((server, id, answer));
        }
        for (server, id, answer) in &servers {
            // None of them has left yet. The request has, and its send may not have been seen to complete.
            let early = Some(masked(TEXT, b"early").len());
            eventually("only that waits", || clients.harness.handle.queued_bytes(*id) == early);
            write(server, answer.as_bytes());
        }
        for (server, ..) in &servers {
            let mut expect = |first, payload: &[u8]| {
                let (frame, key) = read_masked(server);
                assert_eq!(frame, WsFrame { first, payload: payload.to_vec() });
                keys.insert(key);
            };
            expect(FIN | TEXT, b"early");
            write(server, &[unmasked(FIN | PING, b"p"), unmasked(FIN | BINARY, &[9; 300])].concat());
            expect(FIN | PONG, b"p");
            expect(FIN | BINARY, &[9; 300]);
        }
        assert!(keys.len() > 3 * PEERS - 3, "{} keys", keys.len()); // two may be the same by chance
        drop(servers);
        clients.finish(0);
    }

    fn a_strangers_server_is_understood_and_understands(backend) {
        let clients = begin(backend, one_worker(), Behaviour::web_echo());
        let servers = clients.servers.try_clone().unwrap();
        let stranger = thread::spawn(move || for nth in 0..PEERS {
            let (stream, _) = servers.accept().unwrap();
            stream.set_read_timeout(Some(BOUND)).unwrap();
            #[allow(clippy::result_large_err, reason = "it is the stranger's")]
            let look = |request: &Request, response: Response| {
                assert_eq!(request.uri().path(), format!("/{nth}"));
                Ok(response)
            };
            let mut server = tungstenite::accept_hdr(stream, look).unwrap();
            for message in [Message::text("grüße"), Message::binary(Random::new(nth as u64).bytes(60_000))] {
                server.send(message.clone()).unwrap();
                assert_eq!(server.read().unwrap(), message);
            }
            let says = CloseFrame { code: 4000.into(), reason: "enough".into() };
            server.close(Some(says)).unwrap();
            let Message::Close(Some(said)) = server.read().unwrap() else { panic!("it comes back") };
            assert_eq!(said.code, 4000.into());
        });
        for nth in 0..PEERS {
            let id = clients.harness.handle.connect(clients.target().path(format!("/{nth}"))).unwrap();
            assert_eq!(clients.harness.log.closed(id), CloseReason::PeerClosedWith { code: 4000 });
        }
        stranger.join().unwrap();
        clients.finish(0);
    }

    fn who_is_refused_learns_the_status(backend) {
        let clients = begin(backend, one_worker(), Behaviour::silent());
        for nth in 0..PEERS {
            let status = [200, 301, 401, 404, 503][nth % 5];
            let (server, id, _) = clients.asks(clients.target());
            write(&server, format!("HTTP/1.1 {status} No\r\nContent-Length: 2\r\n\r\nno").as_bytes());
            let refused = EstablishError::Refused { status };
            assert_eq!(clients.failed(id), (ErrorKind::ConnectionRefused, Some(refused)));
            wait_ended(&server);
        }
        clients.finish(PEERS);
    }

    fn an_answer_that_is_none_to_the_request_is_wrong(backend) {
        let clients = begin(backend, one_worker(), Behaviour::silent());
        let accept = |answer: &str| {
            let line = answer.lines().find(|line| line.starts_with("Sec-WebSocket-Accept")).unwrap();
            line.to_owned()
        };
        type Change<'a> = (&'a dyn Fn(&str) -> String, &'a str);
        let with = |answer: &str, line: &str| answer.replace("\r\n\r\n", &format!("\r\n{line}\r\n\r\n"));
        let changes: [Change<'_>; 8] = [
            (&|answer| answer.replace(&accept(answer), &format!("Sec-WebSocket-Accept: {ACCEPT}")), "another key"),
            (&|answer| answer.replace(&accept(answer), "A: b"), "another key"),
            (&|answer| with(answer, &accept(answer)), "another key"),
            (&|answer| answer.replace("Upgrade: websocket", "Upgrade: h2c"), "no WebSocket"),
            (&|answer| with(answer, "Sec-WebSocket-Protocol: soap"), "subprotocol"),
            (&|answer| with(answer, "Sec-WebSocket-Extensions: permessage-deflate"), "extension"),
            (&|_| "SSH-2.0-OpenSSH_9.6\r\n".to_owned(), "not HTTP"),
            (&|answer| with(answer, &format!("A: {}", "b".repeat(9_000))), "too large"),
        ];
        for _ in 0..5 {
            for (change, word) in &changes {
                let (server, id, asks) = clients.asks(clients.target());
                write(&server, change(&answer_to(&asks)).as_bytes());
                let (ErrorKind::InvalidData, Some(EstablishError::Wrong { reason })) = clients.failed(id) else {
                    panic!("{word}: {:?}", clients.failed(id))
                };
                assert!(reason.contains(word), "{reason}");
                wait_ended(&server);
            }
        }
        clients.finish(5 * changes.len());
    }

    fn an_answer_that_is_cut_anywhere_is_read_and_what_lies_behind_it_is_delivered(backend) {
        let clients = begin(backend, one_worker(), Behaviour::web_echo());
        let mut servers = Vec::new();
        let mut first_bytes = 0;
        for at in 0.. {
            let (server, _, asks) = clients.asks(clients.target());
            let wire = [answer_to(&asks).as_bytes(), &unmasked(FIN | TEXT, b"early"), &unmasked(BINARY, b"in ")].concat();
            if at > wire.len() {
                write(&server, &wire);
                first_bytes += wire.len();
                servers.push((server, Vec::new()));
                break;
            }
            let (front, back) = wire.split_at(at);
            write(&server, front);
            first_bytes += at;
            servers.push((server, back.to_vec()));
        }
        // So that no second part comes with its first.
        eventually("it has come", || clients.harness.handle.stats().received_bytes == first_bytes as u64);
        for (server, back) in &servers {
            write(server, &[back, &unmasked(FIN | CONTINUATION, b"parts")[..]].concat());
        }
        for (server, _) in &servers {
            assert_eq!(read_masked(server).0, WsFrame { first: FIN | TEXT, payload: b"early".to_vec() });
            assert_eq!(read_masked(server).0, WsFrame { first: FIN | BINARY, payload: b"in parts".to_vec() });
        }
        drop(servers);
        clients.finish(0);
    }

    fn whoever_ends_before_it_stands_fails(backend) {
        let clients = begin(backend, one_worker(), Behaviour::silent());
        let handle = &clients.harness.handle;
        for _ in 0..10 {
            let (server, id, asks) = clients.asks(clients.target());
            write(&server, &answer_to(&asks).as_bytes()[..40]);
            server.shutdown(Shutdown::Write).unwrap();
            assert_eq!(clients.failed(id), (ErrorKind::UnexpectedEof, None));
            wait_ended(&server);
            let (server, id, _) = clients.asks(clients.target());
            reset(server);
            assert_in(clients.failed(id).0, &[ErrorKind::UnexpectedEof, ErrorKind::ConnectionReset]);
            for how in [Close::Stop, Close::Drain] {
                let (server, id, _) = clients.asks(clients.target());
                assert!(handle.close(id, how));
                assert_eq!(clients.failed(id), (ErrorKind::ConnectionAborted, None));
                wait_ended(&server);
            }
        }
        clients.finish(40);
    }

    fn whoever_takes_too_long_fails(backend) {
        let options = one_worker().with(|options| {
            options.time.establish_timeout = Duration::from_millis(300);
        });
        let clients = begin(backend, options, Behaviour::silent());
        let late: Vec<_> = (0..PEERS).map(|_| clients.asks(clients.target())).collect();
        for (nth, (server, _, asks)) in late.iter().enumerate() {
            // It may be too late already.
            let _ = (&*server).write_all(&answer_to(asks).as_bytes()[..nth]);
        }
        for (server, id, _) in &late {
            assert_eq!(clients.failed(*id), (ErrorKind::TimedOut, None));
            wait_ended(server);
        }
        clients.finish(PEERS);
    }

    fn the_end_of_the_program_ends_those_that_establish(backend) {
        for drains in [false, true] {
            let clients = begin(backend, one_worker(), Behaviour::silent());
            let servers: Vec<_> = (0..PEERS).map(|_| clients.asks(clients.target())).collect();
            if drains {
                clients.harness.handle.drain(BOUND).unwrap();
            } else {
                clients.harness.handle.stop();
            }
            for (server, id, _) in &servers {
                assert_eq!(clients.failed(*id), (ErrorKind::ConnectionAborted, None));
                wait_ended(server);
            }
            clients.finish(PEERS);
        }
    }

    fn who_is_drained_before_it_stands_still_sends_what_was_queued(backend) {
        let clients = begin(backend, one_worker(), Behaviour::silent());
        for nth in 0..PEERS {
            let (server, id, asks) = clients.asks(clients.target());
            clients.harness.handle.send(id, "queued").unwrap();
            let (reason, code, said) = match nth % 2 {
                0 => {
                    clients.harness.handle.close(id, Close::Drain);
                    (CloseReason::Local, 1000, "")
                }
                _ => {
                    let farewell = Farewell::new(4001).text("why");
                    assert_eq!(clients.harness.handle.close_with(id, farewell), Ok(true));
                    (CloseReason::Kicked { code: 4001 }, 4001, "why")
                }
            };
            write(&server, answer_to(&asks).as_bytes());
            let (frames, close) = read_masked_to_close(&server);
            assert_eq!(frames[0], WsFrame { first: FIN | BINARY, payload: b"queued".to_vec() });
            assert_eq!((frames.len(), close), (1 + nth % 2, Some((code, said.to_owned()))));
            assert_eq!(clients.harness.log.closed(id), reason);
        }
        clients.finish(0);
    }

    fn a_server_that_breaks_a_rule_is_told_which_code(backend) {
        let clients = begin(backend, one_worker(), Behaviour::web_echo());
        let mut long = unmasked(FIN | BINARY, &[0; 65_537]);
        long.truncate(10);
        let cases = [
            (masked(FIN | TEXT, b"a server's are not"), 1002), (unmasked(FIN | 0x40 | TEXT, b""), 1002),
            (unmasked(FIN | CONTINUATION, b""), 1002), (unmasked(FIN | TEXT, b"\xff"), 1007),
            (unmasked(FIN | CLOSE, b"\0"), 1002), (long, 1009),
        ];
        for nth in 0..PEERS {
            let (wire, code) = &cases[nth % cases.len()];
            let (server, id) = clients.stands();
            write(&server, &[unmasked(FIN | TEXT, b"before"), wire.clone()].concat());
            let (frames, close) = read_masked_to_close(&server);
            assert_eq!(frames, [WsFrame { first: FIN | TEXT, payload: b"before".to_vec() }]);
            assert_eq!(close, Some((*code, String::new())));
            let reason = clients.harness.log.closed(id);
            let expected = matches!(reason, CloseReason::ProtocolError { code: told, .. } if told == *code);
            assert!(expected || matches!(reason, CloseReason::FrameTooLarge { bytes: 65_537, max: 65_536 }), "{reason}");
        }
        clients.finish(0);
    }

    fn a_server_that_answers_no_ping_is_given_up(backend) {
        let clients = begin(backend, one_worker(), Behaviour::web_echo());
        let transport = no_pings().ping_after(Some(Duration::from_millis(50)));
        let servers: Vec<_> = (0..PEERS).map(|_| {
            let (server, id, asks) = clients.asks(clients.target().transport(transport.clone()));
            write(&server, answer_to(&asks).as_bytes());
            (server, id)
        }).collect();
        for (server, id) in &servers {
            let ping = WsFrame { first: FIN | PING, payload: Vec::new() };
            assert_eq!(read_masked_to_close(server), (vec![ping], Some((1001, String::new()))));
            assert_eq!(clients.harness.log.closed(*id), CloseReason::PingTimeout);
        }
        clients.finish(0);
    }

    fn connects_are_not_bound_by_how_many_may_establish(backend) {
        let options = one_worker().with(|options| options.sessions.establishing_max = Some(1));
        let clients = begin(backend, options, Behaviour::web_echo());
        let silent = clients.harness.connect();
        eventually("the place is taken", || clients.harness.handle.stats().establishing == 1);
        let asked: Vec<_> = (0..PEERS).map(|_| clients.asks(clients.target())).collect();
        for (server, _, asks) in &asked {
            write(server, answer_to(asks).as_bytes());
            write(server, &unmasked(FIN | TEXT, b"on"));
            assert_eq!(read_masked(server).0.payload, b"on");
        }
        drop((silent, asked));
        clients.harness.settle();
        let stats = clients.harness.finish();
        assert_eq!((stats.refused, stats.establish_failures), (0, 1));
    }

    fn what_is_sent_to_be_replaced_by_what_is_newer_is_masked_once(backend) {
        let options = one_worker().with(|options| {
            options.sending.queue_bytes_max = 64 * 1024;
            options.sending.kernel_bytes = Some(16 * 1024);
        });
        let clients = begin(backend, options, Behaviour::silent());
        let handle = &clients.harness.handle;
        for _ in 0..PEERS {
            let (server, id) = clients.stands();
            handle.send_latest(id, 3, Text("at once")).unwrap();
            assert_eq!(read_masked(&server).0, WsFrame { first: FIN | TEXT, payload: b"at once".to_vec() });
        }
        let (server, id) = clients.stands();
        while handle.try_send(id, [7; 1_000]).is_ok() {}
        for number in 0..100_u8 {
            handle.send_latest(id, 3, [number; 5]).unwrap();
        }
        let mut newest = read_masked(&server).0;
        while newest.payload.len() == 1_000 || newest.payload[0] < 99 {
            assert!(newest.payload == [7; 1_000] || newest.payload == [newest.payload[0]; 5], "{newest:?}");
            newest = read_masked(&server).0;
        }
        assert_eq!(newest, WsFrame { first: FIN | BINARY, payload: vec![99; 5] });
        drop(server);
        clients.finish(0);
    }

    fn what_is_published_and_is_no_text_reaches_who_sends_text_as_bytes(backend) {
        let clients = begin(backend, one_worker(), Behaviour::silent());
        let handle = &clients.harness.handle;
        let servers: Vec<_> = (0..PEERS).map(|_| {
            let target = clients.target().transport(no_pings().sends(Sends::Text));
            let (server, id, asks) = clients.asks(target);
            write(&server, answer_to(&asks).as_bytes());
            clients.harness.log.wait("it opens", |ledger| ledger.ids.contains(&id).then_some(()));
            handle.join(id, ROOM).unwrap();
            assert!(matches!(handle.try_send(id, b"\xff"), Err(SendError::Refused { .. })));
            server
        }).collect();
        handle.publish(ROOM, "text").unwrap();
        handle.publish(ROOM, b"\xff\xfe").unwrap();
        handle.publish(ROOM, "text").unwrap();
        for server in &servers {
            for (opcode, payload) in [(TEXT, &b"text"[..]), (BINARY, b"\xff\xfe"), (TEXT, b"text")] {
                assert_eq!(read_masked(server).0, WsFrame { first: FIN | opcode, payload: payload.to_vec() });
            }
        }
        drop(servers);
        clients.finish(0);
    }

    fn the_largest_that_all_can_be_sent_reaches_a_client_too_whose_heads_are_longer(backend) {
        let options = one_worker().with(|options| options.sending.queue_bytes_max = 100_000);
        let clients = begin(backend, options, Behaviour::silent());
        let handle = &clients.harness.handle;
        let (server, id) = clients.stands();
        handle.join_with(id, ROOM, Policy::Skip).unwrap();
        let largest = vec![7; 100_000 - 10]; // a client's head has four bytes more
        let frame = handle.encode(&largest).unwrap();
        handle.publish(ROOM, &largest).unwrap();
        assert_same(&read_masked(&server).0.payload, &largest);
        eventually("it has left", || handle.queued_bytes(id) == Some(0));
        handle.try_send(id, &frame).unwrap();
        assert_same(&read_masked(&server).0.payload, &largest);
        eventually("it has left", || handle.queued_bytes(id) == Some(0));
        handle.publish(ROOM, "small").unwrap();
        let small = WsFrame { first: FIN | BINARY, payload: b"small".to_vec() };
        assert_eq!(read_masked(&server).0, small);
        drop(server);
        clients.finish(0);
    }
}
