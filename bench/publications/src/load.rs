//! The load: one thread, which connects the members, reads for each as its class does, and checks what comes.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use protocol::now_ns;
use protocol::process::{Softirq, cpu_secs, own_cpu_secs};
use rustix::event::Timespec;
use rustix::event::epoll;
use serde::Serialize;
use socket2::{Domain, Socket, Type};

use crate::Failure;
use crate::frame::{CONTROL, Control, FLOOD, Head, Hello, Policy, STREAMS};
use crate::members::{Came, Class, Member, Pace, Seen, State, Tally, Wire};
use crate::mqtt;

/// How many are connected before they must be answered: no backlog overflows over so few.
const WAVE: usize = 128;
const BUFFER_BYTES: usize = 256 * 1024;
/// How often those that read slowly do.
const SLOW_EVERY: Duration = Duration::from_millis(5);
/// How often the load looks what lies in the kernel for them.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// For so long something must come, or end.
const PATIENCE: Duration = Duration::from_secs(45);
/// How much a publisher of our own prepares at a time.
const PUBLISHER_BYTES: usize = 64 * 1024;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[arg(long)]
    target: SocketAddr,
    /// The server's process, whose CPU time is read.
    #[arg(long, value_name = "PID")]
    server: u32,
    /// NAME:COUNT:POLICY:PACE:GROUP, with close, skip or latest; full, tenth, never or
    /// bytes a second.
    #[arg(long, required = true)]
    members: Vec<Class>,
    /// The keys that the server publishes with.
    #[arg(long, default_value_t = 0)]
    keys: u32,
    /// SO_RCVBUF of the members that do not read at full pace.
    #[arg(long)]
    receive_bytes: Option<usize>,
    /// The server is an MQTT broker: the load itself publishes so many frames to it.
    #[arg(long, value_name = "FRAMES")]
    mqtt: Option<u64>,
    /// The size of the frames that the load publishes.
    #[arg(long, default_value_t = 64)]
    bytes: usize,
}

#[derive(Debug, Serialize)]
struct Report {
    classes: BTreeMap<String, Seen>,
    published: [u64; STREAMS],
    /// Until all members that read at full pace had everything.
    wall_s: f64,
    /// Of the server until then, with what the kernel's threads did for its cores.
    server_cpu_s: f64,
    server_softirq_cpu_s: f64,
    load_cpu_s: f64,
    deliveries: u64,
    server_cpu_ns_per_delivery: f64,
    /// The load gave up, because nothing came any more.
    gave_up: bool,
    /// What the kernel held for one member that reads slowly: at the server's side, and at its own.
    slow_sent_bytes: Held,
    slow_received_bytes: Held,
    /// How fast these read, on average.
    slow_bytes_per_s: f64,
}

pub(crate) fn run(arguments: &Arguments) -> Result<bool, Failure> {
    raise_descriptors()?;
    let mut load = Load::new(arguments)?;
    load.connect()?;
    let report = load.hear()?;
    println!("{}", serde_json::to_string(&report)?);
    Ok(!report.gave_up)
}

fn raise_descriptors() -> Result<(), Failure> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit })?;
    Ok(())
}

/// What was seen of a queue.
#[derive(Debug, Default, Clone, Copy, Serialize)]
struct Held {
    mean: u64,
    max: u64,
    #[serde(skip)]
    looks: u64,
    #[serde(skip)]
    sum: u64,
}

impl Held {
    fn see(&mut self, bytes: u64) {
        self.looks += 1;
        self.sum += bytes;
        self.mean = self.sum / self.looks;
        self.max = self.max.max(bytes);
    }
}

/// What the load has come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    /// The server publishes, or the members at full pace do not have everything.
    Flood,
    /// Those that read slowly read what is left.
    Rest,
    /// Everyone does.
    End,
}

