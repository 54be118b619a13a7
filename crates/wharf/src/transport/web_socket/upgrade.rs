//! The request that begins a WebSocket, and its answer (RFC 6455, 4).

use std::fmt::Write as _;
use std::ops::Range;

use super::base64;
#[cfg(feature = "deflate")]
use super::deflate::Agreed;

/// The most bytes of a head.
pub(crate) const HEAD_BYTES_MAX: usize = 8 * 1024;
/// The most headers in it.
const HEADERS_MAX: usize = 64;
/// What is hashed behind a key (RFC 6455, 1.3).
const ACCEPT_SUFFIX: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// Which pages may open a WebSocket, by the origin that a browser tells. Any page may try: a browser lets it, and sends
/// the user's cookies along (RFC 6455, 10.2). A request without an origin is no browser's, and passes.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Origins {
    /// Pages of the host that is asked.
    #[default]
    Same,
    /// Pages of these origins, each as a browser writes it: `https://example.com`.
    Of(Vec<String>),
    /// All pages.
    Any,
}

/// The HTTP request that asked for a WebSocket: what the program may decide by.
///
/// What belongs to the protocol was looked at already: method, version, key, origin, that no header that matters is there
/// twice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpgradeRequest {
    head: Box<[u8]>,
    target: Range<usize>,
    key: Range<usize>,
    /// Of each the name and the value.
    headers: Box<[(Range<usize>, Range<usize>)]>,
}

/// Why a request is refused, by the status of its answer (RFC 9110, 15).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    BadRequest(&'static str),
    Origin,
    Method,
    UpgradeRequired,
    TooLarge,
    Version,
    /// The program has refused it with this status.
    Program(u16),
}

impl Refusal {
    pub(crate) fn status(self) -> (u16, &'static str) {
        match self {
            Refusal::Program(status @ 400..=599) => (status, words_of(status)),
            Refusal::Program(_) => (500, words_of(500)),
            Refusal::BadRequest(_) => (400, "Bad Request"),
            Refusal::Origin => (403, "Forbidden"),
            Refusal::Method => (405, "Method Not Allowed"),
            Refusal::UpgradeRequired => (426, "Upgrade Required"),
            Refusal::TooLarge => (431, "Request Header Fields Too Large"),
            Refusal::Version => (505, "HTTP Version Not Supported"),
        }
    }

    /// The whole answer.
    pub(crate) fn answer(self) -> String {
        let (status, words) = self.status();
        let more = match self {
            Refusal::Method => "Allow: GET\r\n",
            Refusal::UpgradeRequired => {
                "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
            }
            _ => "Connection: close\r\n",
        };
        format!("HTTP/1.1 {status} {words}\r\n{more}Content-Length: 0\r\n\r\n")
    }
}

/// What stands behind a status for people to read.
fn words_of(status: u16) -> &'static str {
    match status {
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        429 => "Too Many Requests",
        500 => "Internal Server Error",
        503 => "Service Unavailable",
        _ => "Refused",
    }
}

/// What was found at the front of what a peer has sent.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Request {
    /// More of the head is to come.
    More,
    /// It has so many bytes.
    Upgrade { request: UpgradeRequest, head_bytes: usize },
    /// A GET that asks for no upgrade: for its target there may be a fixed answer.
    Get { target: String },
}

