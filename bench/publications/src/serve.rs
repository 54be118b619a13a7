//! The server: waits until the load says that its members are there, publishes to them, waits until nothing waits any
//! more, drains, and says what happened.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::task::{Context, Poll, Wake};
use std::thread;
use std::time::{Duration, Instant};

use clap::ValueEnum;
use protocol::process::{cpu_secs, memory_bytes};
use protocol::{announce, now_ns};
use serde::Serialize;
use wharf::{
    Backend, CloseReason, Framing, Group, Handle, Handler, LengthPrefix, Options, PublishError,
    Server, Session, SessionId,
};

use crate::Failure;
use crate::frame::{CONTROL, Control, DIRECT, FLOOD, Head, Hello, PACED, Policy, STREAMS};

/// How long a thread rests that has sent to so many sessions. It would else take the worker's core from it.
const REST: Duration = Duration::from_millis(2);
const FEW: usize = 50;
const SAMPLE_EVERY: Duration = Duration::from_millis(20);
/// The members say little. So most of what the options announce is for sending.
const RECEIVE_QUEUES_BYTES_MAX: usize = 1 << 20;
const DRAIN_WITHIN: Duration = Duration::from_secs(20);
/// So long the load may take to read what the server has used. It may be stopped meanwhile.
const LOAD_WITHIN: Duration = Duration::from_secs(60);

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    #[arg(long, default_value = "uring")]
    backend: Backend,
    #[arg(long, default_value_t = 1)]
    workers: usize,
    /// How many frames are published to the first group.
    #[arg(long, default_value_t = 20_000)]
    frames: u64,
    /// The size of a frame without its length.
    #[arg(long, default_value_t = 64)]
    bytes: usize,
    /// Bursts a second; 0 is as fast as it goes.
    #[arg(long, default_value_t = 0.0)]
    rate: f64,
    /// Frames in a burst.
    #[arg(long, default_value_t = 1)]
    burst: u64,
    /// Frames have keys, so many one after the other; 0 is none.
    #[arg(long, default_value_t = 0)]
    keys: u32,
    #[arg(long, value_enum, default_value = "group")]
    to: To,
    /// Frames a second that are published to the second group meanwhile.
    #[arg(long, default_value_t = 0.0)]
    paced_rate: f64,
    /// From so many seconds after the others on.
    #[arg(long, default_value_t = 0.0)]
    paced_after_secs: f64,
    /// Meanwhile, a thread sends frames of this size to all sessions by their ids, as far as they have room; 0: none.
    #[arg(long, default_value_t = 0)]
    direct_bytes: usize,
    /// How long the server waits until nothing waits to be sent any more.
    #[arg(long, default_value_t = 60)]
    idle_secs_max: u64,
    /// Sessions at most.
    #[arg(long, default_value_t = 1_024)]
    sessions_max: u32,
    #[arg(long)]
    queue_bytes: Option<usize>,
    /// SO_SNDBUF.
    #[arg(long)]
    kernel_bytes: Option<usize>,
    #[arg(long)]
    publications_bytes: Option<usize>,
    #[arg(long)]
    slow_after_ms: Option<u64>,
    /// The budget for what waits in all send queues.
    #[arg(long)]
    queued_bytes: Option<usize>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum To {
    Group,
    All,
}

impl Arguments {
    fn options(&self) -> Options {
        Options::default().workers(self.workers).backend(self.backend).with(|options| {
            options.sessions.max = self.sessions_max;
            options.receiving.queues_bytes_max = Some(RECEIVE_QUEUES_BYTES_MAX);
            options.sending.kernel_bytes = self.kernel_bytes;
            options.sending.queued_bytes_max = self.queued_bytes;
            if let Some(bytes) = self.queue_bytes {
                options.sending.queue_bytes_max = bytes;
            }
            if let Some(bytes) = self.publications_bytes {
                options.sending.publications_bytes_max = bytes;
            }
            if let Some(ms) = self.slow_after_ms {
                options.sending.slow_after = Duration::from_millis(ms);
            }
        })
    }

    fn framing(&self) -> Framing {
        let bytes = self.bytes.max(self.direct_bytes).max(Head::BYTES + 40);
        Framing::length_prefixed(LengthPrefix::default().frame_bytes_max(bytes))
    }
}