struct Load<'a> {
    arguments: &'a Arguments,
    wire: Wire,
    /// The load itself is the last.
    members: Vec<Member>,
    tallies: Vec<Tally>,
    /// Those that read slowly, and those that never do.
    slow: Vec<usize>,
    deaf: Vec<usize>,
    epoll: OwnedFd,
    buffer: Vec<u8>,
    phase: Phase,
    published: Option<[u64; STREAMS]>,
    publisher: Option<Publisher>,
    /// Of those that read slowly: what was sent and not acknowledged, and what was received and not read.
    slow_kernel: [Held; 2],
    began: Instant,
}

impl<'a> Load<'a> {
    fn new(arguments: &'a Arguments) -> Result<Load<'a>, Failure> {
        Ok(Load {
            arguments,
            wire: if arguments.mqtt.is_some() { Wire::Mqtt } else { Wire::Length },
            members: Vec::new(),
            tallies: (0..=arguments.members.len())
                .map(|_| Tally::new())
                .collect::<Result<_, _>>()?,
            slow: Vec::new(),
            deaf: Vec::new(),
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
            buffer: vec![0; BUFFER_BYTES],
            phase: Phase::Flood,
            published: None,
            publisher: None,
            slow_kernel: [Held::default(); 2],
            began: Instant::now(),
        })
    }

    /// Connects all members in waves, and makes each one.
    fn connect(&mut self) -> Result<(), Failure> {
        let arguments = self.arguments;
        let all = arguments.members.iter().enumerate();
        let all: Vec<_> = all
            .flat_map(|(index, class)| std::iter::repeat_n((index, class), class.count))
            .collect();
        for wave in all.chunks(WAVE) {
            let first = self.members.len();
            for (index, class) in wave {
                let number = self.members.len() as u32;
                let hello = Hello { number, group: class.group, policy: class.policy };
                let mut stream = self.stream(class.pace)?;
                stream.write_all(&self.greeting(hello))?;
                self.members.push(Member::new(stream, *index));
            }
            for number in first..self.members.len() {
                let answer = self.answer(number as u32);
                let member = &mut self.members[number];
                expect(&mut member.stream, &answer)?;
                if self.wire == Wire::Mqtt {
                    member.stream.write_all(&mqtt::SUBSCRIBE)?;
                    expect(&mut member.stream, &mqtt::SUBACK)?;
                }
                member.stream.set_nonblocking(true)?;
                match arguments.members[member.class].pace {
                    Pace::Full => self.watch(number, epoll::EventFlags::IN)?,
                    Pace::Tenth | Pace::Rate(_) => self.slow.push(number),
                    Pace::Never => self.deaf.push(number),
                }
            }
        }
        self.connect_control()
    }

    /// The session that is no member: it says when to begin, or publishes.
    fn connect_control(&mut self) -> Result<(), Failure> {
        let mut stream = self.stream(Pace::Full)?;
        let hello = Hello { number: CONTROL, group: 0, policy: Policy::Close };
        stream.write_all(&self.greeting(hello))?;
        expect(&mut stream, &self.answer(CONTROL))?;
        stream.set_nonblocking(true)?;
        let number = self.members.len();
        self.members.push(Member::new(stream, self.arguments.members.len()));
        let what = match self.wire {
            Wire::Mqtt => epoll::EventFlags::IN | epoll::EventFlags::OUT,
            Wire::Length => epoll::EventFlags::IN,
        };
        self.watch(number, what)
    }

    fn stream(&self, pace: Pace) -> Result<TcpStream, Failure> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        if let Some(bytes) = self.arguments.receive_bytes
            && pace != Pace::Full
        {
            socket.set_recv_buffer_size(bytes)?;
        }
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.connect(&self.arguments.target.into())?;
        socket.set_tcp_nodelay(true)?;
        Ok(socket.into())
    }

    fn greeting(&self, hello: Hello) -> Vec<u8> {
        match self.wire {
            Wire::Mqtt => mqtt::connect(hello.number),
            Wire::Length => with_length(&hello.bytes()),
        }
    }

    fn answer(&self, number: u32) -> Vec<u8> {
        let class = self.members.get(number as usize).map(|it| &self.arguments.members[it.class]);
        let (group, policy) = class.map_or((0, Policy::Close), |class| (class.group, class.policy));
        match self.wire {
            Wire::Mqtt => mqtt::CONNACK.to_vec(),
            Wire::Length => with_length(&Hello { number, group, policy }.bytes()),
        }
    }

