//! What the programs of the lab share: how they are asked, how they measure, how they answer.
//!
//! Each program prints a table and ends by [`verdict`]: exit code 0 if the effect that it is about
//! was seen, 1 if it was not, 2 (by [`not_here`]) if it cannot be run on this system. With `--quick`
//! it takes seconds.

use std::net::{TcpListener, TcpStream};
#[cfg(unix)]
use std::time::Duration;

mod table;

pub use table::Table;

/// Whether the short form was asked for.
pub fn is_quick() -> bool {
    std::env::args().any(|argument| argument == "--quick")
}

/// What follows `--NAME` on the command line: how a program tells its own child what to be.
pub fn option(name: &str) -> Option<String> {
    let name = format!("--{name}");
    std::env::args().skip_while(|argument| *argument != name).nth(1)
}

/// Says what was seen and ends the program by it.
pub fn verdict(shown: bool, what: &str) -> ! {
    println!("{}: {what}", if shown { "SHOWN" } else { "NOT SHOWN" });
    std::process::exit(if shown { 0 } else { 1 });
}

/// Ends a program that has nothing to run on here.
pub fn not_here(why: &str) -> ! {
    println!("CANNOT BE RUN HERE: {why}");
    std::process::exit(2);
}

/// Two ends of one connection on the loopback, the accepted one first.
pub fn connection() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
    let peer = TcpStream::connect(listener.local_addr().expect("an address")).expect("a peer");
    let accepted = listener.accept().expect("an accepted connection").0;
    for end in [&accepted, &peer] {
        end.set_nodelay(true).expect("TCP_NODELAY");
    }
    (accepted, peer)
}

/// CPU time that this process has used, its threads' together, in user space and in the kernel.
#[cfg(unix)]
pub fn cpu_time() -> Duration {
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: the call fills the struct, all of whose bit patterns are valid.
    let usage = unsafe {
        assert_eq!(libc::getrusage(libc::RUSAGE_SELF, usage.as_mut_ptr()), 0);
        usage.assume_init()
    };
    let duration = |time: libc::timeval| {
        Duration::from_secs(time.tv_sec as u64) + Duration::from_micros(time.tv_usec as u64)
    };
    duration(usage.ru_utime) + duration(usage.ru_stime)
}

/// The value below which this part of them lies: 0.5 is the median, 1.0 the greatest.
pub fn quantile(values: &[f64], part: f64) -> f64 {
    assert!(!values.is_empty() && (0.0..=1.0).contains(&part));
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    values[((values.len() - 1) as f64 * part).round() as usize]
}

/// The median, and the least and the greatest beside it.
pub fn median_and_spread(values: &[f64], decimals: usize) -> String {
    let [median, least, greatest] = [0.5, 0.0, 1.0].map(|part| quantile(values, part));
    format!("{median:.decimals$} ({least:.decimals$}–{greatest:.decimals$})")
}

/// A number with its thousands set apart.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Numbers that look random and are the same in every run: xorshift, for experiments only.
#[derive(Debug, Clone)]
pub struct Numbers(u64);

impl Numbers {
    pub fn new(seed: u64) -> Self {
        Numbers(seed | 1)
    }

    #[inline]
    pub fn draw(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_odd_number_of_values_is_the_middle_one() {
        assert_eq!(quantile(&[9.0, 1.0, 4.0], 0.5), 4.0);
        assert_eq!(median_and_spread(&[9.0, 1.0, 4.0], 0), "4 (1–9)");
    }

    #[test]
    fn thousands_are_set_apart() {
        assert_eq!([7, 1_000, 4_294_967_296].map(grouped), ["7", "1,000", "4,294,967,296"]);
    }
}
