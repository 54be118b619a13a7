//! The command as a person runs it: the built binary, its output and its exit codes.

mod bad_servers;
#[cfg(unix)]
mod descriptors;
#[cfg(target_os = "linux")]
mod extremes;
mod files;
mod running;
mod simulation;
#[cfg(target_os = "linux")]
mod stopped;
mod web_socket;

#[cfg(unix)]
use std::io::{BufRead, ErrorKind, Read, Write};
use std::net::TcpListener;
#[cfg(unix)]
use std::net::TcpStream;
#[cfg(unix)]
use std::time::Duration;

use running::{EchoServer, run, stdout_json};
#[cfg(unix)]
use running::{Folder, WHARF};

/// The backends of this system.
const BACKENDS: &[&str] = if cfg!(windows) {
    &["iocp"]
} else if cfg!(target_os = "linux") {
    &["uring", "readiness"]
} else {
    &["readiness"]
};

/// Runs a test on every backend that can be had here.
fn on_each_backend(test: impl Fn(EchoServer, &str)) {
    for backend in BACKENDS.iter().copied() {
        match EchoServer::start(&["--backend", backend]) {
            Ok(server) => test(server, backend),
            Err(refusal) if backend == "uring" && refusal.contains("cannot be had here") => {
                eprintln!("not tested on uring: {refusal}");
            }
            Err(refusal) => panic!("{refusal}"),
        }
    }
}

#[test]
fn every_reply_is_verified_in_a_closed_loop() {
    on_each_backend(|server, backend| {
        for options in [&["--depth", "1"][..], &["--depth", "8", "--bytes", "5000"]] {
            let load = ["load", "echo", "--sessions", "50", "--secs", "0.5", "--json", "-"];
            let target = ["--backend", backend, "--target", server.address()];
            let output = run(&[&load[..], &target, options].concat());
            assert_eq!(output.code, Some(0), "{output:?}");
            let json = stdout_json(&output);
            assert_eq!(json["errors"], 0);
            assert!(json["completed"].as_u64().unwrap() >= 50, "{json}");
            assert!(json["latency_us"]["p50"].as_f64().unwrap() > 0.0);
            assert!(json["latency_us"]["p99_9"].as_f64() <= json["latency_us"]["max"].as_f64());
            assert!(output.stderr.contains("errors       0"), "{output:?}");
        }
        server.terminate();
    });
}

#[cfg(unix)]
#[test]
fn a_path_and_inherited_sockets_are_served() {
    on_each_backend(|first, backend| {
        first.terminate();
        let folder = Folder::new("sockets");
        let path = format!("unix:{}", folder.file("socket"));
        let server = EchoServer::start(&["--listen", &path, "--backend", backend]).unwrap();
        assert!(server.first_line().contains(&path), "{}", server.first_line());
        for mode in ["echo", "churn", "idle"] {
            let load = ["load", mode, "--sessions", "41", "--secs", "0.3", "--json", "-"];
            let output = run(&[&load[..], &["--backend", backend, "--target", &path]].concat());
            assert_eq!(
                (output.code, &stdout_json(&output)["errors"]),
                (Some(0), &0.into()),
                "{output:?}"
            );
        }
        server.terminate();
        // As a service manager starts it.
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap().to_string();
        let script = "exec 3<&0; LISTEN_PID=$$ LISTEN_FDS=1 exec \"$0\" echo --listen inherited --backend \"$1\"";
        let mut child = std::process::Command::new("sh")
            .args(["-c", script, WHARF, backend])
            .stdin(std::os::fd::OwnedFd::from(socket))
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        let load = ["load", "echo", "--sessions", "41", "--secs", "0.3", "--target", &address];
        let output = run(&load);
        assert_eq!(output.code, Some(0), "{output:?}");
        child.kill().unwrap();
        child.wait().unwrap();
    });
    let output = run(&["echo", "--listen", "inherited"]);
    assert_eq!(output.code, Some(2), "{output:?}");
    assert!(output.stderr.contains("no socket is inherited"), "{output:?}");
}

#[test]
fn an_open_loop_sends_what_was_asked_for_and_no_more() {
    on_each_backend(|server, backend| {
        let load = ["load", "echo", "--sessions", "7", "--secs", "1", "--rate", "500"];
        let target = ["--backend", backend, "--target", server.address(), "--json", "-"];
        let output = run(&[&load[..], &target].concat());
        assert_eq!(output.code, Some(0), "{output:?}");
        let json = stdout_json(&output);
        assert_eq!(json["completed"], 500);
        assert_eq!(json["not_sent"], 0);
        assert_eq!(json["send_late_us"]["count"], 500);
        server.terminate();
    });
}

