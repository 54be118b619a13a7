//! The request that begins a WebSocket, and its answer (RFC 6455, 4).

use std::fmt::Write as _;

/// What a head may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct HeadLimits {
    pub(crate) bytes_max: usize,
    pub(crate) headers_max: usize,
}

impl Default for HeadLimits {
    fn default() -> Self {
        HeadLimits { bytes_max: 8 * 1024, headers_max: HEADERS_MAX }
    }
}

/// The most headers that are looked at, whatever the limits say.
const HEADERS_MAX: usize = 64;
/// What is hashed behind a key (RFC 6455, 1.3).
const ACCEPT_SUFFIX: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// Which origins a browser's page may have. A request without one is no browser's, and passes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) enum Origins {
    /// That of the host that is asked.
    #[default]
    Same,
    /// These, each as a browser writes it: `https://example.com`.
    Of(Vec<String>),
    Any,
}

/// A request for a WebSocket that is as it should be.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Upgrade<'a> {
    /// The path with its query.
    pub(crate) target: &'a str,
    pub(crate) key: &'a [u8],
    /// Those that the client would speak, the dearest first.
    pub(crate) subprotocols: Vec<&'a str>,
    pub(crate) headers: Vec<(&'a str, &'a [u8])>,
    /// What has come behind the head.
    pub(crate) head_bytes: usize,
}

/// Why a request is refused, by the status of its answer (RFC 9110, 15).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("400: {0}")]
    BadRequest(&'static str),
    #[error("403: the page is of another origin")]
    Origin,
    #[error("405: only GET is answered")]
    Method,
    #[error("426: this is spoken by WebSockets of version 13")]
    UpgradeRequired,
    #[error("431: the head is too large")]
    TooLarge,
    #[error("505: only HTTP/1.1 is spoken")]
    Version,
}

impl Refusal {
    pub(crate) fn status(self) -> (u16, &'static str) {
        match self {
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

/// What was found at the front of what a peer has sent.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Request<'a> {
    /// More of the head is to come.
    More,
    Upgrade(Upgrade<'a>),
    /// A GET that asks for no upgrade: for its path there may be a fixed answer.
    Get {
        target: &'a str,
        head_bytes: usize,
    },
}

/// Reads a request.
pub(crate) fn read<'a>(
    bytes: &'a [u8],
    limits: &HeadLimits,
    origins: &Origins,
) -> Result<Request<'a>, Refusal> {
    let mut room = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let headers_max = limits.headers_max.min(HEADERS_MAX);
    let mut request = httparse::Request::new(&mut room[..headers_max]);
    let looked_at = &bytes[..bytes.len().min(limits.bytes_max)];
    let head_bytes = match request.parse(looked_at) {
        Ok(httparse::Status::Complete(head_bytes)) => head_bytes,
        Ok(httparse::Status::Partial) if looked_at.len() < limits.bytes_max => {
            return Ok(Request::More);
        }
        Ok(httparse::Status::Partial) | Err(httparse::Error::TooManyHeaders) => {
            return Err(Refusal::TooLarge);
        }
        Err(httparse::Error::Version) => return Err(Refusal::Version),
        Err(_) => return Err(Refusal::BadRequest("the head is not HTTP")),
    };
    let (method, target) = (request.method.unwrap_or(""), request.path.unwrap_or(""));
    if request.version != Some(1) {
        return Err(Refusal::Version);
    }
    if method != "GET" {
        return Err(Refusal::Method);
    }
    let headers = Headers(request.headers);
    if headers.has("transfer-encoding")
        || headers.one("content-length")?.is_some_and(|length| length != b"0")
    {
        return Err(Refusal::BadRequest("a GET has no content"));
    }
    let host = headers.one("host")?.ok_or(Refusal::BadRequest("there is no host"))?;
    if !headers.has_token("upgrade", "websocket") || !headers.has_token("connection", "upgrade") {
        return Ok(Request::Get { target, head_bytes });
    }
    if headers.one("sec-websocket-version")? != Some(b"13") {
        return Err(Refusal::UpgradeRequired);
    }
    let key = headers.one("sec-websocket-key")?.filter(|key| is_key(key));
    let key = key.ok_or(Refusal::BadRequest("the key is not of 16 bytes"))?;
    let origin = headers.one("origin")?;
    if !origin.is_none_or(|origin| origins.take(origin, host)) {
        return Err(Refusal::Origin);
    }
    let subprotocols = headers.tokens("sec-websocket-protocol").collect();
    let headers = request.headers.iter().map(|header| (header.name, header.value)).collect();
    Ok(Request::Upgrade(Upgrade { target, key, subprotocols, headers, head_bytes }))
}

impl Upgrade<'_> {
    /// The answer that takes it.
    pub(crate) fn answer(&self, subprotocol: Option<&str>) -> String {
        let mut answer = format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: {}\r\n",
            accept(self.key)
        );
        if let Some(subprotocol) = subprotocol {
            let _ = write!(answer, "Sec-WebSocket-Protocol: {subprotocol}\r\n");
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
                let after = |scheme: &[u8]| {
                    origin
                        .get(..scheme.len())
                        .filter(|start| start.eq_ignore_ascii_case(scheme))
                        .map(|_| &origin[scheme.len()..])
                };
                let of_page = after(b"https://").or_else(|| after(b"http://"));
                of_page.is_some_and(|of_page| of_page.eq_ignore_ascii_case(host))
            }
        }
    }
}

