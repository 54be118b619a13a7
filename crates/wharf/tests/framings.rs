//! Framings of every kind on real ports: crowds that send in pieces, groups that span them, sessions that change theirs,
//! frames in parts, and framings of the program's that refuse or panic.
#![forbid(unsafe_code)]

#[macro_use]
mod support;

use std::io::IoSlice;
use std::net::TcpStream;
use std::sync::Mutex;
use std::sync::mpsc::{Sender, channel};
use std::thread;

use support::*;
use wharf::{
    Backend, Close, CloseReason, CustomFraming, Cut, Delimiter, Envelope, FirstFrameTimeout,
    Framing, FramingError, Group, Handler, LengthField, LengthPrefix, LengthWidth, Lines, Listener,
    Options, Parts, PublishError, SendError, Server, Session, SessionId, VarintPrefix,
};

const PEERS: usize = 41;
const ROOM: Group = Group(7);

/// Lines that begin with the number of their bytes, as some protocols have it: `5:hello,`.
struct Netstring;

impl CustomFraming for Netstring {
    fn wire_frame_bytes_max(&self) -> usize {
        100_000
    }

    fn cut(&self, bytes: &[u8], scanned: usize) -> Cut {
        let refused = |reason| Cut::Refused(FramingError::Refused { reason });
        let Some(colon) = bytes[scanned..].iter().position(|byte| *byte == b':') else {
            if bytes.contains(&b'!') {
                panic_on_purpose();
            }
            if bytes.len() > 5 || !bytes.iter().all(u8::is_ascii_digit) {
                return refused("no length");
            }
            return Cut::More { bytes_min: bytes.len() + 1, scanned: bytes.len() };
        };
        let header_bytes = scanned + colon + 1;
        let length = std::str::from_utf8(&bytes[..header_bytes - 1]).ok();
        let Some(frame_bytes) = length.and_then(|length| length.parse::<usize>().ok()) else {
            return refused("no length");
        };
        let total = header_bytes + frame_bytes + 1;
        match bytes.get(total - 1) {
            Some(b',') => Cut::Frame { header_bytes, frame_bytes, trailer_bytes: 1 },
            Some(_) => refused("no comma"),
            None => Cut::More { bytes_min: total, scanned },
        }
    }

    fn envelope(&self, frame: Parts<'_>) -> Result<Envelope, FramingError> {
        if frame.iter().any(|byte| byte == 0) {
            return Err(FramingError::Refused { reason: "a zero" });
        }
        Envelope::new(format!("{}:", frame.bytes()).as_bytes(), b",")
    }
}

