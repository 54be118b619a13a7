//! What is echoed costs no allocation, once every session has spoken.

#![forbid(unsafe_code)]

use std::alloc::System;
use std::io::{Read, Write};
use std::net::TcpStream;

use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use wharf::{Backend, Error, Framing, Handler, LengthPrefix, Options, Server, Session};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

struct Echo;

impl Handler for Echo {
    type State = ();

    fn opened(&self, _: &Session) {}

    fn received(&self, session: &Session, _: &mut (), frame: &[u8]) {
        session.send(frame);
    }
}

const SESSIONS: usize = 20;
const ROUNDS: usize = 100;

/// Every session says something and is answered, so many times; the allocations of all threads.
fn allocations_of(peers: &mut [TcpStream], message: &[u8], rounds: usize) -> usize {
    let mut answer = vec![0; message.len()];
    let region = Region::new(ALLOCATOR);
    for _ in 0..rounds {
        for peer in peers.iter_mut() {
            peer.write_all(message).unwrap();
        }
        for peer in peers.iter_mut() {
            peer.read_exact(&mut answer).unwrap();
            assert_eq!(answer, message);
        }
    }
    let change = region.change();
    change.allocations + change.reallocations
}

fn echo_on(backend: Backend, framing: Framing, message: &[u8]) {
    let options = Options::default().workers(1).backend(backend);
    let builder = Server::builder().listen("127.0.0.1:0").framing(framing).options(options);
    let server = match builder.start(Echo) {
        Err(Error::Backend { reason, .. }) => {
            return println!("not tried on {backend}, which cannot be had here: {reason}");
        }
        started => started.unwrap(),
    };
    let connect = |_| TcpStream::connect(server.addresses()[0]).unwrap();
    let mut peers: Vec<_> = (0..SESSIONS).map(connect).collect();
    allocations_of(&mut peers, message, 50);
    // A list may still grow when a batch is larger than any before it: not once a message, but once.
    let allocations = (0..8).map(|_| allocations_of(&mut peers, message, ROUNDS)).min();
    let allocations = allocations.unwrap_or(usize::MAX);
    let messages = SESSIONS * ROUNDS;
    println!("{backend}: {allocations} allocations for {messages} messages");
    assert_eq!(allocations, 0, "{backend}");
}

/// One test, since every thread of the process is counted.
#[test]
fn a_message_that_is_echoed_in_steady_state_costs_no_allocation() {
    let backends: &[Backend] = if cfg!(windows) {
        &[Backend::Iocp]
    } else if cfg!(target_os = "linux") {
        &[Backend::Uring, Backend::Readiness]
    } else {
        &[Backend::Readiness]
    };
    let framed = Framing::length_prefixed(LengthPrefix::default());
    let body = [9; 60];
    let mut frame = (body.len() as u32).to_be_bytes().to_vec();
    frame.extend(body);
    for backend in backends {
        echo_on(*backend, Framing::raw(), &[7; 64]);
        echo_on(*backend, framed.clone(), &frame);
    }
}
