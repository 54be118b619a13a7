//! The simulation itself: the engine runs in it, the same seed gives the same run, and a seed that fails is made
//! small.
#![cfg(feature = "simulation")]
#![forbid(unsafe_code)]

use std::fmt::Debug;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use wharf::simulation::{
    Faults, FramedPeer, Peer, PeerEnd, PeerListener, Ports, Simulation, check, now,
};
use wharf::{
    CloseReason, Framing, Gone, Handler, Histograms, LengthPrefix, Server, Session, SessionId,
    Target,
};

const MINUTE: Duration = Duration::from_secs(60);

struct Echo;

impl Handler for Echo {
    type State = ();

    fn opened(&self, _: &Session) {}

    fn received(&self, session: &Session, _: &mut (), frame: &[u8]) {
        session.send(frame);
    }
}

/// A few peers that are answered; the run's hash, and what the server has measured.
fn echo(simulation: &Simulation) -> (u64, Histograms) {
    let builder = Server::builder().listen("10.0.0.1:7000").framing(Framing::raw());
    let server = simulation.start(builder, Echo).unwrap();
    let peers: Vec<_> =
        (0..5).map(|_| simulation.connect(server.addresses()[0]).unwrap()).collect();
    let message: Vec<u8> = (0..5_000).map(|at| (at % 251) as u8).collect();
    for peer in &peers {
        peer.send(&message);
    }
    let mut answers = vec![Vec::new(); peers.len()];
    let answered = simulation.run_until(Duration::from_secs(120), || {
        for (answer, peer) in answers.iter_mut().zip(&peers) {
            answer.extend(peer.received());
        }
        answers.iter().all(|answer| answer.len() >= message.len())
    });
    assert!(answered, "{:?}", answers.iter().map(Vec::len).collect::<Vec<_>>());
    assert!(answers.iter().all(|answer| *answer == message));
    let report = server.handle().drain(Duration::from_secs(10)).unwrap();
    assert_eq!(report.live, 5);
    (simulation.hash(), server.handle().histograms())
}

#[test]
fn an_echo_server_answers_whatever_the_network_does() {
    for ports in [Ports::OneEach, Ports::OneShared] {
        check(0..50, |simulation| {
            echo(&simulation.ports(ports));
        });
    }
}

#[test]
fn the_same_seed_gives_the_same_run_and_another_seed_another() {
    for seed in 0..30 {
        let run = |seed| echo(&Simulation::new(seed));
        assert_eq!(run(seed), run(seed), "seed {seed}");
        assert_ne!(run(seed), run(seed + 1), "seed {seed}");
    }
}

#[test]
fn a_world_without_faults_answers_too() {
    check(0..20, |simulation| {
        echo(&simulation.faults(Faults::none()));
    });
}

/// Notes who opens.
struct Names(Arc<Mutex<Vec<SessionId>>>);

impl Handler for Names {
    type State = ();

    fn opened(&self, session: &Session) {
        self.0.lock().unwrap().push(session.id());
    }

    fn received(&self, _: &Session, _: &mut (), _: &[u8]) {}
}

/// What is not the seed's alone in the real world is drawn from it here.
#[test]
fn the_ids_of_a_server_are_its_seeds_and_no_other_servers() {
    let run = |seed| {
        let simulation = Simulation::new(seed);
        let of_one = |address: &str| {
            let names = Arc::new(Mutex::new(Vec::new()));
            let builder = Server::builder().listen(address).framing(Framing::raw());
            let server = simulation.start(builder, Names(names.clone())).unwrap();
            let peers: Vec<_> =
                (0..41).map(|_| simulation.connect(server.addresses()[0])).collect();
            let count = peers.iter().flatten().count();
            let all_open = || names.lock().unwrap().len() == count;
            assert!(simulation.run_until(Duration::from_secs(600), all_open));
            let names = names.lock().unwrap().clone();
            (server, names)
        };
        let (one, ones) = of_one("10.0.0.1:1");
        let (_other, others) = of_one("10.0.0.2:1");
        for id in &others {
            assert_eq!(one.handle().send(*id, b"x"), Err(Gone(b"x")), "seed {seed}");
        }
        (ones, others)
    };
    for seed in 0..10 {
        assert_eq!(run(seed), run(seed), "seed {seed}");
        assert_ne!(run(seed).0[0], run(seed + 1).0[0], "seed {seed}");
    }
}

/// Answers a word, and takes it for granted that a word comes in one piece.
struct Hasty;

impl Handler for Hasty {
    type State = ();

    fn opened(&self, _: &Session) {}

