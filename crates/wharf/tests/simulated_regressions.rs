//! Faults of the engine that were found under simulation, each as a test of its own.
#![cfg(feature = "simulation")]
#![forbid(unsafe_code)]

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;

use wharf::simulation::{Fault, Faults, FramedPeer, Ports, Simulation, check, now, sleep};
use wharf::{
    Close, CloseReason, ConnectError, Connector, Farewell, FirstFrameTimeout, Framing, Handle,
    Handler, LengthPrefix, Options, SendError, Server, Session, SessionId,
};

/// Blocks for so long when it gets a `b`; notes how sessions end.
struct Blocks(Duration, Arc<Mutex<Vec<CloseReason>>>);

impl Handler for Blocks {
    type State = ();

    fn opened(&self, _: &Session) {}

    fn received(&self, session: &Session, _: &mut (), frame: &[u8]) {
        if frame.contains(&b'b') {
            sleep(self.0);
        }
        session.send(frame);
    }

    fn closed(&self, _: &Session, (): (), reason: CloseReason) {
        self.1.lock().unwrap().push(reason);
    }
}

/// A worker stamped everything of a turn with the time at which the turn began. After a callback that
/// blocked for longer than a time-out, sessions that had just been opened, heard or sent to in the same
/// turn were ended for having been silent, or stuck, since before it. (`wharf sim --scenario push --from
/// 39`, as the simulator was on 2026-11-25.)
#[test]
fn a_callback_that_blocks_for_longer_than_a_time_out_ends_nobody_who_was_not_silent() {
    for ports in [Ports::OneEach, Ports::OneShared] {
        check(0..50, |simulation| {
            let simulation = simulation.faults(Faults::none());
            let simulation = simulation.ports(ports).roomy_ports();
            let limit = Duration::from_secs(2);
            let options = Options::default().workers(1).with(|options| {
                options.time.idle_timeout = Some(limit);
                options.time.first_frame_timeout = FirstFrameTimeout::After(limit);
                options.time.send_stall_timeout = Some(limit);
            });
            let ends = Arc::new(Mutex::new(Vec::new()));
            let builder = Server::builder().listen("10.0.0.1:1").framing(Framing::raw());
            let handler = Blocks(limit * 3, ends.clone());
            let server = simulation.start(builder.options(options), handler).unwrap();
            let connect = || simulation.connect(server.addresses()[0]).unwrap();
            let peers: Vec<_> = (0..6).map(|_| connect()).collect();
            let opened = simulation.run_until(limit / 2, || server.handle().stats().live == 6);
            assert!(opened);
            peers[0].send(b"b");
            peers[1..].iter().for_each(|peer| peer.send(b"hello"));
            // It arrives while the worker stands still, or in the turn before.
            simulation.sleep(Duration::from_micros(simulation.random(1_000)));
            let late = connect();
            late.send(b"late");
            let mut answered = 0;
            for _ in 0..100 {
                simulation.sleep(limit / 10);
                for peer in peers.iter().chain([&late]) {
                    answered += u32::from(!peer.received().is_empty());
                    peer.send(b"on");
                }
            }
            assert!(answered > 400, "{answered}");
            assert_eq!(*ends.lock().unwrap(), []);
        });
    }
}

/// On a shared port one worker began the end of all sessions while another was in the middle of a turn;
/// what that one then released was in nobody's report. (Found by the seeds of `tests/simulation.rs` when
/// threads could first change after a post, 2026-11-25.)
#[test]
fn a_drain_reports_every_session_that_was_there() {
    check(0..300, |simulation| {
        let simulation = simulation.ports(Ports::OneShared);
        let builder = Server::builder().listen("10.0.0.1:1").framing(Framing::raw()).workers(4);
        let handler = Blocks(Duration::ZERO, Arc::default());
        let server = simulation.start(builder, handler).unwrap();
        let connect = || simulation.connect(server.addresses()[0]).unwrap();
        let peers: Vec<_> = (0..8).map(|_| connect()).collect();
        for peer in &peers {
            peer.send(&[7; 5_000]);
        }
        let mut answered = vec![0; peers.len()];
        assert!(simulation.run_until(Duration::from_secs(120), || {
            for (answered, peer) in answered.iter_mut().zip(&peers) {
                *answered += peer.received().len();
            }
            answered == [5_000; 8]
        }));
        let report = server.handle().drain(Duration::from_secs(60)).unwrap();
        assert_eq!(report.live, 8, "{report:?}");
        assert_eq!(report.flushed + report.cut_off + report.ended, 8, "{report:?}");
    });
}

