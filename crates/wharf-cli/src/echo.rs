//! `wharf echo`: sends back what arrives, and prints a status line once per period.

use std::fmt;
use std::io::{self, IsTerminal};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::json;
use wharf::{
    AcceptError, Backend, Backpressure, DrainReport, Handle, Handler, LengthPrefix, Options,
    PeerAddress, Server, Session, Text, WebSocket,
};

use crate::allocator::GivesBack;
use crate::arguments::{BackendName, FramingName, OriginsName, WORKERS_MAX, seconds, whole};
use crate::figures::{Bytes, Count};
use crate::listen::listeners;
use crate::output::print;
use crate::process::{Descriptors, descriptors, resident_bytes};
use crate::signals;
use crate::stats_line::{Reading, StatsLine};
use crate::{Outcome, StartFailure, complain, start_thread, with_causes};

/// What `wharf echo` may be told.
#[derive(Args)]
pub(crate) struct EchoArguments {
    /// Where to listen; may be given several times. Port 0 takes a free one. `inherited` is every socket that a
    /// service manager has opened (LISTEN_FDS of systemd). No Unix-domain sockets on Windows.
    #[arg(long, value_name = "ADDR:PORT|unix:PATH|inherited", default_value = "127.0.0.1:7000")]
    listen: Vec<String>,
    /// Worker threads, at most 1,024; 0: as many as there are cores. On Windows all of them take from one
    /// completion port; elsewhere each has a port of its own.
    #[arg(long, value_name = "N", visible_alias = "threads-per-port", default_value_t = 0,
        value_parser = whole::<usize>(0..=WORKERS_MAX))]
    workers: usize,
    /// Which completion port to use; WHARF_BACKEND overrides `auto`.
    #[arg(long, value_enum, default_value = "auto")]
    backend: BackendName,
    /// How bytes are cut into frames.
    #[arg(long, value_enum, default_value = "raw")]
    framing: FramingName,
    /// Speak WebSocket on every listener: text comes back as text, binary as binary. Its messages may have as many
    /// bytes as the frames of other framings.
    #[arg(long, conflicts_with = "framing")]
    ws: bool,
    /// With --ws: which pages may connect, by what a browser says of them.
    #[arg(long, value_name = "WHICH", value_enum, requires = "ws", default_value = "any")]
    ws_origins: OriginsName,
    /// With --ws: send a ping to a peer that was not heard for so long, and end its session if it was not for twice as
    /// long; 0: never.
    #[arg(long, value_name = "SECS", requires = "ws", value_parser = seconds, default_value = "30")]
    ws_ping_after: Duration,
    /// The most sessions at once; more are closed at once and counted as refused.
    #[arg(long, value_name = "N")]
    sessions_max: Option<u32>,
    /// How often to print a line of figures; 0: never [default: 1 on a terminal, else never].
    #[arg(long, value_name = "SECS", value_parser = seconds)]
    stats_every: Option<Duration>,
    /// Print nothing but errors.
    #[arg(long)]
    quiet: bool,
    /// End a session from which nothing came for so long; 0: never [default: never].
    #[arg(long, value_name = "SECS", value_parser = seconds)]
    idle_timeout: Option<Duration>,
    /// How long a drain waits for what is queued to leave; 0: not at all.
    #[arg(long, value_name = "S", value_parser = seconds, default_value = "5")]
    drain_secs: Duration,
    /// The most bytes that wait to be sent to one session.
    #[arg(long, value_name = "N")]
    send_queue_bytes: Option<usize>,
    /// Print every line as a JSON object.
    #[arg(long)]
    json: bool,
}

struct Echo;

impl Handler for Echo {
    type State = ();

    fn opened(&self, _session: &Session) {}

    fn received(&self, session: &Session, _state: &mut (), frame: &[u8]) {
        let text = session.frame_is_text().then(|| std::str::from_utf8(frame));
        match text {
            Some(Ok(text)) => session.send(Text(text)),
            _ => session.send(frame),
        }
    }

    fn accept_failed(&self, error: &AcceptError) {
        complain(&with_causes(error));
    }
}

enum Happening {
    Signal,
    Ended(wharf::Result<()>),
}

