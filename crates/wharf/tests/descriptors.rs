//! What the process has open: accepting when no descriptor is left, and how long a session's is kept.
//! A process of its own: the limit is the process's.
//!
//! On Linux, which has such a limit and tells of it. Windows has none that could be reached here.

#![forbid(unsafe_code)]
#![cfg(target_os = "linux")]

#[macro_use]
mod support;

use std::error::Error;
use std::fs;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use support::*;
use wharf::{Backend, Close, Connector, Framing};

/// User and system time that this process has used so far. The file was opened while that could
/// be done.
fn cpu_time(mut file: &File) -> Duration {
    let mut stat = String::new();
    file.seek(SeekFrom::Start(0)).unwrap();
    file.read_to_string(&mut stat).unwrap();
    let after_name = stat.rsplit_once(')').unwrap().1;
    let fields: Vec<u64> =
        after_name.split_whitespace().skip(11).take(2).map(|f| f.parse().unwrap()).collect();
    Duration::from_millis((fields[0] + fields[1]) * 10) // USER_HZ is 100 on every Linux
}

fn starves_and_recovers(backend: Backend) {
    // Before the server starts: io_uring reads the limit when an accept is posted.
    let limit = getrlimit(Resource::Nofile);
    let in_use = fs::read_dir("/proc/self/fd").unwrap().count() as u64;
    setrlimit(Resource::Nofile, Rlimit { current: Some(in_use + 60), ..limit }).unwrap();
    let harness = start(backend, Framing::raw(), one_worker(), Behaviour::echo());
    round_trip(&harness.connect(), b"before");
    harness.settle();

    // Peers have their sockets before the descriptors run out; they are connected by the kernel,
    // and wait in the backlog.
    let peers: Vec<_> = (0..8).map(|_| harness.connect()).collect();
    for peer in &peers {
        round_trip(peer, b"served");
    }
    let waiting = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    let stat = File::open("/proc/self/stat").unwrap();
    let mut fillers = Vec::new();
    while let Ok(filler) = File::open("/dev/null") {
        fillers.push(filler);
    }
    waiting.connect(&harness.address().into()).unwrap();
    eventually("accepting fails", || harness.handle.stats().accept_failures > 0);

    // While it lasts: the others are served, and hardly any time is used.
    round_trip(&peers[0], b"still served");
    let (before, started) = (cpu_time(&stat), Instant::now());
    let failures = harness.handle.stats().accept_failures;
    while started.elapsed() < Duration::from_secs(1) {
        std::thread::sleep(Duration::from_millis(100));
    }
    let share = (cpu_time(&stat) - before).as_secs_f64() / started.elapsed().as_secs_f64();
    assert!(harness.handle.stats().accept_failures > failures, "it goes on trying");
    harness.log.look(|ledger| {
        let [(told, code)] = &ledger.accepts_failed[..] else {
            panic!("told once, and not for each attempt: {:?}", ledger.accepts_failed);
        };
        assert_eq!(*code, Some(24), "{told}"); // EMFILE
        assert!(told.contains("ulimit -n"), "{told}");
    });
    println!("{backend}: {:.1} % of a core while no descriptor is left", share * 100.0);
    assert!(share <= 0.05, "{share}");

    // One comes free: the peer that waited is served.
    let waiting = std::net::TcpStream::from(waiting);
    waiting.set_read_timeout(Some(BOUND)).unwrap();
    let freed = Instant::now();
    fillers.pop();
    round_trip(&waiting, b"at last");
    let took = freed.elapsed();
    println!("{backend}: served {took:?} after a descriptor came free");
    // 100 ms is the promise; the rest is for a machine that is busy with other tests.
    assert!(took < Duration::from_millis(500), "{took:?}");

    drop(fillers);
    setrlimit(Resource::Nofile, limit).unwrap();
    drop((peers, waiting));
    harness.settle();
    harness.finish();
}

on_every_backend! {
    fn accepting_pauses_while_no_descriptor_is_left_and_goes_on_when_one_is(backend) {
        let _alone = alone();
        starves_and_recovers(backend);
    }

    /// And not the readiness port, which needs some too.
    fn a_server_that_has_no_descriptors_to_start_with_says_what_helps(backend) {
        let _alone = alone();
        let limit = getrlimit(Resource::Nofile);
        let in_use = fs::read_dir("/proc/self/fd").unwrap().count() as u64;
        let mut refusals = 0;
        loop {
            let current = Some(in_use + refusals);
            setrlimit(Resource::Nofile, Rlimit { current, ..limit }).unwrap();
            let started = Connector::builder().workers(8).backend(backend).start(Nobody);
            setrlimit(Resource::Nofile, limit).unwrap();
            let Err(error) = started else { break };
            let cause = error.source().map_or(String::new(), ToString::to_string);
            let told = format!("{error}: {cause}");
            assert!(told.contains("os error 24") && told.contains("ulimit -n"), "{told}");
            assert!(!told.contains("readiness backend"), "{told}");
            refusals += 1;
        }
        assert!(refusals >= 8, "each of eight workers needs some, and only {refusals} were missing");
    }

    /// Once it is closed its number may be another's, and what is outstanding be done to that one.
    fn the_socket_of_a_session_is_open_until_closed_has_run(backend) {
        let _alone = alone();
        let (count, counted) = mpsc::channel();
        let behaviour = Behaviour::echo()
            .on_closed(move |_, _| count.send(open_descriptors()).unwrap());
        let harness = start(backend, Framing::raw(), one_worker(), behaviour);
        let (peer, id) = harness.connect_known();
        round_trip(&peer, b"open");
        let while_open = open_descriptors();
        assert!(harness.handle.close(id, Close::Stop));
        assert_eq!(counted.recv_timeout(BOUND).unwrap(), while_open);
        eventually("it is closed", || open_descriptors() < while_open);
        harness.finish();
    }
}
