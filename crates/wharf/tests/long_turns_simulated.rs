//! Long turns in simulated worlds: their time is virtual, so each length is exact and each name is known.
#![cfg(feature = "simulation")]
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use wharf::simulation::{Fault, Faults, Peer, Ports, Simulation, sleep};
use wharf::{
    AcceptError, Call, Callback, CloseReason, EndOfStream, Frame, Framing, Group, Handle, Handler,
    LongTurn, Mailer, Options, Policy, Server, Session, SessionId, Target, Told, TurnCallbacks,
};

const PEERS: usize = 41;
const ROOM: Group = Group(7);
const LIMIT: Duration = Duration::from_millis(10);
const LONG: Duration = Duration::from_millis(20);
const MINUTE: Duration = Duration::from_secs(60);

/// Which callback takes long, each time.
#[derive(Default)]
struct Slow {
    slow: Mutex<Option<Callback>>,
    opened: Mutex<Vec<SessionId>>,
}

impl Slow {
    fn run(&self, callback: Callback) {
        let is_slow = *self.slow.lock().unwrap() == Some(callback);
        if is_slow {
            sleep(LONG);
        }
    }
}

/// `received` takes as many milliseconds as the byte says.
struct Works(Arc<Slow>);

impl Handler for Works {
    type State = ();

    fn opened(&self, session: &Session) {
        self.0.run(Callback::Opened);
        self.0.opened.lock().unwrap().push(session.id());
        session.notify_writable(1);
        session.set_timer(1, Duration::from_millis(1)).unwrap();
        session.join_with(ROOM, Policy::Skip).unwrap();
    }

    fn received(&self, _: &Session, (): &mut (), frame: &[u8]) {
        self.0.run(Callback::Received);
        sleep(Duration::from_millis(frame[0].into()));
    }

    fn writable(&self, _: &Session, (): &mut ()) {
        self.0.run(Callback::Writable);
    }

    fn timer(&self, _: &Session, (): &mut (), _: u64) {
        self.0.run(Callback::Timer);
    }

    fn lagged(&self, _: &Session, (): &mut (), _: Group, _: u64) {
        self.0.run(Callback::Lagged);
    }

    fn peer_finished(&self, _: &Session, (): &mut ()) {
        self.0.run(Callback::PeerFinished);
    }

    fn ending(&self, _: &Session, (): &mut (), _: CloseReason) -> Option<Frame> {
        self.0.run(Callback::Ending);
        None
    }

    fn closed(&self, _: &Session, (): (), _: CloseReason) {
        self.0.run(Callback::Closed);
    }

    fn draining(&self) {
        self.0.run(Callback::Draining);
    }

    fn accept_failed(&self, _: &AcceptError) {
        self.0.run(Callback::AcceptFailed);
    }

    fn connect_failed(&self, _: SessionId, _: &Target, _: &std::io::Error) {
        self.0.run(Callback::ConnectFailed);
    }
}

impl Told<()> for Works {
    fn told(&self, _: &Session, (): &mut (), (): ()) {
        self.0.run(Callback::Told);
    }
}

struct World {
    simulation: Simulation,
    server: Server,
    slow: Arc<Slow>,
    mailer: Mailer<()>,
    peers: Vec<Peer>,
}

impl World {
    fn new(simulation: Simulation, change: impl FnOnce(&mut Options)) -> World {
        let (slow, mailer) = (Arc::new(Slow::default()), Mailer::new());
        let options = Options::default().workers(2).with(|options| {
            options.sending.queue_bytes_max = 16 * 1024;
            options.sending.publications_bytes_max = 16 * 1024;
            options.receiving.end_of_stream = EndOfStream::Told;
            change(options);
        });
        let builder = Server::builder().listen("10.0.0.1:7000").framing(Framing::raw());
        let handler = mailer.with(Works(slow.clone()));
        let server = simulation.start(builder.options(options), handler).unwrap();
        World { simulation, server, slow, mailer, peers: Vec::new() }
    }

    fn handle(&self) -> Handle {
        self.server.handle()
    }

    fn pass(&self, duration: Duration) {
        self.simulation.sleep(duration);
    }

    fn connect_all(&mut self) {
        let connect = |_| self.simulation.connect(self.server.addresses()[0]).unwrap();
        self.peers = (0..PEERS).map(connect).collect();
        let all_opened = || self.server.handle().stats().opened == PEERS as u64;
        assert!(self.simulation.run_until(MINUTE, all_opened));
    }

