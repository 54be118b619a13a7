//! Plain, length-prefixed and WebSocket sessions in one handler and one group, those with a WebSocket that the program
//! has begun among them.

#![forbid(unsafe_code)]

#[macro_use]
mod support;

use std::net::{Ipv4Addr, TcpListener, TcpStream};

use socket2::SockRef;
use support::*;
use wharf::{
    Backend, Close, CloseReason, Farewell, FirstFrameTimeout, Framing, Group, Handle, Listener,
    Options, Policy, PublishError, Sends, Server, SessionId, Target, Text,
};

const PEERS: usize = 41;
const ROOM: Group = Group(7);
const WITNESS: Group = Group(8);
const HERE: (Ipv4Addr, u16) = (Ipv4Addr::LOCALHOST, 0);

/// What a peer speaks: the first four by their listeners' places, the last two by a connect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Raw,
    Prefixed,
    WebSocket,
    /// What it is sent as bytes is text.
    TextOnly,
    Connected,
    /// It masks what it sends.
    Client,
}

const KINDS: [Kind; 6] =
    [Kind::Raw, Kind::Prefixed, Kind::WebSocket, Kind::TextOnly, Kind::Connected, Kind::Client];

struct Peer {
    kind: Kind,
    stream: TcpStream,
    id: SessionId,
}

fn options(workers: usize) -> Options {
    Options::default().workers(workers).with(|options| {
        options.time.first_frame_timeout = FirstFrameTimeout::Never;
        options.sending.queue_bytes_max = 4 << 20;
    })
}

fn start_kinds(backend: Backend, options: Options, behaviour: Behaviour) -> Harness {
    let builder = Server::builder()
        .listen(Listener::new(HERE).framing(Framing::raw()))
        .listen(HERE)
        .listen(Listener::new(HERE).transport(no_pings()))
        .listen(Listener::new(HERE).transport(no_pings().sends(Sends::Text)))
        .framing(length_framing())
        .options(patient(options));
    start_builder(backend, builder, behaviour)
}

/// A peer of this kind. The server begins the last two.
#[track_caller]
fn peer_of(harness: &Harness, kind: Kind, listener: &TcpListener) -> Peer {
    let place = kind as usize;
    let (stream, id) = match kind {
        Kind::Raw | Kind::Prefixed => {
            let before = harness.log.look(|ledger| ledger.ids.len());
            let stream = connect(harness.server.addresses()[place]);
            let id = harness.id_since(before, &stream);
            (stream, id)
        }
        Kind::WebSocket | Kind::TextOnly => harness.web_socket_at(place),
        Kind::Connected | Kind::Client => {
            let mut target = Target::new(listener.local_addr().unwrap());
            if kind == Kind::Client {
                target = target.transport(no_pings());
            }
            let id = harness.handle.connect(target).unwrap();
            let (stream, _) = listener.accept().unwrap();
            stream.set_read_timeout(Some(BOUND)).unwrap();
            if kind == Kind::Client {
                let answer = answer_to(&read_head(&stream));
                write(&stream, answer.as_bytes());
            }
            harness.log.wait("it opens", |ledger| ledger.ids.contains(&id).then_some(()));
            (stream, id)
        }
    };
    Peer { kind, stream, id }
}

fn peers_of_all_kinds(harness: &Harness) -> Vec<Peer> {
    let listener = TcpListener::bind(HERE).unwrap();
    let peers = (0..PEERS).map(|nth| peer_of(harness, KINDS[nth % KINDS.len()], &listener));
    let peers: Vec<_> = peers.collect();
    for peer in &peers {
        assert_eq!(harness.handle.join(peer.id, ROOM), Ok(true));
    }
    peers
}

