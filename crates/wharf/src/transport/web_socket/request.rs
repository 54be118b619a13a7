//! The request that a client begins a WebSocket with, and the answer that it takes.

use std::fmt::Write as _;

use super::base64;
#[cfg(feature = "deflate")]
use super::deflate::{Agreed, OFFER};
use super::upgrade::{HEAD_BYTES_MAX, Headers, accept};

/// The most headers in an answer.
const HEADERS_MAX: usize = 64;

/// What a client asks for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asked<'a> {
    pub(crate) host: &'a str,
    /// The path with its query.
    pub(crate) target: &'a str,
    pub(crate) headers: &'a [(String, String)],
    pub(crate) subprotocols: &'a [String],
    /// Messages may be deflated.
    #[cfg(feature = "deflate")]
    pub(crate) deflates: bool,
    /// 16 bytes that nobody can guess.
    pub(crate) nonce: [u8; 16],
}

/// What was found at the front of what a server has answered.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// More of it is to come.
    More,
    /// It is taken. The head has so many bytes.
    Taken {
        subprotocol: Option<String>,
        #[cfg(feature = "deflate")]
        deflate: Option<Agreed>,
        head_bytes: usize,
    },
    /// It is not.
    Refused { status: u16 },
    /// It is no answer to this request.
    Wrong { reason: &'static str },
}

