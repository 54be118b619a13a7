//! Arguments shared by several tasks, and how they are parsed.

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use clap::ValueEnum;
use clap::builder::RangedU64ValueParser;
use serde::Serialize;
use wharf::{Backend, Framing, LengthPrefix, Lines, Origins, VarintPrefix};

/// Which completion port to use.
#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum BackendName {
    /// io_uring where the kernel grants it, else readiness; on Windows iocp.
    Auto,
    /// io_uring, or a failure that says why not.
    Uring,
    /// epoll or kqueue. Not on Windows.
    Readiness,
    /// I/O completion ports. Windows alone.
    Iocp,
}

impl BackendName {
    /// `auto` is what WHARF_BACKEND says, if it says anything.
    pub(crate) fn backend(self) -> Result<Backend, String> {
        match self {
            BackendName::Auto => match std::env::var_os("WHARF_BACKEND") {
                Some(name) if !name.is_empty() => {
                    let backend = name.to_string_lossy().parse();
                    backend.map_err(|error| format!("WHARF_BACKEND: {error}"))
                }
                _ => Ok(Backend::Auto),
            },
            BackendName::Uring => Ok(Backend::Uring),
            BackendName::Readiness => Ok(Backend::Readiness),
            BackendName::Iocp => Ok(Backend::Iocp),
        }
    }
}

/// How bytes are cut into frames.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum FramingName {
    /// Not at all: whatever has come is a frame.
    Raw,
    /// Each frame behind its length, 4 bytes.
    Length,
    /// Each frame behind its length, seven bits in a byte.
    Varint,
    /// Each frame is a line of text.
    Lines,
    /// By WebSocket, which `--ws` asks for.
    #[value(skip)]
    #[serde(rename = "websocket")]
    WsBinary,
    /// The same, and each is text.
    #[value(skip)]
    #[serde(rename = "websocket, text")]
    WsText,
}

impl FramingName {
    /// Of sessions without a transport.
    pub(crate) fn framing(self) -> Framing {
        match self {
            FramingName::Raw | FramingName::WsBinary | FramingName::WsText => Framing::raw(),
            FramingName::Length => Framing::length_prefixed(LengthPrefix::default()),
            FramingName::Varint => Framing::varint(VarintPrefix::default()),
            FramingName::Lines => Framing::lines(Lines::default()),
        }
    }

    /// Whether a message comes back as one frame.
    pub(crate) fn is_framed(self) -> bool {
        self != FramingName::Raw
    }

    /// Whether not all bytes may be in a frame.
    pub(crate) fn is_text(self) -> bool {
        matches!(self, FramingName::Lines | FramingName::WsText)
    }

    pub(crate) fn is_web_socket(self) -> bool {
        matches!(self, FramingName::WsBinary | FramingName::WsText)
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            FramingName::Raw => "raw",
            FramingName::Length => "length",
            FramingName::Varint => "varint",
            FramingName::Lines => "lines",
            FramingName::WsBinary => "websocket",
            FramingName::WsText => "websocket, text",
        }
    }
}

/// Which browser's pages may connect.
#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum OriginsName {
    /// All.
    Any,
    /// Those of the host that is asked.
    Same,
}

impl OriginsName {
    pub(crate) fn origins(self) -> Origins {
        match self {
            OriginsName::Any => Origins::Any,
            OriginsName::Same => Origins::Same,
        }
    }
}

/// The path in `unix:PATH`. `unix:@NAME` is a name in Linux's abstract namespace.
pub(crate) fn unix_path(text: &str) -> Option<PathBuf> {
    let path = text.strip_prefix("unix:")?;
    Some(match path.strip_prefix('@') {
        Some(name) => format!("\0{name}").into(),
        None => path.into(),
    })
}

/// The most workers that the library has.
pub(crate) const WORKERS_MAX: u64 = 1024;

/// A whole number within bounds.
pub(crate) fn whole<T>(range: RangeInclusive<u64>) -> RangedU64ValueParser<T>
where
    T: TryFrom<u64> + Clone + Send + Sync,
{
    RangedU64ValueParser::new().range(range)
}

/// Seconds, with fractions if need be: `10`, `0.25`.
pub(crate) fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number of seconds".to_owned())?;
    time(seconds)
}

/// Minutes, likewise.
pub(crate) fn minutes(text: &str) -> Result<Duration, String> {
    let minutes: f64 = text.parse().map_err(|_| "not a number of minutes".to_owned())?;
    time(minutes * 60.0)
}

/// No system's clock passes its end when this is added to it.
const SECONDS_MAX: f64 = 1e9;

fn time(seconds: f64) -> Result<Duration, String> {
    if seconds > SECONDS_MAX {
        return Err("it may be at most 1,000,000,000 seconds".to_owned());
    }
    Duration::try_from_secs_f64(seconds).map_err(|_| "not a length of time".to_owned())
}

/// So many a second.
pub(crate) fn rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if (1e-6..=1e9).contains(&rate) => Ok(rate),
        _ => Err("not a rate from 0.000001 to 1,000,000,000".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_may_have_fractions_but_be_neither_negative_nor_endless() {
        assert_eq!(seconds("0.25"), Ok(Duration::from_millis(250)));
        assert_eq!(minutes("0.5"), Ok(Duration::from_secs(30)));
        assert_eq!(seconds("1e9"), Ok(Duration::from_secs(1_000_000_000)));
        for text in ["-1", "soon", "nan", "inf", "1e19", "1000000001", ""] {
            assert!(seconds(text).is_err() && minutes(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_rate_is_above_nothing() {
        assert_eq!(rate("4000"), Ok(4000.0));
        for text in ["0", "inf", "nan", "-3", "1e-300", "1e300"] {
            assert!(rate(text).is_err(), "{text}");
        }
    }
}