pub(crate) fn run(arguments: EchoArguments) -> Result<Outcome, StartFailure> {
    let options = arguments.options()?;
    let framing = if arguments.ws { FramingName::WsBinary } else { arguments.framing };

    let mut builder = Server::builder();
    for listener in listeners(&arguments.listen)? {
        let listener =
            if arguments.ws { listener.transport(arguments.web_socket()) } else { listener };
        builder = builder.listen(listener);
    }
    // Before the first session there is one who hears a signal: no moment without a drain.
    let (happenings, inbox) = channel();
    let signals = signals::listen()?;
    let server = builder.framing(framing.framing()).options(options.clone()).start(Echo)?;

    let handle = server.handle();
    let mut console = Console { quiet: arguments.quiet, json: arguments.json, failed: false };
    announce(&mut console, &server, &options, framing);
    for failure in server.listen_errors() {
        complain(&with_causes(failure));
    }
    heed_signals(signals, handle.clone(), happenings.clone())?;
    start_thread(move || happenings.send(Happening::Ended(server.wait())))?;

    let mut watch = Watch::new(handle, arguments.stats_every);
    let ended = watch.until_something_happens(&inbox, &mut console);
    if ended.is_none() {
        let report = watch.handle.drain(arguments.drain_secs)?;
        tell_drain(&mut console, &report);
    }
    let ended = ended.or_else(|| match inbox.recv() {
        Ok(Happening::Ended(result)) => Some(result),
        _ => None,
    });
    watch.check(&mut console);
    if let Some(Err(failure)) = ended {
        complain(&with_causes(&failure));
        return Ok(Outcome::ErrorsSeen);
    }
    let is_good = watch.balanced && !console.failed;
    Ok(if is_good { Outcome::Good } else { Outcome::ErrorsSeen })
}

impl EchoArguments {
    fn options(&self) -> Result<Options, String> {
        let mut options = Options::default().workers(self.workers);
        options.sessions.max = self.sessions_max.unwrap_or(options.sessions.max);
        options.sending.queue_bytes_max =
            self.send_queue_bytes.unwrap_or(options.sending.queue_bytes_max);
        options.backend = self.backend.backend()?;
        options.receiving.backpressure = Backpressure::PauseReceive;
        options.time.idle_timeout = self.idle_timeout.filter(|timeout| !timeout.is_zero());
        Ok(options)
    }

    fn web_socket(&self) -> WebSocket {
        let ping_after = Some(self.ws_ping_after).filter(|silence| !silence.is_zero());
        WebSocket::new()
            .origins(self.ws_origins.origins())
            .message_bytes_max(LengthPrefix::default().frame_bytes_max)
            .ping_after(ping_after)
    }
}

/// The first signal asks for a drain, the second ends it.
fn heed_signals(
    signals: Receiver<()>,
    handle: Handle,
    happenings: Sender<Happening>,
) -> io::Result<()> {
    start_thread(move || {
        for (count, _signal) in signals.iter().enumerate() {
            if count == 0 {
                let _ = happenings.send(Happening::Signal);
            } else {
                handle.stop();
            }
        }
    })
}

/// The periods, and what the server had counted and measured at the end of the last.
struct Watch {
    handle: Handle,
    period: Duration,
    prints: bool,
    last: Reading,
    last_at: Instant,
    balanced: bool,
    gives_back: GivesBack,
}

impl Watch {
    fn new(handle: Handle, every: Option<Duration>) -> Watch {
        let prints = match every {
            Some(period) => !period.is_zero(),
            None => io::stdout().is_terminal(),
        };
        let period = every.filter(|period| !period.is_zero()).unwrap_or(Duration::from_secs(1));
        let last_at = Instant::now();
        let (last, gives_back) = (Reading::default(), GivesBack::default());
        Watch { handle, period, prints, last, last_at, balanced: true, gives_back }
    }

    /// A signal is `None`; the server's own end is `Some`.
    fn until_something_happens(
        &mut self,
        inbox: &Receiver<Happening>,
        console: &mut Console,
    ) -> Option<wharf::Result<()>> {
        let mut next = self.last_at + self.period;
        loop {
            match inbox.recv_timeout(next.saturating_duration_since(Instant::now())) {
                Ok(Happening::Signal) => return None,
                Ok(Happening::Ended(result)) => return Some(result),
                Err(RecvTimeoutError::Disconnected) => return Some(Ok(())),
                Err(RecvTimeoutError::Timeout) => {}
            }
            self.check(console);
            // A machine that slept owes no lines for the periods it missed.
            next = (next + self.period).max(Instant::now());
        }
    }