/// Blocks for so long when it gets something; notes when that was over, and when a connect has failed.
struct Connects(Duration, Arc<Mutex<Vec<Duration>>>);

impl Handler for Connects {
    type State = ();

    fn opened(&self, _: &Session) {}

    fn received(&self, _: &Session, _: &mut (), _: &[u8]) {
        sleep(self.0);
        self.1.lock().unwrap().push(now().unwrap());
    }

    fn connect_failed(&self, _: SessionId, _target: &wharf::Target, error: &io::Error) {
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        self.1.lock().unwrap().push(now().unwrap());
    }
}

/// A connect's time began with the turn that posted it. After a callback that had blocked for longer, a
/// connect on a shared port was given up at once. (Found by reading.)
#[test]
fn a_connect_has_its_whole_time_whatever_its_worker_did_before() {
    for ports in [Ports::OneEach, Ports::OneShared] {
        check(0..50, |simulation| {
            let faults = Faults::none().with(Fault::ConnectUnanswered, 1);
            let simulation = simulation.faults(faults).ports(ports).roomy_ports();
            let limit = Duration::from_secs(2);
            let options = Options::default().workers(1).with(|options| {
                options.time.connect_timeout = Some(limit);
            });
            let times = Arc::new(Mutex::new(Vec::new()));
            let builder = Server::builder().listen("10.0.0.1:1").framing(Framing::raw());
            let handler = Connects(limit * 3, times.clone());
            let server = simulation.start(builder.options(options), handler).unwrap();
            let listener = simulation.listen("10.0.0.2:1".parse().unwrap()).unwrap();
            let peer = simulation.connect(server.addresses()[0]).unwrap();
            assert!(simulation.run_until(limit / 2, || server.handle().stats().live == 1));
            peer.send(b"b");
            simulation.sleep(limit); // it stands still
            server.handle().connect(listener.address()).unwrap();
            assert!(simulation.run_until(limit * 20, || times.lock().unwrap().len() == 2));
            let times = times.lock().unwrap();
            assert!(times[1] >= times[0] + limit, "it had {:?}", times[1] - times[0]);
        });
    }
}

/// Three workers, of which one is blocked for a minute.
fn with_one_of_three_blocked(mut then: impl FnMut(&Simulation, &Server)) {
    check(0..20, |simulation| {
        let simulation = simulation.faults(Faults::none());
        let simulation = simulation.ports(Ports::OneEach).roomy_ports();
        let builder = Server::builder().listen("10.0.0.1:1").framing(Framing::raw()).workers(3);
        let handler = Blocks(Duration::from_secs(60), Arc::default());
        let server = simulation.start(builder, handler).unwrap();
        let blocks = simulation.connect(server.addresses()[0]).unwrap();
        assert!(simulation.run_until(SOON, || server.handle().stats().live == 1));
        blocks.send(b"b");
        simulation.sleep(Duration::from_secs(1));
        then(&simulation, &server);
    });
}

const SOON: Duration = Duration::from_secs(10);
const NEWCOMERS: usize = 400;

/// A worker that was blocked accepted nobody, so it had the fewest sessions, and was given what the others
/// had accepted. (Found by attack.)
#[test]
fn no_newcomer_that_another_worker_has_accepted_waits_for_one_that_is_blocked() {
    with_one_of_three_blocked(|simulation, server| {
        let connect = |_| simulation.connect(server.addresses()[0]).unwrap();
        let peers: Vec<_> = (0..NEWCOMERS).map(connect).collect();
        peers.iter().for_each(|peer| peer.send(b"hello"));
        simulation.sleep(SOON);
        let answered = peers.iter().filter(|peer| !peer.received().is_empty()).count();
        let accepted = server.handle().stats().accepted - 1;
        assert!(accepted > NEWCOMERS as u64 / 2, "{accepted}");
        assert_eq!(answered as u64, accepted);
    });
}