/// Reads a request.
pub(crate) fn read(bytes: &[u8], origins: &Origins) -> Result<Request, Refusal> {
    let mut room = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut room);
    let looked_at = &bytes[..bytes.len().min(HEAD_BYTES_MAX)];
    let head_bytes = match request.parse(looked_at) {
        Ok(httparse::Status::Complete(head_bytes)) => head_bytes,
        Ok(httparse::Status::Partial) if looked_at.len() < HEAD_BYTES_MAX => {
            return Ok(Request::More);
        }
        Ok(httparse::Status::Partial) | Err(httparse::Error::TooManyHeaders) => {
            return Err(Refusal::TooLarge);
        }
        Err(httparse::Error::Version) => return Err(Refusal::Version),
        Err(_) => return Err(Refusal::BadRequest("the head is not HTTP")),
    };
    let (method, target) = (request.method.unwrap_or(""), request.path.unwrap_or(""));
    if method != "GET" {
        return Err(Refusal::Method);
    }
    if !target.starts_with('/') {
        return Err(Refusal::BadRequest("the target is no path"));
    }
    // Others on the way may take it for no end of a line.
    if has_bare_line_feed(&looked_at[..head_bytes]) {
        return Err(Refusal::BadRequest("a line ends without a carriage return"));
    }
    if request.version != Some(1) {
        // What asks for nothing but whether the server is there.
        return Ok(Request::Get { target: target.to_owned() });
    }
    let headers = Headers(request.headers);
    if headers.has("transfer-encoding")
        || headers.one("content-length")?.is_some_and(|length| length != b"0")
    {
        return Err(Refusal::BadRequest("a GET has no content"));
    }
    let host = headers.one("host")?.filter(|host| !host.is_empty());
    let host = host.ok_or(Refusal::BadRequest("there is no host"))?;
    if !headers.has_token("upgrade", "websocket") || !headers.has_token("connection", "upgrade") {
        return Ok(Request::Get { target: target.to_owned() });
    }
    if headers.one("sec-websocket-version")? != Some(b"13") {
        return Err(Refusal::UpgradeRequired);
    }
    let key = headers.one("sec-websocket-key")?.filter(|key| base64::is_16_bytes(key));
    let key = key.ok_or(Refusal::BadRequest("the key is not of 16 bytes"))?;
    let origin = headers.one("origin")?;
    if !origin.is_none_or(|origin| origins.take(origin, host)) {
        return Err(Refusal::Origin);
    }
    let head = &looked_at[..head_bytes];
    let at = |part: &[u8]| {
        let start = part.as_ptr().addr() - head.as_ptr().addr();
        start..start + part.len()
    };
    let headers = request.headers.iter();
    let request = UpgradeRequest {
        head: head.into(),
        target: at(target.as_bytes()),
        key: at(key),
        headers: headers.map(|header| (at(header.name.as_bytes()), at(header.value))).collect(),
    };
    Ok(Request::Upgrade { request, head_bytes })
}

fn has_bare_line_feed(head: &[u8]) -> bool {
    head.iter().enumerate().any(|(at, byte)| *byte == b'\n' && (at == 0 || head[at - 1] != b'\r'))
}

impl UpgradeRequest {
    fn text(&self, at: &Range<usize>) -> &str {
        std::str::from_utf8(&self.head[at.clone()]).unwrap_or("") // it was looked at
    }

    /// What is asked for: the path, with its query.
    pub fn target(&self) -> &str {
        self.text(&self.target)
    }

    /// The target before its `?`.
    pub fn path(&self) -> &str {
        self.target().split('?').next().unwrap_or("")
    }

    /// The target behind its `?`, as it came: nothing in it is decoded.
    pub fn query(&self) -> Option<&str> {
        self.target().split_once('?').map(|(_, query)| query)
    }

    /// The headers, in their order. Names may have small or capital letters.
    pub fn headers(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.headers.iter().map(|(name, value)| (self.text(name), &self.head[value.clone()]))
    }

    /// The value of the first header of this name, if it is UTF-8.
    pub fn header(&self, name: &str) -> Option<&str> {
        let (_, value) = self.headers().find(|(one, _)| one.eq_ignore_ascii_case(name))?;
        std::str::from_utf8(value).ok()
    }

    /// The value of a cookie.
    pub fn cookie(&self, name: &str) -> Option<&str> {
        let lines = self.headers().filter(|(one, _)| one.eq_ignore_ascii_case("cookie"));
        let texts = lines.filter_map(|(_, value)| std::str::from_utf8(value).ok());
        let pairs = texts.flat_map(|line| line.split(';')).filter_map(|pair| pair.split_once('='));
        pairs
            .map(|(one, value)| (one.trim(), value.trim()))
            .find(|(one, _)| *one == name)
            .map(|(_, value)| value)
    }

    /// The subprotocols that the client would speak, the dearest first.
    pub fn subprotocols(&self) -> impl Iterator<Item = &str> {
        let lines =
            self.headers().filter(|(one, _)| one.eq_ignore_ascii_case("sec-websocket-protocol"));
        tokens(lines.map(|(_, value)| value))
    }