impl Peer {
    /// The next frame is this, in the form of its kind.
    #[track_caller]
    fn expect(&self, content: &[u8], is_text: bool) {
        let opcode = FIN | if is_text { TEXT } else { BINARY };
        match self.kind {
            Kind::Raw => assert_same(&read(&self.stream, content.len()), content),
            Kind::Prefixed | Kind::Connected => assert_same(&read_frame(&self.stream), content),
            Kind::WebSocket => expect_ws(&self.stream, opcode, content),
            Kind::TextOnly => expect_ws(&self.stream, FIN | TEXT, content),
            Kind::Client => {
                let (frame, _) = read_masked(&self.stream);
                assert_eq!(frame.first, opcode);
                assert_same(&frame.payload, content);
            }
        }
    }

    fn say(&self, content: &[u8]) {
        let wire = match self.kind {
            Kind::Raw => content.to_vec(),
            Kind::Prefixed | Kind::Connected => wire_default(content),
            Kind::WebSocket | Kind::TextOnly => masked(FIN | BINARY, content),
            Kind::Client => unmasked(FIN | BINARY, content),
        };
        write(&self.stream, &wire);
    }
}

fn letters(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|at| b'a' + (at % 23) as u8).collect()
}

/// Peers with WebSockets, in one group by this policy, that take little before they read.
fn slow_members(harness: &Harness, policy: Policy) -> Vec<Peer> {
    let listener = TcpListener::bind(HERE).unwrap();
    let kinds = [Kind::WebSocket, Kind::TextOnly, Kind::Client];
    let peers: Vec<_> = (0..PEERS).map(|nth| peer_of(harness, kinds[nth % 3], &listener)).collect();
    for peer in &peers {
        SockRef::from(&peer.stream).set_recv_buffer_size(16 * 1024).unwrap();
        assert_eq!(harness.handle.join_with(peer.id, ROOM, policy), Ok(true));
    }
    peers
}

fn slow_options(workers: usize) -> Options {
    options(workers).with(|options| {
        options.sending.queue_bytes_max = 64 * 1024;
        options.sending.kernel_bytes = Some(16 * 1024);
        options.sending.slow_after = 20 * BOUND;
    })
}

/// A kilobyte with two numbers before it, as text.
fn numbered(key: u32, number: u32) -> Vec<u8> {
    format!("{key:08}{number:08}{}", "x".repeat(1_000)).into_bytes()
}

fn publish(handle: &Handle, publish: impl Fn() -> Result<(), PublishError<Vec<u8>>>) {
    while let Err(error) = publish() {
        assert!(matches!(error, PublishError::Full { .. }), "{error:?}");
        wait_for_room_to_publish(handle).unwrap();
    }
}

/// All messages up to the last, with their two numbers. Each is whole, and pongs lie between them only.
#[track_caller]
fn read_numbered(peer: &Peer) -> Vec<(u32, u32)> {
    let mut found = Vec::new();
    loop {
        let frame = match peer.kind {
            Kind::Client => read_masked(&peer.stream).0,
            _ => read_ws(&peer.stream),
        };
        if frame.first == FIN | PONG {
            assert_eq!(frame.payload, b"between");
            continue;
        }
        let opcode = if peer.kind == Kind::TextOnly { TEXT } else { BINARY };
        assert_eq!(frame.first, FIN | opcode);
        if frame.payload == b"the last" {
            return found;
        }
        let text = str::from_utf8(&frame.payload).unwrap();
        let number = |at: usize| text[at..at + 8].parse().unwrap();
        assert_same(&frame.payload, &numbered(number(0), number(8)));
        found.push((number(0), number(8)));
    }
}

/// Waits until what was published has been handed over. The peer who tells is a session more.
fn all_is_handed_over(harness: &Harness) -> Peer {
    let handle = &harness.handle;
    let witness = peer_of(harness, Kind::WebSocket, &TcpListener::bind(HERE).unwrap());
    assert_eq!(handle.join(witness.id, WITNESS), Ok(true));
    publish(handle, || handle.publish(WITNESS, b"handed over".to_vec()));
    witness.expect(b"handed over", false);
    witness
}