/// The same of those that the server connects.
#[test]
fn no_connect_waits_for_a_worker_that_is_blocked() {
    with_one_of_three_blocked(|simulation, server| {
        let listener = simulation.listen("10.0.0.2:1".parse().unwrap()).unwrap();
        for _ in 0..NEWCOMERS {
            server.handle().connect(listener.address()).unwrap();
        }
        let all = 1 + NEWCOMERS as u64;
        let opened = || server.handle().stats().opened;
        assert!(simulation.run_until(SOON, || opened() == all), "{} of {all}", opened());
    });
}

/// A drain waited for a callback for as long as that blocked its worker, whatever its deadline.
#[test]
fn the_deadline_bounds_a_drain_while_a_callback_blocks() {
    for ports in [Ports::OneEach, Ports::OneShared] {
        check(0..100, |simulation| {
            let simulation = simulation.faults(Faults::none()).ports(ports);
            let (deadline, blocks_for) = (Duration::from_secs(1), Duration::from_secs(6));
            let builder = Server::builder().listen("10.0.0.1:1").framing(Framing::raw()).workers(2);
            let handler = Blocks(blocks_for, Arc::default());
            let server = simulation.start(builder, handler).unwrap();
            let connect = || simulation.connect(server.addresses()[0]).unwrap();
            let peers: Vec<_> = (0..8).map(|_| connect()).collect();
            assert!(simulation.run_until(deadline, || server.handle().stats().live == 8));
            peers[0].send(b"b");
            simulation.sleep(Duration::from_millis(500));
            let began = simulation.now();
            let report = server.handle().drain(deadline).unwrap();
            let took = simulation.now() - began;
            assert!(took >= deadline && took <= 2 * deadline, "{took:?}");
            let parts = report.flushed + report.cut_off + report.ended + report.unfinished;
            assert_eq!((report.live, parts), (8, 8), "{report:?}");
            assert!(report.unfinished > 0 && report.workers_blocked > 0, "{report:?}");
            server.wait().unwrap();
            assert!(simulation.now() - began >= blocks_for - deadline, "the callback was left");
        });
    }
}

/// Begins another connection whenever one has ended or failed, and notes what is refused.
struct Reconnects {
    to: SocketAddr,
    handle: Arc<Mutex<Option<Handle>>>,
    refused: Arc<Mutex<Vec<String>>>,
    ended: Arc<Mutex<u32>>,
}

impl Reconnects {
    fn again(&self) {
        *self.ended.lock().unwrap() += 1;
        let handle = self.handle.lock().unwrap().clone();
        let Some(Err(error)) = handle.map(|handle| handle.connect(self.to)) else { return };
        if matches!(error, ConnectError::Full { .. }) {
            self.refused.lock().unwrap().push(error.to_string());
        }
    }
}

impl Handler for Reconnects {
    type State = ();

    fn opened(&self, _: &Session) {}

    fn received(&self, _: &Session, _: &mut (), _: &[u8]) {}

    fn closed(&self, _: &Session, (): (), _: CloseReason) {
        self.again();
    }

    fn connect_failed(&self, _: SessionId, _target: &wharf::Target, _: &io::Error) {
        self.again();
    }
}

/// In `closed` and `connect_failed` the place of the session that ended was still taken. (Found in use.)
#[test]
fn a_reconnect_in_closed_or_connect_failed_finds_its_place() {
    check(0..150, |simulation| {
        let seed = simulation.seed();
        let faults = Faults::all().without(Fault::PortFails).without(Fault::WorkerFaults);
        let faults = faults.without(Fault::AdmissionFaults).swarm(seed);
        let simulation = simulation.faults(faults);
        let listener = simulation.listen("10.0.0.2:1".parse().unwrap()).unwrap();
        let sessions = [1, 2, 12][seed as usize % 3];
        let options = Options::default().with(|options| {
            options.sessions.max = sessions;
            options.time.connect_timeout = Some(Duration::from_secs(3));
        });
        let (handle, refused) = (Arc::new(Mutex::new(None)), Arc::new(Mutex::new(Vec::new())));
        let ended = Arc::new(Mutex::new(0));
        let handler = Reconnects {
            to: listener.address(),
            handle: handle.clone(),
            refused: refused.clone(),
            ended: ended.clone(),
        };
        let connector =
            simulation.start_connector(Connector::builder().options(options), handler).unwrap();
        *handle.lock().unwrap() = Some(connector.handle());
        for _ in 0..sessions {
            connector.handle().connect(listener.address()).unwrap();
        }
        let mut peers = Vec::new();
        let all_ended = simulation.run_until(Duration::from_secs(24 * 3_600), || {
            peers.extend(std::iter::from_fn(|| listener.accept()));
            for peer in peers.drain(..) {
                if simulation.random(2) == 0 {
                    peer.reset();
                }
            }
            *ended.lock().unwrap() > 20 * sessions || !refused.lock().unwrap().is_empty()
        });
        handle.lock().unwrap().take();
        assert!(refused.lock().unwrap().is_empty(), "{:?}", refused.lock().unwrap());
        assert!(all_ended, "only {} have ended", ended.lock().unwrap());
    });
}

