//! `wharf load`: sessions that talk to an echo server and check every byte that returns.
//!
//! Built on the library's connect. Each mode's `run` fills a [`Report`].

mod churn;
mod client;
mod echo;
mod fleet;
mod idle;
mod open_loop;
mod pace;
mod pattern;
mod progress;
mod report;
mod tally;
mod targets;
mod web_socket;

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::time::Duration;

use clap::{Args, Subcommand};
use wharf::{Connector, FirstFrameTimeout, Handler, LengthPrefix, Options};

use crate::arguments::{BackendName, FramingName, WORKERS_MAX, whole};
use crate::process::cpu_time;
use crate::{Outcome, StartFailure, complain, signals};
use report::{Errors, JsonSink, Latency, Report};
use targets::{Target, Targets, target};
use web_socket::WebSocketArguments;

/// The most that the library lets a send queue hold.
const QUEUE_BYTES_MAX: u64 = 1 << 30;

/// The most sessions: the library has places for so many, and as many that have just ended.
const SESSIONS_MAX: u64 = ((1 << 24) - 1024 - SESSIONS_SLACK) / 2;
const SESSIONS_SLACK: u64 = 64;

/// The largest message: a send queue holds two, and the length before each.
const BYTES_MAX: u64 = QUEUE_BYTES_MAX / 2 - HEADER_BYTES;
const HEADER_BYTES: u64 = 14; // WebSocket's

/// How long after its time a run waits for what is still unanswered.
const GRACE: Duration = Duration::from_secs(5);

/// How many connections are asked for at once: no backlog overflows over so few.
const CONNECTING_MAX: usize = 256;

/// What the load is to be.
#[derive(Subcommand)]
pub(crate) enum Load {
    /// Sessions that send messages and check the replies.
    ///
    /// Without --rate each session keeps --depth messages in flight (closed loop). With --rate
    /// messages are due at that pace whatever the server does, and latency counts from when each
    /// was due (open loop).
    Echo(echo::EchoLoad),
    /// Connect, send one message, check the reply, close, and again. With --ws it closes by a Close
    /// frame, and sees the code of the server's.
    ///
    /// The side that closes first, here this one, keeps its port busy for a minute (TIME_WAIT),
    /// and for one target there are 28,232 ports (net.ipv4.ip_local_port_range). Over loopback
    /// Linux takes such a port again after 1 s (net.ipv4.tcp_tw_reuse = 2, the default): one
    /// target takes 4,000 connections/s for ever, but no more than some 14,000. To go faster, or
    /// over 470/s elsewhere, give --target several times (127.0.0.1, 127.0.0.2, …): each has ports
    /// of its own. Windows has 16,384 (netsh int ipv4 show dynamicport tcp) unless told otherwise.
    Churn(churn::ChurnLoad),
    /// Sessions that answer once, sit for a while, and must then still answer. With --ws they answer
    /// the server's pings meanwhile.
    Idle(idle::IdleLoad),
}

