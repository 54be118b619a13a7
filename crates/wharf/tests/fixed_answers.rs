//! What a listener with WebSocket answers HTTP with that is no upgrade.

#![cfg(feature = "websocket")]
#![forbid(unsafe_code)]

#[macro_use]
mod support;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use support::*;
use wharf::{Backend, Error, FixedAnswer, Listener, Server, WebSocket};

const PEERS: usize = 41;

fn page() -> Vec<u8> {
    (0..FixedAnswer::BODY_BYTES_MAX).map(|at| (at % 251) as u8).collect()
}

/// Everything that comes back for a GET.
fn get(address: SocketAddr, target: &str) -> Vec<u8> {
    let mut peer = TcpStream::connect(address).unwrap();
    peer.set_read_timeout(Some(BOUND)).unwrap();
    peer.write_all(format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes()).unwrap();
    let mut came = Vec::new();
    peer.read_to_end(&mut came).unwrap();
    came
}

fn ok(content_type: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

on_every_backend! {
    fn a_get_at_their_paths_brings_text_and_pages_whole_to_many_at_once(backend) {
        let web_socket = WebSocket::new().answer("/health", "fine\n");
        let web_socket = web_socket.answer_as("/", "text/html; charset=utf-8", page());
        let listener = Listener::new("127.0.0.1:0").transport(web_socket);
        let server = Server::builder().listen(listener).backend(backend).start(Nobody).unwrap();
        let address = server.addresses()[0];
        assert_eq!(get(address, "/health?deep"), ok("text/plain; charset=utf-8", b"fine\n"));
        assert!(get(address, "/favicon.ico").starts_with(b"HTTP/1.1 426 "));
        let whole = ok("text/html; charset=utf-8", &page());
        std::thread::scope(|scope| {
            for _ in 0..PEERS {
                scope.spawn(|| assert!(get(address, "/") == whole));
            }
        });
        let handle = server.handle();
        eventually("all have been counted", || handle.stats().refused_upgrades == PEERS as u64 + 2);
        assert_eq!(handle.stats().opened, 0);
    }
}

#[test]
fn a_server_does_not_start_with_an_answer_that_http_does_not_have() {
    let page = page();
    let large = [&page[..], b"!"].concat();
    let start = |path: &str, content_type: &str, body: &[u8]| {
        let web_socket = WebSocket::new().answer("/health", "fine\n");
        let web_socket = web_socket.answer_as(path, content_type, body);
        let listener = Listener::new("127.0.0.1:0").transport(web_socket);
        Server::builder().listen(listener).workers(1).start(Nobody)
    };
    drop(start("/", "text/html", &page).unwrap());
    for (path, content_type, body) in [
        ("page", "text/html", &b""[..]),
        ("", "text/html", b""),
        ("/?a", "text/html", b""),
        ("/a b", "text/html", b""),
        ("/", "", b""),
        ("/", "text/html\r\nSet-Cookie: a=b", b""),
        ("/", "text/html", &large),
    ] {
        match start(path, content_type, body) {
            Err(Error::Option { name: "web_socket.answers", value: 1, .. }) => {}
            other => panic!("{path:?} {content_type:?}: {:?}", other.err()),
        }
    }
}
