//! The threads of a server. A process of its own: it counts the process's threads.

#![forbid(unsafe_code)]

#[macro_use]
mod support;

use support::*;
use wharf::{Backend, Framing, Options};

/// How many threads of workers and of the pool there are, where the system says so in a file.
fn threads_of_servers() -> Option<usize> {
    let tasks = std::fs::read_dir("/proc/self/task").ok().filter(|_| cfg!(unix))?;
    let names =
        tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("comm")).ok());
    Some(names.filter(|name| name.starts_with("wharf-")).count())
}

on_every_backend! {
    fn a_dropped_server_takes_its_threads_with_it(backend) {
        let _alone = alone();
        let options = Options::default().workers(3).with(|options| options.offload.threads = 2);
        let harness = start(backend, Framing::raw(), options, Behaviour::echo());
        let peer = harness.connect();
        round_trip(&peer, b"hello");
        assert_in(threads_of_servers(), &[Some(5), None]);
        let Harness { server, handle, .. } = harness;
        drop(server);
        eventually("the threads have ended", || threads_of_servers().unwrap_or(0) == 0);
        wait_ended(&peer);
        assert_eq!(handle.stats().live, 0);
        assert!(handle.connect(std::net::SocketAddr::from(([127, 0, 0, 1], 1))).is_err());
    }
}
