//! Peers that speak WebSocket, or pretend to, and do not play by the rules: each ends for a stated reason, and nobody else
//! notices.

#![forbid(unsafe_code)]

#[macro_use]
mod support;

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use support::*;
use wharf::{
    Backend, CloseReason, Framing, LengthPrefix, Listener, Options, Server, Stats, Target,
};

const CROWD: usize = 41;

/// What many do at once: something first, then something for ever.
struct Attack {
    name: &'static str,
    /// Whether it begins with a WebSocket.
    upgrades: bool,
    first: Vec<u8>,
    endless: Vec<u8>,
    /// What was counted of it.
    counted: fn(&Stats) -> u64,
}

fn protocol_errors(stats: &Stats) -> u64 {
    stats.closed_like(CloseReason::ProtocolError { code: 0, reason: "" })
}

fn too_long(stats: &Stats) -> u64 {
    stats.closed_like(CloseReason::FrameTooLarge { bytes: 0, max: 0 })
}

fn attacks() -> Vec<Attack> {
    let frames = |name, first: Vec<u8>, endless: Vec<u8>, counted| Attack {
        name,
        upgrades: true,
        first,
        endless,
        counted,
    };
    let heads = |name, first: &str, endless: &[u8]| Attack {
        name,
        upgrades: false,
        first: first.into(),
        endless: endless.into(),
        counted: |stats| stats.refused_upgrades,
    };
    let ping = masked(FIN | PING, &[1; 125]);
    vec![
        frames("empty fragments", masked(TEXT, b""), masked(CONTINUATION, b""), protocol_errors),
        frames(
            "fragments of a byte, and pings",
            masked(TEXT, b"a"),
            [masked(CONTINUATION, b"a"), ping].concat(),
            too_long,
        ),
        frames(
            "continuations of nothing",
            Vec::new(),
            masked(CONTINUATION, &[b'a'; 900]),
            protocol_errors,
        ),
        frames(
            "a message without an end",
            masked(BINARY, b"a"),
            masked(CONTINUATION, &[b'a'; 900]),
            too_long,
        ),
        frames("reserved bits", Vec::new(), masked(FIN | 0x70 | TEXT, b"hello"), protocol_errors),
        frames("reserved opcodes", Vec::new(), masked(FIN | 5, b"hello"), protocol_errors),
        frames("unmasked", Vec::new(), unmasked(FIN | TEXT, b"hello"), protocol_errors),
        frames(
            "no UTF-8",
            masked(TEXT, b"\xf0\x9f"),
            masked(CONTINUATION, b"\x98"),
            protocol_errors,
        ),
        frames("zeros", Vec::new(), vec![0; 1_000], protocol_errors),
        frames(
            "the largest there is",
            vec![FIN | BINARY, 0xff, 0x7f, 255, 255, 255, 255, 255, 255, 255],
            vec![7; 999],
            too_long,
        ),
        heads("a hello of TLS", "\x16\x03\x01\x02\0\x01\0\x01\u{fc}\x03\x03", &[0xa5; 700]),
        heads("garbage with lines", "\r\n", b"garbage is \xff\xfe here\r\n"),
        heads("a head without an end", "GET / HTTP/1.1\r\nHost: here\r\n", b"A: b\r\n"),
        heads("a header without an end", "GET / HTTP/1.1\r\nHost: here\r\nCookie: ", &[b'c'; 500]),
        heads("a path without an end", "GET /", &[b'p'; 500]),
        heads("heads behind heads", "", b"GET / HTTP/1.1\r\nHost: here\r\n\r\n"),
    ]
}

/// Many do this until each has been ended.
fn crowd_attacks(address: SocketAddr, attack: &Attack) {
    let mut peers: Vec<_> = (0..CROWD).map(|_| connect(address)).collect();
    if attack.upgrades {
        peers.iter().for_each(|peer| write(peer, request().as_bytes()));
        peers.iter().for_each(|peer| drop(read_taken(peer)));
    }
    let endless = attack.endless.repeat(1 + 4_000 / attack.endless.len());
    peers.iter().for_each(|peer| write(peer, &attack.first));
    peers.iter().for_each(|peer| peer.set_nonblocking(true).unwrap());
    let (mut sent, mut room) = (vec![0; CROWD], vec![0; 64 * 1024]);
    let mut is_over = [false; CROWD];
    let began = Instant::now();
    while is_over.contains(&false) {
        assert!(began.elapsed() < BOUND, "{}: not all have been ended", attack.name);
        for (nth, peer) in
            peers.iter_mut().enumerate().filter(|(nth, _)| !is_over[*nth]).collect::<Vec<_>>()
        {
            let at = sent[nth] % endless.len();
            match peer.write(&endless[at..]) {
                Ok(count) => sent[nth] += count,
                Err(error) if is_time_out(&error) => {}
                Err(_) => is_over[nth] = true,
            }
            match peer.read(&mut room) {
                Ok(0) => is_over[nth] = true,
                Ok(_) => {}
                Err(error) => is_over[nth] |= !is_time_out(&error),
            }
        }
    }
}