    fn watch(&self, number: usize, what: epoll::EventFlags) -> Result<(), Failure> {
        let data = epoll::EventData::new_u64(number as u64);
        Ok(epoll::add(&self.epoll, &self.members[number].stream, data, what)?)
    }

    /// Lets the server begin, hears until every stream has ended, and says what has come.
    fn hear(&mut self) -> Result<Report, Failure> {
        let softirq = Softirq::of(self.arguments.server, Some(std::process::id()))?;
        let times = |server: u32| -> Result<[f64; 3], Failure> {
            Ok([cpu_secs(server)?, softirq.cpu_secs()?, own_cpu_secs()?])
        };
        self.began = Instant::now();
        let (began, before) = (self.began, times(self.arguments.server)?);
        self.begin()?;
        let mut flooded = None;
        let mut slow_bytes_per_s = 0.0;
        let gave_up = self.until(|load| {
            if flooded.is_none() && load.phase > Phase::Flood {
                flooded = Some((began.elapsed(), times(load.arguments.server)));
                let read = load.slow.iter().map(|number| load.members[*number].read_bytes);
                slow_bytes_per_s = read.sum::<u64>() as f64
                    / load.slow.len().max(1) as f64
                    / began.elapsed().as_secs_f64();
            }
            load.is_over()
        })?;
        let (wall, after) = flooded.unwrap_or((began.elapsed(), Ok(before)));
        let after = after?;
        let used = [0, 1, 2].map(|index| after[index] - before[index]);
        let deliveries = self.tallies.iter().map(|tally| tally.frames).sum::<u64>();
        let published = self.published.unwrap_or_default();
        Ok(Report {
            classes: self.seen(published),
            published,
            wall_s: wall.as_secs_f64(),
            server_cpu_s: used[0],
            server_softirq_cpu_s: used[1],
            load_cpu_s: used[2],
            deliveries,
            server_cpu_ns_per_delivery: 1e9 * (used[0] + used[1]) / deliveries.max(1) as f64,
            gave_up,
            slow_sent_bytes: self.slow_kernel[0],
            slow_received_bytes: self.slow_kernel[1],
            slow_bytes_per_s,
        })
    }

    fn begin(&mut self) -> Result<(), Failure> {
        match self.arguments.mqtt {
            Some(frames) => {
                let bytes = self.arguments.bytes.max(Head::BYTES);
                self.publisher = Some(Publisher { frames, bytes, said: 0, waiting: vec![], at: 0 });
                self.published = Some([frames, 0, 0]);
            }
            None => self.say_go_on()?,
        }
        Ok(())
    }

    fn say_go_on(&mut self) -> Result<(), Failure> {
        let control = self.members.last_mut().ok_or("no control session")?;
        Ok(control.stream.write_all(&with_length(&Control::GoOn.bytes()))?)
    }