    fn received(&self, session: &Session, _: &mut (), bytes: &[u8]) {
        if bytes == b"ping" {
            session.send(b"pong");
        }
    }
}

#[test]
#[ignore = "fails on purpose: a_failing_seed_is_made_small_and_reported runs it"]
fn fails_when_a_word_comes_in_pieces() {
    check(0..1_000, |simulation| {
        let builder = Server::builder().listen("10.0.0.1:7000").framing(Framing::raw());
        let server = simulation.start(builder, Hasty).unwrap();
        let peer = simulation.connect(server.addresses()[0]).unwrap();
        peer.send(b"ping");
        simulation.note(peer.key(), format_args!("waits for the answer"));
        simulation.sleep(Duration::from_secs(600));
        assert_eq!(peer.received(), b"pong", "with seed {}", simulation.seed());
    });
}

#[test]
#[ignore = "fails on purpose: the_seed_of_the_environment_is_run_alone runs it"]
fn fails_with_every_seed() {
    check(0..1_000, |simulation| panic!("this is seed {}", simulation.seed()));
}

#[test]
#[ignore = "fails on purpose: a_test_that_is_not_its_seeds_alone_is_told_so runs it"]
fn fails_once() {
    static FAILED: AtomicBool = AtomicBool::new(false);
    check(0..1_000, |_| assert!(FAILED.swap(true, Ordering::Relaxed)));
}