/// What all modes may be told.
#[derive(Args)]
struct Common {
    /// The server; given several times, sessions go round robin. Each target has a port range of
    /// its own, so more than 28,000 sessions need several (127.0.0.1, 127.0.0.2, …). Of a name's addresses
    /// the first that can be reached is used.
    #[arg(long, value_name = "ADDR:PORT|unix:PATH", value_parser = target, required = true)]
    target: Vec<Target>,
    /// Worker threads, at most 1,024; 0: as many as there are cores.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = whole::<usize>(0..=WORKERS_MAX))]
    workers: usize,
    /// Which completion port to use; WHARF_BACKEND overrides `auto`.
    #[arg(long, value_enum, default_value = "auto")]
    backend: BackendName,
    /// How bytes are cut into frames, as the server does it.
    #[arg(long, value_enum, default_value = "raw")]
    framing: FramingName,
    #[command(flatten)]
    web_socket: WebSocketArguments,
    /// Write all figures here as JSON; `-` is stdout.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

pub(crate) fn run(load: Load) -> Result<Outcome, StartFailure> {
    let common = match &load {
        Load::Echo(load) => &load.common,
        Load::Churn(load) => &load.common,
        Load::Idle(load) => &load.common,
    };
    // Before the run, so that it is not in vain.
    let sink = JsonSink::open(common.json.as_deref())?;
    let stop = signals::stop()?;
    let mut report = match &load {
        Load::Echo(load) => echo::run(load, &stop)?,
        Load::Churn(load) => churn::run(load, &stop)?,
        Load::Idle(load) => idle::run(load, &stop)?,
    };
    report.cpu = cpu_time();
    report.stopped = stop.load(Ordering::Relaxed);
    let mut is_good = report.errors.total() == 0;
    if let Err(error) = sink.write(&report) {
        complain(&error.to_string());
        is_good = false;
    }
    Ok(if is_good { Outcome::Good } else { Outcome::ErrorsSeen })
}

impl Common {
    /// Starts the connecting side, its send queues large enough that none is ever full: a full one
    /// would end its session, or with `PauseReceive` wait for the server while the server waits
    /// for us.
    fn connector(
        &self,
        sessions: usize,
        message_bytes: usize,
        in_flight_max: u64,
        handler: impl Handler,
    ) -> Result<Connector, StartFailure> {
        let frame_bytes_max = LengthPrefix::default().frame_bytes_max;
        let framing = self.framing();
        if framing.is_framed() && message_bytes > frame_bytes_max {
            return Err(format!("a frame may have at most {frame_bytes_max} bytes").into());
        }
        // Twice, because an answer may be here before we hear that its message has left.
        let queue_bytes = (message_bytes as u64 + HEADER_BYTES)
            .checked_mul(in_flight_max.saturating_mul(2))
            .filter(|bytes| *bytes <= QUEUE_BYTES_MAX)
            .ok_or("a session may have at most 512 MiB in flight")?;
        // A session's place is free again only some time after its end was told.
        let sessions_max = (sessions as u64).saturating_mul(2).saturating_add(SESSIONS_SLACK);
        let options = Options::default()
            .workers(self.workers)
            .backend(self.backend.backend()?)
            .with(|options| {
                options.sessions.max = u32::try_from(sessions_max).unwrap_or(u32::MAX);
                options.sending.queue_bytes_max =
                    (queue_bytes as usize).max(options.sending.queue_bytes_max);
                options.time.first_frame_timeout = FirstFrameTimeout::Never;
            });
        Ok(Connector::builder().framing(framing.framing()).options(options).start(handler)?)
    }

    /// A report without results.
    fn report(
        &self,
        mode: &'static str,
        connector: &Connector,
        sessions: usize,
        bytes: usize,
    ) -> Report {
        Report {
            mode,
            targets: Vec::new(),
            given_up: Vec::new(),
            backend: connector.backend().to_string(),
            workers: self.worker_count(),
            framing: self.framing().name(),
            sessions,
            bytes,
            depth: None,
            rate_per_s: None,
            secs: 0.0,
            stopped: false,
            completed: 0,
            completed_per_s: 0.0,
            mb_per_s: 0.0,
            latency_us: Latency::default(),
            upgrade_us: None,
            close_codes: BTreeMap::new(),
            pings_answered: None,
            send_late_us: None,
            not_sent: 0,
            cpu: None,
            errors: Errors::default(),
        }
    }

    fn worker_count(&self) -> usize {
        Options::default().workers(self.workers).worker_count()
    }

    /// For messages of so many bytes.
    fn targets(&self, message_bytes: usize) -> Targets {
        Targets::new(&self.target, self.web_socket.upgrade(message_bytes))
    }

    fn framing(&self) -> FramingName {
        self.web_socket.framing().unwrap_or(self.framing)
    }
}

/// Another for each run.
fn run_seed() -> u64 {
    RandomState::new().hash_one(std::process::id())
}

/// What an error of the operating system means for one who connects, and what helps.
fn connect_remedy(error: &std::io::Error) -> &'static str {
    /// No descriptor is left (EMFILE, WSAEMFILE).
    const NO_DESCRIPTOR: i32 = if cfg!(windows) { 10_024 } else { 24 };
    /// How Windows says that no port is free, when it does not say so (WSAENOBUFS, WSAEADDRINUSE).
    const NO_PORT: [i32; 2] = [10_055, 10_048];
    match (error.kind(), error.raw_os_error()) {
        (std::io::ErrorKind::AddrNotAvailable, _) => NO_PORT_IS_FREE,
        (std::io::ErrorKind::InvalidData | std::io::ErrorKind::UnexpectedEof, None) => {
            NO_WEB_SOCKET
        }
        (_, Some(code)) if cfg!(windows) && NO_PORT.contains(&code) => NO_PORT_IS_FREE,
        (_, Some(NO_DESCRIPTOR)) if cfg!(windows) => " (this process may have no more sockets)",
        (_, Some(NO_DESCRIPTOR)) => " (raise `ulimit -n`)",
        _ => "",
    }
}