/// One that behaves is served while `act` runs, and was at least so often.
fn beside_one_that_is_served(harness: &Harness, rounds_min: usize, act: impl FnOnce() + Send) {
    let (innocent, _) = harness.web_socket();
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let acts = scope.spawn(|| {
            let _over = SetOnDrop(&is_over);
            act();
        });
        let mut rounds = 0_u32;
        while !is_over.load(Ordering::SeqCst) || (rounds as usize) < rounds_min {
            let said = rounds.to_be_bytes();
            write(&innocent, &masked(FIN | BINARY, &said));
            expect_ws(&innocent, FIN | BINARY, &said);
            rounds += 1;
        }
        acts.join().unwrap();
    });
}

/// Answers four bytes with themselves, and nothing else.
fn echo_of_numbers() -> Behaviour {
    Behaviour::silent().on_received(|session, frame| {
        if frame.len() == 4 {
            session.send(frame);
        }
    })
}

fn small_queues() -> Options {
    one_worker().with(|options| {
        options.sending.queue_bytes_max = 64 * 1024;
        options.sending.kernel_bytes = Some(16 * 1024);
    })
}

/// Pings with numbers, so many, and a byte of data after each 500: a peer that the limit on control frames does not end.
fn numbered_pings(count: u32) -> Vec<u8> {
    let mut wire = Vec::new();
    for number in 0..count {
        let payload = [&number.to_be_bytes()[..], &[3; 100]].concat();
        wire.extend(masked(FIN | PING, &payload));
        if number % 500 == 499 {
            wire.extend(masked(FIN | BINARY, b"d"));
        }
    }
    wire
}

/// The number in the next pong.
#[track_caller]
fn read_pong(peer: &TcpStream) -> u32 {
    let WsFrame { first, payload } = read_ws(peer);
    assert_eq!((first, payload.len()), (FIN | PONG, 104));
    u32::from_be_bytes(payload[..4].try_into().unwrap())
}

