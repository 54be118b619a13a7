//! The last word to a session.
#![forbid(unsafe_code)]

#[macro_use]
mod support;

use std::io::Read;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use support::*;
use wharf::{
    Backend, Close, CloseReason, EncodeError, Farewell, FirstFrameTimeout, Gone, Group, Handle,
    Handler, Options, Server, Session, SessionId,
};

const PEERS: usize = 41;
const ROOM: Group = Group(7);

/// Peers may listen only.
fn three_workers() -> Options {
    Options::default().workers(3).with(|options| {
        options.time.first_frame_timeout = FirstFrameTimeout::Never;
    })
}

/// Kicks each session that asks for it: in the callback, or by a thread that serves no port.
struct Kicks {
    asked: mpsc::Sender<(SessionId, u32)>,
    ended: Mutex<Vec<CloseReason>>,
}

impl Handler for Kicks {
    type State = bool;

    fn opened(&self, _: &Session) -> bool {
        false
    }

    fn received(&self, session: &Session, has_asked: &mut bool, frame: &[u8]) {
        if std::mem::replace(has_asked, true) {
            return;
        }
        let nth = u32::from_be_bytes(frame.try_into().unwrap());
        if nth / 4 % 2 == 0 {
            kick(session.handle(), session.id(), nth);
        } else {
            self.asked.send((session.id(), nth)).unwrap();
        }
    }

    fn closed(&self, _: &Session, _: bool, reason: CloseReason) {
        lock(&self.ended).push(reason);
    }
}

/// A few numbered frames, or as many as there is room for; then a farewell that says how many they were.
fn kick(handle: &Handle, id: SessionId, nth: u32) {
    let (mut frame, mut count) = (vec![0; 10_000], 0_u32);
    let most = if nth % 4 < 2 { 3 } else { 200 };
    while count < most {
        frame[..4].copy_from_slice(&count.to_be_bytes());
        if handle.try_send(id, &frame).is_err() {
            break;
        }
        count += 1;
    }
    assert_eq!(handle.close_with(id, Farewell::new(nth).frame(count.to_be_bytes())), Ok(true));
}

/// Asks to be kicked, and reads to the end. Returns how many frames came before the farewell.
fn be_kicked(address: SocketAddr, nth: u32) -> u32 {
    let (peer, mut count) = (connect(address), 0);
    write(&peer, &wire_default(&nth.to_be_bytes()));
    if nth % 4 == 1 {
        write(&peer, &wire_default(b"speaks on").repeat(20)); // it may find the session closing
    }
    loop {
        let mut header = [0; 4];
        if let Err(error) = (&mut &peer).read_exact(&mut header) {
            panic!("session {nth}: no farewell after {count} frames: {error}");
        }
        let frame = read(&peer, u32::from_be_bytes(header) as usize);
        let says = u32::from_be_bytes(frame[..4].try_into().unwrap());
        assert_eq!(says, count, "session {nth}: a frame of {} bytes", frame.len());
        if frame.len() == 4 {
            break;
        }
        count += 1;
        if nth % 4 == 3 {
            std::thread::sleep(Duration::from_millis(5)); // this peer is slow
        }
    }
    assert_eq!(read_to_end(&peer), b"", "session {nth}");
    count
}

