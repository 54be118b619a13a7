//! The protocol that README tests under simulation: README has the text below.
#![cfg(feature = "simulation")]
#![forbid(unsafe_code)]

use std::time::Duration;

use wharf::simulation::{Simulation, check};
use wharf::{Close, Framing, Handler, LengthPrefix, Server, Session};

/// Each frame is a number of 8 bytes. The answer is the sum of all numbers of the session so far.
struct Sums;

impl Handler for Sums {
    type State = u64;

    fn opened(&self, _: &Session) -> u64 {
        0
    }

    fn received(&self, session: &Session, sum: &mut u64, frame: &[u8]) {
        match frame.try_into() {
            Ok(number) => {
                *sum = sum.wrapping_add(u64::from_be_bytes(number));
                session.send(sum.to_be_bytes());
            }
            Err(_) => session.close(Close::Drain), // after the answers to what came before
        }
    }
}

#[test]
fn every_number_is_answered_in_a_thousand_networks() {
    const LONG: Duration = Duration::from_secs(600); // of virtual time
    check(0..1_000, |simulation: Simulation| {
        let framing = Framing::length_prefixed(LengthPrefix::default());
        let builder = Server::builder().listen("10.0.0.1:7000").framing(framing.clone());
        let server = simulation.start(builder, Sums).unwrap();
        let mut peer = simulation.connect(server.addresses()[0]).unwrap().framed(framing);
        (1..=20_u64).for_each(|number| peer.send(number.to_be_bytes()));
        for number in 1..=20_u64 {
            let sum = (1..=number).sum::<u64>().to_be_bytes();
            assert_eq!(peer.next_frame(LONG).as_deref(), Some(&sum[..]));
        }
    });
}