    /// What of its extensions can be had.
    #[cfg(feature = "deflate")]
    pub(crate) fn deflate(&self) -> Option<Agreed> {
        let lines =
            self.headers().filter(|(one, _)| one.eq_ignore_ascii_case("sec-websocket-extensions"));
        Agreed::of_offers(tokens(lines.map(|(_, value)| value)))
    }

    /// The answer that takes it.
    pub(crate) fn answer(&self, subprotocol: Option<&str>, extension: Option<&str>) -> String {
        let mut answer = format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: {}\r\n",
            accept(&self.head[self.key.clone()])
        );
        if let Some(subprotocol) = subprotocol {
            let _ = write!(answer, "Sec-WebSocket-Protocol: {subprotocol}\r\n");
        }
        if let Some(extension) = extension {
            let _ = write!(answer, "Sec-WebSocket-Extensions: {extension}\r\n");
        }
        answer.push_str("\r\n");
        answer
    }
}

impl Origins {
    fn take(&self, origin: &[u8], host: &[u8]) -> bool {
        match self {
            Origins::Any => true,
            Origins::Of(origins) => {
                origins.iter().any(|one| one.as_bytes().eq_ignore_ascii_case(origin))
            }
            Origins::Same => {
                // A browser leaves out the port that belongs to the scheme; a proxy may not.
                let is_same = |scheme: &[u8], port: &[u8]| {
                    let of_page = origin.get(scheme.len()..)?;
                    let has_scheme = origin[..scheme.len()].eq_ignore_ascii_case(scheme);
                    let without = |host| <[u8]>::strip_suffix(host, port).unwrap_or(host);
                    let is_same = without(of_page).eq_ignore_ascii_case(without(host));
                    Some(has_scheme && is_same)
                };
                is_same(b"https://", b":443") == Some(true)
                    || is_same(b"http://", b":80") == Some(true)
            }
        }
    }
}

pub(super) struct Headers<'h, 'a>(pub(super) &'h [httparse::Header<'a>]);

