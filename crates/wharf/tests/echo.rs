//! Bytes come back whole: every framing, every chop, many sessions, both families, both sides.

#![forbid(unsafe_code)]

#[macro_use]
mod support;

use std::collections::HashSet;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};

use socket2::{Domain, Socket, Type};
use support::*;
use wharf::{
    Backend, Close, CloseReason, ConnectError, Connector, Endianness, Framing, LengthPrefix,
    LengthWidth, Server,
};

fn every_prefix() -> Vec<LengthPrefix> {
    let mut prefixes = Vec::new();
    for width in [LengthWidth::One, LengthWidth::Two, LengthWidth::Four, LengthWidth::Eight] {
        for endianness in [Endianness::Big, Endianness::Little] {
            for counts_itself in [false, true] {
                let prefix = LengthPrefix::default();
                prefixes
                    .push(prefix.width(width).endianness(endianness).counts_itself(counts_itself));
            }
        }
    }
    prefixes
}

/// Writes the bytes in chops of any size, and expects them back, while it still writes.
fn comes_back(harness: &Harness, bytes: &[u8], seed: u64) {
    let peer = harness.connect();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut random = Random::new(seed);
            let mut left = bytes;
            while !left.is_empty() {
                let most = [3, 40, 1_500, 50_000][random.below(4)];
                let (chop, rest) = left.split_at((1 + random.below(most)).min(left.len()));
                write(&peer, chop);
                left = rest;
            }
        });
        assert_same(&read(&peer, bytes.len()), bytes);
    });
    peer.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(read_to_end(&peer), b"", "nothing comes that was not sent");
}

