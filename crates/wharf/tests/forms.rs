//! Listeners with different framings in one server: each session has that of its listener, and what is meant
//! for many reaches each in its own wire form.

#![forbid(unsafe_code)]

#[macro_use]
mod support;

use std::collections::{BTreeSet, HashMap};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Barrier, Mutex};

use support::*;
use wharf::{
    Backend, Close, EncodeError, Endianness, Error, FirstFrameTimeout, Framing, Group,
    LengthPrefix, LengthWidth, Listener, Options, PublishError, Server, SessionId,
};

const ROOM: Group = Group(7);
const HERE: (Ipv4Addr, u16) = (Ipv4Addr::LOCALHOST, 0);

/// The prefix of one listener, and that of connects.
fn prefix(of_connects: bool) -> LengthPrefix {
    let prefix = LengthPrefix::default().frame_bytes_max(1 << 20);
    match of_connects {
        false => prefix,
        true => prefix.width(LengthWidth::Eight).endianness(Endianness::Little).counts_itself(true),
    }
}

fn prefixed() -> Framing {
    Framing::length_prefixed(prefix(false))
}

fn options(workers: usize) -> Options {
    Options::default().workers(workers).with(|options| {
        options.time.first_frame_timeout = FirstFrameTimeout::Never;
        options.sending.queue_bytes_max = 4 << 20;
        options.receiving.queues_bytes_max = Some(16 << 20);
    })
}

/// A raw listener, a prefixed one and one as the server's; and what is noted: the listener of each session.
fn start_forms(backend: Backend, options: Options, behaviour: Behaviour) -> (Harness, Names) {
    let names = Names::default();
    let noted = names.clone();
    let of_connects = Framing::length_prefixed(prefix(true));
    let builder = Server::builder()
        .listen(Listener::new(HERE).name("raw").framing(Framing::raw()))
        .listen(Listener::new(HERE).name("prefixed").framing(prefixed()))
        .listen(HERE)
        .framing(of_connects)
        .options(options);
    let name_of = |session: &wharf::Session| session.listener().map(|one| one.name.clone());
    let behaviour = behaviour
        .on_opened(move |session| {
            noted.0.lock().unwrap().insert(session.id(), name_of(session));
        })
        .on_closed({
            let noted = names.clone();
            move |session, _| assert_eq!(noted.of(session.id()), name_of(session))
        });
    (start_builder(backend, builder, behaviour), names)
}

/// Which server has had a peer with which address.
static USED: Mutex<BTreeSet<(SocketAddr, SocketAddr)>> = Mutex::new(BTreeSet::new());

#[derive(Default, Clone)]
struct Names(Arc<Mutex<HashMap<SessionId, Option<String>>>>);

impl Names {
    fn of(&self, id: SessionId) -> Option<String> {
        self.0.lock().unwrap()[&id].clone()
    }
}

/// A peer of the listener at this place.
fn peer_at(harness: &Harness, place: usize) -> (TcpStream, SessionId) {
    let (peer, local) = loop {
        let peer = connect(harness.server.addresses()[place]);
        let local = peer.local_addr().unwrap();
        // Two peers of two listeners may have one port of their own, and it is by that that sessions are told apart.
        if lock(&USED).insert((harness.server.addresses()[0], local)) {
            break (peer, local);
        }
    };
    let id = harness.log.wait("the session opens", |ledger| {
        let mut of = ledger.records.iter().filter(|(_, record)| record.opened);
        of.find(|(_, record)| record.peer_address == Some(local)).map(|(id, _)| *id)
    });
    (peer, id)
}

/// A session that the server begins, and its peer.
fn connected(harness: &Harness, listener: &TcpListener) -> (TcpStream, SessionId) {
    let id = harness.handle.connect(listener.local_addr().unwrap()).unwrap();
    let (peer, _) = listener.accept().unwrap();
    peer.set_read_timeout(Some(BOUND)).unwrap();
    harness.log.wait("it opens", |ledger| ledger.ids.contains(&id).then_some(()));
    (peer, id)
}

