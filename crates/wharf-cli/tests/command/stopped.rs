//! Ctrl-C of what has an end of its own: the totals so far are shown.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use crate::running::{Folder, Started, stdout_json, until, wharf};

/// A server that echoes, until the test's process ends, and how many bytes have come to it.
fn serve() -> (SocketAddr, Arc<AtomicU64>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (address, bytes) = (listener.local_addr().unwrap(), Arc::new(AtomicU64::new(0)));
    let counted = bytes.clone();
    thread::spawn(move || {
        for peer in listener.incoming() {
            let (mut peer, counted) = (peer.unwrap(), counted.clone());
            thread::spawn(move || {
                let mut buffer = [0; 4096];
                while let Ok(count @ 1..) = peer.read(&mut buffer) {
                    counted.fetch_add(count as u64, Ordering::Relaxed);
                    if peer.write_all(&buffer[..count]).is_err() {
                        break;
                    }
                }
            });
        }
    });
    (address, bytes)
}

#[test]
fn a_load_that_is_stopped_reports_what_it_has_done() {
    for (mode, options) in [
        ("echo", &["--sessions", "41"][..]),
        ("echo", &["--sessions", "41", "--rate", "1000"]),
        ("churn", &["--sessions", "41"]),
        ("churn", &["--rate", "1000"]),
        ("idle", &["--sessions", "41"]),
    ] {
        let (address, bytes) = serve();
        let target = ["--secs", "1e6", "--json", "-", "--target", &address.to_string()];
        let started = Started::new(wharf().args(["load", mode]).args(options).args(target));
        until("all have spoken", || bytes.load(Ordering::Relaxed) >= 41 * 64);
        started.interrupt();
        let output = started.wait();
        assert_eq!(output.code, Some(0), "{mode}: {output:?}");
        let json = stdout_json(&output);
        assert_eq!((&json["stopped"], &json["errors"]), (&true.into(), &0.into()), "{json}");
        assert!(json["completed"].as_u64().unwrap() > 0, "{mode}: {json}");
        assert!(json["secs"].as_f64().unwrap() < 60.0, "{json}");
        assert!(json["not_sent"].as_u64().unwrap() < 100_000, "{json}");
        assert!(output.stderr.contains(" s until it was stopped; backend"), "{output:?}");
    }
}

#[test]
fn a_load_that_still_connects_is_stopped_too() {
    // Nobody accepts: when the backlog is full, connecting waits.
    let deaf = TcpListener::bind("127.0.0.1:0").unwrap();
    let target = deaf.local_addr().unwrap().to_string();
    let load = ["load", "echo", "--sessions", "10000", "--target", &target];
    let started = Started::new(wharf().args(load));
    until("it hears signals", || started.heeds_signals());
    started.interrupt();
    let output = started.wait();
    assert_eq!(output.code, Some(0), "{output:?}");
    assert!(output.stdout.contains("until it was stopped"), "{output:?}");
}

#[test]
fn a_simulation_that_is_stopped_shows_its_totals_and_adds_them_to_its_ledger() {
    let folder = Folder::new("stopped");
    let path = folder.file("ledger.json");
    let sim = ["sim", "--minutes", "1e6", "--steps", "40", "--lanes", "2", "--ledger", &path];
    for options in [&[][..], &["--json"]] {
        let started = Started::new(wharf().args(sim).args(options));
        // Several runs, whatever is run beside them.
        until("some runs are over", || started.cpu_ticks() > 200);
        started.interrupt();
        let output = started.wait();
        assert_eq!((output.code, output.stderr.as_str()), (Some(0), ""), "{output:?}");
        if options.is_empty() {
            assert!(output.stdout.contains(" operations posted, "), "{output:?}");
            assert!(output.stdout.ends_with("\nstopped before its end\n"), "{output:?}");
        } else {
            assert_eq!(stdout_json(&output)["stopped"], true);
        }
    }
    let ledger: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    for run in ledger["runs"].as_array().unwrap() {
        assert!(run["seeds"].as_u64().unwrap() > 0 && run["violations"] == 0, "{run}");
    }
    assert_eq!(ledger["runs"].as_array().unwrap().len(), 2);
}
