//! `--ws`: the echo server and the load against each other, against others, and against what is no WebSocket.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
#[cfg(unix)]
use std::{
    io::{Read, Write},
    net::TcpStream,
};

use serde_json::Value;
#[cfg(unix)]
use serde_json::json;
use wharf::{Close, Farewell, Handler, Listener, Session, Text, WebSocket};

use crate::on_each_backend;
use crate::running::{EchoServer, Output, run, stdout_json};

/// `wharf echo --ws` on each backend that can be had here, and the words that name the backend and the server.
fn with_ws(options: &[&str], test: impl Fn(EchoServer, &[&str])) {
    on_each_backend(|first, backend| {
        first.terminate();
        let options = [&["--ws", "--backend", backend], options].concat();
        let server = EchoServer::start(&options).unwrap();
        assert!(server.first_line().contains("websocket"), "{}", server.first_line());
        let address = server.address().to_owned();
        test(server, &["--ws", "--json", "-", "--backend", backend, "--target", &address]);
    });
}

/// The figures of a load that went well.
fn good(load: &[&str], target: &[&str]) -> Value {
    let output = run(&[&["load"], load, target].concat());
    assert_eq!(output.code, Some(0), "{output:?}");
    let json = stdout_json(&output);
    assert_eq!(json["errors"], 0, "{json}");
    assert!(json["upgrade_us"]["p50"].as_f64() > Some(0.0), "{json}");
    assert!(output.stderr.contains("\nupgrade      p50 "), "{output:?}");
    json
}

#[test]
fn every_message_of_a_web_socket_is_verified_whatever_it_is() {
    with_ws(&[], |server, target| {
        for options in [
            &["--depth", "1"][..],
            &["--depth", "8", "--bytes", "65536"],
            &["--depth", "4", "--bytes", "5000", "--text", "--path", "/chat?room=1"],
            &["--rate", "500", "--text", "--host", "chat.example.com:81"],
        ] {
            let load = [&["echo", "--sessions", "41", "--secs", "0.3"], options].concat();
            let json = good(&load, target);
            assert!(json["completed"].as_u64() >= Some(41), "{json}");
            assert_eq!(json["upgrade_us"]["count"], 41);
            let is_text = options.contains(&"--text");
            assert_eq!(json["framing"], if is_text { "websocket, text" } else { "websocket" });
        }
        server.terminate();
    });
}

#[cfg(unix)] // on Windows the server is killed, and its last figures may be missing
#[test]
fn a_web_socket_that_is_churned_is_closed_by_both() {
    with_ws(&["--json", "--stats-every", "0.05"], |server, target| {
        let load = ["churn", "--sessions", "41", "--rate", "400", "--secs", "1"];
        let json = good(&load, target);
        assert_eq!(json["completed"], 400, "{json}");
        assert_eq!(json["close_codes"], json!({ "1000": 400 }));
        assert_eq!(json["upgrade_us"]["count"], 400);
        let lines = server.terminate();
        let stats =
            |line: &String| serde_json::from_str::<Value>(line).unwrap().get("stats").cloned();
        let last = lines.iter().rev().find_map(stats).unwrap();
        assert_eq!((&last["established"], &last["establish_failures"]), (&400.into(), &0.into()));
        assert_eq!(last["closed_by"]["peer closed with"], 400, "{last}");
        assert!(lines.iter().filter_map(stats).any(|line| line["per_s"]["established"] != 0.0));
    });
}

#[test]
fn web_sockets_that_sit_answer_pings_and_still_answer_afterwards() {
    with_ws(&["--ws-ping-after", "1"], |server, target| {
        let json = good(&["idle", "--sessions", "300", "--secs", "2"], target);
        assert_eq!(json["completed"], 300);
        assert!(json["pings_answered"].as_u64() >= Some(300), "{json}");
        server.terminate();
    });
}

#[cfg(unix)] // on Windows the server is killed, and its last figures may be missing
#[test]
fn a_load_that_is_over_says_so_to_the_server() {
    with_ws(&["--json", "--stats-every", "0.05"], |server, target| {
        good(&["echo", "--sessions", "41", "--secs", "0.1"], target);
        let lines = server.terminate();
        let ends = |line: &String| {
            let line: Value = serde_json::from_str(line).unwrap();
            line["stats"]["closed_by"]["peer closed with"].as_u64()
        };
        assert_eq!(lines.iter().rev().find_map(ends), Some(41), "{lines:?}");
    });
}

