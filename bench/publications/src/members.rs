//! The members: what each has heard, and whether that is what it should have.

use std::collections::VecDeque;
use std::io::{self, Read};
use std::net::TcpStream;
use std::str::FromStr;

use clap::ValueEnum;
use hdrhistogram::Histogram;
use protocol::now_ns;
use serde::Serialize;

use crate::Failure;
use crate::frame::{Control, DIRECT, Head, Hello, Policy, STREAMS};
use crate::mqtt;

/// How a member reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pace {
    /// As soon as something has come.
    Full,
    /// A tenth of what the others of its group read.
    Tenth,
    /// So many bytes a second.
    Rate(u64),
    /// Not before the server is done.
    Never,
}

impl FromStr for Pace {
    type Err = String;

    fn from_str(text: &str) -> Result<Pace, String> {
        match text {
            "full" => Ok(Pace::Full),
            "tenth" => Ok(Pace::Tenth),
            "never" => Ok(Pace::Never),
            _ => text.parse().map(Pace::Rate).map_err(|_| format!("{text} is no pace")),
        }
    }
}

/// Members that are alike: `NAME:COUNT:POLICY:PACE:GROUP`.
#[derive(Debug, Clone)]
pub(crate) struct Class {
    pub(crate) name: String,
    pub(crate) count: usize,
    pub(crate) policy: Policy,
    pub(crate) pace: Pace,
    pub(crate) group: u8,
}

impl FromStr for Class {
    type Err = String;

    fn from_str(text: &str) -> Result<Class, String> {
        let parts: Vec<_> = text.split(':').collect();
        let [name, count, policy, pace, group] = parts[..] else {
            return Err("it must be NAME:COUNT:POLICY:PACE:GROUP".into());
        };
        let number = |what: std::num::ParseIntError| what.to_string();
        Ok(Class {
            name: name.into(),
            count: count.parse().map_err(number)?,
            policy: Policy::from_str(policy, true)?,
            pace: pace.parse()?,
            group: group.parse().map_err(number)?,
        })
    }
}

/// How frames lie in a stream of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wire {
    /// Four bytes of length, big endian.
    Length,
    Mqtt,
}

impl Wire {
    /// Where the frame at the beginning lies; `None`: it is not whole.
    fn payload(self, bytes: &[u8]) -> Result<Option<std::ops::Range<usize>>, Failure> {
        const BYTES_MAX: usize = 64 * 1024;
        match (self, bytes.first_chunk::<4>()) {
            (Wire::Mqtt, _) => mqtt::payload(bytes),
            (Wire::Length, None) => Ok(None),
            (Wire::Length, Some(length)) => match u32::from_be_bytes(*length) as usize {
                length if length > BYTES_MAX => Err(format!("a frame of {length} bytes").into()),
                length => Ok((4 + length <= bytes.len()).then_some(4..4 + length)),
            },
        }
    }
}

/// What a member has heard of one stream.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Heard {
    /// The sequence that comes next, if none is missed.
    pub(crate) next: u64,
    pub(crate) frames: u64,
}

/// How far a session is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    Open,
    /// The server has ended its stream.
    Ended,
    /// It was reset.
    Reset,
}

pub(crate) struct Member {
    pub(crate) stream: TcpStream,
    pub(crate) class: usize,
    pub(crate) heard: [Heard; STREAMS],
    pub(crate) state: State,
    pub(crate) read_bytes: u64,
    /// What is wrong with what has come.
    pub(crate) wrong: Option<String>,
    /// What the server has said to the load.
    pub(crate) control: Vec<Control>,
    /// Of each key, the last sequence.
    pub(crate) last_of_key: Vec<u64>,
    /// The beginning of a frame.
    tail: Vec<u8>,
    /// Bytes of whole frames.
    taken_bytes: u64,
    /// The last byte that the kernel had taken for it at these times.
    taken: VecDeque<(u64, u64)>,
}