    /// Turns until it is over. True: it gave up.
    fn until(&mut self, mut is_over: impl FnMut(&Load<'a>) -> bool) -> Result<bool, Failure> {
        let mut events = Vec::with_capacity(1_024);
        let (mut came_at, mut slow_at, mut looked_at) =
            (Instant::now(), Instant::now(), Instant::now());
        while !is_over(self) {
            events.clear();
            let patience = Timespec { tv_sec: 0, tv_nsec: SLOW_EVERY.as_nanos() as i64 };
            match epoll::wait(
                &self.epoll,
                rustix::buffer::spare_capacity(&mut events),
                Some(&patience),
            ) {
                Ok(_) => {}
                Err(rustix::io::Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
            }
            let mut came = !events.is_empty();
            for event in &events {
                let (number, flags) = (event.data.u64() as usize, event.flags);
                if flags.contains(epoll::EventFlags::OUT) {
                    self.publish(number)?;
                }
                if flags != epoll::EventFlags::OUT {
                    self.read(number, usize::MAX);
                }
            }
            if slow_at.elapsed() >= SLOW_EVERY {
                slow_at = Instant::now();
                came |= self.read_slowly();
                came |= self.go_on()?;
            }
            if self.phase == Phase::Flood && looked_at.elapsed() >= LOOK_EVERY {
                looked_at = Instant::now();
                self.look_into_the_kernel()?;
            }
            if came {
                came_at = Instant::now();
            } else if came_at.elapsed() > PATIENCE {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn read(&mut self, number: usize, at_most: usize) -> Came {
        let member = &mut self.members[number];
        let rules = self.arguments.members.get(member.class);
        let tally = &mut self.tallies[member.class];
        let came = member.read(self.wire, at_most, &mut self.buffer, rules, tally);
        if came == Came::Over {
            // It fails for one that is not watched.
            let _ = epoll::delete(&self.epoll, &member.stream);
        }
        came
    }

    /// Those that read slowly read what they may by now; at last, all that there is. True: something came.
    fn read_slowly(&mut self) -> bool {
        let mut some_came = false;
        for index in 0..self.slow.len() {
            let number = self.slow[index];
            let member = &self.members[number];
            if member.state != State::Open {
                continue;
            }
            let at_most = match self.phase {
                Phase::Flood => self.pace_of(member).saturating_sub(member.read_bytes),
                _ => BUFFER_BYTES as u64,
            };
            if at_most > 0 {
                some_came |= !matches!(self.read(number, at_most as usize), Came::Nothing);
            }
        }
        if self.phase == Phase::End {
            for index in 0..self.deaf.len() {
                let number = self.deaf[index];
                if self.members[number].state == State::Open {
                    some_came |= !matches!(self.read(number, usize::MAX), Came::Nothing);
                }
            }
        }
        some_came
    }

    /// How many bytes a member may have read by now that reads slowly. A tenth is that of the first member of the same
    /// group that reads at full pace and is open.
    fn pace_of(&self, member: &Member) -> u64 {
        let classes = &self.arguments.members;
        let Class { group, pace, .. } = classes[member.class];
        if let Pace::Rate(bytes) = pace {
            return (self.began.elapsed().as_secs_f64() * bytes as f64) as u64;
        }
        let is_pace = |other: &&Member| {
            let class = classes.get(other.class);
            class.is_some_and(|class| class.group == group && class.pace == Pace::Full)
                && other.state == State::Open
        };
        self.members.iter().find(is_pace).map_or(0, |other| other.read_bytes / 10)
    }

    /// Goes on to the next phase if it is time. True: it is.
    fn go_on(&mut self) -> Result<bool, Failure> {
        let control = self.members.last().map_or(&[][..], |control| &control.control);
        for said in control {
            if let Control::Published(frames) = said {
                self.published = Some(*frames);
            }
        }
        let is_idle = control.contains(&Control::Idle) || self.publisher.is_some();
        let next = match self.phase {
            Phase::Flood if self.have_everything() => Phase::Rest,
            Phase::Rest if is_idle => Phase::End,
            _ => return Ok(false),
        };
        self.phase = next;
        if next == Phase::End && self.wire == Wire::Length {
            self.say_go_on()?;
        }
        if next == Phase::End && self.wire == Wire::Mqtt {
            // A broker ends no session by itself.
            for member in &self.members {
                let _ = member.stream.shutdown(std::net::Shutdown::Write);
            }
        }
        Ok(true)
    }

    /// Whether each member that reads at full pace has all of its group's frames, or has ended.
    fn have_everything(&self) -> bool {
        let Some(published) = self.published else { return false };
        self.members.iter().all(|member| {
            let Some(class) = self.arguments.members.get(member.class) else { return true };
            let stream = usize::from(class.group).min(STREAMS - 1);
            class.pace != Pace::Full
                || member.state != State::Open
                || member.wrong.is_some()
                || member.heard[stream].next >= published[stream]
        })
    }

    fn is_over(&self) -> bool {
        self.phase == Phase::End && self.members.iter().all(|member| member.state != State::Open)
    }

    fn publish(&mut self, number: usize) -> Result<(), Failure> {
        let Some(publisher) = &mut self.publisher else { return Ok(()) };
        if publisher.write(&mut self.members[number].stream)? {
            let data = epoll::EventData::new_u64(number as u64);
            let stream = &self.members[number].stream;
            epoll::modify(&self.epoll, stream, data, epoll::EventFlags::IN)?;
        }
        Ok(())
    }

    /// How much lies in the kernel for those that read slowly, by /proc/net/tcp, which has both ends of each. What has
    /// come and is not acknowledged yet counts twice.
    fn look_into_the_kernel(&mut self) -> Result<(), Failure> {
        if self.slow.is_empty() {
            return Ok(());
        }
        let mut lying = HashMap::new();
        for number in &self.slow {
            lying.insert(self.members[*number].stream.local_addr()?.port(), (*number, [0; 2]));
        }
        let (now, target) = (now_ns(), self.arguments.target.port());
        for line in fs::read_to_string("/proc/net/tcp")?.lines().skip(1) {
            let fields: Vec<_> = line.split_whitespace().take(5).collect();
            let [_, local, remote, _, queues] = fields[..] else { continue };
            let port = |text: &str| u16::from_str_radix(text.rsplit(':').next()?, 16).ok();
            let (Some(local), Some(remote)) = (port(local), port(remote)) else { continue };
            let (sent, received) = queues.split_once(':').unwrap_or_default();
            let (member, end, bytes) = match (local == target, remote == target) {
                (true, _) => (remote, 0, sent),
                (_, true) => (local, 1, received),
                _ => continue,
            };
            if let Some((_, lie)) = lying.get_mut(&member) {
                lie[end] = u64::from_str_radix(bytes, 16)?;
            }
        }
        for (number, lie) in lying.into_values() {
            self.members[number].mark(now, lie[0] + lie[1]);
            for (held, bytes) in self.slow_kernel.iter_mut().zip(lie) {
                held.see(bytes);
            }
        }
        Ok(())
    }

    fn seen(&self, published: [u64; STREAMS]) -> BTreeMap<String, Seen> {
        let mut first = 0;
        let mut classes = BTreeMap::new();
        for (class, tally) in self.arguments.members.iter().zip(&self.tallies) {
            let members = &self.members[first..first + class.count];
            let seen = Seen::of(class, first, members, tally, published, self.arguments.keys);
            classes.insert(class.name.clone(), seen);
            first += class.count;
        }
        classes
    }
}

fn with_length(frame: &[u8]) -> Vec<u8> {
    [&(frame.len() as u32).to_be_bytes(), frame].concat()
}

fn expect(stream: &mut TcpStream, bytes: &[u8]) -> Result<(), Failure> {
    let mut came = vec![0; bytes.len()];
    stream.read_exact(&mut came)?;
    if came == bytes { Ok(()) } else { Err(format!("{came:?} came, and not {bytes:?}").into()) }
}

/// Publishes to a broker, as fast as it takes it.
struct Publisher {
    frames: u64,
    bytes: usize,
    said: u64,
    waiting: Vec<u8>,
    /// So many of the waiting bytes have left.
    at: usize,
}

impl Publisher {
    /// Writes until the socket takes no more. True: all has left.
    fn write(&mut self, stream: &mut TcpStream) -> Result<bool, Failure> {
        loop {
            if self.at == self.waiting.len() {
                if self.said == self.frames {
                    return Ok(true);
                }
                self.fill();
            }
            match stream.write(&self.waiting[self.at..]) {
                Ok(count) => self.at += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn fill(&mut self) {
        self.waiting.clear();
        self.at = 0;
        while self.waiting.len() < PUBLISHER_BYTES && self.said < self.frames {
            let payload = mqtt::append_publish(self.bytes, &mut self.waiting);
            let head = Head { stream: FLOOD, key: 0, sequence: self.said, at_ns: now_ns() };
            head.write(&mut self.waiting[payload]);
            self.said += 1;
        }
    }
}
