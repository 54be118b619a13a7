//! What a server allocates at rest, for its idle sessions and for their states: it takes what it holds, and
//! no more than was announced. Every thread of the process is counted, so one test runs at a time.

#![forbid(unsafe_code)]

#[macro_use]
mod support;

use std::alloc::System;
use std::net::TcpStream;

use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use support::*;
use wharf::{Backend, CloseReason, Handler, Options, Server, Session};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const KIB: usize = 1024;
const LARGE_BYTES: usize = 256 * KIB;

/// What is allocated beyond what was at the region's beginning.
fn kept(region: &Region<'_, System>) -> usize {
    let change = region.change();
    change.bytes_allocated.saturating_sub(change.bytes_deallocated)
}

/// Has a state of so many bytes for each session, and checks them.
struct Holds<const BYTES: usize>;

impl<const BYTES: usize> Handler for Holds<BYTES> {
    type State = [u8; BYTES];

    fn opened(&self, _: &Session) -> Self::State {
        [7; BYTES]
    }

    fn received(&self, session: &Session, state: &mut Self::State, frame: &[u8]) {
        assert!(is_whole(state));
        session.send(frame);
    }

    fn closed(&self, _: &Session, state: Self::State, _: CloseReason) {
        assert!(is_whole(&state));
    }
}

fn is_whole(state: &[u8]) -> bool {
    [state.first(), state.last()].iter().flatten().all(|byte| **byte == 7)
}

fn start_holding<const BYTES: usize>(backend: Backend, options: Options) -> Server {
    let builder = Server::builder().listen("127.0.0.1:0").options(options).backend(backend);
    builder.start(Holds::<BYTES>).unwrap()
}

fn connect_and_echo(server: &Server) -> TcpStream {
    let peer = TcpStream::connect(server.addresses()[0]).unwrap();
    round_trip(&peer, b"here");
    peer
}

fn until_all_are_closed(server: &Server, opened: u64) {
    eventually("all sessions are closed", || server.handle().stats().closed == opened);
    assert_eq!(server.handle().stats().handler_panics, 0);
}

/// As many descriptors as 1,100 sessions and their peers need, if the system allows them.
fn allow_descriptors() {
    #[cfg(unix)]
    {
        use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
        let limit = getrlimit(Resource::Nofile);
        let enough = limit.current.map(|current| current.max(4096));
        setrlimit(Resource::Nofile, Rlimit { current: enough, ..limit }).unwrap();
    }
}

/// Panics when it is dropped, and is large.
struct DreadfulAndLarge(
    #[expect(dead_code, reason = "it takes memory")] [u8; LARGE_BYTES],
    Dreadful,
);

struct HoldsDreadful;

impl Handler for HoldsDreadful {
    type State = DreadfulAndLarge;

    fn opened(&self, _: &Session) -> Self::State {
        DreadfulAndLarge([7; LARGE_BYTES], Dreadful)
    }

    fn received(&self, session: &Session, _: &mut Self::State, frame: &[u8]) {
        session.send(frame);
    }
}

on_every_backend! {
    fn idle_sessions_take_no_more_than_was_announced_and_no_less_than_half(backend) {
        let _alone = alone();
        allow_descriptors();
        // With a timer for each session.
        let options = one_worker().with(|options| {
            options.time.idle_timeout = Some(BOUND * 10);
        });
        let memory = options.memory();
        let (at_rest, idle) = (memory.at_rest_bytes as usize, memory.idle_session_bytes as usize);
        let mut peers = Vec::with_capacity(2_000);
        let region = Region::new(ALLOCATOR);
        let server = start_holding::<0>(backend, options);
        let started = kept(&region);
        assert!(started <= at_rest, "{started} of {at_rest}");
        for sessions in [1, 100, 513, 1_025, 1_100] {
            peers.resize_with(sessions, || connect_and_echo(&server));
            let kept = kept(&region);
            assert!(kept <= at_rest + sessions * idle, "{kept} for {sessions}: {memory}");
            assert!(at_rest <= 4 * kept, "{at_rest} is announced");
        }
        let of_session = (kept(&region) - started) / 1_100;
        assert!(idle <= 2 * of_session, "{idle} are announced, it takes {of_session}");
        // Their slots rest while others are made.
        for round in 2..5 {
            drop(std::mem::replace(&mut peers, Vec::with_capacity(2_000)));
            until_all_are_closed(&server, 1_100 * (round - 1));
            peers.resize_with(1_100, || connect_and_echo(&server));
            let kept = kept(&region);
            assert!(kept <= at_rest + 1_100 * idle, "{kept}: {memory}");
        }
    }

    fn a_large_state_whose_destructor_panics_is_given_back_too(backend) {
        let _alone = alone();
        let builder = Server::builder().listen("127.0.0.1:0").options(one_worker());
        let server = builder.backend(backend).start(HoldsDreadful).unwrap();
        let ended = || server.handle().stats().closed;
        drop(connect_and_echo(&server));
        eventually("the first is closed", || ended() == 1);
        let region = Region::new(ALLOCATOR);
        for count in 2..22 {
            drop(connect_and_echo(&server));
            eventually("it is closed", || ended() == count);
        }
        eventually("all are given back", || kept(&region) < LARGE_BYTES);
        assert_eq!(server.handle().stats().handler_panics, 21);
    }

    fn a_large_state_takes_memory_while_its_session_lives_and_no_longer(backend) {
        let _alone = alone();
        let server = start_holding::<LARGE_BYTES>(backend, one_worker());
        let region = Region::new(ALLOCATOR);
        let peer = connect_and_echo(&server);
        let with = kept(&region);
        assert!((LARGE_BYTES..1024 * KIB).contains(&with), "{} KiB", with / KIB);
        drop(peer);
        until_all_are_closed(&server, 1);
        // What comes with the first session and stays is the room of the next.
        eventually("it is given back", || kept(&region) < with - LARGE_BYTES * 9 / 10);
        let at_rest = kept(&region);
        for _ in 0..1_000 {
            connect_and_echo(&server);
        }
        until_all_are_closed(&server, 1_001);
        eventually("all are given back", || kept(&region) < at_rest + LARGE_BYTES);
    }
}
