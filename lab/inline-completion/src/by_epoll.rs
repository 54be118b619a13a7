//! A server of one thread on epoll, that receives up to so many times in a row from one session.

use std::collections::HashMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use crate::load::{self, CHUNK_BYTES, Seen};

const EVENTS_MAX: usize = 16;

pub fn through_the_port(streams_for: Duration) -> Seen {
    run(1, streams_for)
}

pub fn inline_16(streams_for: Duration) -> Seen {
    run(16, streams_for)
}

/// The fault.
pub fn inline_without_bound(streams_for: Duration) -> Seen {
    run(u32::MAX, streams_for)
}

fn run(in_a_row_max: u32, streams_for: Duration) -> Seen {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
    let address = listener.local_addr().expect("an address");
    let ends = Arc::new(AtomicBool::new(false));
    let before = load::handled_bytes();
    let server = thread::spawn({
        let ends = ends.clone();
        move || serve(&listener, in_a_row_max, &ends)
    });
    let mut seen = load::run(address, streams_for);
    ends.store(true, Ordering::Relaxed);
    let (cpu, waits) = server.join().expect("the server");
    let kib = (load::handled_bytes() - before) as f64 / 1024.0;
    seen.cpu_us_per_kib = Some(cpu.as_secs_f64() * 1e6 / kib);
    seen.waits_per_kib = Some(waits as f64 / kib);
    seen
}

/// Serves until it is told to end; its CPU time, and how often it has waited at the port.
fn serve(listener: &TcpListener, in_a_row_max: u32, ends: &AtomicBool) -> (Duration, u64) {
    listener.set_nonblocking(true).expect("a mode");
    // SAFETY: makes a descriptor, which is nobody else's.
    let port = unsafe { OwnedFd::from_raw_fd(libc::epoll_create1(libc::EPOLL_CLOEXEC)) };
    watch(&port, listener.as_raw_fd());
    let mut sessions: HashMap<RawFd, TcpStream> = HashMap::new();
    let mut waits = 0;
    let mut events = [libc::epoll_event { events: 0, u64: 0 }; EVENTS_MAX];
    while !ends.load(Ordering::Relaxed) {
        // SAFETY: the array is ours for the time of the call, and its length is right.
        let count = unsafe {
            libc::epoll_wait(port.as_raw_fd(), events.as_mut_ptr(), EVENTS_MAX as i32, 10)
        };
        waits += 1;
        for event in &events[..count.max(0) as usize] {
            let descriptor = event.u64 as RawFd;
            if descriptor == listener.as_raw_fd() {
                let (stream, _) = listener.accept().expect("a peer");
                stream.set_nonblocking(true).expect("a mode");
                stream.set_nodelay(true).expect("TCP_NODELAY");
                watch(&port, stream.as_raw_fd());
                sessions.insert(stream.as_raw_fd(), stream);
            } else if let Some(stream) = sessions.get_mut(&descriptor)
                && !receive_in_a_row(stream, in_a_row_max)
            {
                sessions.remove(&descriptor);
            }
        }
    }
    (thread_cpu_time(), waits)
}

/// Receives, and after a success receives again at once, so many times. False: it has ended.
fn receive_in_a_row(stream: &mut TcpStream, in_a_row_max: u32) -> bool {
    let mut bytes = [0; CHUNK_BYTES];
    for _ in 0..in_a_row_max {
        match stream.read(&mut bytes) {
            Ok(0) => return false,
            Ok(count) => load::handle(&bytes[..count], |answer| {
                stream.write_all(answer).expect("an answer of 8 bytes fits");
            }),
            Err(error) => return error.kind() == ErrorKind::WouldBlock,
        }
    }
    true
}

fn watch(port: &OwnedFd, descriptor: RawFd) {
    let mut event = libc::epoll_event { events: libc::EPOLLIN as u32, u64: descriptor as u64 };
    // SAFETY: the struct is read during the call.
    let added = unsafe {
        libc::epoll_ctl(port.as_raw_fd(), libc::EPOLL_CTL_ADD, descriptor, &raw mut event)
    };
    assert_eq!(added, 0);
}

fn thread_cpu_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the call fills the struct.
    assert_eq!(unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) }, 0);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}
