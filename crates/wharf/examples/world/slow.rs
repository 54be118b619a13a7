//! Players who read a tenth of the positions, and no more than they use: the standard library's sockets, without a
//! queue of their own. So what is old when they read it waited in the kernel, or in the world's server.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::{Duration, Instant};

use crate::bots::{Seen, Wanted};
use crate::protocol::{ALIVE, LOGIN, POSITIONS, WELCOME, frame, number};
use crate::world::PERIOD;

/// Each reads one frame of positions, and what is before it, in so long.
const READS_EVERY: Duration = PERIOD.saturating_mul(10);
/// Each says in so many of those that it is alive: about 5 s.
const ALIVE_EVERY: u64 = 15;
/// The kernel is asked once in so many of those.
const LOOKS_EVERY: u64 = 3;
/// The kernel makes it twice as many, and tells its peer of room when half is free: so what is sent is taken in heaps of
/// so many bytes. With much less it drops what comes in small segments, and waits longer and longer to send it again.
const RECEIVE_BYTES: usize = 16 * 1024;
const FRAME_BYTES_MAX: usize = 1 << 20;

/// What one has read after the first third of the time, in which its socket fills.
#[derive(Default)]
struct HasRead {
    /// Of each frame, in ticks.
    ages: Vec<u32>,
    bytes: u64,
    /// From when it read the first until it read the last.
    ticks: u32,
    began: Option<u32>,
    /// What the kernel held of its session, at both ends, at each look.
    held: Vec<u32>,
}

pub(crate) struct Report {
    reads: Vec<HasRead>,
}

impl Report {
    /// What the kernel holds is read in so many ticks: so much of an age is the socket's own. What is left is the
    /// server's: of each session, its p99 less what the most takes that was held, and its mean less the mean.
    pub(crate) fn json(&self, quantile: impl Fn(&[u32], f64) -> u32) -> String {
        let mean = |values: &[u32]| {
            values.iter().map(|value| f64::from(*value)).sum::<f64>() / values.len().max(1) as f64
        };
        let (mut left_p99, mut left_mean, mut heap) = (Vec::new(), Vec::new(), Vec::new());
        for read in self.reads.iter().filter(|read| read.ticks > 0 && !read.held.is_empty()) {
            let ticks = |held: f64| held * f64::from(read.ticks) / read.bytes as f64;
            left_p99.push(
                f64::from(quantile(&read.ages, 0.99)) - ticks(quantile(&read.held, 1.0).into()),
            );
            heap.push(ticks(RECEIVE_BYTES as f64));
            left_mean.push(mean(&read.ages) - ticks(mean(&read.held)));
        }
        let ages: Vec<u32> = self.reads.iter().flat_map(|read| read.ages.clone()).collect();
        let held: Vec<u32> = self.reads.iter().flat_map(|read| read.held.clone()).collect();
        left_p99.sort_by(f64::total_cmp);
        left_mean.sort_by(f64::total_cmp);
        heap.sort_by(f64::total_cmp);
        let middle_of = |values: &[f64]| values.get(values.len() / 2).copied().unwrap_or(0.0);
        format!(
            "{{\"judged\": {}, \"frames\": {}, \"age_ticks_p50\": {}, \"age_ticks_p99\": {}, \
             \"held_bytes_p50\": {}, \"held_bytes_max\": {}, \"left_ticks_of_p99\": {:.1}, \
             \"left_ticks_of_p99_worst\": {:.1}, \"left_ticks_of_mean\": {:.1}, \"heap_ticks\": {:.1}}}",
            left_p99.len(),
            ages.len(),
            quantile(&ages, 0.5),
            quantile(&ages, 0.99),
            quantile(&held, 0.5),
            quantile(&held, 1.0),
            middle_of(&left_p99),
            left_p99.last().copied().unwrap_or(0.0),
            middle_of(&left_mean),
            middle_of(&heap),
        )
    }
}

struct Slow {
    stream: TcpStream,
    frame: Vec<u8>,
    has_ended: bool,
    read: HasRead,
}

impl Slow {
    fn comes(wanted: &Wanted, account: u32) -> io::Result<Slow> {
        let socket = socket2::Socket::new(
            socket2::Domain::for_address(wanted.address),
            socket2::Type::STREAM,
            None,
        )?;
        socket.set_recv_buffer_size(RECEIVE_BYTES)?;
        socket.connect(&wanted.address.into())?;
        let stream = TcpStream::from(socket);
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        let mut slow =
            Slow { stream, frame: Vec::new(), has_ended: false, read: HasRead::default() };
        slow.says(&frame(LOGIN, format!("player-{account}")))?;
        Ok(slow)
    }

