//! Too little memory is an error that names the option, and memory that is not used is not taken.
//! A process of its own: the limit is the process's.
//!
//! On Linux, which has such a limit and tells of what is used.

#![forbid(unsafe_code)]
#![cfg(target_os = "linux")]

#[macro_use]
mod support;

use std::fs;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use support::*;
use wharf::{
    Backend, BackendChoice, BackendRefusal, Connector, Error, Framing, Handler, Options, Server,
    Session,
};

const PAGE_BYTES: u64 = 4096;
const MIB: u64 = 1 << 20;

struct Echo;

impl Handler for Echo {
    type State = ();

    fn opened(&self, _: &Session) {}

    fn received(&self, session: &Session, (): &mut (), frame: &[u8]) {
        session.send(frame);
    }
}

/// The address space of this process, and what of it lies in memory, in bytes.
fn memory() -> (u64, u64) {
    let statm = fs::read_to_string("/proc/self/statm").unwrap();
    let mut pages = statm.split_whitespace().map(|pages| pages.parse::<u64>().unwrap());
    let mut next = || pages.next().unwrap() * PAGE_BYTES;
    (next(), next())
}

/// Does something while the process may have so much more address space than now.
fn with_room<R>(bytes: u64, act: impl FnOnce() -> R) -> R {
    let limit = getrlimit(Resource::As);
    let current = Some(memory().0 + bytes);
    setrlimit(Resource::As, Rlimit { current, ..limit }).unwrap();
    let result = act();
    setrlimit(Resource::As, limit).unwrap();
    result
}

/// The most that may be asked for: 32 GiB for each worker.
fn all_that_is_allowed() -> Options {
    Options { receive_buffers: 32_768, receive_buffer_bytes: 1 << 20, ..one_worker() }
}

#[test]
fn buffers_that_there_is_no_memory_for_are_an_error_that_names_the_options() {
    if !uring_is_there() {
        return;
    }
    let _alone = alone();
    let builder = Connector::new().options(all_that_is_allowed()).backend(Backend::Uring);
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
    let builder = Server::bind("127.0.0.1:0").unwrap().options(all_that_is_allowed());
    let server = with_room(1024 * MIB, || builder.start(Echo).unwrap());
    let choice = server.backend();
    assert!(
        matches!(choice, BackendChoice::UringRefused(BackendRefusal::Memory { .. })),
        "{choice}"
    );
    round_trip(&connect(server.addresses()[0]), b"served");
}

#[test]
fn lent_buffers_take_no_memory_before_they_are_used() {
    if !uring_is_there() {
        return;
    }
    let _alone = alone();
    let options = Options {
        workers: 16,
        receive_buffers: 1024,
        receive_buffer_bytes: 64 * 1024,
        ..Options::default()
    };
    let (_, before) = memory();
    let harness = start(Backend::Uring, Framing::raw(), options, Behaviour::echo());
    let (_, with) = memory();
    // 1 GiB may be lent. A worker's stack, ring and so on are some 200 KiB.
    assert!(with - before < 64 * MIB, "{} MiB", (with - before) / MIB);
    round_trip(&harness.connect(), b"served");
    harness.settle();
    harness.finish();
}
