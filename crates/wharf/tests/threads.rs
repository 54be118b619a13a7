//! The threads of a server. A process of its own: it counts the process's threads.

#![forbid(unsafe_code)]

#[macro_use]
mod support;

use support::*;
use wharf::{Backend, Framing, Options};

fn threads_of_workers() -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let names =
        tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("comm")).ok());
    names.filter(|name| name.starts_with("wharf-")).count()
}

fn takes_its_threads_with_it(backend: Backend) {
    let options = Options { workers: 3, ..Options::default() };
    let harness = start(backend, Framing::raw(), options, Behaviour::echo());
    let peer = harness.connect();
    round_trip(&peer, b"hello");
    assert_eq!(threads_of_workers(), 3);
    let Harness { server, handle, .. } = harness;
    drop(server);
    eventually("the threads have ended", || threads_of_workers() == 0);
    wait_ended(&peer);
    assert_eq!(handle.stats().live, 0);
    assert!(handle.connect(std::net::SocketAddr::from(([127, 0, 0, 1], 1))).is_err());
}

#[test]
fn a_dropped_server_takes_its_threads_with_it() {
    if uring_is_there() {
        takes_its_threads_with_it(Backend::Uring);
    }
    takes_its_threads_with_it(Backend::Readiness);
}
