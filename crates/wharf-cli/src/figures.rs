//! Formats figures for people.

use std::fmt;
use std::time::Duration;

/// Bytes in powers of 1,024: `512 B`, `16.0 KiB`, `24.5 GiB`.
pub(crate) struct Bytes(pub(crate) u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
        if self.0 < 1024 {
            return write!(f, "{} B", self.0);
        }
        let mut value = self.0 as f64 / 1024.0;
        let mut units = UNITS.into_iter();
        let mut unit = units.next().unwrap_or("KiB");
        for larger in units {
            if value < 1024.0 {
                break;
            }
            value /= 1024.0;
            unit = larger;
        }
        write!(f, "{value:.1} {unit}")
    }
}

/// A count with its thousands apart: `1,234,567`.
pub(crate) struct Count(pub(crate) u64);

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = self.0.to_string();
        let mut text = String::with_capacity(digits.len() * 4 / 3 + 1);
        for (index, digit) in digits.chars().enumerate() {
            if index > 0 && (digits.len() - index).is_multiple_of(3) {
                text.push(',');
            }
            text.push(digit);
        }
        f.pad(&text)
    }
}

/// A length of time with the unit that suits it: `85 µs`, `1.25 ms`, `2.50 s`.
pub(crate) struct Span(pub(crate) Duration);

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let micros = self.0.as_secs_f64() * 1e6;
        let text = match micros {
            small if small < 10.0 => format!("{small:.1} µs"),
            middle if middle < 1e3 => format!("{middle:.0} µs"),
            large if large < 1e6 => format!("{:.2} ms", large / 1e3),
            huge => format!("{:.2} s", huge / 1e6),
        };
        f.pad(&text)
    }
}

/// `count` things in `period`, a second.
pub(crate) fn per_second(count: u64, period: Duration) -> f64 {
    if period.is_zero() { 0.0 } else { count as f64 / period.as_secs_f64() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_read_as_a_person_would_write_them() {
        assert_eq!(Bytes(1023).to_string(), "1023 B");
        assert_eq!(Bytes(16 * 1024).to_string(), "16.0 KiB");
        assert_eq!(Bytes(26 << 30).to_string(), "26.0 GiB");
        assert_eq!(Count(7).to_string(), "7");
        assert_eq!(Count(123).to_string(), "123");
        assert_eq!(Count(1_234_567).to_string(), "1,234,567");
        assert_eq!(Span(Duration::from_micros(85)).to_string(), "85 µs");
        assert_eq!(Span(Duration::from_micros(1250)).to_string(), "1.25 ms");
        assert_eq!(Span(Duration::from_millis(2500)).to_string(), "2.50 s");
    }

    #[test]
    fn a_rate_over_no_time_is_nothing() {
        assert_eq!(per_second(5, Duration::ZERO), 0.0);
        assert_eq!(per_second(5, Duration::from_millis(500)), 10.0);
    }
}