/// Each framing, and how it writes a frame.
type Way = (&'static str, fn() -> Framing, Wire);
type Wire = fn(&[u8]) -> Vec<u8>;

fn with_end(frame: &[u8], end: &[u8]) -> Vec<u8> {
    [frame, end].concat()
}

fn ways() -> [Way; 7] {
    [
        (
            "length",
            || Framing::length_prefixed(LengthPrefix::default()),
            |frame| with_end(&(frame.len() as u32).to_be_bytes(), frame),
        ),
        ("lines", || Framing::lines(Lines::default()), |frame| with_end(frame, b"\n")),
        ("delimited", || Framing::delimited(Delimiter::new(b"||")), |frame| with_end(frame, b"||")),
        ("kept", || Framing::delimited(Delimiter::new(b"\r\n").kept(true)), |frame| frame.to_vec()),
        (
            "field",
            || {
                let mut header = [0; 16];
                header[0] = 0xCA;
                let field = LengthField::default().offset(1).width(LengthWidth::Three);
                Framing::length_field(field.counts_from(Some(0)).header(header))
            },
            |frame| {
                let length = (frame.len() as u32 + 4).to_be_bytes();
                [&[0xCA], &length[1..], frame].concat()
            },
        ),
        (
            "varint",
            || Framing::varint(VarintPrefix::default()),
            |frame| {
                let (mut length, mut wire) = (frame.len(), Vec::new());
                while length > 0x7F {
                    wire.push(0x80 | length as u8);
                    length >>= 7;
                }
                wire.push(length as u8);
                with_end(&wire, frame)
            },
        ),
        (
            "custom",
            || Framing::custom(Netstring),
            |frame| [format!("{}:", frame.len()).as_bytes(), frame, b","].concat(),
        ),
    ]
}

/// A frame with no end of any framing in it.
fn letters(random: &mut Random, bytes: usize) -> Vec<u8> {
    (0..bytes).map(|_| b'a' + random.below(26) as u8).collect()
}

fn options(workers: usize) -> Options {
    Options::default().workers(workers).with(|options| {
        options.time.first_frame_timeout = FirstFrameTimeout::Never;
        options.sending.queue_bytes_max = 1 << 20;
    })
}

on_every_backend! {
    fn a_crowd_gets_back_what_it_sends_in_pieces_with_every_framing(backend) {
        for (name, framing, wire_of) in ways() {
            let harness = start(backend, framing(), options(2), Behaviour::echo());
            thread::scope(|scope| {
                for seed in 0..PEERS as u64 {
                    let peer = harness.connect();
                    scope.spawn(move || {
                        let mut random = Random::new(seed);
                        let sizes = [0, 1, 2, 60, 700, 5_000, 40_000];
                        let frames: Vec<_> = (0..20)
                            .map(|_| {
                                let size = sizes[random.below(sizes.len())];
                                let frame = letters(&mut random, size);
                                if name == "kept" { with_end(&frame, b"\r\n") } else { frame }
                            })
                            .collect();
                        let wire: Vec<u8> =
                            frames.iter().flat_map(|frame| wire_of(frame)).collect();
                        thread::scope(|scope| {
                            scope.spawn(|| {
                                let mut rest = &wire[..];
                                while !rest.is_empty() {
                                    let piece = 1 + random.below(9_000);
                                    let (now, later) = rest.split_at(piece.min(rest.len()));
                                    write(&peer, now);
                                    rest = later;
                                }
                            });
                            assert_same(&read(&peer, wire.len()), &wire);
                        });
                    });
                }
            });
            harness.settle();
            assert_eq!(harness.finish().received_frames, 20 * PEERS as u64, "{name}");
        }
    }

    fn one_group_has_members_of_every_framing(backend) {
        let mut builder = Server::builder().options(options(2)).backend(backend);
        builder = builder.listen(Listener::new("127.0.0.1:0").name("raw").framing(Framing::raw()));
        for (name, framing, _) in ways().into_iter().filter(|(name, ..)| *name != "kept") {
            let listener = Listener::new("127.0.0.1:0").name(name).framing(framing());
            builder = builder.listen(listener);
        }
        let harness = start_builder(backend, builder, Behaviour::silent());
        let handle = &harness.handle;
        let addresses = harness.server.addresses().to_vec();
        let raw: Wire = |frame| frame.to_vec();
        let others = ways().into_iter().filter(|(name, ..)| *name != "kept");
        let wires: Vec<Wire> = std::iter::once(raw).chain(others.map(|(.., wire)| wire)).collect();
        let mut peers = Vec::new();
        for nth in 0..PEERS {
            let kind = nth % wires.len();
            let peer = connect(addresses[kind]);
            let id = harness.log.opened(nth);
            assert_eq!(handle.join(id, ROOM), Ok(true));
            peers.push((peer, kind));
        }
        let mut random = Random::new(9);
        let frames: Vec<_> = [1, 0, 300, 3_000, 60_000].map(|bytes| letters(&mut random, bytes)).to_vec();
        for frame in &frames {
            let (first, second) = frame.split_at(frame.len() / 2);
            handle.publish(ROOM, Parts(&[first, second].map(IoSlice::new))).unwrap();
        }
        for (peer, kind) in &peers {
            let expected: Vec<u8> = frames.iter().flat_map(|frame| wires[*kind](frame)).collect();
            assert_same(&read(peer, expected.len()), &expected);
        }
        // What one framing refuses nobody gets.
        let refused = handle.publish(ROOM, b"\0");
        assert_eq!(refused, Err(PublishError::Refused { bytes: b"\0", reason: "a zero" }));
        drop(peers);
        harness.settle();
        harness.finish();
    }

    fn a_session_changes_its_framing_between_two_frames(backend) {
        // A line, then length-prefixed frames, then bytes as they come.
        let builder = Server::builder()
            .listen("127.0.0.1:0")
            .framing(Framing::lines(Lines::default()))
            .framings([Framing::length_prefixed(LengthPrefix::default()), Framing::raw()])
            .options(options(2))
            .backend(backend);
        let behaviour = Behaviour::silent().on_received(|session, frame| {
            session.send(frame);
            match frame {
                b"packets" => assert!(session.set_framing(0)),
                b"bytes" => assert!(session.set_framing(1)),
                _ => assert!(!session.set_framing(2), "there is none"),
            }
        });
        let harness = start_builder(backend, builder, behaviour);
        let sent = [b"packets\r\n", &wire_default(b"one")[..], &wire_default(b"bytes"), b"and the rest"].concat();
        let back = [b"packets\n", &wire_default(b"one")[..], &wire_default(b"bytes"), b"and the rest"].concat();
        // All that has come is cut by the new one, and what has come in part too.
        let peers: Vec<_> = (0..PEERS).map(|_| harness.connect()).collect();
        for (nth, peer) in peers.iter().enumerate() {
            let (first, second) = sent.split_at(nth.min(sent.len()));
            write(peer, first);
            write(peer, second);
        }
        for peer in &peers {
            assert_same(&read(peer, back.len()), &back);
        }
        drop(peers);
        harness.settle();
        harness.finish();
    }

    fn what_others_send_while_a_framing_changes_is_in_the_one_in_force(backend) {
        let builder = Server::builder()
            .listen("127.0.0.1:0")
            .framing(Framing::lines(Lines::default()))
            .framings([Framing::length_prefixed(LengthPrefix::default())])
            .options(options(2))
            .backend(backend);
        let behaviour = Behaviour::silent().on_received(|session, frame| {
            assert_eq!(frame, b"go");
            assert!(session.set_framing(0));
            session.send("changed");
        });
        let harness = start_builder(backend, builder, behaviour);
        let handle = &harness.handle;
        let known: Vec<_> = (0..PEERS).map(|_| harness.connect_known()).collect();
        let encoded = handle.encode("encoded").unwrap();
        for (_, id) in &known {
            assert_eq!(handle.join(*id, ROOM), Ok(true));
        }
        const ROUNDS: usize = 50;
        thread::scope(|scope| {
            scope.spawn(|| {
                for _ in 0..ROUNDS {
                    for (_, id) in &known {
                        handle.send(*id, "sent").unwrap();
                        handle.send(*id, &encoded).unwrap();
                    }
                    handle.publish(ROOM, "published").unwrap();
                }
            });
            for (peer, _) in &known {
                write(peer, b"go\n");
            }
            for (peer, _) in &known {
                read_until_changed(peer, 3 * ROUNDS + 1);
            }
        });
        drop(known);
        harness.settle();
        harness.finish();
    }

    fn what_waits_is_cut_anew_when_the_framing_changes_between_frames(backend) {
        let builder = Server::builder()
            .listen("127.0.0.1:0")
            .framing(Framing::lines(Lines::default()))
            .framings([Framing::delimited(Delimiter::new(b"b")), Framing::raw()])
            .options(options(1));
        let (sends, received) = channel();
        let server = builder.backend(backend).start(Changes(sends.into())).unwrap();
        let (mut peers, handle) = (Vec::new(), server.handle());
        let is_said = |said: &str| assert_eq!(received.recv_timeout(BOUND).unwrap().1, said);
        for _ in 0..PEERS {
            let peer = connect(server.addresses()[0]);
            write(&peer, b"a line\nabcbd"); // the line has come, so perhaps what is behind it
            let (id, line) = received.recv_timeout(BOUND).unwrap();
            assert_eq!(line, "a line");
            // Lines have looked at all of it. The next framing looks at it from its beginning.
            assert!(handle.notify_writable(id, 1));
            is_said("a");
            is_said("c");
            assert!(handle.notify_writable(id, 1));
            is_said("d");
            peers.push(peer);
        }
        drop(peers);
        handle.stop();
        server.wait().unwrap();
    }

    fn a_large_frame_in_many_parts_leaves_whole(backend) {
        const PIECES: usize = 40;
        let behaviour = Behaviour::silent().on_received(|session, frame| {
            let pieces: Vec<_> = frame.chunks(frame.len().div_ceil(PIECES).max(1)).map(IoSlice::new).collect();
            assert_eq!(session.try_send(Parts(&pieces)).map_err(|_| ()), Ok(()));
        });
        let harness = start(backend, length_framing(), options(2), behaviour);
        let peers: Vec<_> = (0..PEERS).map(|_| harness.connect()).collect();
        for bytes in [0, 1, 39, 4_096, 60_000] {
            for (nth, peer) in peers.iter().enumerate() {
                round_trip(peer, &wire_default(&Random::new(nth as u64).bytes(bytes)));
            }
        }
        let parts = [IoSlice::new(b"to"), IoSlice::new(b"o"), IoSlice::new(&[0; 70_000])];
        let refused = harness.handle.try_send(harness.log.opened(0), Parts(&parts));
        assert!(matches!(refused, Err(SendError::TooLarge { bytes: Parts([_, _, _]), max: 65_536 })));
        drop(peers);
        harness.settle();
        harness.finish();
    }

    fn a_framing_of_the_programs_that_refuses_or_panics_ends_that_session_alone(backend) {
        let behaviour = Behaviour::echo();
        let harness = start(backend, Framing::custom(Netstring), options(1), behaviour);
        let (bystander, bystander_id) = harness.connect_known();
        let mut panics = 0;
        for (bytes, reason) in [
            (&b"x"[..], CloseReason::FrameRefused { reason: "no length" }),
            (b"3:abcd", CloseReason::FrameRefused { reason: "no comma" }),
            (b"99999:", CloseReason::FrameTooLarge { bytes: 100_006, max: 100_000 }),
            (b"1!", CloseReason::HandlerPanicked),
            (b"1:\0,", CloseReason::FrameRefusedToSend { reason: "a zero" }),
        ] {
            let (peer, id) = harness.connect_known();
            round_trip(&peer, b"5:hello,");
            write(&peer, bytes);
            wait_ended(&peer);
            assert_eq!(harness.log.closed(id), reason);
            panics += u64::from(reason == CloseReason::HandlerPanicked);
            round_trip(&bystander, b"2:hi,");
        }
        let refused = harness.handle.try_send(bystander_id, b"\0");
        assert_eq!(refused, Err(SendError::Refused { bytes: b"\0", reason: "a zero" }));
        round_trip(&bystander, b"2:hi,");
        harness.handle.close(bystander_id, Close::Drain);
        harness.log.closed(bystander_id);
        harness.finish_after_panics(panics);
    }

    fn what_is_sent_to_one_session_need_be_allowed_by_its_own_framing_only(backend) {
        let listener = |framing| Listener::new("127.0.0.1:0").framing(framing);
        let builder = Server::builder()
            .listen(listener(Framing::lines(Lines::default())))
            .listen(listener(Framing::fixed(4)))
            .options(options(1));
        let harness = start_builder(backend, builder, Behaviour::silent());
        let (handle, address) = (&harness.handle, harness.server.addresses()[0]);
        let peers: Vec<_> = (0..PEERS).map(|_| connect(address)).collect();
        for (nth, peer) in peers.iter().enumerate() {
            let id = harness.log.opened(nth);
            handle.send(id, "sent").unwrap();
            handle.send_latest(id, 1, "the latest").unwrap();
            assert_same(&read(peer, 16), b"sent\nthe latest\n");
        }
        let refused = handle.broadcast("all");
        assert!(matches!(refused, Err(PublishError::Refused { .. })));
        drop(peers);
        harness.settle();
        harness.finish();
    }

    fn a_frame_of_another_size_is_not_sent(backend) {
        let harness = start(backend, Framing::fixed(4), options(1), Behaviour::echo());
        let (peer, id) = harness.connect_known();
        write(&peer, b"ab");
        write(&peer, b"cd");
        assert_same(&read(&peer, 4), b"abcd");
        let reason = "its framing has frames of another size";
        for frame in [&b"abc"[..], b"abcde", b""] {
            let refused = harness.handle.try_send(id, frame);
            assert_eq!(refused, Err(SendError::Refused { bytes: frame, reason }));
        }
        assert!(harness.handle.send(id, b"abc").is_err());
        assert_eq!(harness.log.closed(id), CloseReason::FrameRefusedToSend { reason });
        harness.finish();
    }
}

/// Tells what has come; at each `writable` its sessions change to the next framing.
struct Changes(Mutex<Sender<(SessionId, String)>>);

impl Handler for Changes {
    type State = usize;

    fn opened(&self, _: &Session) -> usize {
        0
    }

    fn received(&self, session: &Session, _: &mut usize, frame: &[u8]) {
        let said = String::from_utf8_lossy(frame).into_owned();
        lock(&self.0).send((session.id(), said)).unwrap();
    }

    fn writable(&self, session: &Session, next: &mut usize) {
        assert!(session.set_framing(*next));
        *next += 1;
    }
}

/// Reads so many frames: lines up to a certain moment, and from `changed` on, or before, frames with a length.
fn read_until_changed(peer: &TcpStream, frames: usize) {
    let mut has_changed = false;
    let mut has_length = false;
    for _ in 0..frames {
        let first = read(peer, 1)[0];
        let frame = if first == 0 {
            has_length = true;
            let length = read(peer, 3);
            read(peer, usize::from(length[2]))
        } else {
            assert!(!has_length, "a line behind a frame that has a length");
            let mut line = vec![first];
            while line.last() != Some(&b'\n') {
                line.extend(read(peer, 1));
            }
            line.truncate(line.len() - 1);
            line
        };
        assert!(
            [&b"sent"[..], b"encoded", b"published", b"changed"].contains(&&frame[..]),
            "{frame:?}"
        );
        has_changed |= frame == b"changed";
        assert!(frame != b"changed" || has_length);
    }
    assert!(has_changed);
}
