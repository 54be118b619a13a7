//! What is echoed costs no allocation, once every session has spoken.

#![forbid(unsafe_code)]

use std::alloc::System;
use std::io::{IoSlice, Read, Write};
use std::net::TcpStream;

use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use wharf::{
    Backend, CustomFraming, Cut, Delimiter, Envelope, Error, Framing, FramingError, Handler,
    LengthField, LengthPrefix, Lines, Options, Parts, Server, Session, VarintPrefix,
};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Its framing is measured as it is.
#[path = "../examples/resp.rs"]
#[allow(dead_code, reason = "the rest of it is not")]
mod resp;

struct Echo;

impl Handler for Echo {
    type State = ();

    fn opened(&self, _: &Session) {}

    fn received(&self, session: &Session, _: &mut (), frame: &[u8]) {
        let (first, second) = frame.split_at(frame.len() / 2);
        session.send(Parts(&[first, second].map(IoSlice::new)));
    }
}

/// A program's framing: a byte with the length before each frame, and a zero behind it.
struct Own;

impl CustomFraming for Own {
    fn wire_frame_bytes_max(&self) -> usize {
        257
    }

    fn cut(&self, bytes: &[u8], _: usize) -> Cut {
        let frame_bytes = bytes.first().map_or(0, |length| usize::from(*length));
        match bytes.get(frame_bytes + 1) {
            Some(_) => Cut::Frame { header_bytes: 1, frame_bytes, trailer_bytes: 1 },
            None => Cut::More { bytes_min: frame_bytes + 2, scanned: 0 },
        }
    }

    fn envelope(&self, frame: Parts<'_>) -> Result<Envelope, FramingError> {
        Envelope::new(&[frame.bytes() as u8], &[0])
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
    let body = [9; 60];
    let with = |front: &[u8], back: &[u8]| [front, &body, back].concat();
    for backend in backends {
        for (framing, message) in [
            (Framing::raw(), with(&[], &[])),
            (Framing::length_prefixed(LengthPrefix::default()), with(&[0, 0, 0, 60], &[])),
            (Framing::lines(Lines::default()), with(&[], b"\n")),
            (Framing::delimited(Delimiter::new(b"--")), with(&[], b"--")),
            (Framing::fixed(60), with(&[], &[])),
            (Framing::length_field(LengthField::default()), with(&[0, 0, 0, 60], &[])),
            (Framing::varint(VarintPrefix::default()), with(&[60], &[])),
            (Framing::custom(Own), with(&[60], &[0])),
            (Framing::custom(resp::Commands), with(b"*1\r\n$60\r\n", b"\r\n")),
        ] {
            echo_on(*backend, framing, &message);
        }
    }
}