on_every_backend! {
    /// Also through the handle, as a thread would: the worker is not asleep in its own callback. (On the port
    /// that all workers of Windows share, who sends posts the send itself.)
    #[cfg(not(windows))]
    fn what_a_handler_sends_in_a_callback_leaves_in_one_send(backend) {
        let behaviour = Behaviour::silent().on_received(|session, _| {
            for _ in 0..16 {
                session.handle().send(session.id(), b"x").unwrap();
            }
        });
        let harness = start(backend, Framing::raw(), one_worker(), behaviour);
        let (peer, _) = harness.connect_known();
        for round in 1..=10 {
            write(&peer, b"go");
            assert_eq!(read(&peer, 16), [b'x'; 16]);
            eventually("it is counted", || harness.handle.stats().sent_bytes == 16 * round);
            assert_eq!(harness.handle.stats().sends, round);
        }
        harness.finish();
    }

    fn a_megabyte_in_any_chops_comes_back_raw(backend) {
        let harness = start(backend, Framing::raw(), pausing(), Behaviour::echo());
        for seed in 1..=4 {
            comes_back(&harness, &Random::new(seed).bytes(1_500_000), seed);
        }
        harness.settle();
        let stats = harness.finish();
        assert_eq!((stats.received_bytes, stats.sent_bytes), (6_000_000, 6_000_000));
        assert_eq!(stats.closed_like(CloseReason::PeerClosed), 4);
    }

    fn a_megabyte_in_any_chops_comes_back_in_every_shape_of_prefix(backend) {
        for (seed, prefix) in every_prefix().into_iter().enumerate() {
            let framing = Framing::length_prefixed(prefix);
            let harness = start(backend, framing, pausing(), Behaviour::echo());
            let frame_max = if prefix.width == LengthWidth::One { 254 } else { 60_000 };
            let mut random = Random::new(seed as u64);
            let (mut bytes, mut frames) = (Vec::new(), 0);
            while bytes.len() < 1_100_000 {
                let most = [1, 20, 254, frame_max][random.below(4)];
                let frame_bytes = random.below(most + 1);
                bytes.extend(wire(prefix, &random.bytes(frame_bytes)));
                frames += 1;
            }
            comes_back(&harness, &bytes, seed as u64);
            harness.settle();
            let stats = harness.finish();
            assert_eq!((stats.received_frames, stats.sent_frames), (frames, frames), "{prefix:?}");
        }
    }

    fn a_frame_of_the_largest_size_comes_back_and_one_byte_more_does_not(backend) {
        let harness = start(backend, length_framing(), pausing(), Behaviour::echo());
        let peer = harness.connect();
        round_trip(&peer, &wire_default(&[7; 65_536]));
        write(&peer, &wire_default(&[7; 65_537]));
        wait_ended(&peer);
        let reason = harness.log.closed(harness.log.opened(0));
        assert_eq!(reason, CloseReason::FrameTooLarge { bytes: 65_537, max: 65_536 });
        harness.finish();
    }

    fn hundreds_of_sessions_each_get_their_own_bytes_back(backend) {
        let options = pausing().workers(3);
        let harness = start(backend, Framing::raw(), options, Behaviour::echo());
        let mut peers: Vec<_> =
            (0..300).map(|seed| (harness.connect(), Random::new(seed))).collect();
        for round in 0..5 {
            let said: Vec<_> = peers
                .iter_mut()
                .map(|(peer, random)| {
                    let bytes = random.bytes(1 + round * 700);
                    write(peer, &bytes);
                    bytes
                })
                .collect();
            for ((peer, _), bytes) in peers.iter().zip(said) {
                assert_same(&read(peer, bytes.len()), &bytes);
            }
        }
        assert_eq!(harness.handle.stats().live, 300);
        drop(peers);
        harness.settle();
        assert_eq!(harness.finish().closed_like(CloseReason::PeerClosed), 300);
    }

    fn every_listener_is_served_whichever_its_family(backend) {
        let builder = Server::builder().listen((Ipv4Addr::LOCALHOST, 0));
        let builder = builder.listen((Ipv6Addr::LOCALHOST, 0));
        let builder = builder.listen((Ipv4Addr::LOCALHOST, 0)).workers(2);
        let seen = Arc::new(Mutex::new(HashSet::new()));
        let behaviour = Behaviour::echo().on_opened({
            let seen = seen.clone();
            move |session| {
                lock(&seen).insert(session.peer_address().unwrap());
            }
        });
        let harness = start_builder(backend, builder, behaviour);
        let addresses = harness.server.addresses().to_vec();
        assert_eq!(addresses.iter().map(SocketAddr::is_ipv6).collect::<Vec<_>>(), [
            false, true, false
        ]);
        assert_eq!(addresses.iter().map(SocketAddr::port).collect::<HashSet<_>>().len(), 3);
        for _ in 0..10 {
            for address in &addresses {
                let peer = connect(*address);
                round_trip(&peer, b"who is there");
                assert!(lock(&seen).contains(&peer.local_addr().unwrap().into()));
            }
        }
        harness.settle();
        assert_eq!(harness.finish().accepted, 30);
    }

    fn a_connector_is_a_client_of_a_server(backend) {
        let prefix = LengthPrefix::default();
        let framing = Framing::length_prefixed(prefix);
        let server = start(backend, framing.clone(), pausing(), Behaviour::echo());
        let said = Random::new(1).bytes(60_000);
        // Each frame that comes back is sent again, a byte shorter, and 20 are enough.
        let behaviour = Behaviour::silent()
            .on_opened({
                let said = said.clone();
                move |session| session.send(&said)
            })
            .on_received(move |session, frame| {
                assert_same(frame, &said[..frame.len()]);
                if frame.len() + 20 > said.len() {
                    session.send(&said[..frame.len() - 1]);
                } else {
                    session.close(Close::Drain);
                }
            });
        let builder = Connector::builder().framing(framing).workers(2);
        let connector = start_connector(backend, builder, behaviour);
        let ids: HashSet<_> =
            (0..50).map(|_| connector.handle.connect(server.address()).unwrap()).collect();
        assert_eq!(ids.len(), 50);
        connector.log.wait_closed_count(50);
        connector.log.look(|ledger| {
            for id in &ids {
                assert_eq!(ledger.records[id].frame_count, 21);
                assert_eq!(ledger.closed_by(*id), Some(CloseReason::Local));
            }
        });
        server.settle();
        assert_eq!(connector.finish().opened, 50);
        assert_eq!(server.finish().closed_like(CloseReason::PeerClosed), 50);
    }

    fn a_refused_connect_fails_and_leaves_room_for_the_next(backend) {
        // Windows asks three times, over 2 s, before it takes a refusal for an answer.
        const ROUNDS: usize = if cfg!(windows) { 5 } else { 100 };
        let nobody = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = nobody.local_addr().unwrap();
        drop(nobody);
        let options = one_worker().with(|options| {
options.sessions.max = 1;
});
        let connector =
            start_connector(backend, Connector::builder().options(options), Behaviour::silent());
        for round in 1..=ROUNDS {
            let mut id = None;
            eventually("there is room for one", || match connector.handle.connect(address) {
                Ok(begun) => {
                    id = Some(begun);
                    true
                }
                Err(ConnectError::Full { max: 1 }) => false,
                Err(error) => panic!("{error}"),
            });
            let last = connector.log.wait("a connect fails", |ledger| {
                (ledger.connects_failed.len() == round).then(|| ledger.connects_failed[round - 1])
            });
            let refused = std::io::ErrorKind::ConnectionRefused;
            assert_eq!(last, (id.unwrap(), address, refused));
        }
        let stats = connector.finish();
        assert_eq!((stats.opened, stats.connect_failures), (0, ROUNDS as u64));
    }

    /// Either it never opened, or it opened and closed.
    fn a_session_closed_while_it_connects_ends_once(backend) {
        let server = start(backend, Framing::raw(), pausing(), Behaviour::echo());
        let connector =
            start_connector(backend, Connector::builder().workers(2), Behaviour::silent());
        for round in 0..500 {
            let id = connector.handle.connect(server.address()).unwrap();
            let how = if round % 2 == 0 { Close::Stop } else { Close::Drain };
            assert!(connector.handle.close(id, how), "it cannot be gone yet");
        }
        let opened = connector.log.wait("all end", |ledger| {
            let ended = ledger.connects_failed.len() + ledger.closed_count;
            (ended == 500).then_some(ledger.ids.len())
        });
        println!("{backend}: {opened} of 500 had opened");
        assert_eq!(connector.finish().closed_like(CloseReason::Local), opened as u64);
        server.settle();
        server.finish();
    }

    fn a_connect_that_nobody_answers_ends_when_it_is_closed_or_the_connector_stops(backend) {
        // A listener that accepts nobody, and whose queue is full: further requests go unanswered.
        let silent = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        silent.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).unwrap();
        silent.listen(0).unwrap();
        let address = silent.local_addr().unwrap().as_socket().unwrap();
        let _fills_the_queue = connect(address);
        let connector =
            start_connector(backend, Connector::builder().workers(1), Behaviour::silent());
        let closed = connector.handle.connect(address).unwrap();
        let stopped = connector.handle.connect(address).unwrap();
        assert!(connector.handle.close(closed, Close::Drain));
        let failed = connector.log.wait("the first ends", |l| l.connects_failed.first().copied());
        assert_eq!(failed.0, closed);
        let log = connector.log.clone();
        let stats = connector.finish();
        assert_eq!((stats.opened, stats.connect_failures), (0, 2));
        log.look(|ledger| assert_eq!(ledger.connects_failed[1].0, stopped));
    }

    fn an_ending_server_begins_no_connection(backend) {
        let server = start(backend, Framing::raw(), one_worker(), Behaviour::silent());
        let connector =
            start_connector(backend, Connector::builder().workers(1), Behaviour::silent());
        let handle = connector.handle.clone();
        connector.finish();
        assert!(matches!(handle.connect(server.address()), Err(ConnectError::Ending)));
        server.finish();
    }
}
