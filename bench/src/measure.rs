//! One measurement: a fresh server on core 0, the load on core 1, and what the load found.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Resource, getrlimit, setrlimit};
use serde::{Deserialize, Serialize};

use crate::Failure;
use crate::build::{Built, LOAD};
use crate::peers::Peer;
use crate::workloads::{Face, Measure, Workload};

const SERVER_CORE: &str = "0";
const BOTH_CORES: &str = "0,1";
const LOAD_CORE: &str = "1";
const WARM_SECS: f64 = 0.5;
/// What a run may take besides its own time: thousands of sessions must come up.
const GRACE: Duration = Duration::from_secs(60);

/// What came out, or why nothing did.
#[derive(Debug, Clone, Serialize)]
#[serde(untagged)]
pub(crate) enum Outcome<T> {
    Good(T),
    Failed { failed: String },
}

impl<T> Outcome<T> {
    pub(crate) fn good(&self) -> Option<&T> {
        match self {
            Outcome::Good(good) => Some(good),
            Outcome::Failed { .. } => None,
        }
    }
}

impl<T> From<Result<T, Failure>> for Outcome<T> {
    fn from(result: Result<T, Failure>) -> Outcome<T> {
        match result {
            Ok(good) => Outcome::Good(good),
            Err(failure) => Outcome::Failed { failed: failure.to_string() },
        }
    }
}

/// What the load found, as it says it.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Found {
    #[serde(default)]
    pub(crate) operations: u64,
    #[serde(default)]
    pub(crate) secs: f64,
    #[serde(default)]
    pub(crate) server_cpu_s: f64,
    #[serde(default)]
    pub(crate) load_cpu_s: f64,
    /// What the kernel's own threads took on the server's core, with what was sent from it; and on the load's.
    #[serde(default)]
    pub(crate) server_softirq_cpu_s: f64,
    #[serde(default)]
    pub(crate) load_softirq_cpu_s: f64,
    /// What all others took of the machine meanwhile.
    #[serde(default)]
    pub(crate) others_cpu_s: f64,
    #[serde(default)]
    pub(crate) latency_us: Latency,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) memory_bytes_per_session: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) p99_ratio: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) error: Option<String>,
}

#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub(crate) struct Latency {
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    pub(crate) max: f64,
}

impl Found {
    /// The one that the workload compares by.
    pub(crate) fn figure(&self, measure: Measure) -> f64 {
        match measure {
            Measure::Cpu => self.us_per_operation(self.whole_server_cpu_s()),
            Measure::Memory => self.memory_bytes_per_session.unwrap_or(f64::NAN),
            Measure::Time => 1e6 / self.operations_per_s(),
            Measure::P99 => self.latency_us.p99,
            Measure::P99Ratio => self.p99_ratio.unwrap_or(f64::NAN),
        }
    }

    /// Of the server and the load together.
    pub(crate) fn both_cpu_us_per_operation(&self) -> f64 {
        self.us_per_operation(self.whole_server_cpu_s() + self.whole_load_cpu_s())
    }

    /// The server's process, and what the kernel's thread did for it.
    fn whole_server_cpu_s(&self) -> f64 {
        self.server_cpu_s + self.server_softirq_cpu_s
    }

    fn whole_load_cpu_s(&self) -> f64 {
        self.load_cpu_s + self.load_softirq_cpu_s
    }

    fn us_per_operation(&self, cpu_s: f64) -> f64 {
        cpu_s * 1e6 / self.operations.max(1) as f64
    }

    pub(crate) fn operations_per_s(&self) -> f64 {
        if self.secs > 0.0 { self.operations as f64 / self.secs } else { 0.0 }
    }

    /// The server's part of a core.
    pub(crate) fn server_share(&self) -> f64 {
        self.share(self.whole_server_cpu_s())
    }

    pub(crate) fn load_share(&self) -> f64 {
        self.share(self.whole_load_cpu_s())
    }

    pub(crate) fn others_share(&self) -> f64 {
        self.share(self.others_cpu_s)
    }

    fn share(&self, cpu_s: f64) -> f64 {
        if self.secs > 0.0 { cpu_s / self.secs } else { 0.0 }
    }
}

/// As many descriptors as the system allows, here and so in everything started from here.
pub(crate) fn raise_descriptor_limit() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        eprintln!("warning: the limit of descriptors stays as it is: {error}");
    }
}

/// Starts a peer's server as it was built now, loads it, and ends it.
pub(crate) fn measure(
    built: &Built,
    peer: &Peer,
    workload: &Workload,
    secs: f64,
) -> Result<Found, Failure> {
    measure_binary(&built.binary(peer.binary()), built, peer, workload, secs)
}