on_every_backend! {
    /// `WHARF_TEST_FAREWELLS` says how many.
    fn no_farewell_is_lost_under_load(backend) {
        const THREADS: u32 = 32;
        let total = std::env::var("WHARF_TEST_FAREWELLS").map_or(200, |text| text.parse().unwrap());
        let options = three_workers().with(|options| {
            options.sending.kernel_bytes = Some(16 * 1024); // what a slow peer has not read is queued
        });
        let (asked, ask) = mpsc::channel();
        let kicks = Arc::new(Kicks { asked, ended: Mutex::default() });
        let builder = Server::builder().listen("127.0.0.1:0").framing(length_framing());
        let server = builder.options(options).backend(backend).start(kicks.clone()).unwrap();
        let (address, handle) = (server.addresses()[0], server.handle());
        let kicker = std::thread::spawn(move || {
            ask.iter().for_each(|(id, nth)| kick(&handle, id, nth));
        });
        let frames: u32 = std::thread::scope(|scope| {
            let peers: Vec<_> = (0..THREADS).map(|first| scope.spawn(move || {
                (first..total).step_by(THREADS as usize).map(|nth| be_kicked(address, nth)).sum::<u32>()
            })).collect();
            peers.into_iter().map(|peer| peer.join().unwrap()).sum()
        });
        eventually("all have closed", || lock(&kicks.ended).len() == total as usize);
        let mut codes: Vec<_> = lock(&kicks.ended).iter().map(|reason| match reason {
            CloseReason::Kicked { code } => *code,
            other => panic!("one has ended otherwise: {other}"),
        }).collect();
        codes.sort_unstable();
        assert!(codes.iter().copied().eq(0..total), "each once");
        println!("{total} farewells came, each the last of its stream, after {frames} frames in all");
        drop((server, kicks));
        kicker.join().unwrap();
    }

    fn a_farewell_leaves_last_whatever_is_queued_and_however_full_the_queue_is(backend) {
        let harness = start(backend, length_framing(), three_workers(), Behaviour::silent());
        let (handle, frame) = (&harness.handle, vec![9; 60_000]);
        let peers: Vec<_> = (0..PEERS).map(|_| harness.connect_known()).collect();
        for (_, id) in &peers {
            handle.join(*id, ROOM).unwrap();
            while handle.try_send(*id, &frame).is_ok() {}
            // The rest of the queue is filled to the last byte.
            while handle.try_send(*id, [8; 100]).is_ok() {}
            while let Some(room @ 5..) = handle.room(*id) {
                let _ = handle.try_send(*id, vec![7; (room - 4).min(60_000)]); // the kernel may take much
            }
        }
        for (nth, (_, id)) in peers.iter().enumerate() {
            let farewell = Farewell::new(nth as u32).frame(format!("out, {nth}"));
            assert_eq!(handle.close_with(*id, farewell.clone()), Ok(true));
            assert_eq!(handle.close_with(*id, farewell), Ok(false), "it has one");
            assert_eq!(handle.send(*id, b"late"), Err(Gone(b"late")));
        }
        std::thread::scope(|scope| {
            for (nth, (peer, _)) in peers.iter().enumerate() {
                scope.spawn(move || {
                    let mut last = Vec::new();
                    loop {
                        let mut header = [0; 4];
                        if (&mut &*peer).read_exact(&mut header).is_err() {
                            break;
                        }
                        last = read(peer, u32::from_be_bytes(header) as usize);
                    }
                    assert_eq!(last, format!("out, {nth}").as_bytes());
                });
            }
        });
        for (nth, (_, id)) in peers.iter().enumerate() {
            assert_eq!(harness.log.closed(*id), CloseReason::Kicked { code: nth as u32 });
        }
        drop(peers);
        harness.settle();
        harness.finish();
    }

    fn what_was_published_before_a_farewell_goes_before_it(backend) {
        let harness = start(backend, length_framing(), three_workers(), Behaviour::silent());
        let handle = &harness.handle;
        let peers: Vec<_> = (0..PEERS).map(|_| harness.connect_known()).collect();
        peers.iter().for_each(|(_, id)| assert!(handle.join(*id, ROOM).unwrap()));
        for _ in 0..20 {
            handle.publish(ROOM, b"to all").unwrap();
        }
        for (_, id) in &peers {
            handle.close_with(*id, Farewell::new(3).frame("bye")).unwrap();
        }
        handle.publish(ROOM, b"too late").unwrap();
        for (peer, id) in &peers {
            let expected = [wire_default(b"to all").repeat(20), wire_default(b"bye")].concat();
            assert_eq!(read_to_end(peer), expected);
            peer.shutdown(std::net::Shutdown::Write).unwrap();
            assert_eq!(harness.log.closed(*id), CloseReason::Kicked { code: 3 });
        }
        harness.settle();
        harness.finish();
    }

    fn a_handler_kicks_its_own_session_and_a_farewell_may_have_no_frame(backend) {
        let behaviour = Behaviour::silent().on_received(|session, frame| {
            let farewell = Farewell::new(frame.len() as u32);
            let farewell = if frame.is_empty() { farewell } else { farewell.frame(frame) };
            assert_eq!(session.close_with(farewell), Ok(true));
        });
        let harness = start(backend, length_framing(), three_workers(), behaviour);
        for said in [&b""[..], b"said"] {
            let (peer, id) = harness.connect_known();
            write(&peer, &wire_default(said));
            let expected = if said.is_empty() { Vec::new() } else { wire_default(said) };
            assert_eq!(read_to_end(&peer), expected);
            drop(peer);
            let code = said.len() as u32;
            assert_eq!(harness.log.closed(id), CloseReason::Kicked { code });
        }
        harness.finish();
    }

    fn what_is_too_large_closes_nothing_and_what_is_cut_short_says_so(backend) {
        let options = three_workers().with(|options| {
            options.time.drain_timeout = Some(Duration::from_millis(200));
            options.sending.kernel_bytes = Some(16 * 1024);
        });
        let harness = start(backend, length_framing(), options, Behaviour::silent());
        let (handle, (peer, id)) = (&harness.handle, harness.connect_known());
        let large = Farewell::new(1).frame(vec![1; Farewell::WIRE_BYTES_MAX - 3]);
        let max = Farewell::WIRE_BYTES_MAX - 4;
        assert_eq!(handle.close_with(id, large.clone()), Err(EncodeError::TooLarge { bytes: large, max }));
        assert!(handle.is_open(id));
        // Until the kernel takes no more of it either.
        let mut moved = Instant::now();
        while moved.elapsed() < Duration::from_millis(500) {
            match handle.try_send(id, vec![9; 60_000]) {
                Ok(()) => moved = Instant::now(),
                Err(_) => std::thread::sleep(Duration::from_millis(1)),
            }
        }
        let largest = Farewell::new(1).frame(vec![1; max]);
        assert_eq!(handle.close_with(id, largest), Ok(true));
        assert_eq!(harness.log.closed(id), CloseReason::DrainTimeout, "it has not left");
        drop(peer);
        let (_peer, id) = harness.connect_known();
        handle.close(id, Close::Stop);
        assert_eq!(handle.close_with(id, Farewell::new(2)), Ok(false));
        harness.settle();
        harness.finish();
    }
}