/// What a test of this file prints that fails.
fn printed_by(test: &str, seed: Option<&str>) -> String {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--ignored", "--exact", test]).env_remove("WHARF_SEED");
    command.env_remove("RUST_BACKTRACE").envs(seed.map(|seed| ("WHARF_SEED", seed)));
    let output = command.output().unwrap();
    assert!(!output.status.success(), "{test} did not fail");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_failing_seed_is_made_small_and_reported() {
    let printed = printed_by("fails_when_a_word_comes_in_pieces", None);
    let after = |label: &str| {
        let mut lines = printed.lines().filter_map(|line| line.strip_prefix(label));
        let line = lines.next().unwrap_or_else(|| panic!("no line has {label:?}: {printed}"));
        assert_eq!(lines.next(), None, "{label:?} is there twice: {printed}");
        line
    };
    let seed = after("seed ").strip_suffix(" failed").unwrap();
    let command = format!("WHARF_SEED={seed} cargo test fails_when_a_word_comes_in_pieces");
    assert_eq!(after("  again   "), command);
    // One fault is enough. (The network itself keeps 4 bytes together.)
    let (faults, _) = after("  faults  ").split_once(" (").unwrap();
    assert!(["receive-in-part", "receive-of-one-byte"].contains(&faults), "{printed}");
    assert!(after("  panic   ").ends_with(&format!("with seed {seed}")), "{printed}");
    assert!(after("  at      ").contains("simulation.rs:"), "{printed}");
    let (_, trace) = printed.split_once("lines of its trace:\n").unwrap();
    let trace: Vec<_> = trace.lines().take_while(|line| line.contains(" s  ")).collect();
    assert!(trace.len() <= 60, "{printed}");
    assert!(trace.iter().any(|line| line.ends_with(&format!(": {faults}"))), "{printed}");
    assert!(trace.iter().any(|line| line.ends_with("waits for the answer")), "{printed}");
    let is_of_the_end = |line: &&str| line.contains("closes in order");
    assert!(!trace.iter().any(is_of_the_end), "it ends where the test has failed: {printed}");
    assert_eq!(printed.matches("panicked at").count(), 1, "no trial is printed: {printed}");
}

#[test]
fn the_seed_of_the_environment_is_run_alone() {
    let printed = printed_by("fails_with_every_seed", Some("4711"));
    assert!(printed.contains("this is seed 4711") && printed.contains("seed 4711 failed"));
    assert!(printed.contains("faults  none: it fails without any"), "{printed}");
    let printed = printed_by("fails_with_every_seed", Some("twelve"));
    assert!(printed.contains("WHARF_SEED=twelve is no seed: invalid digit"), "{printed}");
}

#[test]
fn a_test_that_is_not_its_seeds_alone_is_told_so() {
    let printed = printed_by("fails_once", None);
    assert!(printed.contains("seed 0 failed"), "{printed}");
    assert!(printed.contains("it did not fail when it ran again"), "{printed}");
}

#[test]
fn a_check_panics_as_its_test_did_and_runs_no_further_seed() {
    let mut seeds = Vec::new();
    let checked = catch_unwind(AssertUnwindSafe(|| {
        check([3, 5, 8], |simulation| {
            seeds.push(simulation.seed());
            assert!(simulation.seed() != 5, "it is run number {}", seeds.len());
        });
    }));
    let panic = checked.unwrap_err();
    assert_eq!(panic.downcast_ref::<String>().unwrap(), "it is run number 2");
    seeds.dedup();
    assert_eq!(seeds, [3, 5], "5 is run again and again");
}

#[test]
fn a_thread_of_the_program_that_panics_fails_its_test() {
    let checked = catch_unwind(AssertUnwindSafe(|| {
        check([7], |simulation| {
            simulation.spawn(|| panic!("in another thread")).unwrap();
            simulation.sleep(Duration::from_secs(1));
        });
    }));
    let panic = checked.unwrap_err();
    assert_eq!(panic.downcast_ref::<&str>(), Some(&"in another thread"));
}

/// Both ends of a connection without a server. The second is framed by a length of one byte; frames may have up
/// to 100 bytes.
fn ends(simulation: &Simulation) -> (Peer, FramedPeer) {
    let listener = simulation.listen("10.0.0.9:9".parse().unwrap()).unwrap();
    let framed = simulation.connect(listener.address()).unwrap();
    let prefix = LengthPrefix::default().width(wharf::LengthWidth::One).frame_bytes_max(100);
    let other = listener.accept().unwrap();
    (other, framed.framed(Framing::length_prefixed(prefix)))
}

#[test]
fn a_framed_peer_sends_and_receives_whole_frames() {
    check(0..50, |simulation| {
        let (other, mut peer) = ends(&simulation);
        peer.send(b"hi");
        peer.send([]);
        let mut sent = Vec::new();
        assert!(simulation.run_until(MINUTE, || {
            sent.extend(other.received());
            sent.len() == 4
        }));
        assert_eq!(sent, b"\x02hi\0");
        let before = simulation.now();
        assert_eq!(peer.next_frame(MINUTE), None);
        assert!(simulation.now() >= before + MINUTE, "it waits");
        for piece in [&b"\x03a"[..], b"bc\0", b"\x01", b"d\x02e"] {
            other.send(piece);
            simulation.sleep(Duration::from_millis(simulation.random(20)));
        }
        assert_eq!(peer.next_frame(MINUTE).as_deref(), Some(&b"abc"[..]));
        let mut rest = Vec::new();
        assert!(simulation.run_until(MINUTE, || {
            rest.extend(peer.received());
            rest.len() == 2
        }));
        assert_eq!(rest, [&b""[..], b"d"]);
        assert_eq!(peer.end(), None);
    });
}

#[test]
fn a_framed_peer_tells_how_its_session_has_ended_after_its_last_frame() {
    let run = |simulation: &Simulation, bytes: &[u8], end: &dyn Fn(Peer)| {
        let (other, mut peer) = ends(simulation);
        other.send(&[b"\x01a", bytes].concat());
        end(other);
        simulation.sleep(MINUTE);
        assert_eq!(peer.end(), None, "a frame was not taken");
        assert_eq!(peer.next_frame(MINUTE).as_deref(), Some(&b"a"[..]));
        assert_eq!(peer.next_frame(MINUTE), None);
        peer.end()
    };
    check(0..50, |simulation| {
        let whole = run(&simulation, b"", &drop);
        assert_eq!(whole, Some(PeerEnd::Closed));
        let torn = run(&simulation, b"\x05abc", &drop);
        assert_eq!(torn, Some(PeerEnd::WithinFrame { bytes: 4 }));
        let garbage = run(&simulation, b"\xffabc", &drop);
        assert_eq!(garbage, Some(PeerEnd::NoFrame));
        let reset = run(&simulation, b"\x05abc", &|other| {
            simulation.sleep(MINUTE); // what was sent has arrived
            other.reset();
        });
        assert_eq!(reset, Some(PeerEnd::Reset));
        let vanished = run(&simulation, b"", &|other| {
            simulation.sleep(MINUTE);
            other.vanish();
        });
        assert_eq!(vanished, None);
        let (_other, mut peer) = ends(&simulation);
        peer.peer().reset();
        assert_eq!(peer.end(), Some(PeerEnd::Reset));
    });
}

#[test]
fn no_frame_comes_after_the_end_of_its_session() {
    check(0..50, |simulation| {
        let (other, mut peer) = ends(&simulation);
        other.send(b"\x01a");
        other.reset();
        assert!(simulation.run_until(MINUTE, || {
            peer.received();
            peer.end() == Some(PeerEnd::Reset)
        }));
        simulation.sleep(MINUTE);
        assert!(peer.received().is_empty());
    });
}

#[test]
#[should_panic = "a frame of 101 bytes cannot be sent"]
fn a_frame_that_the_framing_does_not_allow_is_not_sent() {
    let simulation = Simulation::new(1);
    ends(&simulation).1.send([7; 101]);
}

/// Notes what happens, and when.
#[derive(Clone, Default)]
struct Notes(Arc<Mutex<Vec<(String, Duration)>>>);

impl Notes {
    fn add(&self, what: String) {
        self.0.lock().unwrap().push((what, now().unwrap()));
    }

    fn seen(&self) -> Vec<String> {
        self.0.lock().unwrap().iter().map(|(what, _)| what.clone()).collect()
    }
}

impl Handler for Notes {
    type State = ();

    fn opened(&self, _: &Session) {
        self.add("opened".to_owned());
    }

    fn received(&self, _: &Session, _: &mut (), _: &[u8]) {}

    fn closed(&self, _: &Session, (): (), reason: CloseReason) {
        self.add(format!("closed: {reason:?}"));
    }

    fn connect_failed(&self, _: SessionId, _: &Target, _: &io::Error) {
        self.add("connect failed".to_owned());
    }
}

/// A server that is prepared and has been asked to connect twice.
fn prepared(simulation: &Simulation) -> (wharf::Prepared, PeerListener, Notes) {
    let notes = Notes::default();
    let listener = simulation.listen("10.0.0.2:0".parse().unwrap()).unwrap();
    let builder = Server::builder().listen("10.0.0.1:7000").framing(Framing::raw());
    let prepared = simulation.prepare(builder, notes.clone()).unwrap();
    for _ in 0..2 {
        prepared.handle().connect(listener.address()).unwrap();
    }
    (prepared, listener, notes)
}

#[test]
fn what_a_prepared_server_was_asked_for_comes_about_when_it_starts() {
    for ports in [Ports::OneEach, Ports::OneShared] {
        check(0..100, |simulation| {
            let simulation = simulation.ports(ports);
            let (prepared, listener, notes) = prepared(&simulation);
            let peer = simulation.connect(prepared.addresses()[0]).unwrap();
            simulation.sleep(MINUTE);
            assert!(notes.seen().is_empty() && listener.accept().is_none(), "no worker runs");
            let (started, server) = (simulation.now(), prepared.start());
            let mut peers = vec![peer];
            assert!(simulation.run_until(MINUTE, || {
                peers.extend(listener.accept());
                peers.len() == 3 && server.handle().stats().live == 3
            }));
            assert_eq!(notes.seen(), ["opened"; 3]);
            assert!(notes.0.lock().unwrap().iter().all(|(_, at)| *at >= started));
        });
    }
}

#[test]
fn a_prepared_server_that_is_dropped_answers_each_connect() {
    for ports in [Ports::OneEach, Ports::OneShared] {
        check(0..100, |simulation| {
            let simulation = simulation.ports(ports);
            let (prepared, listener, notes) = prepared(&simulation);
            simulation.sleep(Duration::from_secs(simulation.random(3)));
            let (handle, peer) = (prepared.handle(), simulation.connect(prepared.addresses()[0]));
            drop(prepared);
            let count = |what: &str| notes.seen().iter().filter(|seen| *seen == what).count();
            let failed = count("connect failed");
            // On a shared port one worker may see a connect succeed before another cancels it.
            let opened = if ports == Ports::OneEach { 0 } else { 2 - failed };
            let seen = [failed, count("opened"), count("closed: Stopped")];
            assert_eq!(seen, [2 - opened, opened, opened], "{:?}", notes.seen());
            handle.connect(listener.address()).unwrap_err();
            simulation.sleep(MINUTE);
            let peer = peer.unwrap();
            assert!(peer.is_reset() || peer.is_ended(), "its server is gone");
        });
    }
}

#[test]
fn whatever_is_printed_of_a_simulation_is_a_few_lines() {
    fn is_short(what: &dyn Debug) {
        let (plain, pretty) = (format!("{what:?}"), format!("{what:#?}"));
        assert!(plain.len() < 1_500 && pretty.lines().count() < 25, "{pretty}");
    }
    let simulation = Simulation::new(1);
    let (peer, mut framed) = ends(&simulation);
    peer.send(&[7; 100_000]);
    simulation.sleep(MINUTE);
    assert_eq!(framed.end(), None, "frames wait");
    for what in [&simulation as &dyn Debug, &peer, &framed, &Faults::all(), &Faults::none()] {
        is_short(what);
    }
    is_short(&simulation.figures());
    is_short(&simulation.listen("10.0.0.3:1".parse().unwrap()));
}