/// What all members of a class have heard together.
pub(crate) struct Tally {
    pub(crate) frames: u64,
    /// From when it was published until it was read, in microseconds, of the stream of the class's own group.
    pub(crate) latency_us: Histogram<u64>,
    /// The same until it was seen that the kernel had taken it, of members that read slowly.
    pub(crate) taken_us: Histogram<u64>,
}

impl Tally {
    pub(crate) fn new() -> Result<Tally, Failure> {
        // Up to 1,000 s, to a thousandth.
        let histogram = || Histogram::new_with_max(1_000_000_000, 3);
        Ok(Tally { frames: 0, latency_us: histogram()?, taken_us: histogram()? })
    }
}

/// A read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Came {
    Bytes(usize),
    /// There is nothing now.
    Nothing,
    Over,
}

impl Member {
    pub(crate) fn new(stream: TcpStream, class: usize) -> Member {
        Member {
            stream,
            class,
            heard: [Heard::default(); STREAMS],
            state: State::Open,
            read_bytes: 0,
            wrong: None,
            control: Vec::new(),
            last_of_key: Vec::new(),
            tail: Vec::new(),
            taken_bytes: 0,
            taken: VecDeque::new(),
        }
    }

    /// So many bytes lie in the kernel for it now.
    pub(crate) fn mark(&mut self, now_ns: u64, bytes: u64) {
        let taken = self.read_bytes + bytes;
        self.taken.push_back((taken, now_ns));
    }

    /// Reads once, at most so many bytes, and checks what has come. `buffer` is for all members in turn.
    pub(crate) fn read(
        &mut self,
        wire: Wire,
        at_most: usize,
        buffer: &mut [u8],
        rules: Option<&Class>,
        tally: &mut Tally,
    ) -> Came {
        let begin = self.tail.len();
        buffer[..begin].copy_from_slice(&self.tail);
        let end = buffer.len().min(begin.saturating_add(at_most));
        let count = match self.stream.read(&mut buffer[begin..end]) {
            Ok(0) => {
                self.state = State::Ended;
                // One that is cut because it never reads may end anywhere.
                let may_be_cut = rules.is_some_and(|class| class.pace == Pace::Never);
                if begin > 0 && !may_be_cut && self.wrong.is_none() {
                    self.wrong = Some(format!("its stream ended {begin} bytes into a frame"));
                }
                return Came::Over;
            }
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Came::Nothing,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Came::Bytes(0),
            Err(_) => {
                self.state = State::Reset;
                return Came::Over;
            }
        };
        self.read_bytes += count as u64;
        let rest = match self.take(wire, &buffer[..begin + count], rules, tally) {
            Ok(taken) => &buffer[taken..begin + count],
            Err(what) => {
                self.wrong.get_or_insert(what.to_string());
                &[]
            }
        };
        self.tail.clear();
        self.tail.extend_from_slice(rest);
        Came::Bytes(count)
    }

    /// Takes whole frames, and returns how many bytes they have.
    fn take(
        &mut self,
        wire: Wire,
        bytes: &[u8],
        rules: Option<&Class>,
        tally: &mut Tally,
    ) -> Result<usize, Failure> {
        let now_ns = now_ns();
        let taken_before = self.taken_bytes;
        let mut at = 0;
        while let Some(payload) = wire.payload(&bytes[at..])? {
            let frame = &bytes[at + payload.start..at + payload.end];
            at += payload.end;
            self.taken_bytes = taken_before + at as u64;
            match rules {
                None => self.control.extend(Control::read(frame)),
                Some(_) if frame.len() == Hello::BYTES => {}
                Some(class) => self.hear(now_ns, frame, class, tally)?,
            }
        }
        Ok(at)
    }

