//! Any head of HTTP, as a request and as an answer, whole and cut anywhere.

use arbitrary::{Arbitrary, Unstructured};

use super::plain_heads::{self, HEADERS_MAX, Head, Reply, Wish, bytes_of_head};
use crate::transport::web_socket::{
    Answer, Asked, Origins, Refusal, Request, UPGRADE_BYTES_MAX, read,
};

/// As many beginnings of a head are looked at.
const BEGINNINGS_MAX: usize = 256;

const NAMES: [&str; 13] = [
    "Host",
    "Upgrade",
    "Connection",
    "Sec-WebSocket-Key",
    "Sec-WebSocket-Version",
    "Sec-WebSocket-Accept",
    "Sec-WebSocket-Protocol",
    "Sec-WebSocket-Extensions",
    "Origin",
    "Content-Length",
    "Transfer-Encoding",
    "Cookie",
    "hOsT",
];

const VALUES: [&str; 17] = [
    "server",
    "websocket",
    "keep-alive, Upgrade",
    "dGhlIHNhbXBsZSBub25jZQ==",
    "13",
    "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=",
    "chat",
    "permessage-deflate",
    "http://server",
    "0",
    "chunked",
    "HTTPS://Server",
    "http://other",
    "null",
    "\tWebSocket ,, h2c",
    "h2c,\u{a0}websocket", // that blank is none in HTTP
    "",
];

/// What a good request and a good answer have, by their names and values.
const OF_REQUEST: [(usize, usize); 6] = [(0, 0), (1, 1), (2, 2), (3, 3), (4, 4), (8, 8)];
const OF_ANSWER: [(usize, usize); 4] = [(1, 1), (2, 2), (5, 5), (6, 6)];
/// The bytes whose base64 is the key among the values.
const NONCE: [u8; 16] = *b"the sample nonce";

#[derive(Debug, Arbitrary)]
struct Input<'a> {
    is_answer: bool,
    origins: u8,
    first: Option<&'a [u8]>,
    /// Which of the good lines are left out.
    without: u8,
    lines: Vec<Line<'a>>,
    ends_with_line_feeds: bool,
    behind: Option<&'a [u8]>,
}

