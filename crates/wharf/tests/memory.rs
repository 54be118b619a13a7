//! Too little memory is an error that names the option, and memory that is not used is not taken.
//! A process of its own: the limit is the process's.
//!
//! On Linux, which has such a limit and tells of what is used.

#![forbid(unsafe_code)]
#![cfg(target_os = "linux")]

#[macro_use]
mod support;

use std::fs;
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use support::*;
use wharf::{
    Backend, BackendChoice, BackendRefusal, Connector, Error, Framing, Handler, Options, Server,
    Session, SessionId,
};

const MIB: u64 = 1 << 20;

struct Echo;

impl Handler for Echo {
    type State = ();

    fn opened(&self, _: &Session) {}

    fn received(&self, session: &Session, (): &mut (), frame: &[u8]) {
        session.send(frame);
    }
}

type Opened = Arc<Mutex<Vec<SessionId>>>;

/// The same, and notes who is there.
struct EchoAndTell(Opened);

impl Handler for EchoAndTell {
    type State = ();

    fn opened(&self, session: &Session) {
        lock(&self.0).push(session.id());
    }

    fn received(&self, session: &Session, (): &mut (), frame: &[u8]) {
        session.send(frame);
    }
}

/// The size of this process in bytes, as the system counts it by this name: its address space, or what it
/// has written to.
fn bytes_of(name: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let value = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).unwrap();
    value.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap() * 1024
}

/// Does something while the process may have so much more address space than now.
fn with_room<R>(bytes: u64, act: impl FnOnce() -> R) -> R {
    let limit = getrlimit(Resource::As);
    let current = Some(bytes_of("VmSize") + bytes);
    setrlimit(Resource::As, Rlimit { current, ..limit }).unwrap();
    let result = act();
    setrlimit(Resource::As, limit).unwrap();
    result
}

/// The most that may be asked for: 32 GiB for each worker.
fn all_that_is_allowed() -> Options {
    one_worker().with(|options| {
        options.uring.receive_buffers = 32_768;
        options.uring.receive_buffer_bytes = 1 << 20;
    })
}

#[test]
fn buffers_that_there_is_no_memory_for_are_an_error_that_names_the_options() {
    if !uring_is_there() {
        return;
    }
    let _alone = alone();
    let builder = Connector::builder().options(all_that_is_allowed()).backend(Backend::Uring);
    let error = with_room(1024 * MIB, || builder.start(Echo).unwrap_err());
    let Error::Backend { reason: BackendRefusal::Memory { bytes, .. }, .. } = error else {
        panic!("{error}");
    };
    assert_eq!(bytes, 32_768 << 20);
    let said = error.to_string();
    assert!(said.contains("receive_buffers") && said.contains("receive_buffer_bytes"), "{said}");
}

#[test]
fn without_memory_for_the_buffers_of_io_uring_auto_serves_on_readiness() {
    if !uring_is_there() {
        return;
    }
    let _alone = alone();
    let builder = Server::builder().listen("127.0.0.1:0").options(all_that_is_allowed());
    let server = with_room(1024 * MIB, || builder.start(Echo).unwrap());
    let choice = server.backend();
    assert!(
        matches!(choice, BackendChoice::UringRefused(BackendRefusal::Memory { .. })),
        "{choice}"
    );
    round_trip(&connect(server.addresses()[0]), b"served");
}

#[test]
fn a_server_at_rest_takes_no_more_than_was_announced_and_no_lent_buffer() {
    let _ = uring_is_there();
    let _alone = alone();
    for backend in [Backend::Uring, Backend::Readiness] {
        if backend == Backend::Uring && !uring_is_there() {
            continue;
        }
        let options = Options::default().workers(16).with(|options| {
            options.uring.receive_buffers = 1024;
            options.uring.receive_buffer_bytes = 64 * 1024;
        });
        let announced = options.memory().at_rest_bytes;
        let before = bytes_of("RssAnon");
        let harness = start(backend, Framing::raw(), options, Behaviour::echo());
        // Less than before, if the allocator has given back what an earlier server had.
        let taken = bytes_of("RssAnon").saturating_sub(before);
        assert!(taken <= announced, "{} of {} KiB", taken / 1024, announced / 1024);
        round_trip(&harness.connect(), b"served");
        harness.settle();
        harness.finish();
    }
}

/// As many descriptors as so many sessions and their peers need, if the system allows them.
fn allow_descriptors(sessions: usize) {
    let limit = getrlimit(Resource::Nofile);
    let enough = limit.current.map(|current| current.max(2 * sessions as u64 + 500));
    setrlimit(Resource::Nofile, Rlimit { current: enough, ..limit }).unwrap();
}

/// As fast as it goes, with copies of its own for each.
#[test]
fn two_thousand_who_never_read_take_no_more_than_the_budget_and_cost_the_others_nothing() {
    const STUCK: usize = 2_000;
    const READERS: usize = 20;
    const BUDGET: u64 = 64 * MIB;
    let _ = uring_is_there();
    let _alone = alone();
    allow_descriptors(STUCK + READERS);
    let mut first_rest = None;
    for backend in [Backend::Uring, Backend::Readiness] {
        if backend == Backend::Uring && !uring_is_there() {
            continue;
        }
        let options = one_worker().with(|options| {
            options.sending.queued_bytes_max = Some(BUDGET as usize);
            options.sending.kernel_bytes = Some(8 * 1024);
            options.sending.slow_after = Duration::from_secs(1);
        });
        let opened = Opened::default();
        let server = Server::builder().listen("127.0.0.1:0").options(options).backend(backend);
        let server = server.start(EchoAndTell(opened.clone())).unwrap();
        let handle = server.handle();
        let connect = || TcpStream::connect(server.addresses()[0]).unwrap();
        let unread: Vec<_> = (0..STUCK).map(|_| connect()).collect();
        eventually("all are open", || lock(&opened).len() == STUCK);
        let stuck = std::mem::take(&mut *lock(&opened));
        let readers: Vec<_> = (0..READERS).map(|_| connect()).collect();
        let (frame, echoed) = (vec![7; 8 * 1024], vec![3; 24 * 1024]);
        // Often enough that every lent buffer was used.
        (0..100).for_each(|_| readers.iter().for_each(|peer| round_trip(peer, &echoed)));
        // What the first server leaves with the allocator is there for the second.
        let rest = *first_rest.get_or_insert_with(|| bytes_of("RssAnon"));
        let (over, mut most, mut queued) = (AtomicBool::new(false), 0, 0);
        std::thread::scope(|scope| {
            let _over = SetOnDrop(&over);
            for peer in &readers {
                scope.spawn(|| {
                    while !over.load(Ordering::Relaxed) {
                        round_trip(peer, &echoed);
                    }
                });
            }
            while handle.stats().closed < STUCK as u64 / 2 {
                for id in &stuck {
                    let _ = handle.try_send(*id, &frame[..]);
                }
                most = most.max(bytes_of("RssAnon"));
                queued = queued.max(handle.stats().queued_bytes);
            }
        });
        // What is not counted of a session are lists, and batches of a single piece; and a port has a reserve.
        let bound = BUDGET + BUDGET / 10 + MIB + (STUCK + READERS) as u64 * 9 * 1024;
        assert!(queued <= bound, "{queued}");
        let taken = most - rest;
        assert!(taken <= bound, "{} of {} KiB", taken / 1024, bound / 1024);
        drop((unread, readers));
    }
}
