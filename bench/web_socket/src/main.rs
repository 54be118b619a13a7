//! What the codec of WebSocket takes, without sessions: see `../web_socket.sh`, which builds it.
//!
//! In each round every item is timed once, in random order: as many times in a row as take a millisecond or more. Beside each
//! stands what a plain loop takes for the same. Frames are in a buffer of 16 KiB, as wharf lends it. Unmasking changes
//! only payloads, and twice is as before, so a buffer serves again and again.
#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::hint::black_box;
use std::process::ExitCode;

use rustix::thread::{CpuSet, sched_setaffinity};
use rustix::time::{ClockId, clock_gettime};
use wharf::fuzzing::{Cuts, answers, masks, reads};

const ROUNDS: usize = 41;
const BURST_NS: u64 = 1_000_000;
const LENT_BYTES: usize = 16 << 10;
const KEY: [u8; 4] = [1, 2, 4, 8];

const BROWSERS: &str = "GET /chat?room=1 HTTP/1.1\r\nHost: server.example.com\r\nConnection: Upgrade\r\n\
    Pragma: no-cache\r\nCache-Control: no-cache\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64) \
    AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36\r\nUpgrade: websocket\r\n\
    Origin: https://server.example.com\r\nSec-WebSocket-Version: 13\r\n\
    Accept-Encoding: gzip, deflate, br, zstd\r\nAccept-Language: en-US,en;q=0.9\r\n\
    Cookie: session=0123456789abcdef0123456789abcdef\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
    Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n\r\n";

/// What is timed.
struct Item {
    name: &'static str,
    /// Does it so many times.
    run: Box<dyn FnMut(u32)>,
    /// What one run of it is of.
    units: f64,
    asked: Option<Asked>,
    found: Vec<f64>,
}

#[derive(Clone, Copy)]
enum Asked {
    NanosMax(f64),
    /// Of 16 KiB.
    GigabytesMin(f64),
}

fn main() -> ExitCode {
    let mut core = CpuSet::new();
    core.set(1);
    if let Err(error) = sched_setaffinity(None, &core) {
        eprintln!("error: core 1: {error}");
        return ExitCode::from(2);
    }
    let mut items = items();
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let times: Vec<u32> = items.iter_mut().map(times_of_burst).collect();
    for _ in 0..ROUNDS {
        let mut order: Vec<usize> = (0..items.len()).collect();
        for last in (1..order.len()).rev() {
            order.swap(last, random.below(last + 1));
        }
        for at in order {
            let took_ns = items[at].took_ns(times[at]);
            let each = took_ns as f64 / f64::from(times[at]) / items[at].units;
            items[at].found.push(each);
        }
    }
    let is_met: Vec<bool> = items.iter_mut().map(Item::report).collect();
    ExitCode::from(u8::from(is_met.contains(&false)))
}

fn item(
    name: &'static str,
    units: usize,
    asked: Option<Asked>,
    run: impl FnMut() + 'static,
) -> Item {
    let mut once = run;
    let run = Box::new(move |times| (0..times).for_each(|_| once()));
    Item { name, run, units: units as f64, asked, found: Vec::new() }
}

fn items() -> Vec<Item> {
    let mut items = Vec::new();
    for (opcode, name) in [(2, "64 B, cut and unmasked"), (1, "64 B of text, cut, unmasked, UTF-8")]
    {
        let (mut frames, count) = frames(opcode);
        let mut cuts = Cuts::default();
        let hear = |message: &[u8]| _ = black_box(message);
        let asked = Some(Asked::NanosMax(25.0)).filter(|_| opcode == 2);
        items.push(item(name, count, asked, move || cuts.messages(&mut frames, hear)));
    }
    let (mut frames, count) = frames(2);
    items.push(item("  the same, plainly", count, None, move || plain_messages(&mut frames)));

    let mut bytes = vec![7; LENT_BYTES];
    let asked = Some(Asked::GigabytesMin(10.0));
    items.push(item("16 KiB, unmasked", 1, asked, move || masks(black_box(&mut bytes), KEY)));
    let mut bytes = vec![7; LENT_BYTES];
    items.push(item("  the same, plainly", 1, None, move || plain_masks(black_box(&mut bytes))));

    let head = BROWSERS.as_bytes();
    let asked = Some(Asked::NanosMax(2_000.0));
    items.push(item("head of a browser's, read", 1, asked, move || {
        _ = black_box(reads(black_box(head)))
    }));
    items.push(item("head of a browser's, read and answered", 1, None, move || {
        black_box(answers(black_box(head)));
    }));
    items
        .push(item("  read, plainly", 1, None, move || _ = black_box(plain_head(black_box(head)))));
    items
}

/// As many frames of a client as there is room for, and how many.
fn frames(opcode: u8) -> (Vec<u8>, usize) {
    let mut frame = vec![0x80 | opcode, 0x80 | 64];
    frame.extend(KEY);
    frame.extend([b'a'; 64]);
    let count = LENT_BYTES / frame.len();
    (frame.repeat(count), count)
}

/// A byte at a time, each message into memory of its own.
fn plain_messages(mut frames: &mut [u8]) {
    while let [first, second, a, b, c, d, rest @ ..] = frames {
        assert!(*first == 0x82 && *second == 0x80 | 64);
        let key = [*a, *b, *c, *d];
        let (payload, rest) = rest.split_at_mut(64);
        let mut message = Vec::new();
        for (at, byte) in payload.iter_mut().enumerate() {
            *byte ^= key[at % 4];
            message.push(*byte);
        }
        black_box(&message[..]);
        frames = rest;
    }
}

fn plain_masks(bytes: &mut [u8]) {
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = black_box(*byte ^ KEY[at % 4]); // or the compiler takes many at once
    }
}

fn plain_head(head: &[u8]) -> HashMap<String, String> {
    let text = String::from_utf8_lossy(head);
    let pairs = text.split("\r\n").skip(1).filter_map(|line| line.split_once(':'));
    pairs.map(|(name, value)| (name.to_lowercase(), value.trim().to_owned())).collect()
}

fn times_of_burst(item: &mut Item) -> u32 {
    let mut times = 1;
    while item.took_ns(times) < BURST_NS {
        times *= 2;
    }
    times
}

impl Item {
    fn took_ns(&mut self, times: u32) -> u64 {
        let before = own_cpu_ns();
        (self.run)(times);
        own_cpu_ns() - before
    }

    /// Says what was found, and whether it is as asked.
    fn report(&mut self) -> bool {
        self.found.sort_by(f64::total_cmp);
        let [quartile_1, median, quartile_3] = [1, 2, 3].map(|nth| self.found[nth * ROUNDS / 4]);
        let rate = LENT_BYTES as f64 / median;
        let (is_met, asked) = match self.asked {
            None => (true, String::new()),
            Some(Asked::NanosMax(most)) => (median <= most, format!("asked: {most:.0} ns")),
            Some(Asked::GigabytesMin(least)) => {
                (rate >= least, format!("{rate:.1} GB/s; asked: {least:.0} GB/s"))
            }
        };
        let word = if self.asked.is_none() {
            ""
        } else if is_met {
            "ok"
        } else {
            "FAILED"
        };
        let name = self.name;
        println!(
            "{word:<7} {name:<40} {median:>8.1} ns ({quartile_1:.1} to {quartile_3:.1})  {asked}"
        );
        is_met
    }
}

fn own_cpu_ns() -> u64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// xorshift64.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % bound as u64) as usize
    }
}