on_every_backend! {
    fn crowds_that_break_rules_end_and_one_that_behaves_is_served_throughout(backend) {
        let _alone = alone();
        let web_socket = no_pings().message_bytes_max(2_000);
        let harness = start_web_socket(backend, web_socket, one_worker(), Behaviour::web_echo());
        let (innocent, _) = harness.web_socket();
        drop(innocent);
        harness.settle();
        let before = open_descriptors();
        for attack in attacks() {
            let counted = (attack.counted)(&harness.handle.stats());
            let address = harness.address();
            beside_one_that_is_served(&harness, 20, || crowd_attacks(address, &attack));
            harness.settle();
            let stats = harness.handle.stats();
            assert_eq!((attack.counted)(&stats), counted + CROWD as u64, "{}: {stats:?}", attack.name);
            assert_eq!((stats.establishing, stats.live, stats.queued_bytes), (0, 0, 0), "{}", attack.name);
            // Other tests of this process open and close some too.
            eventually("nothing is left open", || open_descriptors() <= before);
        }
        harness.finish();
    }

    fn smuggled_headers_are_refused_with_an_answer_and_an_end_in_order(backend) {
        let harness = start_web_socket(backend, no_pings(), one_worker(), Behaviour::web_echo());
        let smuggled = [
            "Host: other:7000", "host: here:7000", "Content-Length: 5", "Content-Length: 0\r\nContent-Length: 5",
            "Transfer-Encoding: chunked", "transfer-encoding: identity", "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
            "Sec-WebSocket-Version: 13", "Origin: http://here:7000\r\nOrigin: http://evil", "A: b\r\n folded: c", "Host : other",
            "A\0: b", "A: b\0", ": nameless", "No colon",
        ];
        beside_one_that_is_served(&harness, 20, || for line in smuggled {
            let asks = request_with("/", &[line]);
            let peers: Vec<_> = (0..CROWD).map(|_| harness.connect()).collect();
            peers.iter().for_each(|peer| write(peer, &[asks.as_bytes(), b"hello"].concat()));
            for peer in &peers {
                let answer = String::from_utf8(read_to_end(peer)).unwrap();
                assert!(answer.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{line}: {answer}");
                assert!(answer.ends_with("Content-Length: 0\r\n\r\n"), "{line}: {answer}");
            }
        });
        harness.settle();
        let stats = harness.finish();
        assert_eq!((stats.refused_upgrades, stats.opened), ((CROWD * smuggled.len()) as u64, 1));
    }

    fn a_flood_of_pings_by_who_does_not_read_takes_no_more_than_the_bound(backend) {
        const PINGS: u32 = 12_000;
        /// The queue's bound, 4 KiB for control frames, and one of them.
        const MOST: usize = 64 * 1024 + 4 * 1024 + 139;
        let harness = start_web_socket(backend, no_pings(), small_queues(), echo_of_numbers());
        let (handle, wire) = (&harness.handle, numbered_pings(PINGS));
        let peers = harness.web_sockets(5);
        beside_one_that_is_served(&harness, 20, || {
            for piece in wire.chunks(50_000) {
                for (peer, id) in &peers {
                    write(peer, piece);
                    let queued = handle.queued_bytes(*id).unwrap();
                    assert!(queued <= MOST, "{queued} bytes wait");
                }
            }
            for (_, id) in &peers {
                let all = |ledger: &Ledger| (ledger.records[id].frame_count == u64::from(PINGS / 500)).then_some(());
                harness.log.wait("it has taken all", all);
                let queued = handle.queued_bytes(*id).unwrap();
                assert!(queued <= MOST && queued > 32 * 1024, "{queued} bytes wait");
            }
        });
        for (peer, _) in &peers {
            let (mut last, mut count) = (None, 0);
            while last != Some(PINGS - 1) {
                let number = read_pong(peer);
                assert!(last.is_none_or(|last| last < number), "{number} behind {last:?}");
                (last, count) = (Some(number), count + 1);
            }
            assert!(count < PINGS, "it was never held up");
        }
        drop(peers);
        harness.settle();
        harness.finish();
    }

    fn who_is_paused_for_not_reading_loses_no_pong(backend) {
        const PINGS: u32 = 8_000;
        // So small that it is full before a session has had its share of a turn.
        let options = small_queues().with(|options| {
            options.receiving.backpressure = wharf::Backpressure::PauseReceive;
            options.sending.queue_bytes_max = 4 * 1024;
        });
        let listener = Listener::new((Ipv4Addr::LOCALHOST, 0)).transport(no_pings().message_bytes_max(1_000));
        let of_connects = Framing::length_prefixed(LengthPrefix::default().frame_bytes_max(1_000));
        let builder = Server::builder().listen(listener).framing(of_connects).options(options);
        let harness = start_builder(backend, builder, echo_of_numbers());
        let wire = numbered_pings(PINGS);
        let peers = harness.web_sockets(5);
        beside_one_that_is_served(&harness, 20, || {
            for (peer, _) in &peers {
                let written = write_while_it_is_taken(peer, &wire, Duration::from_millis(100));
                std::thread::scope(|scope| {
                    scope.spawn(|| write(peer, &wire[written..]));
                    (0..PINGS).for_each(|number| assert_eq!(read_pong(peer), number));
                });
            }
        });
        drop(peers);
        harness.settle();
        harness.finish();
    }

    fn those_that_announce_much_and_send_nothing_hold_nothing(backend) {
        let options = one_worker().with(|options| {
            options.receiving.queues_bytes_max = Some(100_000);
        });
        let harness = start_web_socket(backend, no_pings(), options, Behaviour::web_echo());
        let announced = &masked(FIN | BINARY, &[7; 60_000])[..8];
        let peers = harness.web_sockets(5 * CROWD);
        peers.iter().for_each(|(peer, _)| write(peer, announced));
        beside_one_that_is_served(&harness, 100, || {});
        for (_, id) in &peers {
            assert!(harness.handle.is_open(*id));
        }
        drop(peers);
        harness.settle();
        harness.finish();
    }

    fn servers_that_answer_garbage_fail_the_connects_and_nobody_else(backend) {
        let _alone = alone();
        let servers = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let harness = start_web_socket(backend, no_pings(), one_worker(), Behaviour::web_echo());
        let (innocent, _) = harness.web_socket();
        drop(innocent);
        harness.settle();
        let before = open_descriptors();
        let answers: [&[u8]; 6] = [
            b"\xff\xfe\r\n", b"HTTP/1.1 101\r\nA: ", b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
            b"HTTP/1.1 ", b"\0", b"HTTP/9.9 101 Later\r\n\r\n",
        ];
        let target = Target::new(servers.local_addr().unwrap()).transport(no_pings());
        beside_one_that_is_served(&harness, 20, || for answer in answers {
            let begun: Vec<_> = (0..CROWD).map(|_| {
                harness.handle.connect(target.clone()).unwrap();
                servers.accept().unwrap().0
            }).collect();
            for server in &begun {
                let writes = || -> io::Result<()> {
                    (&*server).write_all(answer)?;
                    (0..20).try_for_each(|_| (&*server).write_all(&[b'a'; 1_000]))
                };
                let _ = writes(); // until it is closed
            }
            begun.iter().for_each(wait_ended);
        });
        harness.settle();
        let failures = (CROWD * answers.len()) as u64;
        eventually("nothing is left open", || open_descriptors() <= before);
        let stats = harness.finish();
        assert_eq!((stats.connect_failures, stats.establish_failures), (failures, failures));
    }
}