    /// One thing after the other. Returns when the workers had begun to measure.
    fn everything_happens(&mut self) -> Duration {
        self.connect_all();
        let (handle, slow) = (self.handle(), self.slow.clone());
        let ids = slow.opened.lock().unwrap().clone();
        self.pass(MINUTE / 60);
        self.peers.iter().for_each(|peer| peer.send(&[11]));
        self.pass(MINUTE / 60);
        let measured_from = self.simulation.now();
        self.pass(MINUTE / 6); // a failing accept is told once in so long
        let more: Vec<_> =
            (0..PEERS).map(|_| self.simulation.connect(self.server.addresses()[0])).collect();
        self.pass(MINUTE / 60);
        drop(more);
        self.peers.iter().for_each(|peer| peer.send(&[0]));
        for _ in 0..2 {
            ids.iter().for_each(|id| self.mailer.tell(*id, ()).unwrap());
            self.pass(MINUTE / 60);
        }
        self.peers[..3].iter().for_each(|peer| peer.stall(true));
        for _ in 0..30 {
            while handle.publish(ROOM, [7; 4096]).is_err() {
                self.pass(Duration::from_millis(5));
            }
        }
        for id in &ids {
            let slow = self.slow.clone();
            let call = move |_| slow.run(Callback::WhenRoom);
            let _ = handle.call_when_room(*id, 16 * 1024, call);
        }
        while handle.publish(ROOM, [7; 4096]).is_ok() {}
        let slow = self.slow.clone();
        let call = move |_| slow.run(Callback::WhenRoomToPublish);
        handle.call_when_room_to_publish(call).unwrap();
        self.pass(MINUTE / 60);
        self.peers.iter().for_each(|peer| peer.stall(false));
        self.pass(MINUTE / 60);
        self.peers[..9].iter().for_each(Peer::shutdown);
        handle.connect("10.9.9.9:1".parse::<std::net::SocketAddr>().unwrap()).unwrap();
        self.pass(MINUTE / 2);
        self.pass(MINUTE);
        handle.drain(MINUTE).unwrap();
        measured_from
    }
}

/// Each callback that is called, whichever it is, is named when it takes long, on own ports and on a shared one.
#[test]
fn each_callback_is_named_when_it_takes_long_and_nobody_else_is() {
    use Callback::*;
    let kinds = [
        Opened,
        Received,
        Writable,
        Timer,
        Told,
        Lagged,
        PeerFinished,
        Ending,
        Closed,
        ConnectFailed,
        Draining,
        AcceptFailed,
        WhenRoom,
        WhenRoomToPublish,
    ];
    for ports in [Ports::OneEach, Ports::OneShared] {
        for kind in kinds {
            let faults = Faults::none().with(Fault::AcceptWithoutDescriptors, 4);
            let simulation = Simulation::new(3).faults(faults).ports(ports);
            let mut world = World::new(simulation, |options| {
                options.time.idle_timeout = Some(MINUTE / 2);
            });
            *world.slow.slow.lock().unwrap() = Some(kind);
            let measured_from = world.everything_happens();
            let mut turns = world.handle().long_turns();
            let is_early = matches!(kind, Opened | Writable | Timer);
            turns.retain(|turn| is_early || turn.began > measured_from);
            let named: Vec<Call> = turns.iter().filter_map(LongTurn::longest).collect();
            assert!(!named.is_empty(), "{kind}: {turns:?}");
            let is_right =
                |call: &Call| call.callback == kind || is_early && call.callback == Received;
            assert!(named.iter().all(is_right), "{kind}: {turns:#?}");
            assert!(named.iter().any(|call| call.callback == kind), "{kind}: {turns:#?}");
            let ids = world.slow.opened.lock().unwrap();
            let has_session =
                !matches!(kind, Draining | AcceptFailed | WhenRoom | WhenRoomToPublish);
            for call in named.into_iter().filter(|call| call.callback == kind) {
                assert_eq!(call.session.is_some(), has_session, "{call}");
                let is_known = call.session.is_none_or(|id| ids.contains(&id));
                assert!(is_known || kind == ConnectFailed, "{call}");
            }
            let count = world.handle().stats().long_turns;
            assert!(count >= turns.len() as u64, "{count}: {turns:?}");
        }
    }
}