    fn hear(
        &mut self,
        now_ns: u64,
        frame: &[u8],
        class: &Class,
        tally: &mut Tally,
    ) -> Result<(), Failure> {
        let head = Head::read(frame).ok_or("a frame is not as it was published")?;
        let heard = self.heard.get_mut(usize::from(head.stream)).ok_or("a frame of no stream")?;
        let misses_none = class.policy == Policy::Close || head.stream == DIRECT;
        if head.sequence < heard.next || misses_none && head.sequence != heard.next {
            let (stream, next) = (head.stream, heard.next);
            return Err(format!("frame {} of stream {stream}, due {next}", head.sequence).into());
        }
        heard.next = head.sequence + 1;
        heard.frames += 1;
        tally.frames += 1;
        while self.taken.pop_front_if(|(end, _)| *end < self.taken_bytes).is_some() {}
        if let Some((_, at_ns)) = self.taken.front() {
            tally.taken_us.saturating_record(at_ns.saturating_sub(head.at_ns) / 1_000);
        }
        if head.stream == class.group {
            tally.latency_us.saturating_record(now_ns.saturating_sub(head.at_ns) / 1_000);
        }
        if class.policy == Policy::Latest {
            let key = head.key as usize;
            if self.last_of_key.len() <= key {
                self.last_of_key.resize(key + 1, 0);
            }
            self.last_of_key[key] = head.sequence;
        }
        Ok(())
    }
}

/// What a class has seen, for the report.
#[derive(Debug, Serialize)]
pub(crate) struct Seen {
    /// Its members have the numbers from here on.
    first: usize,
    sessions: usize,
    /// Frames of all members together.
    frames: u64,
    /// Members that have every frame of their group's stream.
    complete: usize,
    /// Members that have the last frame of each key.
    up_to_date: usize,
    /// Members whose stream the server has ended, before it was done or after.
    ended: usize,
    reset: usize,
    /// Members to which something wrong has come, and what one of them says.
    wrong: usize,
    first_wrong: Option<String>,
    latency_us: Latency,
    /// How old frames were when the kernel took them.
    taken_us: Latency,
    /// Frames of the group's stream that each member has heard, if not all have heard all.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    heard: Vec<u64>,
}

#[derive(Debug, Serialize)]
struct Latency {
    p50: u64,
    p99: u64,
    max: u64,
}

impl Latency {
    fn of(histogram: &Histogram<u64>) -> Latency {
        Latency {
            p50: histogram.value_at_quantile(0.5),
            p99: histogram.value_at_quantile(0.99),
            max: histogram.max(),
        }
    }
}

impl Seen {
    pub(crate) fn of(
        class: &Class,
        first: usize,
        members: &[Member],
        tally: &Tally,
        published: [u64; STREAMS],
        keys: u32,
    ) -> Seen {
        let stream = usize::from(class.group).min(STREAMS - 1);
        let count = |is: &dyn Fn(&Member) -> bool| members.iter().filter(|it| is(it)).count();
        let heard = |member: &Member| member.heard[stream].frames;
        let complete = count(&|member| heard(member) == published[stream]);
        Seen {
            first,
            sessions: members.len(),
            frames: tally.frames,
            complete,
            up_to_date: count(&|member| is_up_to_date(member, published[stream], keys)),
            ended: count(&|member| member.state == State::Ended),
            reset: count(&|member| member.state == State::Reset),
            wrong: count(&|member| member.wrong.is_some()),
            first_wrong: members.iter().find_map(|member| member.wrong.clone()),
            latency_us: Latency::of(&tally.latency_us),
            taken_us: Latency::of(&tally.taken_us),
            heard: if complete < members.len() {
                members.iter().map(heard).collect()
            } else {
                vec![]
            },
        }
    }
}

/// Keys come one after the other, so the last frame of each is among the last of all.
fn is_up_to_date(member: &Member, published: u64, keys: u32) -> bool {
    let last = |key: u64| published - 1 - (published - 1 - key) % u64::from(keys);
    (0..u64::from(keys).min(published))
        .all(|key| member.last_of_key.get(key as usize) == Some(&last(key)))
}