#[cfg(unix)]
#[test]
fn web_sockets_are_served_at_a_path_too() {
    use crate::running::Folder;
    for backend in crate::BACKENDS.iter().copied() {
        let folder = Folder::new("web-sockets");
        let path = format!("unix:{}", folder.file("socket"));
        let options = ["--ws", "--listen", &path, "--backend", backend];
        let Ok(server) = EchoServer::start(&options) else {
            eprintln!("not tested on {backend}");
            continue;
        };
        for mode in ["echo", "churn", "idle"] {
            let target = ["--ws", "--json", "-", "--backend", backend, "--target", &path];
            good(&[mode, "--sessions", "41", "--secs", "0.3"], &target);
        }
        server.terminate();
    }
}

/// That one load fails, and says this.
fn fails(load: &[&str], says: &str) -> Output {
    let output = run(&[&["load"], load, &["--secs", "0.3", "--sessions", "3"]].concat());
    assert_eq!(output.code, Some(1), "{output:?}");
    assert!(output.stdout.contains(says), "{load:?} does not say {says:?}: {output:?}");
    output
}

#[test]
fn a_load_that_speaks_something_else_than_the_server_says_so() {
    const MODES: [&str; 3] = ["echo", "churn", "idle"];
    const HTTP: &str = "it is a server with WebSocket, or of HTTP alone: try --ws";
    // An answer of 72 bytes would begin with "H".
    const IN_FRAME: &str = "does the server have this framing?";
    let server = EchoServer::start(&["--ws"]).unwrap();
    for framing in ["raw", "length", "varint", "lines"] {
        for mode in MODES {
            let load = [mode, "--framing", framing, "--target", server.address()];
            fails(&load, if framing == "varint" { IN_FRAME } else { HTTP });
        }
    }
    server.terminate();
    for framing in ["raw", "length", "varint", "lines"] {
        let server = EchoServer::start(&["--framing", framing]).unwrap();
        for mode in MODES {
            let load = [mode, "--ws", "--target", server.address()];
            fails(&load, "is it a server with WebSocket? if not, leave out --ws");
        }
        server.terminate();
    }
}

/// Does not echo what it gets.
enum Mischief {
    Corrupts,
    AnswersAsText,
    ClosesEarly,
    SaysNoClose,
    RefusesAll,
}

struct BadServer {
    mischief: Mischief,
    upgrades: AtomicUsize,
}

impl Handler for BadServer {
    type State = ();

    fn opened(&self, _: &Session) {}

    fn upgrade(&self, _: &wharf::UpgradeRequest) -> wharf::Upgrade {
        self.upgrades.fetch_add(1, Ordering::Relaxed);
        match self.mischief {
            Mischief::RefusesAll => wharf::Upgrade::refuse(404),
            _ => wharf::Upgrade::accept(),
        }
    }

    fn received(&self, session: &Session, (): &mut (), frame: &[u8]) {
        let mut reply = frame.to_vec();
        match self.mischief {
            Mischief::Corrupts => {
                reply[7] ^= 1;
                session.send(reply);
            }
            // Of letters, and no message of a load is.
            Mischief::AnswersAsText => session.send(Text("x".repeat(frame.len()))),
            Mischief::ClosesEarly => {
                session.close_with(Farewell::new(4001)).unwrap();
            }
            // So long an answer leaves at once.
            Mischief::SaysNoClose => {
                session.send(reply);
                session.close(Close::Stop);
            }
            Mischief::RefusesAll => {}
        }
    }
}

#[test]
fn what_a_bad_server_does_to_a_web_socket_is_told() {
    for (mischief, modes, says) in [
        (Mischief::Corrupts, &["echo", "churn", "idle"][..], "wrong byte at 7 of the stream"),
        (
            Mischief::AnswersAsText,
            &["echo", "churn", "idle"],
            "wrong kind of message: text, not binary",
        ),
        (Mischief::ClosesEarly, &["echo", "churn", "idle"], "ended early: peer closed with (4001)"),
        // Where nothing leaves at once, the reply is lost too.
        (
            Mischief::SaysNoClose,
            if cfg!(unix) { &["churn"] } else { &[] },
            "the server sent no Close: ",
        ),
        (
            Mischief::RefusesAll,
            &["echo", "churn", "idle"],
            "refused the WebSocket with the status 404",
        ),
    ] {
        let bad = Arc::new(BadServer { mischief, upgrades: AtomicUsize::new(0) });
        let listener = Listener::new("127.0.0.1:0").transport(WebSocket::new());
        let server =
            wharf::Server::builder().listen(listener).workers(1).start(bad.clone()).unwrap();
        let target = server.addresses()[0].to_string();
        for mode in modes {
            fails(&[mode, "--ws", "--bytes", "8192", "--target", &target], says);
        }
        assert!(bad.upgrades.load(Ordering::Relaxed) >= modes.len());
    }
}

