//! Heads of HTTP, read plainly: only whole ones, by their lines.

use crate::transport::web_socket::{Origins, UPGRADE_BYTES_MAX};

/// The most headers in a head.
pub(super) const HEADERS_MAX: usize = 64;
const BASE64: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// A whole head.
pub(super) struct Head<'a> {
    first: &'a [u8],
    /// As they came, but for the blanks around values.
    pub(super) headers: Vec<(&'a [u8], &'a [u8])>,
    pub(super) bytes: usize,
    has_bare_line_feed: bool,
}

/// What a request asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Wish<'a> {
    Upgrade { target: &'a [u8] },
    Get { target: &'a [u8] },
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Reply<'a> {
    Taken { subprotocol: Option<&'a [u8]> },
    Refused { status: u16 },
    Wrong,
}

/// So many bytes from the front are a head, well or not. `None`: its end has not come.
pub(super) fn bytes_of_head(bytes: &[u8]) -> Option<usize> {
    let (mut at, mut has_begun) = (0, false);
    loop {
        let line_bytes = bytes[at..].iter().position(|byte| *byte == b'\n')? + 1;
        let is_empty = matches!(&bytes[at..at + line_bytes], b"\n" | b"\r\n");
        at += line_bytes;
        if is_empty && has_begun {
            return Some(at);
        }
        has_begun |= !is_empty;
    }
}

/// What has come of the first line.
pub(super) fn first_line(bytes: &[u8]) -> &[u8] {
    let mut lines = bytes.split(|byte| *byte == b'\n');
    lines.find(|line| !matches!(*line, b"" | b"\r")).unwrap_or_default()
}

impl<'a> Head<'a> {
    /// `None`: it is not whole, not well formed, or too large.
    pub(super) fn read(bytes: &'a [u8]) -> Option<Self> {
        let head_bytes = bytes_of_head(bytes).filter(|count| *count <= UPGRADE_BYTES_MAX)?;
        let lines = bytes[..head_bytes].split_inclusive(|byte| *byte == b'\n');
        let lines = lines.map(|line| {
            let line = line.strip_suffix(b"\n").unwrap_or(line);
            line.strip_suffix(b"\r").unwrap_or(line)
        });
        let mut lines = lines.filter(|line| !line.is_empty());
        let first = lines.next()?;
        let headers = lines.map(header).collect::<Option<Vec<_>>>()?;
        let head = &bytes[..head_bytes];
        let line_feeds = head.iter().filter(|byte| **byte == b'\n').count();
        let line_ends = head.windows(2).filter(|pair| **pair == *b"\r\n").count();
        let has_bare_line_feed = line_feeds > line_ends;
        let is_small = headers.len() <= HEADERS_MAX;
        is_small.then_some(Head { first, headers, bytes: head_bytes, has_bare_line_feed })
    }

    /// The first head that is none of something before the answer (RFC 9110, 15.2), and where it begins.
    pub(super) fn read_last(bytes: &'a [u8]) -> (usize, Option<Self>) {
        let looked_at = &bytes[..bytes.len().min(UPGRADE_BYTES_MAX)];
        let mut start = 0;
        loop {
            let head = Head::read(&looked_at[start..]);
            match &head {
                Some(head)
                    if head.status().is_some_and(|status| matches!(status, 100 | 102..=199)) =>
                {
                    start += head.bytes;
                }
                _ => return (start, head),
            }
        }
    }

    fn values(&self, name: &str) -> Vec<&'a [u8]> {
        let named = |one: &&(&[u8], &[u8])| one.0.eq_ignore_ascii_case(name.as_bytes());
        self.headers.iter().filter(named).map(|(_, value)| *value).collect()
    }

    fn has_token(&self, name: &str, token: &str) -> bool {
        let values = self.values(name);
        // A value that is not text is none.
        let texts = values.iter().filter(|value| std::str::from_utf8(value).is_ok());
        let mut all = texts.flat_map(|value| value.split(|byte| *byte == b','));
        all.any(|one| trimmed(one).eq_ignore_ascii_case(token.as_bytes()))
    }

    fn asks_for_web_socket(&self) -> bool {
        self.has_token("upgrade", "websocket") && self.has_token("connection", "upgrade")
    }

    /// `None`: it is refused.
    pub(super) fn wish(&self, origins: &Origins) -> Option<Wish<'a>> {
        let words: Vec<&[u8]> = self.first.split(|byte| *byte == b' ').collect();
        let [b"GET", target, version @ (b"HTTP/1.1" | b"HTTP/1.0")] = words[..] else {
            return None;
        };
        if self.has_bare_line_feed
            || target.first() != Some(&b'/')
            || !are_visible(target)
            || std::str::from_utf8(target).is_err()
        {
            return None;
        }
        if version == b"HTTP/1.0" {
            return Some(Wish::Get { target });
        }
        let [host @ [_, ..]] = self.values("host")[..] else { return None };
        if !self.values("transfer-encoding").is_empty()
            || !matches!(self.values("content-length")[..], [] | [b"0"])
        {
            return None;
        }
        if !self.asks_for_web_socket() {
            return Some(Wish::Get { target });
        }
        let [b"13"] = self.values("sec-websocket-version")[..] else { return None };
        let [key] = self.values("sec-websocket-key")[..] else { return None };
        let origin = self.values("origin");
        let may = match (&origin[..], origins) {
            ([], _) => true,
            ([origin], Origins::Same) => {
                [("http://", ":80"), ("https://", ":443")].iter().any(|(scheme, port)| {
                    let with = |part: &[u8]| {
                        let without = part.strip_suffix(port.as_bytes()).unwrap_or(part);
                        without.to_ascii_lowercase()
                    };
                    let of_page = origin.get(scheme.len()..).map(with);
                    let has_scheme = origin.to_ascii_lowercase().starts_with(scheme.as_bytes());
                    has_scheme && of_page == Some(with(host))
                })
            }
            ([origin], Origins::Of(some)) => {
                some.iter().any(|one| one.as_bytes().eq_ignore_ascii_case(origin))
            }
            ([_], Origins::Any) => true,
            _ => false,
        };
        (is_key(key) && may).then_some(Wish::Upgrade { target })
    }

    /// The status of an answer, and whether it is one of HTTP/1.0. `None`: it is no answer of HTTP.
    fn status_line(&self) -> Option<(u16, bool)> {
        let [
            b'H',
            b'T',
            b'T',
            b'P',
            b'/',
            b'1',
            b'.',
            version @ (b'0' | b'1'),
            b' ',
            a,
            b,
            c,
            reason @ ..,
        ] = self.first
        else {
            return None;
        };
        let is_reason = reason.first().is_none_or(|byte| *byte == b' ') && are_of_value(reason);
        let digits = [a, b, c];
        if !digits.iter().all(|digit| digit.is_ascii_digit()) || !is_reason {
            return None;
        }
        let status = digits.iter().fold(0, |status, digit| status * 10 + u16::from(*digit - b'0'));
        Some((status, *version == b'0'))
    }

    fn status(&self) -> Option<u16> {
        self.status_line().map(|(status, _)| status)
    }

    /// What it answers to a request with this accept. `None`: it is no answer of HTTP.
    pub(super) fn reply(&self, accept: &[u8], asked: &[String]) -> Option<Reply<'a>> {
        let (status, is_old) = self.status_line()?;
        if status != 101 {
            return Some(Reply::Refused { status });
        }
        let subprotocols = self.values("sec-websocket-protocol");
        let was_asked = |said: &[u8]| asked.iter().any(|one| one.as_bytes() == said);
        if is_old
            || !self.asks_for_web_socket()
            || self.values("sec-websocket-accept") != [accept]
            || !self.values("sec-websocket-extensions").is_empty()
            || subprotocols.len() > 1
            || !subprotocols.iter().all(|said| was_asked(said))
        {
            return Some(Reply::Wrong);
        }
        Some(Reply::Taken { subprotocol: subprotocols.first().copied() })
    }
}

fn header(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let colon = line.iter().position(|byte| *byte == b':')?;
    let (name, value) = (&line[..colon], trimmed(&line[colon + 1..]));
    let of_name = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    (!name.is_empty() && name.iter().all(of_name) && are_of_value(value)).then_some((name, value))
}

fn trimmed(mut bytes: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = bytes {
        bytes = rest;
    }
    bytes
}

fn are_visible(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| *byte > b' ' && *byte != 127)
}

fn are_of_value(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| *byte >= b' ' && *byte != 127 || *byte == b'\t')
}

/// Of 16 bytes: 128 bits are 21 characters and 2 bits.
fn is_key(text: &[u8]) -> bool {
    let number = |byte: &u8| BASE64.iter().position(|one| one == byte);
    let Some(numbers) = text.get(..22).map(|text| text.iter().map(number)) else { return false };
    let numbers: Option<Vec<_>> = numbers.collect();
    text[22..] == *b"==" && numbers.is_some_and(|numbers| numbers[21] % 16 == 0)
}