/// What the handler hears.
#[derive(Debug)]
struct Room {
    /// Whoever says so on the control session, to begin and once it has heard that nothing waits.
    goes_on: Mutex<mpsc::Sender<SessionId>>,
    told: Mutex<Told>,
}

#[derive(Debug, Default)]
struct Told {
    members: Vec<SessionId>,
    /// How members have ended, by the kind of their reason.
    closed: BTreeMap<String, u64>,
    /// Those that were slow.
    slow: Vec<u32>,
    /// Frames that members missed.
    lagged: BTreeMap<u32, u64>,
}

impl Room {
    fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn greet(&self, session: &Session, hello: Hello) -> bool {
        session.send(hello.bytes());
        if hello.number == CONTROL {
            return true;
        }
        self.told().members.push(session.id());
        let policy = match hello.policy {
            Policy::Close => wharf::Policy::Close,
            Policy::Skip => wharf::Policy::Skip,
            Policy::Latest => wharf::Policy::KeepLatest,
        };
        session.join_with(Group(hello.group.into()), policy).is_ok()
    }
}

impl Handler for Room {
    type State = Option<Hello>;

    fn opened(&self, _session: &Session) -> Option<Hello> {
        None
    }

    fn received(&self, session: &Session, hello: &mut Option<Hello>, frame: &[u8]) {
        match (*hello, Hello::read(frame), Control::read(frame)) {
            (None, Some(said), _) if self.greet(session, said) => *hello = Some(said),
            (Some(Hello { number: CONTROL, .. }), _, Some(Control::GoOn)) => {
                let goes_on = self.goes_on.lock().unwrap_or_else(PoisonError::into_inner);
                let _ = goes_on.send(session.id()); // unless the server ends
            }
            _ => session.close(wharf::Close::Stop),
        }
    }

    fn lagged(&self, _session: &Session, hello: &mut Option<Hello>, group: Group, frames: u64) {
        if let Some(hello) = hello.filter(|hello| Group(hello.group.into()) == group) {
            *self.told().lagged.entry(hello.number).or_default() += frames;
        }
    }

    fn closed(&self, _session: &Session, hello: Option<Hello>, reason: CloseReason) {
        let Some(Hello { number, .. }) = hello.filter(|hello| hello.number != CONTROL) else {
            return;
        };
        let mut told = self.told();
        // Without the facts.
        let kind = reason.to_string().split(" (").next().unwrap_or_default().to_owned();
        *told.closed.entry(kind).or_default() += 1;
        if matches!(reason, CloseReason::SlowConsumer { .. }) {
            told.slow.push(number);
        }
    }
}

/// What the server prints at the end.
#[derive(Debug, Serialize)]
struct Report {
    /// Frames of each stream.
    published: [u64; STREAMS],
    held_back: HeldBack,
    /// Of the process, from the first frame until nothing waited any more.
    cpu_s: f64,
    wall_s: f64,
    /// Whether nothing waited in the end.
    idle: bool,
    memory: MemorySeen,
    closed: BTreeMap<String, u64>,
    slow: Vec<u32>,
    lagged: BTreeMap<u32, u64>,
    stats: BTreeMap<&'static str, u64>,
}

/// How often the publishers had to wait.
#[derive(Debug, Default, Clone, Copy, Serialize)]
struct HeldBack {
    /// Frames that were not accepted at once.
    frames: u64,
    secs: f64,
}

#[derive(Debug, Serialize)]
struct MemorySeen {
    /// With all members there, before the first frame.
    rest_bytes: u64,
    /// The most that was seen from then on.
    peak_bytes: u64,
    /// Of the whole life of the process.
    high_water_bytes: u64,
    /// When nothing waited any more.
    idle_bytes: u64,
    /// `Options::memory`.
    announced_bytes_max: u64,
}

