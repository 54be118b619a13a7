//! Players who read a tenth of the positions, and no more than they use: the standard library's sockets, without a
//! queue of their own. So what is old when they read it waited in the kernel, or in the world's server.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::atomic::Ordering::Relaxed;
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
const RECEIVE_BYTES: usize = 4 * 1024;
const FRAME_BYTES_MAX: usize = 1 << 20;

#[derive(Default)]
pub(crate) struct Report {
    pub(crate) logged_in: u32,
    /// In ticks.
    ages: Vec<u32>,
    bytes: u64,
    seconds: f64,
    /// The most that the kernel held of one session, at both ends.
    kernel_bytes_max: u64,
}

impl Report {
    pub(crate) fn json(&self, quantile: impl Fn(&[u32], f64) -> u32) -> String {
        let [p50, p99] = [0.5, 0.99].map(|part| quantile(&self.ages, part));
        let each = self.bytes as f64 / f64::from(self.logged_in.max(1));
        let bytes_per_tick = each / self.seconds.max(1e-9) * PERIOD.as_secs_f64();
        format!(
            "{{\"logged_in\": {}, \"frames\": {}, \"age_ticks_p50\": {p50}, \"age_ticks_p99\": {p99}, \
             \"bytes_per_tick\": {bytes_per_tick:.2}, \"kernel_bytes_max\": {}}}",
            self.logged_in,
            self.ages.len(),
            self.kernel_bytes_max,
        )
    }
}

struct Slow {
    stream: TcpStream,
    frame: Vec<u8>,
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
        let mut slow = Slow { stream, frame: Vec::new() };
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

    /// The tick of the next positions, and the bytes until there.
    fn reads_positions(&mut self) -> io::Result<(u32, u64)> {
        let mut bytes = 0;
        loop {
            let said = self.reads()?;
            bytes += 4 + said.len() as u64;
            if let [POSITIONS, rest @ ..] = said {
                return Ok((number(rest).unwrap_or(0), bytes));
            }
        }
    }
}

/// Until the others end.
pub(crate) fn play(wanted: &Wanted, seen: &Seen) -> io::Result<Report> {
    let comes = |account| Slow::comes(wanted, account).map(Some);
    let mut all: Vec<Option<Slow>> = (0..wanted.slow).map(comes).collect::<io::Result<_>>()?;
    for slow in all.iter_mut().flatten() {
        slow.is_welcomed()?;
    }
    let mut report = Report { logged_in: wanted.slow, ..Report::default() };
    let (start, mut round) = (Instant::now(), 0);
    while !seen.is_ending() && !all.is_empty() {
        let round_start = Instant::now();
        let count = all.len() as u32;
        for (place, entry) in (0..count).zip(&mut all) {
            let due = round_start + READS_EVERY * place / count;
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            let Some(slow) = entry else { continue };
            match slow.reads_positions() {
                Ok((tick, bytes)) => {
                    report.bytes += bytes;
                    report.ages.push(seen.newest_tick.load(Relaxed).saturating_sub(tick));
                }
                Err(error) => {
                    seen.ends(format!("a slow one: {error}"));
                    *entry = None;
                    continue;
                }
            }
            if (round + u64::from(place)).is_multiple_of(ALIVE_EVERY) {
                let _ = slow.says(&[ALIVE]); // a reader notices the end
            }
        }
        if round.is_multiple_of(LOOKS_EVERY) {
            report.kernel_bytes_max = report.kernel_bytes_max.max(kernel_bytes_max(wanted, &all)?);
        }
        round += 1;
        std::thread::sleep((round_start + READS_EVERY).saturating_duration_since(Instant::now()));
    }
    report.seconds = start.elapsed().as_secs_f64();
    Ok(report)
}

/// By /proc/net/tcp, which has both ends of each. (What has come and is not acknowledged yet counts twice.)
fn kernel_bytes_max(wanted: &Wanted, all: &[Option<Slow>]) -> io::Result<u64> {
    let mut of_port = HashMap::new();
    for slow in all.iter().flatten() {
        of_port.insert(slow.stream.local_addr()?.port(), 0);
    }
    let server = wanted.address.port();
    for line in std::fs::read_to_string("/proc/net/tcp")?.lines().skip(1) {
        let fields: Vec<_> = line.split_whitespace().take(5).collect();
        let [_, local, remote, _, queues] = fields[..] else { continue };
        let port = |text: &str| u16::from_str_radix(text.rsplit(':').next()?, 16).ok();
        let (Some(local), Some(remote)) = (port(local), port(remote)) else { continue };
        let (sent, received) = queues.split_once(':').unwrap_or_default();
        let (of, bytes) = match (local == server, remote == server) {
            (true, _) => (remote, sent),
            (_, true) => (local, received),
            _ => continue,
        };
        if let Some(held) = of_port.get_mut(&of) {
            *held += u64::from_str_radix(bytes, 16).unwrap_or(0);
        }
    }
    Ok(of_port.into_values().max().unwrap_or(0))
}
