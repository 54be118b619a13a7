//! Whole runs: servers, their workers and peers.

use std::time::Duration;

use crate::simulation::{Fault, Faults, Ports, Simulation};
use crate::{CloseReason, Framing, Handler, Server, Session};

const BOTH: [Ports; 2] = [Ports::OneEach, Ports::OneShared];
const MINUTE: Duration = Duration::from_secs(60);

/// One is enough under Miri, whose findings do not depend on the seed.
fn seeds(count: u64) -> std::ops::Range<u64> {
    0..if cfg!(miri) { 1 } else { count }
}

struct Echo;

impl Handler for Echo {
    type State = ();

    fn opened(&self, _: &Session) {
        if crate::simulation::fires(Fault::HandlerPanics) {
            std::panic::resume_unwind(Box::new("as it should")); // prints nothing to standard error
        }
    }

    fn received(&self, session: &Session, _: &mut (), frame: &[u8]) {
        session.send(frame);
    }

    fn closed(&self, session: &Session, _: (), reason: CloseReason) {
        crate::simulation::note(session.id().to_bits(), format_args!("closed: {reason}"));
    }
}

fn server(simulation: &Simulation) -> Server {
    let builder = Server::builder().listen("10.0.0.1:7000").framing(Framing::raw());
    simulation.start(builder, Echo).unwrap()
}

/// Peers come, send, and meet every fault.
fn storm(seed: u64, ports: Ports) -> (u64, Vec<(Fault, u64)>) {
    let simulation = Simulation::new(seed).faults(Faults::all()).ports(ports);
    let server = server(&simulation);
    let mut peers = Vec::new();
    for round in 0..if cfg!(miri) { 2 } else { 20 } {
        peers.extend(simulation.connect(server.addresses()[0]));
        for peer in &peers {
            peer.send(&[round; if cfg!(miri) { 20 } else { 500 }]);
        }
        let at = simulation.random(peers.len() as u64) as usize;
        if simulation.fires(Fault::PeerResets) {
            peers[at].reset();
        }
        if simulation.fires(Fault::PeerHalfCloses) {
            peers[at].shutdown();
        }
        simulation.sleep(Duration::from_millis(simulation.random(100)));
    }
    simulation.sleep(Duration::from_secs(2));
    server.handle().drain(MINUTE).unwrap();
    (simulation.hash(), simulation.fired())
}

#[test]
fn the_same_seed_gives_the_same_run_with_every_fault() {
    for ports in BOTH {
        let mut fired = vec![0; Fault::ALL.len()];
        for seed in seeds(40) {
            let (hash, of_this) = storm(seed, ports);
            assert_eq!(storm(seed, ports), (hash, of_this.clone()), "seed {seed}, {ports:?}");
            for (sum, (_, count)) in fired.iter_mut().zip(of_this) {
                *sum += count;
            }
        }
        let of = |fault| fired[fault as usize];
        if !cfg!(miri) {
            assert!(of(Fault::CompletionDelayed) > 0 && of(Fault::ReceiveFails) > 0, "{fired:?}");
        }
    }
}

#[test]
#[cfg_attr(miri, ignore = "so much virtual time takes Miri minutes")]
fn a_thread_that_stalls_takes_its_time_and_nothing_else() {
    for ports in BOTH {
        let mut fired = 0;
        for seed in seeds(20) {
            let took = |faults| {
                let simulation = Simulation::new(seed).faults(faults).ports(ports);
                let server = server(&simulation);
                let peer = simulation.connect(server.addresses()[0]).unwrap();
                peer.send(b"hello");
                let mut answer = Vec::new();
                assert!(simulation.run_until(10 * MINUTE, || {
                    answer.extend(peer.received());
                    answer == b"hello"
                }));
                (simulation.now(), simulation.fired()[Fault::ThreadStalls as usize].1)
            };
            let (without, none) = took(Faults::none());
            assert!(none == 0 && without < Duration::from_secs(1), "{without:?}");
            fired += took(Faults::none().with(Fault::ThreadStalls, 10)).1;
        }
        assert!(fired > 0);
    }
}

#[test]
#[cfg_attr(miri, ignore = "so much virtual time takes Miri minutes")]
fn that_nothing_will_ever_happen_is_said_and_not_waited_for() {
    for ports in BOTH {
        let simulation = Simulation::new(1).faults(Faults::none()).ports(ports);
        let server = server(&simulation);
        assert_eq!(simulation.next_news(None), None, "no peer, no timer");
        let peer = simulation.connect(server.addresses()[0]).unwrap();
        peer.send(b"still there?");
        assert_eq!(simulation.next_news(None), Some(peer.key()));
        assert!(simulation.run_until(MINUTE, || peer.received() == b"still there?"));
        let before = simulation.now();
        while simulation.next_news(Some(MINUTE)).is_some() {}
        assert!(simulation.now() - before >= MINUTE);
        assert_eq!(simulation.next_news(None), None, "the session's timers go on for ever");
    }
}

#[test]
fn threads_of_the_users_send_while_the_workers_run() {
    for ports in BOTH {
        for seed in seeds(20) {
            let simulation = Simulation::new(seed).ports(ports).switch_in_calls();
            struct Tells(std::sync::Mutex<Option<crate::SessionId>>);
            impl Handler for std::sync::Arc<Tells> {
                type State = ();
                fn opened(&self, session: &Session) {
                    *self.0.lock().unwrap() = Some(session.id());
                }
                fn received(&self, _: &Session, _: &mut (), _: &[u8]) {}
            }
            let tells = std::sync::Arc::new(Tells(std::sync::Mutex::new(None)));
            let builder = Server::builder().listen("10.0.0.1:7000").framing(Framing::raw());
            let server = simulation.start(builder, tells.clone()).unwrap();
            let peer = simulation.connect(server.addresses()[0]).unwrap();
            assert!(simulation.run_until(MINUTE, || tells.0.lock().unwrap().is_some()));
            let id = tells.0.lock().unwrap().unwrap();
            for name in [b'a', b'b'] {
                let handle = server.handle();
                let thread = simulation.spawn(move || {
                    for number in 0..5 {
                        handle.send(id, [name, number]).unwrap();
                    }
                });
                thread.unwrap();
            }
            let mut came = Vec::new();
            assert!(simulation.run_until(MINUTE, || {
                came.extend(peer.received());
                came.len() == 20
            }));
            for name in [b'a', b'b'] {
                let of_it = came.chunks(2).filter(|pair| pair[0] == name).map(|pair| pair[1]);
                assert!(of_it.eq(0..5), "{came:?}");
            }
        }
    }
}

#[test]
fn a_server_may_outlive_its_simulation() {
    for ports in BOTH {
        let simulation = Simulation::new(3).ports(ports);
        let server = server(&simulation);
        let peer = simulation.connect(server.addresses()[0]).unwrap();
        drop(simulation);
        drop(server);
        assert!(peer.is_ended() || peer.is_reset());
    }
    assert!(crate::simulation::now().is_none(), "this thread is nobody's driver any more");
}
