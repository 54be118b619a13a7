//! A server with few descriptors.

use std::io::{BufRead, BufReader, Read};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Ends with the test.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// `wharf echo` with at most so many open files, and the address that it says it listens on.
fn echo_with_open_files_max(open_files_max: u32, backend: &str) -> (Server, Option<String>) {
    let listen = "exec \"$0\" echo --listen 127.0.0.1:0 --workers 2 --backend \"$1\"";
    let child = Command::new("sh")
        .args(["-c", &format!("ulimit -n {open_files_max}; {listen}")])
        .args([env!("CARGO_BIN_EXE_wharf"), backend])
        .env_remove("WHARF_BACKEND")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut server = Server(child.unwrap());
    let mut line = String::new();
    BufReader::new(server.0.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    let address = line.strip_prefix("listening on ").and_then(|rest| rest.split(';').next());
    (server, address.map(str::to_owned))
}

fn stderr_of(server: &mut Server) -> String {
    let mut said = String::new();
    server.0.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    said
}

#[test]
fn a_server_that_runs_out_of_descriptors_says_so_once_with_what_helps() {
    for backend in ["uring", "readiness"] {
        let (mut server, address) = echo_with_open_files_max(40, backend);
        let Some(address) = address else {
            let refusal = stderr_of(&mut server);
            assert!(refusal.contains("cannot be had here"), "{refusal}");
            eprintln!("passed over: {refusal}");
            continue;
        };
        let stderr = server.0.stderr.take().unwrap();
        let (heard, hears) = std::sync::mpsc::channel();
        let reader = std::thread::spawn(move || {
            let lines = BufReader::new(stderr).lines().map_while(Result::ok);
            let tell = |_: &String| heard.send(()).unwrap_or_default();
            lines.inspect(tell).collect::<Vec<_>>()
        });
        let peers: Vec<_> = (0..100).map(|_| TcpStream::connect(&address).unwrap()).collect();
        hears.recv_timeout(Duration::from_secs(60)).expect("it says something");
        // It tries again 20 times a second meanwhile, and says nothing more of it.
        std::thread::sleep(Duration::from_secs(1));
        drop((peers, server));
        let lines = reader.join().unwrap();
        let [line] = &lines[..] else { panic!("{lines:?}") };
        for says in ["wharf: ", "accepted", "os error 24", "ulimit -n"] {
            assert!(line.contains(says), "{line}");
        }
    }
}

#[test]
fn a_server_that_has_no_descriptors_to_start_with_says_what_helps() {
    for backend in ["auto", "uring", "readiness"] {
        for open_files_max in 6..20 {
            let (mut server, address) = echo_with_open_files_max(open_files_max, backend);
            if address.is_some() {
                continue; // so few are enough
            }
            let said = stderr_of(&mut server);
            assert_eq!(server.0.wait().unwrap().code(), Some(2), "{said}");
            if said.contains("EPERM") || said.contains("ENOSYS") {
                continue; // io_uring may not be used here
            }
            assert_eq!(said.lines().count(), 1, "{said}");
            assert!(said.contains("ulimit -n"), "of {open_files_max}: {said}");
            assert!(!said.contains("use the readiness backend"), "of {open_files_max}: {said}");
        }
    }
}

#[test]
fn every_cause_is_said_once() {
    let (mut server, address) = echo_with_open_files_max(8, "readiness");
    assert_eq!(address, None, "eight open files cannot be enough");
    let said = stderr_of(&mut server);
    assert_eq!(said.matches("os error 24").count(), 1, "{said}");
    assert!(said.starts_with("wharf: "), "{said}");
}
