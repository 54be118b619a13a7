//! A frame that arrives whole is not copied on its way to the handler.

#![cfg(target_os = "linux")]
#![forbid(unsafe_code)]

use std::collections::HashSet;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::{Arc, Mutex};

use wharf::{Backend, Error, Framing, Handler, LengthPrefix, Lines, Options, Server, Session};

const PAGE_BYTES: usize = 4096;
const MESSAGES: usize = 100;
const HEADER_BYTES: usize = 4;

/// Echoes, and notes where each frame lay.
struct Surveyor(Arc<Mutex<Vec<usize>>>);

impl Handler for Surveyor {
    type State = ();

    fn opened(&self, _: &Session) {}

    fn received(&self, session: &Session, _: &mut (), frame: &[u8]) {
        self.0.lock().unwrap().push(frame.as_ptr() as usize);
        session.send(frame);
    }
}

/// Where the frames lay, each sent after the answer to the one before; `None` without io_uring.
fn places(framing: Framing, message: &[u8]) -> Option<Vec<usize>> {
    let places = Arc::default();
    let options = Options::default().workers(1).backend(Backend::Uring);
    let builder = Server::builder().listen("127.0.0.1:0").framing(framing).options(options);
    let server = match builder.start(Surveyor(Arc::clone(&places))) {
        Err(Error::Backend { reason, .. }) => {
            println!("not tried, io_uring cannot be had here: {reason}");
            return None;
        }
        started => started.unwrap(),
    };
    let mut peer = TcpStream::connect(server.addresses()[0]).unwrap();
    let mut answer = vec![0; message.len()];
    for _ in 0..MESSAGES {
        peer.write_all(message).unwrap();
        peer.read_exact(&mut answer).unwrap();
        assert_eq!(answer, message);
    }
    let places = places.lock().unwrap().clone();
    Some(places)
}

/// Lent buffers begin at a page and are used in turn. A copy would lie in one place of its own, and after the
/// allocator's header.
#[test]
fn a_frame_that_arrives_whole_lies_where_the_kernel_put_it() {
    for body_bytes in [64, 4_000_usize] {
        let body = vec![9; body_bytes];
        let framed = [&(body_bytes as u32).to_be_bytes()[..], &body].concat();
        let prefix = Framing::length_prefixed(LengthPrefix::default());
        let lines = Framing::lines(Lines::default());
        let line = [&body[..], b"\n"].concat();
        for (framing, message, header_bytes) in
            [(Framing::raw(), &body, 0), (prefix, &framed, HEADER_BYTES), (lines, &line, 0)]
        {
            let Some(places) = places(framing, message) else { return };
            assert_eq!(places.len(), MESSAGES, "every message came whole");
            assert!(places.iter().all(|place| place % PAGE_BYTES == header_bytes), "{places:x?}");
            assert_eq!(places.iter().collect::<HashSet<_>>().len(), MESSAGES, "{places:x?}");
        }
    }
}
