//! What a listener answers HTTP with that is no upgrade.

use crate::buffer::{Envelope, SharedFrame};

/// The answer to each GET without an upgrade at one path: one of [`WebSocket::answers`](field@crate::WebSocket::answers).
///
/// It is made once, and sent to all who ask from the same memory; then their connections end. Whoever asks is no session:
/// no callback runs. It is for a health check, or for a page with its script. More than a few files are a web server's.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct FixedAnswer {
    path: String,
    /// With its head.
    answer: SharedFrame,
    fault: Option<&'static str>,
}

impl FixedAnswer {
    /// The most bytes of a body: 1 MiB.
    pub const BODY_BYTES_MAX: usize = 1024 * 1024;

    /// With the status 200. The path begins with `/`, and a query behind it makes no difference. The content type is as
    /// in HTTP: `text/html; charset=utf-8`. A server with another path, another type or a larger body than it may have
    /// does not start.
    pub fn new(path: impl Into<String>, content_type: &str, body: impl AsRef<[u8]>) -> Self {
        let (path, mut body) = (path.into(), body.as_ref());
        let is_of_path = |byte: u8| byte.is_ascii_graphic() && !b"?#".contains(&byte);
        let is_of_type = |byte: u8| byte == b' ' || byte.is_ascii_graphic();
        let fault = if !path.starts_with('/') || !path.bytes().all(is_of_path) {
            Some(
                "the path at this place must begin with /, and have neither ?, # nor what is to be encoded",
            )
        } else if content_type.is_empty() || !content_type.bytes().all(is_of_type) {
            Some("the content type at this place must be ASCII in a line")
        } else if body.len() > Self::BODY_BYTES_MAX {
            body = &[]; // it is not sent
            Some("the body at this place must be 1 MiB at most")
        } else {
            None
        };
        let head = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\n\
             Connection: close\r\n\r\n",
            body.len()
        );
        let parts = [head.as_bytes(), body].into_iter();
        let bytes = head.len() + body.len();
        let answer = SharedFrame::of(&Envelope::default(), bytes, parts, |_| ());
        FixedAnswer { path, answer, fault }
    }

    /// Where it is.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Why a server does not start with it.
    pub(super) fn fault(&self) -> Option<&'static str> {
        self.fault
    }

    /// As it is sent.
    pub(crate) fn answer(&self) -> &SharedFrame {
        &self.answer
    }
}