struct Headers<'h, 'a>(&'h [httparse::Header<'a>]);

impl<'h, 'a> Headers<'h, 'a> {
    fn named(&self, name: &'static str) -> impl Iterator<Item = &'a [u8]> + use<'h, 'a> {
        self.0
            .iter()
            .filter(move |header| header.name.eq_ignore_ascii_case(name))
            .map(|header| header.value)
    }

    fn has(&self, name: &'static str) -> bool {
        self.named(name).next().is_some()
    }

    /// Its value; twice is one too many: others on the way may have taken the other one.
    fn one(&self, name: &'static str) -> Result<Option<&'a [u8]>, Refusal> {
        let mut values = self.named(name);
        let value = values.next();
        match values.next() {
            Some(_) => Err(Refusal::BadRequest("a header is there twice")),
            None => Ok(value),
        }
    }

    /// The members of its list, of all its lines.
    fn tokens(&self, name: &'static str) -> impl Iterator<Item = &'a str> + use<'h, 'a> {
        let lines = self.named(name).filter_map(|value| std::str::from_utf8(value).ok());
        lines.flat_map(|line| line.split(',')).map(str::trim).filter(|token| !token.is_empty())
    }

    fn has_token(&self, name: &'static str, wanted: &str) -> bool {
        self.tokens(name).any(|token| token.eq_ignore_ascii_case(wanted))
    }
}

/// What the answer says of a key.
pub(crate) fn accept(key: &[u8]) -> String {
    let mut hash = sha1_smol::Sha1::new();
    hash.update(key);
    hash.update(ACCEPT_SUFFIX);
    base64(&hash.digest().bytes())
}

const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// 16 bytes in base64: 22 characters, of which the last has 4 bits of nothing, and `==`.
fn is_key(key: &[u8]) -> bool {
    let [characters @ .., b'=', b'='] = key else { return false };
    characters.len() == 22
        && characters.iter().all(|one| BASE64.contains(one))
        && b"AQgw".contains(&characters[21])
}

fn base64(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for three in bytes.chunks(3) {
        let byte = |at: usize| u32::from(three.get(at).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for place in 0..4 {
            let six = (bits >> (18 - 6 * place) & 63) as usize;
            text.push(if place <= three.len() { char::from(BASE64[six]) } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHAT: &str = "GET /chat?room=1 HTTP/1.1\r\nHost: server.example.com\r\nUpgrade: websocket\r\n\
        Connection: keep-alive, Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
        Origin: http://server.example.com\r\nSec-WebSocket-Protocol: chat, superchat\r\n\
        Sec-WebSocket-Version: 13\r\n\r\n";

    fn read_text(text: &str) -> Result<Request<'_>, Refusal> {
        read(text.as_bytes(), &HeadLimits::default(), &Origins::Same)
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
        let behind = format!("{CHAT}frames");
        let Ok(Request::Upgrade(upgrade)) = read_text(&behind) else {
            panic!("{:?}", read_text(&behind))
        };
        assert_eq!((upgrade.target, upgrade.head_bytes), ("/chat?room=1", CHAT.len()));
        assert_eq!(upgrade.subprotocols, ["chat", "superchat"]);
        assert_eq!(
            upgrade.answer(Some("chat")),
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
        assert_eq!(status(&CHAT.replace("HTTP/1.1", "HTTP/1.0")), 505);
        assert_eq!(status(&with(&format!("Cookie: {}", "x".repeat(9_000)))), 431);
        assert_eq!(status(&with(&vec!["A: b"; 64].join("\r\n"))), 431);
        for line in ["Upgrade", "Connection"] {
            let get = without(line);
            let found = read_text(&get);
            assert_eq!(found, Ok(Request::Get { target: "/chat?room=1", head_bytes: get.len() }));
        }
    }

    #[test]
    fn an_origin_must_be_the_hosts_or_one_of_those_that_are_named() {
        let of = |origins: &Origins, text: &str| {
            read(text.as_bytes(), &HeadLimits::default(), origins).is_ok()
        };
        let evil = CHAT.replace("http://server", "http://evil");
        assert!(of(&Origins::Same, &without("Origin")), "no browser");
        assert!(of(&Origins::Same, &CHAT.replace("http://server", "HTTPS://SERVER")));
        assert!(!of(&Origins::Same, &CHAT.replace("http://server.example.com", "null")));
        assert!(!of(&Origins::Same, &CHAT.replace("example.com\r\nSec", "example.com:81\r\nSec")));
        assert!(of(&Origins::Any, &evil));
        let named = Origins::Of(vec!["http://evil.example.com".to_owned()]);
        assert!(of(&named, &evil) && !of(&named, CHAT));
    }

    #[test]
    fn every_remainder_has_its_base64() {
        for (bytes, text) in
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg==")]
        {
            assert_eq!(base64(bytes.as_bytes()), text);
        }
    }
}
