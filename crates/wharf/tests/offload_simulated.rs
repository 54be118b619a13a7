//! Jobs in simulated networks: one thread, and one job for it.
#![cfg(feature = "simulation")]
#![forbid(unsafe_code)]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use wharf::simulation::{Simulation, sleep};
use wharf::{Handler, Mailer, Options, Server, Session, Told};

const LONG: Duration = Duration::from_secs(60);

struct Asks {
    mailer: Mailer<u64>,
    told: Arc<AtomicU64>,
}

impl Handler for Asks {
    type State = ();

    fn opened(&self, session: &Session) {
        let job = || {
            sleep(Duration::from_millis(20));
            7
        };
        self.mailer.offload(session.id(), job).unwrap();
    }

    fn received(&self, _: &Session, (): &mut (), _: &[u8]) {}
}

impl Told<u64> for Asks {
    fn told(&self, _: &Session, (): &mut (), note: u64) {
        self.told.fetch_add(note, Ordering::SeqCst);
    }
}

/// Returns the hash of the run.
fn run(seed: u64) -> u64 {
    let simulation = Simulation::new(seed);
    let (mailer, told) = (Mailer::new(), Arc::new(AtomicU64::new(0)));
    let address = ([127, 0, 0, 1], 80).into();
    let options = Options::default().workers(1).with(|options| options.offload.threads = 1);
    let builder = Server::builder().listen(address).options(options);
    let asks = Asks { mailer: mailer.clone(), told: told.clone() };
    let server = simulation.start(builder, mailer.with(asks)).unwrap();
    let _peer = simulation.connect(address).unwrap();
    let is_told = || told.load(Ordering::SeqCst) == 7;
    assert!(simulation.run_until(LONG, is_told), "seed {seed}: the one job is not told");
    drop(server);
    simulation.hash()
}

#[test]
fn the_only_job_of_the_only_thread_is_told_and_a_seed_is_one_run() {
    for seed in 0..200 {
        assert_eq!(run(seed), run(seed), "seed {seed}");
    }
}