/// Does nothing but note its sessions.
#[derive(Clone, Default)]
struct Notes {
    ids: Arc<Mutex<Vec<SessionId>>>,
    ends: Arc<Mutex<Vec<(SessionId, CloseReason)>>>,
}

impl Handler for Notes {
    type State = ();

    fn opened(&self, session: &Session) {
        self.ids.lock().unwrap().push(session.id());
    }

    fn received(&self, _: &Session, (): &mut (), _: &[u8]) {}

    fn closed(&self, session: &Session, (): (), reason: CloseReason) {
        self.ends.lock().unwrap().push((session.id(), reason));
    }
}

/// A server with so many sessions, whose peers and ids are returned in the same order.
fn with_sessions(
    simulation: &Simulation,
    options: Options,
    count: usize,
) -> (Server, Notes, Vec<(FramedPeer, SessionId)>) {
    let framing = Framing::length_prefixed(LengthPrefix::default().frame_bytes_max(20_000));
    let notes = Notes::default();
    let builder = Server::builder().listen("10.0.0.1:1").framing(framing.clone());
    let server = simulation.start(builder.options(options), notes.clone()).unwrap();
    let mut sessions = Vec::new();
    for nth in 0..count {
        let peer = simulation.connect(server.addresses()[0]).unwrap().framed(framing.clone());
        let is_open = || notes.ids.lock().unwrap().len() > nth;
        assert!(simulation.run_until(Duration::from_secs(60), is_open));
        sessions.push((peer, notes.ids.lock().unwrap()[nth]));
    }
    (server, notes, sessions)
}

/// While publications are on their way to it, the queue of a session that closes takes them. It also took every
/// other frame that was encoded for many, though the call that had closed the session had returned. (`wharf sim
/// --scenario halves --from 17`, as it was on 2026-11-29.)
#[test]
fn a_session_that_closes_takes_no_encoded_frame_while_publications_are_on_their_way() {
    check(0..30, |simulation| {
        let (server, _, mut sessions) = with_sessions(&simulation, Options::default(), 3);
        let handle = server.handle();
        handle.broadcast(b"to all").unwrap();
        for (nth, (_, id)) in sessions.iter().enumerate() {
            match nth {
                0 => assert!(handle.close(*id, Close::Drain)),
                1 => assert!(handle.finish(*id)),
                _ => assert_eq!(handle.close_with(*id, Farewell::new(1)), Ok(true)),
            }
            let late = handle.encode(b"late").unwrap();
            assert!(matches!(handle.try_send(*id, &late), Err(SendError::Gone(_))), "{nth}");
            assert_eq!(handle.send_many(&[*id], b"late"), Ok(0), "{nth}");
        }
        for (peer, _) in &mut sessions {
            let is_ended = || peer.peer().is_ended();
            assert!(simulation.run_until(Duration::from_secs(60), is_ended));
            assert_eq!(peer.received(), [b"to all"]);
        }
    });
}

/// A farewell is beyond the bound of the queue. The room in a queue that was full before was a number below 0.
#[test]
fn a_full_queue_with_a_farewell_has_no_room() {
    check(0..10, |simulation| {
        let options = Options::default().with(|options| {
            options.sending.queue_bytes_max = 64 << 10;
            options.time.first_frame_timeout = FirstFrameTimeout::Never;
        });
        let (server, notes, mut sessions) = with_sessions(&simulation, options, 1);
        let (handle, (peer, id)) = (server.handle(), &mut sessions[0]);
        peer.peer().stall(true);
        for bytes in [20_000, 1_000, 10] {
            // What has left meanwhile makes room once more.
            for _ in 0..4 {
                while handle.try_send(*id, vec![7; bytes]).is_ok() {}
                simulation.sleep(Duration::from_secs(1));
            }
        }
        assert_eq!(handle.close_with(*id, Farewell::new(3).frame([8; 1_000])), Ok(true));
        assert_eq!(handle.room(*id), Some(0));
        peer.peer().stall(false);
        let is_closed = || !notes.ends.lock().unwrap().is_empty();
        assert!(simulation.run_until(Duration::from_secs(600), is_closed));
        assert_eq!(*notes.ends.lock().unwrap(), [(*id, CloseReason::Kicked { code: 3 })]);
        let is_ended = || peer.peer().is_ended();
        assert!(simulation.run_until(Duration::from_secs(600), is_ended));
        assert_eq!(peer.received().last().unwrap(), &[8; 1_000]);
    });
}