    fn is_welcomed(&mut self) -> io::Result<()> {
        while !matches!(self.reads()?, [WELCOME, ..]) {}
        Ok(())
    }

    fn says(&mut self, said: &[u8]) -> io::Result<()> {
        self.stream.write_all(&[&(said.len() as u32).to_be_bytes(), said].concat())
    }

    /// Exactly the next frame.
    fn reads(&mut self) -> io::Result<&[u8]> {
        let mut length = [0; 4];
        self.stream.read_exact(&mut length)?;
        let length = u32::from_be_bytes(length) as usize;
        if length > FRAME_BYTES_MAX {
            return Err(io::Error::other("a frame is too long"));
        }
        self.frame.resize(length, 0);
        self.stream.read_exact(&mut self.frame)?;
        Ok(&self.frame)
    }

    /// Until the next positions.
    fn reads_on(&mut self, seen: &Seen, counts: bool) -> io::Result<()> {
        let mut bytes = 0;
        loop {
            let said = self.reads()?;
            bytes += 4 + said.len() as u64;
            let [POSITIONS, rest @ ..] = said else { continue };
            let tick = number(rest).unwrap_or(0);
            if !counts {
                return Ok(());
            }
            let (newest, read) = (seen.newest_tick.load(Relaxed), &mut self.read);
            let began = *read.began.get_or_insert(newest);
            read.ticks = newest.saturating_sub(began);
            read.ages.push(newest.saturating_sub(tick));
            read.bytes += bytes;
            return Ok(());
        }
    }
}

/// Until the others end.
pub(crate) fn play(wanted: &Wanted, seen: &Seen) -> io::Result<Report> {
    let comes = |account| Slow::comes(wanted, account);
    let mut all: Vec<Slow> = (0..wanted.slow).map(comes).collect::<io::Result<_>>()?;
    for slow in &mut all {
        slow.is_welcomed()?;
        seen.logged_in.fetch_add(1, Relaxed);
    }
    let (mut round, start): (u64, _) = (0, Instant::now());
    while !seen.is_ending() && !all.is_empty() {
        let round_start = Instant::now();
        let counts = start.elapsed().as_secs() >= wanted.seconds / 3;
        for (place, slow) in (0..wanted.slow).zip(&mut all).filter(|(_, slow)| !slow.has_ended) {
            let due = round_start + READS_EVERY * place / wanted.slow;
            thread::sleep(due.saturating_duration_since(Instant::now()));
            let is_due = (round + u64::from(place)).is_multiple_of(ALIVE_EVERY);
            let alive = if is_due { slow.says(&[ALIVE]) } else { Ok(()) };
            if let Err(error) = alive.and_then(|()| slow.reads_on(seen, counts)) {
                seen.ends(format!("a slow one: {error}"));
                slow.has_ended = true;
            }
        }
        if round.is_multiple_of(LOOKS_EVERY) {
            look_into_the_kernel(wanted, &mut all)?;
        }
        round += 1;
        thread::sleep((round_start + READS_EVERY).saturating_duration_since(Instant::now()));
    }
    let reads = all.into_iter().map(|slow| slow.read).collect();
    Ok(Report { reads })
}

/// What it holds of each, by /proc/net/tcp, which has both ends. (What has come and is not acknowledged yet counts twice.)
fn look_into_the_kernel(wanted: &Wanted, all: &mut [Slow]) -> io::Result<()> {
    let mut of_port = HashMap::new();
    for slow in all.iter().filter(|slow| slow.read.ticks > 0) {
        of_port.insert(slow.stream.local_addr()?.port(), [0; 2]);
    }
    let server = wanted.address.port();
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap_or_default(); // Linux has it
    for line in table.lines().skip(1) {
        let fields: Vec<_> = line.split_whitespace().take(5).collect();
        let [_, local, remote, _, queues] = fields[..] else { continue };
        let port = |text: &str| u16::from_str_radix(text.rsplit(':').next()?, 16).ok();
        let (Some(local), Some(remote)) = (port(local), port(remote)) else { continue };
        let (sent, received) = queues.split_once(':').unwrap_or_default();
        let (of, end, bytes) = match (local == server, remote == server) {
            (true, _) => (remote, 0, sent),
            (_, true) => (local, 1, received),
            _ => continue,
        };
        if let Some(held) = of_port.get_mut(&of) {
            held[end] = u32::from_str_radix(bytes, 16).unwrap_or(0);
        }
    }
    for slow in all {
        let held = of_port.get(&slow.stream.local_addr()?.port());
        slow.read.held.extend(held.map(|[sent, received]| sent + received));
    }
    Ok(())
}