/// Takes who asks for this path at this host, and echoes.
#[derive(Default)]
struct Picky(OnceLock<String>);

impl Handler for Picky {
    type State = ();

    fn opened(&self, _: &Session) {}

    fn upgrade(&self, request: &wharf::UpgradeRequest) -> wharf::Upgrade {
        let host = self.0.get().map(String::as_str);
        let is_right = request.target() == "/chat?room=1" && request.header("host") == host;
        if is_right { wharf::Upgrade::accept() } else { wharf::Upgrade::refuse(404) }
    }

    fn received(&self, session: &Session, (): &mut (), frame: &[u8]) {
        session.send(frame);
    }
}

#[test]
fn a_load_asks_for_its_path_at_its_host() {
    for host in [None, Some("chat.example.com:81")] {
        let picky = Arc::new(Picky::default());
        let listener = Listener::new("127.0.0.1:0").transport(WebSocket::new());
        let server = wharf::Server::builder().listen(listener).workers(1);
        let server = server.start(picky.clone()).unwrap();
        // What is asked is the target as it is given, if nothing else is.
        let target = format!("localhost:{}", server.addresses()[0].port());
        picky.0.set(host.unwrap_or(&target).to_owned()).unwrap();
        let right = host.map(|host| ["--host", host]);
        let right = right.as_ref().map_or(&[][..], |words| &words[..]);
        let ws = ["--ws", "--json", "-", "--target", &target];
        for mode in ["echo", "churn", "idle"] {
            let load = [mode, "--secs", "0.1", "--sessions", "3"];
            good(&load, &[&ws, &["--path", "/chat?room=1"][..], right].concat());
            fails(&[&[mode], &ws[..], right].concat(), "with the status 404");
            let wrong = ["--path", "/chat?room=1", "--host", "localhost"];
            fails(&[&[mode], &ws[..], &wrong].concat(), "with the status 404");
        }
    }
}

#[test]
fn what_is_not_had_beside_a_web_socket_is_one_line() {
    let load = ["load", "echo", "--target", "127.0.0.1:1"];
    for (arguments, says) in [
        (&["echo", "--ws", "--framing", "lines"][..], "--framing"),
        (&["echo", "--ws-origins", "same"], "--ws"),
        (&["echo", "--ws", "--ws-origins", "some"], "possible values: any, same"),
        (&["echo", "--ws", "--ws-ping-after", "0.001", "--listen", "127.0.0.1:0"], "10 ms"),
        (&[&load[..], &["--ws", "--framing", "raw"]].concat(), "--framing"),
        (&[&load[..], &["--path", "/"]].concat(), "--ws"),
        (&[&load[..], &["--text"]].concat(), "--ws"),
        (&[&load[..], &["--ws", "--path", "chat"]].concat(), "a path begins with a slash"),
        (&[&load[..], &["--ws", "--path", "/a\r\nb: c"]].concat(), "a path begins with a slash"),
        (&[&load[..], &["--ws", "--host", "a b"]].concat(), "a host is"),
        (&[&load[..], &["--ws", "--host", ""]].concat(), "a host is"),
        (&[&load[..], &["--ws", "--bytes", "65537"]].concat(), "at most 65536 bytes"),
    ] {
        let output = run(arguments);
        assert_eq!(output.code, Some(2), "{arguments:?}: {output:?}");
        assert!(output.stderr.starts_with("wharf: "), "{output:?}");
        assert!(output.stderr.contains(says), "{output:?}");
        assert_eq!(output.stderr.lines().count(), 1, "{output:?}");
    }
}

/// A peer that writes each byte by itself, and a header of its own. What it is answered, until the blank line.
#[cfg(unix)]
fn upgrade(address: &str, header: &str) -> (TcpStream, String) {
    let mut peer = TcpStream::connect(address).unwrap();
    let request = format!(
        "GET /chat HTTP/1.1\r\nHost: localhost:7000\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{header}\r\n"
    );
    peer.write_all(request.as_bytes()).unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        peer.read_exact(&mut byte).unwrap();
        answer.push(byte[0]);
    }
    (peer, String::from_utf8(answer).unwrap())
}