pub(crate) fn run(arguments: &Arguments) -> Result<bool, Failure> {
    let (goes_on, gone_on) = mpsc::channel();
    let room = Arc::new(Room { goes_on: Mutex::new(goes_on), told: Mutex::default() });
    let options = arguments.options();
    let announced_bytes_max = options.memory().total_bytes_max;
    let server = Server::builder()
        .listen(arguments.listen)
        .framing(arguments.framing())
        .options(options)
        .start(room.clone())?;
    announce(server.addresses()[0]);
    let control = gone_on.recv()?;
    let handle = server.handle();
    let own = std::process::id();
    let (rest_bytes, cpu_before) = (memory_bytes(own, "VmRSS")?, cpu_secs(own)?);
    println!("publishing");
    let began = Instant::now();
    let sampler = Sampler::start();
    let (published, held_back) = publish_all(arguments, &handle, &room)?;
    let say = |control_frame: Control| handle.send(control, control_frame.bytes());
    say(Control::Published(published)).map_err(|_| "the load has gone")?;
    let idle = wait_until_idle(&handle, Duration::from_secs(arguments.idle_secs_max));
    let (cpu_s, wall_s) = (cpu_secs(own)? - cpu_before, began.elapsed().as_secs_f64());
    let peak_bytes = sampler.stop()?.max(rest_bytes);
    let idle_bytes = memory_bytes(own, "VmRSS")?;
    let stats = handle.stats();
    say(Control::Idle).map_err(|_| "the load has gone")?;
    gone_on.recv_timeout(LOAD_WITHIN)?; // until then it reads what this process has used
    handle.drain(DRAIN_WITHIN)?;
    let mut told = room.told();
    told.slow.sort_unstable();
    let report = Report {
        published,
        held_back,
        cpu_s,
        wall_s,
        idle,
        memory: MemorySeen {
            rest_bytes,
            peak_bytes,
            high_water_bytes: memory_bytes(own, "VmHWM")?,
            idle_bytes,
            announced_bytes_max,
        },
        closed: std::mem::take(&mut told.closed),
        slow: std::mem::take(&mut told.slow),
        lagged: std::mem::take(&mut told.lagged),
        stats: stats.metrics().filter_map(plain).collect(),
    };
    println!("{}", serde_json::to_string(&report)?);
    Ok(true)
}

/// A figure that has one value.
fn plain(metric: wharf::Metric<'_>) -> Option<(&'static str, u64)> {
    match (metric.label, metric.value) {
        (None, wharf::MetricValue::Counter(value) | wharf::MetricValue::Gauge(value)) => {
            Some((metric.name, value))
        }
        _ => None,
    }
}

/// Publishes everything that was asked for. Returns how many frames each stream had, and how often the first one was
/// held back.
fn publish_all(
    arguments: &Arguments,
    handle: &Handle,
    room: &Room,
) -> Result<([u64; STREAMS], HeldBack), Failure> {
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let beside = scope.spawn(|| match arguments.paced_rate {
            0.0 => Ok(0),
            rate => {
                thread::sleep(Duration::from_secs_f64(arguments.paced_after_secs));
                let mut publisher = Publisher::new(handle, PACED, Head::BYTES + 40);
                publisher.at_rate(rate, 1, u64::MAX, &done)?;
                Ok::<_, String>(publisher.sequence)
            }
        });
        let direct = scope.spawn(|| send_direct(arguments.direct_bytes, handle, room, &done));
        let mut publisher = Publisher::new(handle, FLOOD, arguments.bytes.max(Head::BYTES));
        publisher.to = arguments.to;
        publisher.keys = arguments.keys;
        let flooded = publisher.at_rate(arguments.rate, arguments.burst, arguments.frames, &done);
        done.store(true, Ordering::Relaxed);
        let died = |_| "a publisher died";
        let published =
            [publisher.sequence, beside.join().map_err(died)??, direct.join().map_err(died)?];
        flooded?;
        Ok((published, publisher.held_back))
    })
}

/// Publishes the frames of one stream.
struct Publisher<'a> {
    handle: &'a Handle,
    stream: u8,
    to: To,
    keys: u32,
    frame: Vec<u8>,
    sequence: u64,
    held_back: HeldBack,
}