impl<'h, 'a> Headers<'h, 'a> {
    fn named(&self, name: &'static str) -> impl Iterator<Item = &'a [u8]> + use<'h, 'a> {
        self.0
            .iter()
            .filter(move |header| header.name.eq_ignore_ascii_case(name))
            .map(|header| header.value)
    }

    pub(super) fn has(&self, name: &'static str) -> bool {
        self.named(name).next().is_some()
    }

    /// Its value; twice is one too many: others on the way may have taken the other one.
    pub(super) fn one(&self, name: &'static str) -> Result<Option<&'a [u8]>, Refusal> {
        let mut values = self.named(name);
        let value = values.next();
        match values.next() {
            Some(_) => Err(Refusal::BadRequest("a header is there twice")),
            None => Ok(value),
        }
    }

    /// The members of its list, of all its lines.
    fn tokens(&self, name: &'static str) -> impl Iterator<Item = &'a str> + use<'h, 'a> {
        tokens(self.named(name))
    }

    pub(super) fn has_token(&self, name: &'static str, wanted: &str) -> bool {
        self.tokens(name).any(|token| token.eq_ignore_ascii_case(wanted))
    }
}

/// The members of lists with commas between them.
fn tokens<'a>(lines: impl Iterator<Item = &'a [u8]>) -> impl Iterator<Item = &'a str> {
    let lines = lines.filter_map(|value| std::str::from_utf8(value).ok());
    let members = lines.flat_map(|line| line.split(','));
    // The blanks of HTTP: others belong to the member.
    members.map(|one| one.trim_matches([' ', '\t'])).filter(|token| !token.is_empty())
}

/// What the answer says of a key.
pub(super) fn accept(key: &[u8]) -> String {
    let mut hash = sha1_smol::Sha1::new();
    hash.update(key);
    hash.update(ACCEPT_SUFFIX);
    base64::encode(&hash.digest().bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHAT: &str = "GET /chat?room=1 HTTP/1.1\r\nHost: server.example.com\r\nUpgrade: websocket\r\n\
        Connection: keep-alive, Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
        Origin: http://server.example.com\r\nSec-WebSocket-Protocol: chat, superchat\r\n\
        Sec-WebSocket-Version: 13\r\n\r\n";

    fn read_text(text: &str) -> Result<Request, Refusal> {
        read(text.as_bytes(), &Origins::Same)
    }

    fn without(line: &str) -> String {
        let lines = CHAT.split_inclusive("\r\n").filter(|one| !one.starts_with(line));
        lines.collect()
    }

    fn with(line: &str) -> String {
        CHAT.replacen("\r\n", &format!("\r\n{line}\r\n"), 1)
    }

    /// The example of RFC 6455, 1.3.
    #[test]
    fn a_request_is_read_and_answered() {
        let behind = format!("{}frames", with("Cookie: a=1; token=abc=; b=2"));
        let Ok(Request::Upgrade { request, head_bytes }) = read_text(&behind) else {
            panic!("{:?}", read_text(&behind))
        };
        assert_eq!(&behind[head_bytes..], "frames");
        assert_eq!((request.target(), request.path()), ("/chat?room=1", "/chat"));
        assert_eq!(request.query(), Some("room=1"));
        assert_eq!(request.header("HOST"), Some("server.example.com"));
        assert_eq!(request.cookie("token"), Some("abc="));
        assert_eq!((request.cookie("tok"), request.header("Authorization")), (None, None));
        assert!(request.subprotocols().eq(["chat", "superchat"]));
        assert_eq!(request.headers().count(), 8);
        assert_eq!(
            request.answer(Some("chat"), None),
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nSec-WebSocket-Protocol: chat\r\n\r\n"
        );
        for end in 0..CHAT.len() {
            assert_eq!(read_text(&CHAT[..end]), Ok(Request::More), "{end}");
        }
    }

    #[test]
    fn what_is_no_upgrade_is_refused_by_the_status_that_says_why() {
        let bad = Err(Refusal::BadRequest("a header is there twice"));
        assert_eq!(read_text(&with("Host: other.example.com")), bad);
        assert_eq!(read_text(&with("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==")), bad);
        assert_eq!(read_text(&with("Origin: http://evil.example.com")), bad);
        let status = |text: &str| read_text(text).expect_err(text).status().0;
        assert_eq!(status(&without("Host")), 400);
        assert_eq!(status(&without("Sec-WebSocket-Key")), 400);
        assert_eq!(status(&CHAT.replace("ub25jZQ==", "ub25jZQ=")), 400);
        assert_eq!(status(&CHAT.replace("jZQ==", "jZR==")), 400);
        assert_eq!(status(&with("Transfer-Encoding: chunked")), 400);
        assert_eq!(status(&with("Content-Length: 5")), 400);
        assert_eq!(status(&CHAT.replace("Host:", "Host :")), 400);
        assert_eq!(status("\x16\x03\x01 a hello of TLS"), 400);
        assert_eq!(status(&CHAT.replace("http://server", "http://evil")), 403);
        assert_eq!(status(&CHAT.replace("GET", "POST")), 405);
        assert_eq!(status(&CHAT.replace("Version: 13", "Version: 8")), 426);
        assert_eq!(status(&without("Sec-WebSocket-Version")), 426);
        let old = Request::Get { target: "/chat?room=1".to_owned() };
        assert_eq!(read_text(&CHAT.replace("HTTP/1.1", "HTTP/1.0")), Ok(old));
        assert_eq!(status(&CHAT.replace("HTTP/1.1", "HTTP/3.0")), 505);
        assert_eq!(status(&CHAT.replace("GET /", "GET http://server.example.com/")), 400);
        assert_eq!(status(&CHAT.replace("GET /chat?room=1", "GET *")), 400);
        assert_eq!(status(&CHAT.replace("Host: server.example.com", "Host:")), 400);
        assert_eq!(status(&with("X: a\nY: b")), 400);
        assert_eq!(status(&with(&format!("Cookie: {}", "x".repeat(9_000)))), 431);
        assert_eq!(status(&with(&vec!["A: b"; 64].join("\r\n"))), 431);
        for line in ["Upgrade", "Connection"] {
            let get = without(line);
            let found = read_text(&get);
            assert_eq!(found, Ok(Request::Get { target: "/chat?room=1".to_owned() }));
        }
        let other_blank = CHAT.replace(": websocket", ": \u{a0}websocket");
        assert!(matches!(read_text(&other_blank), Ok(Request::Get { .. })), "no blank of HTTP");
    }

    #[test]
    fn a_head_of_8_kib_is_read_and_no_larger_one() {
        let fill = 8_192 - with("Cookie: ").len();
        let of = |fill| read_text(&with(&format!("Cookie: {}", "x".repeat(fill))));
        assert!(matches!(of(fill), Ok(Request::Upgrade { head_bytes: 8_192, .. })));
        assert_eq!(of(fill + 1), Err(Refusal::TooLarge));
    }

    #[test]
    fn a_refusal_is_a_whole_answer_that_says_what_would_be_taken() {
        let head = |refusal: Refusal| {
            let answer = refusal.answer();
            let rest = answer.strip_suffix("Content-Length: 0\r\n\r\n").expect("it has nothing");
            let (first, more) = rest.split_once("\r\n").expect("it has lines");
            (first.to_owned(), more.to_owned())
        };
        let close = "Connection: close\r\n";
        for (refusal, first) in [
            (Refusal::BadRequest("of something"), "HTTP/1.1 400 Bad Request"),
            (Refusal::Origin, "HTTP/1.1 403 Forbidden"),
            (Refusal::TooLarge, "HTTP/1.1 431 Request Header Fields Too Large"),
            (Refusal::Version, "HTTP/1.1 505 HTTP Version Not Supported"),
            (Refusal::Program(400), "HTTP/1.1 400 Bad Request"),
            (Refusal::Program(401), "HTTP/1.1 401 Unauthorized"),
            (Refusal::Program(403), "HTTP/1.1 403 Forbidden"),
            (Refusal::Program(404), "HTTP/1.1 404 Not Found"),
            (Refusal::Program(429), "HTTP/1.1 429 Too Many Requests"),
            (Refusal::Program(500), "HTTP/1.1 500 Internal Server Error"),
            (Refusal::Program(503), "HTTP/1.1 503 Service Unavailable"),
            (Refusal::Program(599), "HTTP/1.1 599 Refused"),
            // What is no refusal is a mistake of the program's.
            (Refusal::Program(399), "HTTP/1.1 500 Internal Server Error"),
            (Refusal::Program(600), "HTTP/1.1 500 Internal Server Error"),
        ] {
            assert_eq!(head(refusal), (first.to_owned(), close.to_owned()));
        }
        let (first, more) = head(Refusal::Method);
        assert_eq!((&first[..], &more[..]), ("HTTP/1.1 405 Method Not Allowed", "Allow: GET\r\n"));
        let (first, more) = head(Refusal::UpgradeRequired);
        assert_eq!(first, "HTTP/1.1 426 Upgrade Required");
        assert!(more.contains("\r\nSec-WebSocket-Version: 13\r\n"), "{more}");
    }

    #[test]
    fn an_origin_must_be_the_hosts_or_one_of_those_that_are_named() {
        let of = |origins: &Origins, text: &str| read(text.as_bytes(), origins).is_ok();
        let evil = CHAT.replace("http://server", "http://evil");
        assert!(of(&Origins::Same, &without("Origin")), "no browser");
        assert!(of(&Origins::Same, &CHAT.replace("http://server", "HTTPS://SERVER")));
        assert!(!of(&Origins::Same, &CHAT.replace("http://server.example.com", "null")));
        assert!(!of(&Origins::Same, &CHAT.replace("example.com\r\nSec", "example.com:81\r\nSec")));
        let by_proxy = CHAT.replace("Host: server.example.com", "Host: server.example.com:80");
        assert!(of(&Origins::Same, &by_proxy));
        assert!(!of(&Origins::Same, &by_proxy.replace(":80", ":8080")));
        assert!(of(&Origins::Any, &evil));
        let named = Origins::Of(vec!["http://evil.example.com".to_owned()]);
        assert!(of(&named, &evil) && !of(&named, CHAT));
    }
}