/// The next frame, of fewer than 126 bytes.
#[cfg(unix)]
fn next_frame(peer: &mut TcpStream) -> (u8, Vec<u8>) {
    let mut head = [0; 2];
    peer.read_exact(&mut head).unwrap();
    let mut payload = vec![0; head[1].into()];
    peer.read_exact(&mut payload).unwrap();
    (head[0], payload)
}

#[cfg(unix)]
#[test]
fn text_comes_back_as_text_and_binary_as_binary_and_a_drain_says_1001() {
    // Masked with zeros: "é", and two bytes that are no text.
    let text = [0x81, 0x82, 0, 0, 0, 0, 0xc3, 0xa9];
    let binary = [0x82, 0x82, 0, 0, 0, 0, 0xff, 0xfe];
    on_each_backend(|first, backend| {
        first.terminate();
        let server = EchoServer::start(&["--ws", "--backend", backend]).unwrap();
        let mut peers: Vec<_> = (0..41)
            .map(|_| {
                // The key and its answer are those of RFC 6455, 1.3.
                let (peer, answer) = upgrade(server.address(), "Origin: https://evil.example\r\n");
                assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
                assert!(answer.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "{answer}");
                peer
            })
            .collect();
        for peer in &mut peers {
            peer.write_all(&[text, binary].concat()).unwrap();
            assert_eq!(next_frame(peer), (0x81, vec![0xc3, 0xa9]));
            assert_eq!(next_frame(peer), (0x82, vec![0xff, 0xfe]));
        }
        server.signal("INT");
        for peer in &mut peers {
            assert_eq!(next_frame(peer), (0x88, 1001_u16.to_be_bytes().to_vec()));
            assert_eq!(peer.read(&mut [0]).unwrap(), 0);
        }
        drop(peers);
        let (code, lines) = server.wait();
        assert_eq!(code, Some(0), "{lines:?}");
        let drained = lines.iter().find(|line| line.starts_with("drained: ")).unwrap();
        assert!(drained.contains("41 sessions served; of the last 41: 41 flushed"), "{drained}");
    });
}

#[cfg(unix)]
#[test]
fn pages_of_other_hosts_are_refused_if_it_is_told_to() {
    let options = ["--ws", "--ws-origins", "same", "--json", "--stats-every", "0.05"];
    let server = EchoServer::start(&options).unwrap();
    let (_, answer) = upgrade(server.address(), "Origin: https://evil.example\r\n");
    assert!(answer.starts_with("HTTP/1.1 403 "), "{answer}");
    for header in ["Origin: http://localhost:7000\r\n", ""] {
        let (_, answer) = upgrade(server.address(), header);
        assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
    }
    let lines = server.terminate();
    let refused = |line: &String| {
        let line: Value = serde_json::from_str(line).unwrap();
        line["stats"]["refused_upgrades"].as_u64()
    };
    assert_eq!(lines.iter().rev().find_map(refused), Some(1), "{lines:?}");
}

#[cfg(target_os = "linux")]
#[test]
fn a_load_of_web_sockets_hears_the_server_drain_and_is_stopped_by_a_signal() {
    use crate::running::{Started, until, wharf};
    use std::io::BufRead;
    for mode in ["echo", "idle"] {
        let options = ["--ws", "--json", "--stats-every", "0.02"];
        let (server, mut stdout) = EchoServer::start_unread(&options).unwrap();
        let load = ["load", mode, "--ws", "--sessions", "41", "--secs", "1e6", "--target"];
        let started = Started::new(wharf().args(load).arg(server.address()));
        until("all are established", || {
            let mut line = String::new();
            stdout.read_line(&mut line).unwrap();
            let line: Value = serde_json::from_str(&line).unwrap();
            line["stats"]["established"] == 41
        });
        let rest = std::thread::spawn(move || stdout.lines().count());
        server.terminate();
        rest.join().unwrap();
        let output = started.wait();
        assert_eq!(output.code, Some(1), "{output:?}");
        assert!(output.stdout.contains("ended early: peer closed with (1001): 41"), "{output:?}");
    }
    for mode in ["echo", "churn", "idle"] {
        let server = EchoServer::start(&["--ws"]).unwrap();
        let load = ["load", mode, "--ws", "--sessions", "41", "--secs", "1e6", "--target"];
        let started = Started::new(wharf().args(load).arg(server.address()));
        until("it hears signals", || started.heeds_signals());
        started.interrupt();
        let output = started.wait();
        assert_eq!(output.code, Some(0), "{output:?}");
        assert!(output.stdout.contains(" s until it was stopped; backend"), "{output:?}");
        server.terminate();
    }
}