impl Asked<'_> {
    pub(crate) fn request(&self) -> String {
        let mut request = format!(
            "GET {} HTTP/1.1\r\nHost: {}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Key: {}\r\nSec-WebSocket-Version: 13\r\n",
            self.target,
            self.host,
            base64::encode(&self.nonce)
        );
        if !self.subprotocols.is_empty() {
            let _ = write!(request, "Sec-WebSocket-Protocol: {}\r\n", self.subprotocols.join(", "));
        }
        #[cfg(feature = "deflate")]
        if self.deflates {
            let _ = write!(request, "Sec-WebSocket-Extensions: {OFFER}\r\n");
        }
        for (name, value) in self.headers {
            let _ = write!(request, "{name}: {value}\r\n");
        }
        request.push_str("\r\n");
        request
    }

    /// Reads what has been answered.
    pub(crate) fn answer(&self, bytes: &[u8]) -> Answer {
        let looked_at = &bytes[..bytes.len().min(HEAD_BYTES_MAX)];
        let mut start = 0;
        loop {
            let mut room = [httparse::EMPTY_HEADER; HEADERS_MAX];
            let mut answer = httparse::Response::new(&mut room);
            let head_bytes = match answer.parse(&looked_at[start..]) {
                Ok(httparse::Status::Complete(head_bytes)) => start + head_bytes,
                Ok(httparse::Status::Partial) if looked_at.len() < HEAD_BYTES_MAX => {
                    return Answer::More;
                }
                Ok(httparse::Status::Partial) | Err(httparse::Error::TooManyHeaders) => {
                    return Answer::Wrong { reason: "the head is too large" };
                }
                Err(_) => return Answer::Wrong { reason: "the head is not HTTP" },
            };
            match answer.code {
                Some(101) if answer.version == Some(1) => return self.taken(&answer, head_bytes),
                Some(101) => return Answer::Wrong { reason: "HTTP/1.0 has no upgrade" },
                // Something before the answer (RFC 9110, 15.2).
                Some(100 | 102..=199) => start = head_bytes,
                status => return Answer::Refused { status: status.unwrap_or(0) },
            }
        }
    }

    /// It is a 101, whose head ends there.
    fn taken(&self, answer: &httparse::Response<'_, '_>, head_bytes: usize) -> Answer {
        let wrong = |reason| Answer::Wrong { reason };
        let headers = Headers(answer.headers);
        if !headers.has_token("upgrade", "websocket") || !headers.has_token("connection", "upgrade")
        {
            return wrong("it is no WebSocket");
        }
        let expected = accept(base64::encode(&self.nonce).as_bytes());
        if !matches!(headers.one("sec-websocket-accept"), Ok(Some(said)) if said == expected.as_bytes())
        {
            return wrong("it is the answer to another key");
        }
        #[cfg(feature = "deflate")]
        let deflate = match headers.one("sec-websocket-extensions") {
            Ok(None) => None,
            Ok(Some(said)) => {
                let said = std::str::from_utf8(said).ok().filter(|_| self.deflates);
                match said.and_then(Agreed::of_answer) {
                    None => return wrong("it has an extension that was not asked for"),
                    agreed => agreed,
                }
            }
            Err(_) => return wrong("a header is there twice"),
        };
        #[cfg(not(feature = "deflate"))]
        if headers.has("sec-websocket-extensions") {
            return wrong("it has an extension that was not asked for");
        }
        let subprotocol = match headers.one("sec-websocket-protocol") {
            Ok(None) => None,
            Ok(Some(said)) => {
                let Some(one) = self.subprotocols.iter().find(|one| one.as_bytes() == said) else {
                    return wrong("it has a subprotocol that was not asked for");
                };
                Some(one.clone())
            }
            Err(_) => return wrong("a header is there twice"),
        };
        Answer::Taken {
            subprotocol,
            #[cfg(feature = "deflate")]
            deflate,
            head_bytes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::upgrade::{Origins, Request, read};
    use super::*;

    fn asked(subprotocols: &[String]) -> Asked<'_> {
        let (host, target) = ("example.com:7000", "/chat?room=1");
        Asked {
            host,
            target,
            headers: &[],
            subprotocols,
            #[cfg(feature = "deflate")]
            deflates: false,
            nonce: [7; 16],
        }
    }

    #[test]
    fn what_a_client_asks_a_server_takes_and_its_answer_the_client() {
        let subprotocols = ["game.v2".to_owned(), "game.v1".to_owned()];
        let headers = [("Cookie".to_owned(), "token=abc".to_owned())];
        let asked = Asked { headers: &headers, ..asked(&subprotocols) };
        let asks = asked.request();
        let Ok(Request::Upgrade { request, head_bytes }) = read(asks.as_bytes(), &Origins::Same)
        else {
            panic!("{asks}")
        };
        assert_eq!(head_bytes, asks.len());
        assert_eq!((request.target(), request.cookie("token")), ("/chat?room=1", Some("abc")));
        assert_eq!(request.header("host"), Some("example.com:7000"));
        assert!(request.subprotocols().eq(["game.v2", "game.v1"]));
        for subprotocol in [None, Some("game.v1")] {
            let answers = request.answer(subprotocol, None);
            for end in 0..answers.len() {
                assert_eq!(asked.answer(&answers.as_bytes()[..end]), Answer::More);
            }
            let (subprotocol, head_bytes) = (subprotocol.map(str::to_owned), answers.len());
            let taken = Answer::Taken {
                subprotocol,
                #[cfg(feature = "deflate")]
                deflate: None,
                head_bytes,
            };
            assert_eq!(asked.answer(format!("{answers}frames").as_bytes()), taken);
        }
    }

    #[test]
    fn what_is_no_answer_to_the_request_is_not_taken() {
        let subprotocols = ["game.v1".to_owned()];
        let asked = asked(&subprotocols);
        let asks = asked.request();
        let Ok(Request::Upgrade { request, .. }) = read(asks.as_bytes(), &Origins::Same) else {
            panic!("{asks}")
        };
        let answers = request.answer(None, None);
        let with = |line: &str| answers.replace("\r\n\r\n", &format!("\r\n{line}\r\n\r\n"));
        let accepts = accept(base64::encode(&[7; 16]).as_bytes());
        for wrong in [
            "\x16\x03\x03 an alert of TLS".to_owned(),
            answers.replace("websocket", "h2c"),
            answers.replace("HTTP/1.1", "HTTP/1.0"),
            answers.replace("Connection: Upgrade\r\n", ""),
            answers.replace(&accepts, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="),
            with("Sec-WebSocket-Protocol: chat"),
            with("Sec-WebSocket-Extensions: permessage-deflate"),
            with(&format!("Sec-WebSocket-Accept: {accepts}")),
            with(&format!("A: {}", "x".repeat(9_000))),
        ] {
            assert!(matches!(asked.answer(wrong.as_bytes()), Answer::Wrong { .. }), "{wrong}");
        }
        let early = format!("HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n{answers}");
        let taken = asked.answer(early.as_bytes());
        let is_taken =
            matches!(taken, Answer::Taken { head_bytes, .. } if head_bytes == early.len());
        assert!(is_taken, "{taken:?}");
        let refused = asked.answer(b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n");
        assert_eq!(refused, Answer::Refused { status: 503 });
    }
}
