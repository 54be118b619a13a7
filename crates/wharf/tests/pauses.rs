//! Real ports, while threads stop at steps. A process of its own: all its threads stop.
#![cfg(feature = "simulation")]
#![forbid(unsafe_code)]

#[macro_use]
mod support;

use support::*;
use wharf::simulation::for_wharf_sim::pause_at_steps;
use wharf::{Backend, Framing, Options};

on_every_backend! {
    fn an_echo_server_answers_while_its_threads_stop_at_steps(backend) {
        assert_eq!(pause_at_steps(7, 50), cfg!(debug_assertions));
        let options = Options::default().workers(2);
        let harness = start(backend, Framing::raw(), options, Behaviour::echo());
        for _ in 0..20 {
            let peers: Vec<_> = (0..4).map(|_| harness.connect()).collect();
            for peer in &peers {
                round_trip(peer, b"hello");
            }
        }
    }
}
