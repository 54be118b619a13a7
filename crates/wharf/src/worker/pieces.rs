//! Tests: frames arrive in many pieces of any size, and no byte is scanned twice.

use std::io::{self, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

use super::changed_port::{ChangedPort, Changes};
use crate::face::Handler;
use crate::framing::{Delimiter, Framing, Framings, looked_at};
use crate::options::Options;
use crate::port::readiness::ReadinessPort;
use crate::port::{Completion, CompletionPort, Outcome, Sink};
use crate::server::{Plan, serve_on};

/// Delivers what arrives in pieces of these sizes, in rotation.
struct Crumbles {
    sizes: &'static [usize],
    told: usize,
}

impl Changes<ReadinessPort> for Crumbles {
    fn wait<S: Sink>(
        &mut self,
        port: &mut ReadinessPort,
        timeout: Option<Duration>,
        sink: &mut S,
    ) -> io::Result<()> {
        let Crumbles { sizes, told } = self;
        port.wait(timeout, &mut |completion: Completion<'_>| {
            let Completion { token, outcome, more, direct } = completion;
            let Outcome::Received(Ok(mut bytes)) = outcome else {
                return sink.take(Completion { token, outcome, more, direct });
            };
            loop {
                let size = sizes[*told % sizes.len()].min(bytes.len());
                let (piece, rest) = bytes.split_at_mut(size);
                let more = more || !rest.is_empty();
                *told += 1;
                sink.take(Completion::new(token, Outcome::Received(Ok(piece)), more));
                if rest.is_empty() {
                    return;
                }
                bytes = rest;
            }
        })
    }
}

/// Reports each frame, and how many bytes were scanned for it.
struct Recorder(Sender<(Vec<u8>, usize)>);

impl Handler for Recorder {
    type State = ();

    fn opened(&self, _: &crate::Session) {}

    fn received(&self, _: &crate::Session, _: &mut (), frame: &[u8]) {
        self.0.send((frame.to_vec(), looked_at::take())).expect("the test waits for it");
    }
}

/// Sends lines in such pieces, checks that they arrive, and returns the bytes scanned for each.
fn looked_at(sizes: &'static [usize], lines: &[Vec<u8>]) -> Vec<usize> {
    let options = Options::default().workers(1);
    // Not the first that is declared, so the sessions' slots must say which.
    let framings = Framings::of(&[Framing::raw(), Framing::delimited(Delimiter::new(b"\r\n"))]);
    let mut plan = Plan::new(framings, &options);
    plan.listener_of_socket = vec![0]; // so its sessions have the second framing
    let any = (Ipv4Addr::LOCALHOST, 0).into();
    let listeners = plan.sockets.listen(any, false, &options, 1).unwrap();
    let address = listeners[0].local_address().unwrap();
    let make_port = move |_| {
        Ok(ChangedPort { port: ReadinessPort::new()?, changes: Crumbles { sizes, told: 0 } })
    };
    let (frames, received) = channel();
    let handler = Arc::new(Recorder(frames));
    let Ok(_running) = serve_on(make_port, plan, vec![listeners], &handler) else {
        panic!("not started")
    };
    let mut peer = TcpStream::connect(address).unwrap();
    let stream: Vec<u8> = lines.iter().flat_map(|line| [line, &b"\r\n"[..]].concat()).collect();
    peer.write_all(&stream).unwrap();
    let looked_at = lines.iter().map(|line| {
        let (frame, looked_at) = received.recv_timeout(Duration::from_secs(30)).expect("a frame");
        assert!(frame == *line, "{} bytes instead of {}", frame.len(), line.len());
        looked_at
    });
    looked_at.collect()
}

/// A line that contains parts of the delimiter.
fn line_of(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|at| if at % 1_000 == 0 { b'\r' } else { b'a' + (at % 26) as u8 }).collect()
}

#[test]
fn a_frame_in_ten_thousand_pieces_is_looked_at_no_more_than_twice() {
    let lines = [20_000, 3, 20_000, 0, 1, 20_000].map(line_of);
    let looked_at = looked_at(&[1, 2, 3], &lines);
    for (line, looked_at) in lines.iter().zip(looked_at) {
        let bytes = line.len() + 2;
        assert!((bytes..=2 * bytes).contains(&looked_at), "{looked_at} of {bytes}");
    }
}

#[test]
fn a_frame_in_large_pieces_is_looked_at_once() {
    let lines = [60_000, 10, 60_000, 60_000].map(line_of);
    let looked_at = looked_at(&[25_000, 500], &lines);
    for (line, looked_at) in lines.iter().zip(looked_at) {
        let bytes = line.len() + 2;
        assert!((bytes..bytes + 100).contains(&looked_at), "{looked_at} of {bytes}");
    }
}