#[test]
fn churn_and_idle_sessions_leave_nothing_behind() {
    on_each_backend(|server, backend| {
        let target = ["--backend", backend, "--target", server.address(), "--json", "-"];
        let load = ["load", "churn", "--sessions", "16", "--secs", "0.5"];
        let output = run(&[&load[..], &target].concat());
        assert_eq!(output.code, Some(0), "{output:?}");
        assert!(stdout_json(&output)["completed"].as_u64().unwrap() > 16);

        let load = ["load", "churn", "--rate", "100", "--secs", "1"];
        let output = run(&[&load[..], &target].concat());
        assert_eq!(output.code, Some(0), "{output:?}");
        assert_eq!(stdout_json(&output)["completed"], 100);

        let load = ["load", "idle", "--sessions", "300", "--secs", "0.5"];
        let output = run(&[&load[..], &target].concat());
        assert_eq!(output.code, Some(0), "{output:?}");
        assert_eq!(stdout_json(&output)["completed"], 300);
        server.terminate();
    });
}

#[test]
fn frames_go_round_whole() {
    for framing in ["length", "varint", "lines"] {
        let server = EchoServer::start(&["--framing", framing, "--threads-per-port", "2"]).unwrap();
        for mode in ["echo", "churn", "idle"] {
            let load = ["load", mode, "--framing", framing, "--sessions", "20", "--secs", "0.3"];
            let target = ["--bytes", "65536", "--target", server.address()];
            let output = run(&[&load[..], &target].concat());
            assert_eq!(output.code, Some(0), "{output:?}");
        }
        server.terminate();
    }
}

