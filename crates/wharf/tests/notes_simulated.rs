//! What a note costs a port, in a simulated network.
#![cfg(feature = "simulation")]
#![forbid(unsafe_code)]

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use wharf::simulation::{Faults, Ports, Simulation};
use wharf::{Handler, Mailer, Options, Server, Session, SessionId, Told};

const PEERS: usize = 41;
const NOTES: u64 = 1_000;
const LONG: Duration = Duration::from_secs(60);

#[derive(Default)]
struct Counts {
    ids: Mutex<Vec<SessionId>>,
    told: AtomicU64,
}

struct Quiet(Arc<Counts>);

impl Handler for Quiet {
    type State = ();

    fn opened(&self, session: &Session) {
        self.0.ids.lock().unwrap().push(session.id());
    }

    fn received(&self, _: &Session, (): &mut (), _: &[u8]) {}
}

impl Told<()> for Quiet {
    fn told(&self, _: &Session, (): &mut (), (): ()) {
        self.0.told.fetch_add(1, Ordering::SeqCst);
    }
}

/// Operations and completions for each note, told one at a time to sessions that wait for their peers.
fn cost_of_a_note(ports: Ports) -> (f64, f64) {
    let simulation = Simulation::new(7).faults(Faults::none()).ports(ports);
    let (mailer, counts) = (Mailer::new(), Arc::new(Counts::default()));
    let address = ([127, 0, 0, 1], 80).into();
    let options = Options::default().workers(2).with(|options| options.offload.threads = 0);
    let builder = Server::builder().listen(address).options(options);
    let server = simulation.start(builder, mailer.with(Quiet(counts.clone()))).unwrap();
    let _peers: Vec<_> = (0..PEERS).map(|_| simulation.connect(address).unwrap()).collect();
    let all_are_in = || counts.ids.lock().unwrap().len() == PEERS;
    assert!(simulation.run_until(LONG, all_are_in));
    simulation.sleep(Duration::from_secs(1)); // now all wait
    let ids = counts.ids.lock().unwrap().clone();
    let before = simulation.figures();
    for note in 0..NOTES {
        mailer.tell(ids[note as usize % PEERS], ()).unwrap();
        let is_told = || counts.told.load(Ordering::SeqCst) == note + 1;
        assert!(simulation.run_until(LONG, is_told));
        simulation.sleep(Duration::from_millis(10));
    }
    let after = simulation.figures();
    drop(server);
    let each = |count: u64| count as f64 / NOTES as f64;
    (each(after.posts - before.posts), each(after.completions - before.completions))
}

#[test]
fn a_note_costs_nothing_at_a_port_of_ones_own_and_a_receive_at_a_shared_one() {
    assert_eq!(cost_of_a_note(Ports::OneEach), (0.0, 0.0));
    let (posts, completions) = cost_of_a_note(Ports::OneShared);
    println!("at a shared port a note costs {posts} operations and {completions} completions");
    assert!(posts <= 1.0 && completions <= 1.0, "{posts} operations, {completions} completions");
}