/// Who sends `hold` keeps the worker, in a turn of its own that is not long. Meanwhile all send, so they come in one
/// turn; the culprit's callback takes long there.
fn crowd(world: &World, culprit: usize) -> LongTurn {
    let before = world.handle().long_turns();
    world.peers[0].send(&[9]);
    world.pass(Duration::from_millis(6));
    for (at, peer) in world.peers.iter().enumerate() {
        peer.send(&[if at == culprit { 23 } else { 0 }]);
    }
    world.pass(MINUTE / 60);
    let mut turns = world.handle().long_turns();
    turns.retain(|turn| !before.contains(turn));
    assert_eq!(turns.len(), 1, "{turns:?}");
    turns[0]
}

#[test]
fn of_many_callbacks_nobody_is_named_by_guess_and_whoever_does_it_again_within_a_minute_is() {
    let mut world = World::new(Simulation::new(1).faults(Faults::none()), |options| {
        options.workers = 1;
    });
    world.connect_all();
    world.pass(MINUTE / 60);
    assert_eq!((world.handle().long_turns(), world.handle().stats().long_turns), (vec![], 0));
    let ids = world.slow.opened.lock().unwrap().clone();
    let id_of: BTreeMap<usize, SessionId> = (0..PEERS).zip(ids).collect();
    for (round, culprit) in [5, 17, 40].into_iter().enumerate() {
        let first = crowd(&world, culprit);
        assert_eq!(first.took, Duration::from_millis(23), "{first}");
        let TurnCallbacks::Several { count, .. } = first.callbacks else {
            panic!("{first:?}: nobody has measured");
        };
        assert!(count > 20, "{first}");
        assert_eq!(first.longest(), None);
        for culprit in [culprit, PEERS - 1 - culprit] {
            world.pass(MINUTE - Duration::from_secs(2));
            let again = crowd(&world, culprit);
            let TurnCallbacks::Measured { longest, took } = again.callbacks else {
                panic!("{again:?}: it was not measured");
            };
            assert_eq!(longest, again.longest().unwrap());
            assert_eq!((longest.callback, took.as_millis()), (Callback::Received, 23), "{again}");
            assert_eq!(longest.session, Some(id_of[&culprit]), "{again}");
        }
        world.pass(MINUTE + Duration::from_secs(2));
        // After the minute it ends with a turn that is not long.
        world.peers[0].send(&[0]);
        world.pass(MINUTE / 60);
        assert_eq!(world.handle().stats().long_turns, 3 * (round as u64 + 1));
    }
}

#[test]
fn a_turn_is_long_if_it_took_longer_than_the_limit_and_the_latest_sixteen_are_kept() {
    for limit in [Some(LIMIT), Some(Duration::from_millis(15)), None] {
        let mut world = World::new(Simulation::new(1).faults(Faults::none()), |options| {
            options.workers = 1;
            options.long_turn = limit;
        });
        world.connect_all();
        let takes = [10, 11, 15, 16, 200, 9];
        for millis in takes.into_iter().cycle().take(60) {
            world.peers[11].send(&[millis]);
            world.pass(MINUTE / 60);
        }
        let is_long = |millis: &u8| {
            limit.is_some_and(|limit| Duration::from_millis((*millis).into()) > limit)
        };
        let expected: Vec<_> = takes.into_iter().filter(is_long).collect();
        let handle = world.handle();
        assert_eq!(handle.stats().long_turns, 10 * expected.len() as u64);
        let turns = handle.long_turns();
        assert_eq!(turns.len(), 16.min(10 * expected.len()));
        let latest = expected.iter().rev().cycle();
        for (turn, millis) in turns.iter().rev().zip(latest) {
            assert_eq!((turn.worker, turn.took.as_millis()), (0, (*millis).into()), "{turn}");
            let session = turn.longest().unwrap().session.unwrap();
            let said = format!(
                "worker 0: a turn took {millis} ms, {millis} ms of it in `received` of session {session}"
            );
            assert_eq!(turn.to_string(), said);
        }
        assert!(turns.is_sorted_by_key(|turn| turn.began));
    }
}

/// Two runs of a seed are the same run, also while callbacks are measured.
#[test]
fn measuring_changes_no_run() {
    let run = |limit| {
        let simulation = Simulation::new(11);
        let mut world = World::new(simulation, |options| options.long_turn = limit);
        *world.slow.slow.lock().unwrap() = Some(Callback::Timer);
        world.connect_all();
        world.pass(MINUTE);
        (world.simulation.hash(), world.handle().long_turns())
    };
    let (hash, turns) = run(Some(LIMIT));
    assert!(!turns.is_empty());
    assert_eq!((hash, turns), run(Some(LIMIT)));
}
