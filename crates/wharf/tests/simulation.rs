//! The simulation itself: the engine runs in it, and the same seed gives the same run.
#![cfg(feature = "simulation")]
#![forbid(unsafe_code)]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use wharf::simulation::{Faults, Ports, Simulation, for_seeds};
use wharf::{Framing, Handler, Histograms, SendError, Server, Session, SessionId};

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
    let builder = Server::bind("10.0.0.1:7000").unwrap().framing(Framing::raw());
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
        for_seeds(50, |seed| {
            echo(&Simulation::new(seed).ports(ports));
        });
    }
}

#[test]
fn the_same_seed_gives_the_same_run_and_another_seed_another() {
    for_seeds(30, |seed| {
        let run = |seed| echo(&Simulation::new(seed));
        assert_eq!(run(seed), run(seed));
        assert_ne!(run(seed), run(seed + 1));
    });
}

#[test]
fn a_world_without_faults_answers_too() {
    for_seeds(20, |seed| {
        echo(&Simulation::with_faults(seed, Faults::none()));
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
            let builder = Server::bind(address).unwrap().framing(Framing::raw());
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
            assert_eq!(one.handle().send(*id, b"x"), Err(SendError::Gone(b"x")), "seed {seed}");
        }
        assert!(format!("{simulation:?}").len() < 300, "it is printed in a line");
        (ones, others)
    };
    for_seeds(10, |seed| {
        assert_eq!(run(seed), run(seed));
        assert_ne!(run(seed).0[0], run(seed + 1).0[0]);
    });
}