#[test]
fn the_figures_of_each_period_can_be_read_by_a_program() {
    let server = EchoServer::start(&["--json", "--stats-every", "0.05"]).unwrap();
    let load = ["load", "echo", "--sessions", "10", "--secs", "0.5", "--target"];
    assert_eq!(run(&[&load[..], &[server.address()]].concat()).code, Some(0));
    let lines = server.terminate();
    let stats: Vec<serde_json::Value> = lines
        .iter()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
        .filter_map(|line| line.get("stats").cloned())
        .collect();
    assert!(stats.iter().any(|line| line["live"] == 10), "{lines:?}");
    assert!(stats.iter().all(|line| line["balanced"] == true), "{lines:?}");
    assert_eq!(stats.last().unwrap()["opened"], 10);
    assert!(stats.iter().any(|line| line["turn_ns"]["p99"].as_u64() > Some(0)), "{lines:?}");
    if cfg!(unix) {
        let drained = lines.iter().find(|line| line.starts_with(r#"{"drained""#)).unwrap();
        let drained: serde_json::Value = serde_json::from_str(drained).unwrap();
        assert_eq!(drained["drained"]["served"], 10);
    }
}

#[cfg(unix)]
#[test]
fn the_first_signal_drains_and_the_second_stops() {
    on_each_backend(|_, backend| {
        let arguments = ["--backend", backend, "--drain-secs", "600"];
        let mut server = EchoServer::start(&arguments).unwrap();
        // A peer that never reads: what is queued for it cannot leave.
        let mut deaf = TcpStream::connect(server.address()).unwrap();
        deaf.set_write_timeout(Some(Duration::from_millis(300))).unwrap();
        let full = loop {
            if let Err(error) = deaf.write_all(&[7; 65_536]) {
                break error.kind();
            }
        };
        assert!(matches!(full, ErrorKind::WouldBlock | ErrorKind::TimedOut), "{full:?}");

        server.signal("INT");
        // It drains when it accepts no more.
        let address = server.address().to_owned();
        running::until("the drain begins", || TcpStream::connect(&address).is_err());
        assert!(server.is_running(), "a drain waits for what is queued");
        server.signal("TERM");
        let (code, lines) = server.wait();
        assert_eq!(code, Some(0));
        let drained = lines.iter().find(|line| line.starts_with("drained: ")).unwrap();
        assert!(drained.contains("1 cut off"), "{drained}");
    });
}

#[test]
fn a_server_whose_output_nobody_reads_serves_on() {
    let (server, stdout) = EchoServer::start_unread(&["--stats-every", "0.02"]).unwrap();
    drop(stdout);
    let load = ["load", "echo", "--secs", "0.3", "--target", server.address()];
    assert_eq!(run(&load).code, Some(0));
    server.terminate();
}

#[test]
fn sessions_beyond_the_most_are_errors_of_the_load() {
    let server = EchoServer::start(&["--sessions-max", "5"]).unwrap();
    let load = ["load", "echo", "--sessions", "8", "--secs", "0.3", "--target", server.address()];
    let output = run(&load);
    assert_eq!(output.code, Some(1), "{output:?}");
    assert!(output.stdout.contains("errors       3\n"), "{output:?}");
    assert!(output.stdout.contains("ended early: "), "{output:?}");
    server.terminate();
}

#[test]
fn what_cannot_be_is_one_line_and_exit_code_2() {
    let foreign = if cfg!(windows) { "uring" } else { "iocp" };
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken_address = taken.local_addr().unwrap().to_string();
    for (arguments, says) in [
        (&["echo", "--backend", "kqueue"][..], "invalid value 'kqueue'"),
        (&["echo", "--backend", foreign], "cannot be had here"),
        (&["echo", "--listen", "nowhere"], "cannot find the address of \"nowhere\""),
        (&["echo", "--listen", taken_address.as_str()], "cannot listen on"),
        (&["echo", "--listen", "127.0.0.1:0", "--sessions-max", "0"], "sessions.max"),
        (&["load", "echo"], "--target"),
        (&["load", "echo", "--target", "127.0.0.1:1", "--rate", "0"], "rate"),
        (&["load", "echo", "--target", "127.0.0.1:1", "--bytes", "0"], "byte"),
        (&["load", "idle", "--target", "127.0.0.1:1", "--sessions", "0"], "session"),
        (&["load", "churn", "--target", "127.0.0.1:1", "--json", "/nowhere/x"], "/nowhere/x"),
        (&["load", "echo", "--target", "127.0.0.1:1", "--bytes", "0", "--rate", "1"], "byte"),
    ] {
        let output = run(arguments);
        assert_eq!(output.code, Some(2), "{arguments:?}: {output:?}");
        assert!(output.stderr.starts_with("wharf: "), "{output:?}");
        assert!(output.stderr.contains(says), "{output:?}");
        assert_eq!(output.stderr.lines().count(), 1, "{output:?}");
    }
}

#[test]
fn the_environment_chooses_the_backend_where_the_command_line_does_not() {
    let echo = ["echo", "--listen", "127.0.0.1:0"];
    let load = ["load", "echo", "--target", "127.0.0.1:1"];
    let foreign = if cfg!(windows) { "uring" } else { "iocp" };
    let forced = ["--backend", foreign];
    for arguments in [&echo[..], &load] {
        let output = running::run_with(arguments, &[("WHARF_BACKEND", "x")]);
        assert_eq!(output.code, Some(2), "{output:?}");
        let says = "wharf: WHARF_BACKEND: no backend is named \"x\"; there are ";
        assert!(output.stderr.starts_with(says), "{output:?}");
        let output = running::run_with(arguments, &[("WHARF_BACKEND", foreign)]);
        assert!(output.stderr.contains("cannot be had here"), "{output:?}");
        // It is not even looked at.
        let output = running::run_with(&[arguments, &forced].concat(), &[("WHARF_BACKEND", "x")]);
        assert!(output.stderr.contains("cannot be had here"), "{output:?}");
    }
    let (nobody, empty) = (TcpListener::bind("127.0.0.1:0").unwrap(), [("WHARF_BACKEND", "")]);
    let target = nobody.local_addr().unwrap().to_string();
    drop(nobody);
    let output = running::run_with(&["load", "echo", "--target", &target], &empty);
    assert_eq!(output.code, Some(1), "an empty one is none: {output:?}");
}

#[cfg(unix)]
#[test]
fn a_time_out_of_nothing_is_none() {
    let stats = ["--json", "--stats-every", "0.05", "--idle-timeout", "0"];
    let (server, mut stdout) = EchoServer::start_unread(&stats).unwrap();
    let mut peers: Vec<_> =
        (0..41).map(|_| TcpStream::connect(server.address()).unwrap()).collect();
    for peer in &mut peers {
        peer.write_all(b"x").unwrap();
        peer.read_exact(&mut [0]).unwrap();
    }
    // Periods that begin after all had come.
    for _ in 0..4 {
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        let line: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(line["stats"]["closed"], 0, "{line}");
    }
    let rest = std::thread::spawn(move || stdout.lines().count());
    drop(peers);
    server.terminate();
    rest.join().unwrap();
}

#[cfg(target_os = "linux")]
#[test]
fn a_server_that_may_have_too_few_descriptors_says_so_when_it_starts() {
    let start = |limit: &str, options: &[&str]| {
        let script = format!("ulimit -n {limit} && exec \"$@\"");
        let wharf = env!("CARGO_BIN_EXE_wharf");
        let words = ["-c", &script, "sh", wharf, "echo", "--listen", "127.0.0.1:0"];
        let mut shell = std::process::Command::new("sh");
        let started =
            running::Started::new(shell.args(words).args(["--workers", "1"]).args(options));
        running::until("it hears signals", || started.heeds_signals());
        started.interrupt();
        let output = started.wait();
        assert_eq!(output.code, Some(0), "{output:?}");
        output.stdout
    };
    let said = start("40", &[]);
    let line = said.lines().next().unwrap();
    let (_, rest) = line.split_once("; framing raw; room for ").expect(line);
    let (sessions, rest) = rest.split_once(" sessions ").expect(line);
    assert!((20..38).contains(&sessions.parse::<u32>().unwrap()), "{line}");
    let why = "(65,536 allowed, but the limit is 40 descriptors: raise `ulimit -n`); ";
    assert!(rest.starts_with(why), "{line}");
    let json: serde_json::Value =
        serde_json::from_str(start("40", &["--json"]).lines().next().unwrap()).unwrap();
    let listening = &json["listening"];
    assert_eq!(
        (&listening["descriptors_max"], &listening["sessions_max"]),
        (&40.into(), &65_536.into())
    );
    assert_eq!(listening["sessions_room"].to_string(), sessions);
    let said = start("100", &["--sessions-max", "50"]);
    assert!(said.contains("; room for 50 sessions; ") && !said.contains("descriptors"), "{said}");
}

#[test]
fn a_server_says_what_memory_it_takes_when_it_starts() {
    let said = |options: &[&str]| {
        let server =
            EchoServer::start(&[&["--workers", "2", "--sessions-max", "1000"], options].concat());
        server.unwrap().first_line().to_owned()
    };
    let memory =
        wharf::Options::default().workers(2).with(|options| options.sessions.max = 1000).memory();
    let line = said(&[]);
    assert!(line.ends_with(&format!("; {memory}")), "{line}");
    let json: serde_json::Value = serde_json::from_str(&said(&["--json"])).unwrap();
    let fields = serde_json::json!({
        "at_rest_bytes": memory.at_rest_bytes,
        "idle_session_bytes": memory.idle_session_bytes,
        "session_bytes_max": memory.session_bytes_max,
        "worker_bytes_max": memory.worker_bytes_max,
        "total_bytes_max": memory.total_bytes_max,
    });
    assert_eq!(json["listening"]["memory"], fields);
}

/// As in a container: the hosts file gives `localhost` two addresses, and the server has one of them.
#[cfg(target_os = "linux")]
#[test]
fn a_load_reaches_localhost_whichever_of_its_addresses_is_listened_on() {
    let server = EchoServer::start(&["--workers", "1"]).unwrap();
    let folder = running::Folder::new("hosts");
    std::fs::write(folder.file("hosts"), "::1 localhost\n127.0.0.1 localhost\n").unwrap();
    let port = server.address().rsplit_once(':').unwrap().1;
    let target = format!("localhost:{port}");
    for mode in ["echo", "churn", "idle"] {
        let script = "mount --bind hosts /etc/hosts && echo mounted && exec \"$@\"";
        let load = ["load", mode, "--sessions", "41", "--secs", "0.2", "--target", &target];
        let mut unshare = std::process::Command::new("unshare");
        unshare.args(["-rm", "sh", "-c", script, "sh", env!("CARGO_BIN_EXE_wharf")]).args(load);
        let output = running::Started::new(unshare.current_dir(folder.path())).wait();
        if output.stdout.is_empty() {
            eprintln!("not tested: {}", output.stderr);
            break;
        }
        assert_eq!(output.code, Some(0), "{output:?}");
        assert!(output.stdout.contains(&format!("cannot connect to [::1]:{port}: ")), "{output:?}");
    }
    server.terminate();
}