/// The same for another binary of that server.
pub(crate) fn measure_binary(
    binary: &Path,
    built: &Built,
    peer: &Peer,
    workload: &Workload,
    secs: f64,
) -> Result<Found, Failure> {
    let mut server = Server::start(binary, peer, workload)?;
    let found = load(built, &server, peer, workload, secs);
    let alive = matches!(server.child.try_wait(), Ok(None));
    let said = server.end();
    match found {
        Ok(found) if alive => Ok(found),
        Ok(_) => Err(format!("the server ended{said}").into()),
        Err(failure) => Err(format!("{failure}{said}").into()),
    }
}

struct Server {
    child: Child,
    address: String,
}

impl Server {
    fn start(binary: &Path, peer: &Peer, workload: &Workload) -> Result<Server, Failure> {
        let cores = match workload.face {
            Face::EchoOnTwoCores => BOTH_CORES,
            _ => SERVER_CORE,
        };
        let mut child = pinned(cores, binary)
            .args(["--listen", "127.0.0.1:0", "--workload", workload.face.name()])
            .args(workload.server.split_whitespace())
            .args(peer.arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| format!("taskset: {error}"))?;
        let stdout = child.stdout.take();
        let mut server = Server { child, address: String::new() };
        let (sender, first_line) = mpsc::channel();
        thread::spawn(move || {
            let mut line = String::new();
            let read = stdout.map(|stdout| BufReader::new(stdout).read_line(&mut line));
            if matches!(read, Some(Ok(_))) {
                // Nobody listens any more only if it came too late.
                let _ = sender.send(line);
            }
        });
        let line = first_line.recv_timeout(Duration::from_secs(10)).unwrap_or_default();
        match line.trim().strip_prefix("listening on ") {
            Some(address) => address.clone_into(&mut server.address),
            None => {
                let said = server.end();
                return Err(format!("the server did not say where it listens{said}").into());
            }
        }
        Ok(server)
    }

    /// Kills it. What it said on its way, for a message.
    fn end(&mut self) -> String {
        // Either it runs, or it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let mut said = String::new();
        if let Some(stderr) = &mut self.child.stderr {
            let _ = stderr.read_to_string(&mut said);
        }
        match said.trim().lines().last() {
            Some(line) => format!("; it said: {line}"),
            None => String::new(),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.end();
    }
}

fn load(
    built: &Built,
    server: &Server,
    peer: &Peer,
    workload: &Workload,
    secs: f64,
) -> Result<Found, Failure> {
    let mut child = pinned(LOAD_CORE, &built.binary(LOAD))
        .args(["--target", &server.address, "--server", &server.child.id().to_string()])
        .args(["--secs", &secs.to_string(), "--warm-secs", &WARM_SECS.to_string()])
        .args(workload.load.split_whitespace())
        .args(peer.load())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| format!("taskset: {error}"))?;
    let patience = Duration::from_secs_f64(2.0 * (secs + WARM_SECS)) + GRACE;
    let status = wait(&mut child, patience)?;
    let mut said = String::new();
    if let Some(stdout) = &mut child.stdout {
        stdout.read_to_string(&mut said)?;
    }
    let found: Found = serde_json::from_str(&said)
        .map_err(|error| format!("the load said nothing of sense ({status}): {error}"))?;
    match found.error {
        Some(error) => Err(error.into()),
        None if !status.success() => Err(format!("the load ended with {status}").into()),
        None => Ok(found),
    }
}

fn wait(child: &mut Child, patience: Duration) -> Result<ExitStatus, Failure> {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        if Instant::now() > deadline {
            child.kill()?;
            child.wait()?;
            return Err(format!("the load did not end within {} s", patience.as_secs()).into());
        }
        thread::sleep(Duration::from_millis(20));
    }
}

fn pinned(core: &str, binary: &Path) -> Command {
    let mut command = Command::new("taskset");
    command.args(["--cpu-list", core]).arg(binary);
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_did_for_a_side_is_counted_with_it() {
        let found = Found {
            operations: 1_000_000,
            secs: 8.0,
            server_cpu_s: 1.0,
            load_cpu_s: 2.0,
            server_softirq_cpu_s: 0.25,
            load_softirq_cpu_s: 0.5,
            ..Found::default()
        };
        assert_eq!(found.figure(Measure::Cpu), 1.25);
        assert_eq!(found.both_cpu_us_per_operation(), 3.75);
        assert_eq!((found.server_share(), found.load_share()), (1.25 / 8.0, 2.5 / 8.0));
    }
}