#[derive(Debug, Arbitrary)]
enum Line<'a> {
    Known { name: u8, value: u8 },
    Valued { name: u8, value: &'a [u8] },
    Any { bytes: &'a [u8] },
    Long { bytes: u16 },
    Many { count: u8 },
}

/// The target.
pub fn upgrade_head(bytes: &[u8]) {
    let Ok(input) = Input::arbitrary_take_rest(Unstructured::new(bytes)) else { return };
    let head = input.head();
    if input.is_answer {
        judge_answer(&head);
    } else {
        let origins = match input.origins % 3 {
            0 => Origins::Same,
            1 => Origins::Of(vec!["http://other".to_owned(), "null".to_owned()]),
            _ => Origins::Any,
        };
        judge_request(&head, &origins);
    }
}

fn judge_request(bytes: &[u8], origins: &Origins) {
    let found = read(bytes, origins);
    let head = Head::read(bytes);
    let wish = head.as_ref().and_then(|head| head.wish(origins));
    match (&found, wish) {
        (Ok(Request::Upgrade { request, head_bytes }), Some(Wish::Upgrade { target })) => {
            let head = head.expect("it has a wish");
            assert_eq!((*head_bytes, request.target().as_bytes()), (head.bytes, target));
            let headers = request.headers().map(|(name, value)| (name.as_bytes(), value));
            assert!(headers.eq(head.headers));
            let _ = (request.path(), request.query(), request.cookie("a"));
            let _ = (request.subprotocols().count(), request.answer(Some("chat"), None));
        }
        (Ok(Request::Get { target }), Some(Wish::Get { target: plain })) => {
            assert_eq!(target.as_bytes(), plain);
        }
        (Ok(Request::More) | Err(_), None) => {}
        (found, wish) => panic!("{found:?}, plainly {wish:?}"),
    }
    if let Err(refusal) = &found {
        let answer = refusal.answer();
        assert!(Head::read(answer.as_bytes()).is_some_and(|head| head.bytes == answer.len()));
    }
    let is_more = |found: &_| *found == Ok(Request::More);
    judge_beginnings(bytes, &found, is_more, |bytes| read(bytes, origins));
    // Whether a target is UTF-8 is looked at behind it.
    let target = plain_heads::first_line(bytes).split(|byte| *byte == b' ').nth(1);
    if is_more(&found) && target.is_none_or(|target| std::str::from_utf8(target).is_ok()) {
        judge_more(bytes, b"GET / HTTP/1.1\r\n\r\n", |bytes| {
            let found = read(bytes, origins);
            let is_no_head = matches!(
                found,
                Err(Refusal::TooLarge | Refusal::BadRequest("the head is not HTTP"))
            );
            !is_no_head && !is_more(&found)
        });
    }
}

fn judge_answer(bytes: &[u8]) {
    let subprotocols = ["superchat".to_owned(), "chat".to_owned()];
    let (host, target) = ("server", "/");
    let asked = Asked {
        host,
        target,
        headers: &[],
        subprotocols: &subprotocols,
        #[cfg(feature = "deflate")]
        deflates: false,
        nonce: NONCE,
    };
    let found = asked.answer(bytes);
    let (start, head) = Head::read_last(bytes);
    let accept = VALUES[5].as_bytes();
    let reply = head.as_ref().and_then(|head| head.reply(accept, &subprotocols));
    match (&found, reply) {
        (
            Answer::Taken { subprotocol, head_bytes, .. },
            Some(Reply::Taken { subprotocol: plain }),
        ) => {
            assert_eq!(Some(*head_bytes), head.map(|head| start + head.bytes));
            assert_eq!(subprotocol.as_ref().map(String::as_bytes), plain);
        }
        (Answer::Refused { status }, Some(Reply::Refused { status: plain })) => {
            assert_eq!(*status, plain);
        }
        (Answer::Wrong { .. }, Some(Reply::Wrong) | None) | (Answer::More, None) => {}
        (found, reply) => panic!("{found:?}, plainly {reply:?}"),
    }
    let is_more = |found: &_| *found == Answer::More;
    judge_beginnings(bytes, &found, is_more, |bytes| asked.answer(bytes));
    if is_more(&found) && start == 0 {
        judge_more(bytes, b"HTTP/1.1 101 a\r\n\r\n", |bytes| {
            let reason = match asked.answer(bytes) {
                Answer::More => return false,
                Answer::Wrong { reason } => reason,
                _ => return true,
            };
            !reason.starts_with("the head")
        });
    }
}

/// What was found of a beginning stays, whatever comes behind it.
fn judge_beginnings<F: PartialEq + std::fmt::Debug>(
    bytes: &[u8],
    whole: &F,
    is_more: impl Fn(&F) -> bool,
    find: impl Fn(&[u8]) -> F,
) {
    for end in (0..bytes.len()).step_by(bytes.len() / BEGINNINGS_MAX + 1) {
        let found = find(&bytes[..end]);
        assert!(is_more(&found) || found == *whole, "{end}: {found:?}, then {whole:?}");
    }
}

/// Something can come behind it that makes it a whole head: an end of one that is good.
fn judge_more(bytes: &[u8], good: &[u8], is_whole: impl Fn(&[u8]) -> bool) {
    assert_eq!(bytes_of_head(&bytes[..bytes.len().min(UPGRADE_BYTES_MAX)]), None);
    // A header too many is refused when it is whole.
    let has_all_headers = bytes.iter().filter(|byte| **byte == b'\n').count() > HEADERS_MAX;
    if has_all_headers || bytes.len() + good.len() + 2 > UPGRADE_BYTES_MAX {
        return;
    }
    let mut ends = (0..good.len()).map(|at| &good[at..]).chain([&b":\r\n\r\n"[..]]);
    assert!(ends.any(|end| is_whole(&[bytes, end].concat())), "nothing can make it whole");
}

impl Input<'_> {
    fn head(&self) -> Vec<u8> {
        let (good_first, good): (_, &[_]) = match self.is_answer {
            true => (&b"HTTP/1.1 101 Switching Protocols"[..], &OF_ANSWER),
            false => (&b"GET /chat?room=1 HTTP/1.1"[..], &OF_REQUEST),
        };
        let line_end: &[u8] = if self.ends_with_line_feeds { b"\n" } else { b"\r\n" };
        let mut head = [self.first.unwrap_or(good_first), line_end].concat();
        let mut append = |bytes: &[u8]| head.extend_from_slice(bytes);
        let line = |name: &[u8], value: &[u8]| [name, b": ", value, line_end].concat();
        for (at, (name, value)) in good.iter().enumerate() {
            if self.without >> at & 1 == 0 {
                append(&line(NAMES[*name].as_bytes(), VALUES[*value].as_bytes()));
            }
        }
        for one in &self.lines {
            let known = |name: &u8| NAMES[usize::from(*name) % NAMES.len()].as_bytes();
            match one {
                Line::Known { name, value } => {
                    let value = VALUES[usize::from(*value) % VALUES.len()];
                    append(&line(known(name), value.as_bytes()));
                }
                Line::Valued { name, value } => append(&line(known(name), value)),
                Line::Any { bytes } => append(bytes),
                Line::Long { bytes } => {
                    append(&line(b"Long", &vec![b'x'; usize::from(*bytes) % 10_000]));
                }
                Line::Many { count } => append(&line(b"A", b"b").repeat(usize::from(count % 80))),
            }
        }
        if let Some(behind) = self.behind {
            append(line_end);
            append(behind);
        }
        head
    }
}