/// What had come for a session that was closing, and was not to be delivered, found no room in the receive
/// queues. Then the session ended at once, and what was queued for its peer was lost, its farewell too. (`wharf
/// sim --scenario room --from 7`, as the scenario was on 2026-11-29.)
#[test]
fn what_comes_for_a_session_that_closes_does_not_cut_off_what_it_is_sent() {
    for ports in [Ports::OneEach, Ports::OneShared] {
        check(0..40, |simulation| {
            let simulation = simulation.ports(ports);
            let options = Options::default().workers(1).with(|options| {
                options.sending.queue_bytes_max = 64 << 10;
                options.receiving.queues_bytes_max = Some(52_000);
                options.time.close_linger = Duration::from_secs(60);
                options.time.first_frame_timeout = FirstFrameTimeout::Never;
            });
            let (server, notes, mut sessions) = with_sessions(&simulation, options, 2);
            let handle = server.handle();
            let ((other, _), (peer, id)) = {
                let [first, second] = &mut sessions[..] else { panic!("there are two") };
                (first, second)
            };
            peer.peer().stall(true);
            while handle.try_send(*id, [7; 20_000]).is_ok() {}
            // Parts of frames fill the receive queues.
            for (part_of, bytes) in [(&*other, 18_000), (&*peer, 15_000)] {
                part_of.peer().send(&[0, 0, 78, 32]);
                part_of.peer().send(&vec![0; bytes]);
            }
            simulation.sleep(Duration::from_secs(1));
            let kicked = handle.close_with(*id, Farewell::new(3).frame(b"out"));
            assert_eq!(kicked, Ok(true));
            peer.peer().send(&[0; 50_000]);
            simulation.sleep(Duration::from_secs(5));
            peer.peer().stall(false);
            let is_closed = || !notes.ends.lock().unwrap().is_empty();
            assert!(simulation.run_until(Duration::from_secs(600), is_closed));
            assert_eq!(*notes.ends.lock().unwrap(), [(*id, CloseReason::Kicked { code: 3 })]);
            let is_ended = || peer.peer().is_ended();
            assert!(simulation.run_until(Duration::from_secs(600), is_ended));
            assert_eq!(peer.received().last().unwrap(), b"out");
        });
    }
}

/// Changes to frames with lengths as soon as there is room.
struct ChangesInWritable(Arc<Mutex<Vec<CloseReason>>>);

impl Handler for ChangesInWritable {
    type State = ();

    fn opened(&self, session: &Session) {
        session.notify_writable(1);
    }

    fn writable(&self, session: &Session, _: &mut ()) {
        assert!(session.set_framing(0));
    }

    fn received(&self, _: &Session, _: &mut (), _: &[u8]) {}

    fn closed(&self, _: &Session, _: (), reason: CloseReason) {
        self.0.lock().unwrap().push(reason);
    }
}

/// Raw sessions have no limit for their first frame, so no timer was set when the framing changed.
#[test]
fn a_framing_that_limits_the_first_frame_limits_it_wherever_a_session_changes_to_it() {
    check(0..20, |simulation: Simulation| {
        let closed = Arc::default();
        let builder = Server::builder()
            .listen("10.0.0.1:7000")
            .framings([Framing::length_prefixed(LengthPrefix::default())]);
        let server = simulation.start(builder, ChangesInWritable(Arc::clone(&closed))).unwrap();
        let _peer = simulation.connect(server.addresses()[0]).unwrap();
        let is_closed = || !closed.lock().unwrap().is_empty();
        assert!(simulation.run_until(Duration::from_secs(60), is_closed));
        assert_eq!(*closed.lock().unwrap(), [CloseReason::FirstFrameTimeout]);
    });
}