const NO_PORT_IS_FREE: &str =
    " (no port is free for this target: give --target more addresses, e.g. 127.0.0.2)";

/// Only an upgrade can be answered wrongly, or not at all.
const NO_WEB_SOCKET: &str = " (is it a server with WebSocket? if not, leave out --ws)";

/// For who got HTTP where a reply was due.
const MAYBE_WEB_SOCKET: &str = " (it is a server with WebSocket, or of HTTP alone: try --ws)";

#[cfg(test)]
mod tests {
    use std::io::Error;
    use std::net::{SocketAddr, TcpListener};

    use std::sync::Arc;
    use std::sync::atomic::AtomicBool;
    use wharf::Server;

    use clap::Parser;
    use wharf::Session;

    use super::*;
    use crate::{Command, Task};

    struct Echo;

    impl Handler for Echo {
        type State = ();

        fn opened(&self, _: &Session) {}

        fn received(&self, session: &Session, _: &mut (), frame: &[u8]) {
            session.send(frame);
        }
    }

    /// What a mode finds of a name that has these addresses.
    fn load(mode: &str, addresses: &[SocketAddr]) -> Report {
        load_with(mode, addresses, &["--secs", "0.3", "--sessions", "41"])
    }

    fn load_with(mode: &str, addresses: &[SocketAddr], words: &[&str]) -> Report {
        let words = [&["wharf", "load", mode, "--target", "127.0.0.1:1"], words].concat();
        let Task::Load(mut load) = Command::try_parse_from(words).unwrap().task else {
            panic!("it is a load");
        };
        let stop = Arc::new(AtomicBool::new(false));
        let target = vec![Target::of(addresses)];
        match &mut load {
            Load::Echo(load) => {
                load.common.target = target;
                echo::run(load, &stop)
            }
            Load::Churn(load) => {
                load.common.target = target;
                churn::run(load, &stop)
            }
            Load::Idle(load) => {
                load.common.target = target;
                idle::run(load, &stop)
            }
        }
        .unwrap()
    }

    #[test]
    fn a_name_is_reached_at_the_first_of_its_addresses_where_somebody_listens() {
        let server = Server::builder().listen("127.0.0.1:0").workers(1).start(Echo).unwrap();
        let live = server.addresses()[0];
        let nobody = || TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let (dead, too) = (nobody(), nobody());
        for mode in ["echo", "churn", "idle"] {
            let report = load(mode, &[dead, live, too]);
            assert_eq!(report.errors.total(), 0, "{report}");
            assert!(report.completed >= 41, "{report}");
            assert_eq!(report.targets, [live.to_string()]);
            let [cause] = &report.given_up[..] else { panic!("{:?}", report.given_up) };
            assert!(cause.starts_with(&format!("cannot connect to {dead}: ")), "{cause}");

            let text = load(mode, &[dead, too]).to_string();
            assert!(text.contains(&dead.to_string()) && text.contains(&too.to_string()), "{text}");
        }
    }

    #[test]
    fn what_was_due_is_begun_though_it_is_late() {
        let server = Server::builder().listen("127.0.0.1:0").workers(1).start(Echo).unwrap();
        // One at a time cannot be so fast.
        let pace = ["--rate", "8000", "--secs", "0.05", "--sessions", "1"];
        let report = load_with("churn", &[server.addresses()[0]], &pace);
        assert_eq!((report.completed, report.not_sent), (400, 0), "{report}");
        assert_eq!(report.errors.total(), 0, "{report}");
    }

    #[test]
    fn whoever_runs_out_of_ports_or_descriptors_is_told_what_helps() {
        let (ports, descriptors): (&[i32], i32) =
            if cfg!(windows) { (&[10_048, 10_049, 10_055], 10_024) } else { (&[99], 24) };
        if cfg!(any(windows, target_os = "linux")) {
            for code in ports {
                let remedy = connect_remedy(&Error::from_raw_os_error(*code));
                assert!(remedy.contains("--target"), "{code}: {remedy}");
            }
            assert_ne!(connect_remedy(&Error::from_raw_os_error(descriptors)), "");
        }
        let refused = Error::from(std::io::ErrorKind::ConnectionRefused);
        assert_eq!(connect_remedy(&refused), "");
    }
}