    /// One period's line. It is checked whether it is printed or not.
    fn check(&mut self, console: &mut Console) {
        let (now, now_at) = (Reading::of(&self.handle), Instant::now());
        let period = now_at - self.last_at;
        let line = StatsLine::between(&self.last, &now, period, resident_bytes());
        self.balanced &= line.is_balanced();
        if !line.is_balanced() {
            complain(&line.to_string());
        }
        if self.prints || !line.is_balanced() {
            console.tell(|| line.to_string(), || json!({ "stats": line.json() }));
        }
        self.gives_back.check(resident_bytes, now.stats.queued_bytes);
        (self.last, self.last_at) = (now, now_at);
    }
}

/// stdout, until it cannot be written to: that is no reason to stop serving, or to panic.
struct Console {
    quiet: bool,
    json: bool,
    failed: bool,
}

impl Console {
    fn tell(&mut self, text: impl Fn() -> String, json: impl Fn() -> serde_json::Value) {
        if self.quiet || self.failed {
            return;
        }
        let line = if self.json { json().to_string() } else { text() };
        if let Err(error) = print(line) {
            complain(&error.to_string());
            self.failed = true;
        }
    }
}

fn announce(console: &mut Console, server: &Server, options: &Options, framing: FramingName) {
    let tcp = server.addresses().iter().map(ToString::to_string);
    let unix = server.unix_paths().iter().map(|path| PeerAddress::unix(path).to_string());
    let addresses: Vec<String> = tcp.chain(unix).collect();
    let backend = server.backend().to_string();
    let workers = options.worker_count();
    let shared = server.backend().backend() == Backend::Iocp;
    let room = Room { sessions_max: options.sessions.max, descriptors: descriptors() };
    let memory = options.memory();
    console.tell(
        || {
            format!(
                "listening on {}; backend {backend}; {workers} worker{}{}; framing {}; {room}; {memory}",
                addresses.join(", "),
                if workers == 1 { "" } else { "s" },
                if shared { " on one port" } else { "" },
                framing.name(),
            )
        },
        || {
            json!({ "listening": {
                "addresses": addresses, "backend": backend, "workers": workers,
                "framing": framing, "sessions_max": room.sessions_max,
                "sessions_room": room.sessions(),
                "descriptors_max": room.descriptors.map(|descriptors| descriptors.max),
                "memory": {
                    "at_rest_bytes": memory.at_rest_bytes,
                    "idle_session_bytes": memory.idle_session_bytes,
                    "session_bytes_max": memory.session_bytes_max,
                    "worker_bytes_max": memory.worker_bytes_max,
                    "total_bytes_max": memory.total_bytes_max,
                },
            } })
        },
    );
}

/// How many sessions there can be: each needs a descriptor, and may be one too many.
struct Room {
    sessions_max: u32,
    descriptors: Option<Descriptors>,
}

impl Room {
    fn sessions(&self) -> u64 {
        let free = |Descriptors { max, open }| max.saturating_sub(open);
        self.descriptors.map_or(u64::MAX, free).min(self.sessions_max.into())
    }
}

impl fmt::Display for Room {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (sessions, allowed) = (self.sessions(), u64::from(self.sessions_max));
        write!(f, "room for {} sessions", Count(sessions))?;
        match self.descriptors {
            Some(Descriptors { max, .. }) if sessions < allowed => write!(
                f,
                " ({} allowed, but the limit is {} descriptors: raise `ulimit -n`)",
                Count(allowed),
                Count(max),
            ),
            _ => Ok(()),
        }
    }
}

fn tell_drain(console: &mut Console, report: &DrainReport) {
    let DrainReport { served, live, flushed, cut_off, ended, cut_off_bytes, unfinished, .. } =
        *report;
    console.tell(
        || {
            let summary = format!(
                "drained: {} sessions served; of the last {}: {} flushed, {} cut off ({} lost), \
                 {} ended meanwhile",
                Count(served),
                Count(live),
                Count(flushed),
                Count(cut_off),
                Bytes(cut_off_bytes),
                Count(ended),
            );
            match (unfinished, report.workers_blocked) {
                (0, 0) => summary,
                (sessions, workers) => format!(
                    "{summary}; {} unfinished, since callbacks block {} workers",
                    Count(sessions),
                    Count(workers),
                ),
            }
        },
        || {
            json!({ "drained": {
                "served": served, "live": live, "flushed": flushed, "cut_off": cut_off,
                "cut_off_bytes": cut_off_bytes, "ended": ended, "unfinished": unfinished,
            } })
        },
    );
}