impl<'a> Publisher<'a> {
    fn new(handle: &'a Handle, stream: u8, bytes: usize) -> Publisher<'a> {
        Publisher {
            handle,
            stream,
            to: To::Group,
            keys: 0,
            frame: vec![0; bytes],
            sequence: 0,
            held_back: HeldBack::default(),
        }
    }

    /// So many bursts a second, or as fast as it goes, until there are so many frames or it is done.
    fn at_rate(
        &mut self,
        rate: f64,
        burst: u64,
        frames: u64,
        done: &AtomicBool,
    ) -> Result<(), String> {
        let began = Instant::now();
        while self.sequence < frames && !done.load(Ordering::Relaxed) {
            if rate > 0.0 && self.sequence.is_multiple_of(burst) {
                let due = Duration::from_secs_f64((self.sequence / burst) as f64 / rate);
                thread::sleep(due.saturating_sub(began.elapsed()));
            }
            self.publish()?;
        }
        Ok(())
    }

    fn publish(&mut self) -> Result<(), String> {
        if self.offer()? {
            self.sequence += 1;
            return Ok(());
        }
        let began = Instant::now();
        self.held_back.frames += 1;
        loop {
            wait_for(self.handle.when_room_to_publish()).map_err(|error| error.to_string())?;
            if self.offer()? {
                self.sequence += 1;
                self.held_back.secs += began.elapsed().as_secs_f64();
                return Ok(());
            }
        }
    }

    /// False: there is no room.
    fn offer(&mut self) -> Result<bool, String> {
        let key = if self.keys > 0 { (self.sequence % u64::from(self.keys)) as u32 } else { 0 };
        let head = Head { stream: self.stream, key, sequence: self.sequence, at_ns: now_ns() };
        head.write(&mut self.frame);
        let (frame, group) = (&self.frame[..], Group(self.stream.into()));
        let published = match self.to {
            To::All => self.handle.broadcast(frame),
            To::Group if self.keys > 0 => self.handle.publish_keyed(group, key.into(), frame),
            To::Group => self.handle.publish(group, frame),
        };
        match published {
            Ok(()) => Ok(true),
            Err(PublishError::Full { .. }) => Ok(false),
            Err(error) => Err(error.to_string()),
        }
    }
}

/// A thread waits for a future.
fn wait_for<F: Future>(future: F) -> F::Output {
    struct Unparks(thread::Thread);
    impl Wake for Unparks {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Arc::new(Unparks(thread::current())).into();
    let mut context = Context::from_waker(&waker);
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut context) {
            Poll::Ready(output) => return output,
            Poll::Pending => thread::park(),
        }
    }
}

/// Sends to one session after the other, as far as they have room, and rests after every few: what is shown is what
/// those cost that do not read, not what a burst to all costs. Returns how many frames there were for all.
fn send_direct(bytes: usize, handle: &Handle, room: &Room, done: &AtomicBool) -> u64 {
    if bytes == 0 {
        return 0;
    }
    let members = room.told().members.clone();
    let mut sequences = vec![0; members.len()];
    let mut frame = vec![0; bytes.max(Head::BYTES)];
    let mut sent = 0;
    while !done.load(Ordering::Relaxed) {
        for (at, (id, sequence)) in members.iter().zip(&mut sequences).enumerate() {
            if at % FEW == 0 {
                thread::sleep(REST);
            }
            let head = Head { stream: DIRECT, key: 0, sequence: *sequence, at_ns: now_ns() };
            head.write(&mut frame);
            if handle.try_send(*id, &frame).is_ok() {
                *sequence += 1;
                sent += 1;
            }
        }
    }
    sent
}

/// Waits until nothing waits in any send queue and no member is behind, seen several times, so that no frame is on
/// its way.
fn wait_until_idle(handle: &Handle, at_most: Duration) -> bool {
    let (began, mut seen) = (Instant::now(), 0);
    while seen < 5 {
        let stats = handle.stats();
        seen = if stats.queued_bytes + stats.members_behind == 0 { seen + 1 } else { 0 };
        if began.elapsed() > at_most {
            return false;
        }
        thread::sleep(Duration::from_millis(4));
    }
    true
}

/// Looks at the memory of the process again and again.
struct Sampler {
    stop: Arc<AtomicBool>,
    thread: thread::JoinHandle<Result<u64, String>>,
}

impl Sampler {
    fn start() -> Sampler {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = thread::spawn(move || {
            let mut peak = 0;
            while !stopped.load(Ordering::Relaxed) {
                let now = memory_bytes(std::process::id(), "VmRSS").map_err(|e| e.to_string())?;
                peak = peak.max(now);
                thread::sleep(SAMPLE_EVERY);
            }
            Ok(peak)
        });
        Sampler { stop, thread }
    }

    fn stop(self) -> Result<u64, Failure> {
        self.stop.store(true, Ordering::Relaxed);
        Ok(self.thread.join().map_err(|_| "the sampler died")??)
    }
}