/// A frame as it goes over the wire to who came this way: 0 to 2 by a listener, 3 by a connect.
fn wire_of(way: usize, frame: &[u8]) -> Vec<u8> {
    match way {
        0 => frame.to_vec(),
        1 => wire(prefix(false), frame),
        _ => wire(prefix(true), frame),
    }
}

on_every_backend! {
    fn what_is_meant_for_many_reaches_each_in_the_wire_form_of_its_listener(backend) {
        let behaviour = Behaviour::silent().on_received(|session, frame| session.send(frame));
        let (harness, names) = start_forms(backend, options(3), behaviour);
        let handle = &harness.handle;
        let listener = TcpListener::bind(HERE).unwrap();
        let peers: Vec<_> = (0..41).map(|index| match index % 4 {
            3 => (3, connected(&harness, &listener)),
            place => (place, peer_at(&harness, place)),
        }).collect();
        let default_name = format!("{HERE:?}");
        for (way, (_, id)) in &peers {
            let name = [Some("raw"), Some("prefixed"), Some(&*default_name), None][*way];
            assert_eq!(names.of(*id).as_deref(), name);
            assert_eq!(handle.join(*id, ROOM), Ok(true));
        }
        let ids: Vec<_> = peers.iter().map(|(_, (_, id))| *id).collect();
        for bytes in [1, 300, 5_000, 70_000, 400_000] {
            let content = Random::new(bytes as u64).bytes(bytes);
            let frame = handle.encode(&content).unwrap();
            assert_eq!(frame.body_bytes(), bytes);
            let ways: [&dyn Fn(); 8] = [
                &|| handle.publish(ROOM, &content).unwrap(),
                &|| handle.publish(ROOM, &frame).unwrap(),
                &|| handle.broadcast(&content).unwrap(),
                &|| handle.broadcast(&frame).unwrap(),
                &|| assert_eq!(handle.send_many(&ids, &content), Ok(ids.len())),
                &|| assert_eq!(handle.send_many(&ids, &frame).unwrap(), ids.len()),
                &|| ids.iter().for_each(|id| handle.send(*id, &frame).unwrap()),
                &|| ids.iter().for_each(|id| handle.send(*id, &content).unwrap()),
            ];
            for send in ways {
                send();
                for (way, (peer, _)) in &peers {
                    let expected = wire_of(*way, &content);
                    assert_same(&read(peer, expected.len()), &expected);
                }
            }
        }
        for (way, (peer, _)) in &peers {
            round_trip(peer, &wire_of(*way, b"what comes is cut by the same framing"));
        }
        for (_, (_, id)) in &peers {
            handle.close(*id, Close::Stop);
        }
        harness.log.wait_closed_count(peers.len());
        harness.finish();
    }

    fn bounds_count_a_publication_in_all_its_wire_forms(backend) {
        const MAX: usize = 8 * 1024;
        /// What each that waits counts besides its bytes, as the option's documentation says.
        const EACH: usize = 288 + 2 * 112;
        // Three forms: raw, with 4 bytes before it, with 8.
        const LARGEST: usize = (MAX - EACH - 12) / 3;
        let gate = Arc::new(Barrier::new(2));
        let in_handler = gate.clone();
        let behaviour = Behaviour::silent().on_received(move |_, _| {
            in_handler.wait(); // the worker stands still
            in_handler.wait();
        });
        let options = options(1).with(|options| options.sending.publications_bytes_max = MAX);
        let (harness, _) = start_forms(backend, options, behaviour);
        let handle = &harness.handle;
        let peers: Vec<_> = (0..3).map(|place| peer_at(&harness, place)).collect();
        peers.iter().for_each(|(_, id)| assert_eq!(handle.join(*id, ROOM), Ok(true)));
        // With nothing before it the largest that is allowed is taken, and no larger one ever.
        let largest = vec![5; LARGEST];
        eventually("the joins have come about", || handle.publish(ROOM, &largest).is_ok());
        for (place, (peer, _)) in peers.iter().enumerate() {
            let expected = wire_of(place, &largest);
            assert_same(&read(peer, expected.len()), &expected);
        }
        let error = handle.publish(ROOM, vec![5; LARGEST + 1]).unwrap_err();
        assert!(matches!(error, PublishError::TooLarge { max: LARGEST, .. }), "{error}");
        let too_large = |bytes| Err(EncodeError::TooLarge { bytes, max: LARGEST });
        let larger = vec![5; LARGEST + 1];
        assert_eq!(handle.encode(&larger).map(|_| 0), too_large(&larger));
        assert_eq!(handle.send_many(&[], &larger), too_large(&larger));
        // Alone, it may be sent.
        handle.send(peers[0].1, vec![5; LARGEST + 1]).unwrap();
        assert_eq!(read(&peers[0].0, LARGEST + 1), vec![5; LARGEST + 1]);

        write(&peers[0].0, b"!");
        gate.wait();
        const BODY: usize = 500;
        let fit = MAX / (EACH + 3 * BODY + 12);
        for number in 0..fit {
            handle.publish(ROOM, vec![number as u8; BODY]).unwrap();
        }
        let error = handle.publish(ROOM, vec![0; BODY]).unwrap_err();
        let waits = fit * (EACH + 3 * BODY + 12);
        let is_full = matches!(
            error,
            PublishError::Full { waiting, max: MAX, .. } if waiting == waits
        );
        assert!(is_full, "{error}; {waits} bytes wait");
        gate.wait();
        for number in 0..fit {
            for (place, (peer, _)) in peers.iter().enumerate() {
                let expected = wire_of(place, &[number as u8; BODY]);
                assert_same(&read(peer, expected.len()), &expected);
            }
        }
        harness.finish();
    }

    fn a_server_has_at_most_253_listeners_and_each_of_so_many_is_told_apart(backend) {
        let builder = |count: usize| {
            let listeners = (0..count).map(|index| {
                let listener = Listener::new(HERE).name(index.to_string());
                if index % 2 == 0 { listener.framing(prefixed()) } else { listener }
            });
            let builder = Server::builder().framing(Framing::raw()).options(options(1));
            listeners.fold(builder, |builder, listener| builder.listen(listener))
        };
        let error = builder(254).backend(backend).start(Nobody).unwrap_err();
        let is_told = matches!(error, Error::Option { name: "listeners", value: 254, .. });
        assert!(is_told, "{error}");

        let behaviour = Behaviour::silent().on_opened(|session| {
            let name = &session.listener().expect("it was accepted").name;
            session.send(name.as_bytes());
        });
        let harness = start_builder(backend, builder(253), behaviour);
        let addresses: Vec<SocketAddr> = harness.server.addresses().to_vec();
        assert_eq!(addresses.len(), 253);
        for index in [0, 1, 127, 128, 251, 252] {
            let peer = connect(addresses[index]);
            let name = index.to_string();
            let expected = match index % 2 {
                0 => wire(prefix(false), name.as_bytes()),
                _ => name.into_bytes(),
            };
            assert_eq!(read(&peer, expected.len()), expected);
        }
        harness.finish();
    }

    fn the_first_listeners_framing_is_that_of_connects_if_none_was_set(backend) {
        let builder = Server::builder()
            .listen(Listener::new(HERE).framing(prefixed()))
            .listen(HERE)
            .options(options(1));
        let harness = start_builder(backend, builder, Behaviour::echo());
        let listener = TcpListener::bind(HERE).unwrap();
        let peers = [connected(&harness, &listener), peer_at(&harness, 0), peer_at(&harness, 1)];
        for (peer, id) in &peers {
            harness.handle.send(*id, b"hello").unwrap();
            assert_eq!(read(peer, 9), b"\0\0\0\x05hello");
            round_trip(peer, b"\0\0\0\x02me");
        }
        for (_, id) in &peers {
            harness.handle.close(*id, Close::Stop);
        }
        harness.log.wait_closed_count(3);
        harness.finish();
    }
}