on_every_backend! {
    fn what_is_meant_for_many_reaches_each_in_its_form(backend) {
        for workers in [1, 3] {
            let harness = start_kinds(backend, options(workers), Behaviour::silent());
            let handle = &harness.handle;
            let peers = peers_of_all_kinds(&harness);
            let ids: Vec<_> = peers.iter().map(|peer| peer.id).collect();
            for bytes in [1, 125, 126, 300, 5_000, 65_530] {
                let content = letters(bytes);
                let text = Text(str::from_utf8(&content).unwrap());
                let (frame, text_frame) = (handle.encode(&content).unwrap(), handle.encode(text).unwrap());
                assert_eq!((frame.body_bytes(), text_frame.body_bytes()), (bytes, bytes));
                let ways: [(bool, &dyn Fn()); 9] = [
                    (false, &|| handle.publish(ROOM, &content).unwrap()),
                    (true, &|| handle.publish(ROOM, text).unwrap()),
                    (false, &|| handle.publish(ROOM, &frame).unwrap()),
                    (true, &|| handle.publish_keyed(ROOM, 3, &text_frame).unwrap()),
                    (true, &|| handle.broadcast(text).unwrap()),
                    (false, &|| handle.broadcast(&frame).unwrap()),
                    (true, &|| assert_eq!(handle.send_many(&ids, &text_frame).unwrap(), ids.len())),
                    (false, &|| ids.iter().for_each(|id| handle.send(*id, &content).unwrap())),
                    (true, &|| ids.iter().for_each(|id| handle.try_send(*id, &text_frame).unwrap())),
                ];
                for (is_text, send) in ways {
                    send();
                    peers.iter().for_each(|peer| peer.expect(&content, is_text));
                }
            }
            drop(peers);
            harness.settle();
            harness.finish();
        }
    }

    fn whatever_one_says_all_others_hear_in_one_order(backend) {
        let behaviour = Behaviour::silent().on_received(|session, frame| {
            session.handle().publish_except(ROOM, session.id(), frame).unwrap();
        });
        let harness = start_kinds(backend, options(1), behaviour);
        let peers = peers_of_all_kinds(&harness);
        for round in 0..3 {
            for (nth, peer) in peers.iter().enumerate() {
                let said = format!("{nth:03} says {round}");
                peer.say(said.as_bytes());
                for (other, hears) in peers.iter().enumerate() {
                    if other != nth {
                        hears.expect(said.as_bytes(), false);
                    }
                }
            }
        }
        drop(peers);
        harness.settle();
        harness.finish();
    }

    fn a_kicked_session_gets_the_last_word_in_its_form(backend) {
        let harness = start_kinds(backend, options(1), Behaviour::silent());
        let peers = peers_of_all_kinds(&harness);
        harness.handle.publish(ROOM, "before").unwrap();
        for peer in &peers {
            let farewell = Farewell::new(4001).text("why");
            assert_eq!(harness.handle.close_with(peer.id, farewell), Ok(true));
        }
        for peer in &peers {
            peer.expect(b"before", false);
            peer.expect(b"why", true);
            let told = match peer.kind {
                Kind::WebSocket | Kind::TextOnly => read_to_close(&peer.stream),
                Kind::Client => read_masked_to_close(&peer.stream),
                _ => {
                    assert_eq!(read_to_end(&peer.stream), b"");
                    peer.stream.shutdown(std::net::Shutdown::Write).unwrap();
                    (Vec::new(), Some((4001, "why".to_owned())))
                }
            };
            assert_eq!(told, (Vec::new(), Some((4001, "why".to_owned()))));
            assert_eq!(harness.log.closed(peer.id), CloseReason::Kicked { code: 4001 });
        }
        drop(peers);
        harness.settle();
        harness.finish();
    }

    fn who_skips_gets_whole_messages_in_order(backend) {
        const MESSAGES: u32 = 3_000;
        let harness = start_kinds(backend, slow_options(1), Behaviour::silent());
        let handle = &harness.handle;
        let peers = slow_members(&harness, Policy::Skip);
        for number in 0..MESSAGES {
            publish(handle, || handle.publish(ROOM, numbered(0, number)));
            if number % 300 == 0 {
                for peer in &peers {
                    let ping = if peer.kind == Kind::Client { unmasked } else { masked };
                    write(&peer.stream, &ping(FIN | PING, b"between"));
                }
            }
        }
        // What is sent may overtake what was published.
        let witness = all_is_handed_over(&harness);
        std::thread::scope(|scope| {
            let readers: Vec<_> = peers.iter().map(|peer| scope.spawn(move || read_numbered(peer))).collect();
            for peer in &peers {
                eventually("there is room for the last", || handle.try_send(peer.id, "the last").is_ok());
            }
            for reader in readers {
                let found: Vec<_> = reader.join().unwrap().into_iter().map(|(_, number)| number).collect();
                assert!(found.is_sorted_by(|a, b| a < b), "{found:?}");
                assert!(found.len() > 10 && found.len() < MESSAGES as usize, "{}", found.len());
            }
        });
        eventually("they are told of what they missed", || handle.stats().skipped_frames > 0);
        drop((peers, witness));
        harness.settle();
        let stats = harness.finish();
        assert_eq!(stats.pongs, 10 * PEERS as u64);
    }

    fn who_keeps_the_latest_gets_the_newest_of_each_key(backend) {
        const KEYS: u32 = 7;
        const MESSAGES: u32 = 1_400;
        let harness = start_kinds(backend, slow_options(1), Behaviour::silent());
        let handle = &harness.handle;
        let peers = slow_members(&harness, Policy::KeepLatest);
        for number in 0..MESSAGES {
            let key = number % KEYS;
            publish(handle, || handle.publish_keyed(ROOM, key.into(), numbered(key, number)));
        }
        publish(handle, || handle.publish(ROOM, b"the last".to_vec()));
        let witness = all_is_handed_over(&harness);
        std::thread::scope(|scope| {
            let readers: Vec<_> = peers.iter().map(|peer| scope.spawn(move || read_numbered(peer))).collect();
            for reader in readers {
                let found = reader.join().unwrap();
                assert!(found.len() < MESSAGES as usize, "{}", found.len());
                for key in 0..KEYS {
                    let newest = found.iter().filter(|(of, _)| *of == key).map(|(_, number)| *number);
                    assert_eq!(newest.max(), Some(MESSAGES - KEYS + key));
                }
            }
        });
        drop((peers, witness));
        harness.settle();
        let stats = harness.finish();
        assert!(stats.superseded_frames > 0);
    }

    fn a_server_speaks_with_itself(backend) {
        for workers in [1, 3] {
            // Each answers a number with the one below, and who says 0 closes.
            let behaviour = Behaviour::silent()
                .on_opened(|session| {
                    if session.establishment().unwrap().request().is_none() {
                        session.send(Text("20"));
                    }
                })
                .on_received(|session, frame| {
                    assert!(session.frame_is_text());
                    let number: u32 = str::from_utf8(frame).unwrap().parse().unwrap();
                    let Some(below) = number.checked_sub(1) else { return };
                    session.send(Text(below.to_string()));
                    if number == 1 {
                        session.close(Close::Drain);
                    }
                });
            let harness = start_web_socket(backend, no_pings(), options(workers), behaviour);
            let target = Target::new(harness.address()).transport(no_pings());
            for _ in 0..PEERS {
                harness.handle.connect(target.clone()).unwrap();
            }
            harness.log.wait_closed_count(2 * PEERS);
            harness.settle();
            let stats = harness.finish();
            assert_eq!((stats.established, stats.received_frames), (2 * PEERS as u64, 21 * PEERS as u64));
            assert_eq!(stats.closed_like(CloseReason::PeerClosedWith { code: 1000 }), PEERS as u64);
            assert_eq!(stats.closed_like(CloseReason::Local), PEERS as u64);
        }
    }
}
