//! The child: sends in one way, and prints what it cost.

use std::io::Write;
use std::thread;
use std::time::{Duration, Instant};

use instruments::{cpu_time, option};

use crate::ways::{self, MESSAGE_BYTES, Way};

pub const SESSIONS: usize = 50;

/// When the messages come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// As fast as they can be sent.
    Flood,
    /// Ten for each session, every 20 ms.
    Bursts,
    /// One for each session, every 2 ms.
    Ticks,
}

impl Shape {
    pub const ALL: [Shape; 3] = [Shape::Flood, Shape::Bursts, Shape::Ticks];

    pub fn name(self) -> &'static str {
        match self {
            Shape::Flood => "flood",
            Shape::Bursts => "bursts",
            Shape::Ticks => "ticks",
        }
    }
}

pub fn run() {
    let [way, threads, shape, messages] =
        ["way", "threads", "shape", "messages"].map(|name| option(name).expect("an option"));
    let threads: usize = threads.parse().expect("a number");
    let messages: u64 = messages.parse().expect("a number");
    let shape = Shape::ALL.into_iter().find(|known| known.name() == shape).expect("a shape");
    let way = ways::named(&way, SESSIONS, |address| {
        println!("{address}");
        std::io::stdout().flush().expect("the parent");
    });
    let (started, cpu_before) = (Instant::now(), cpu_time());
    thread::scope(|scope| {
        for thread in 0..threads {
            let way = &*way;
            scope.spawn(move || send_share(way, thread, threads, shape, messages));
        }
    });
    let operations = way.finish(messages);
    let (wall, cpu) = (started.elapsed(), cpu_time() - cpu_before);
    println!("{} {} {operations}", cpu.as_nanos(), wall.as_nanos());
}

/// What one thread sends: of a flood its share of the rounds, otherwise all for its share of the
/// sessions.
fn send_share(way: &dyn Way, thread: usize, threads: usize, shape: Shape, messages: u64) {
    let message = [b'm'; MESSAGE_BYTES];
    let rounds = (messages / SESSIONS as u64) as usize;
    let (at_once, period) = match shape {
        Shape::Flood => {
            for _ in (thread..rounds).step_by(threads) {
                (0..SESSIONS).for_each(|session| way.send(session, &message));
            }
            return;
        }
        Shape::Bursts => (10, Duration::from_millis(20)),
        Shape::Ticks => (1, Duration::from_millis(2)),
    };
    let started = Instant::now();
    for tick in 0..rounds / at_once {
        let due = started + period * tick as u32;
        thread::sleep(due.saturating_duration_since(Instant::now()));
        for session in (thread..SESSIONS).step_by(threads) {
            (0..at_once).for_each(|_| way.send(session, &message));
        }
    }
}
