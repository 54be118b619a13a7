//! What `tungstenite` hears. The tests have this file as it is, and so has `fuzz/`: what it needs of wharf stands in the
//! module around it.

use std::io::{self, Read, Write};

use tungstenite::protocol::{Role, WebSocket, WebSocketConfig};
use tungstenite::{Error, Message};

use super::{Broken, Heard, Stream};

/// A peer that has sent all that it will, and keeps what it is answered.
struct Peer<'a> {
    sent: &'a [u8],
    answered: Vec<u8>,
}

impl Read for Peer<'_> {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        match self.sent.read(room)? {
            0 => Err(io::ErrorKind::WouldBlock.into()),
            count => Ok(count),
        }
    }
}

impl Write for Peer<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.answered.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

pub(crate) fn hear(stream: Stream<'_>) -> (Vec<Heard>, Vec<u8>) {
    let role = if stream.is_server { Role::Server } else { Role::Client };
    let message_bytes_max = stream.message_bytes_max as usize;
    let config = WebSocketConfig::default()
        .read_buffer_size(1 << 12)
        .max_message_size(Some(message_bytes_max))
        // It takes this as a bound of control frames too. And it has memory for a frame once its head is there.
        .max_frame_size(Some(message_bytes_max.max(125)));
    let peer = Peer { sent: stream.bytes, answered: Vec::new() };
    let mut socket = WebSocket::from_raw_socket(peer, role, Some(config));
    let mut heard = Vec::new();
    loop {
        heard.push(match socket.read() {
            Ok(Message::Text(text)) => Heard::Text(text.as_str().to_owned()),
            Ok(Message::Binary(bytes)) => Heard::Binary(bytes.to_vec()),
            Ok(Message::Ping(payload)) => Heard::Ping(payload.to_vec()),
            Ok(Message::Pong(payload)) => Heard::Pong(payload.to_vec()),
            Ok(Message::Close(said)) => {
                let (code, reason) = said.map_or((1005, String::new()), |said| {
                    (said.code.into(), said.reason.to_string())
                });
                heard.push(Heard::Close(code, reason));
                break;
            }
            Ok(Message::Frame(_)) => unreachable!("it reads messages"),
            Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(_) => {
                heard.push(Heard::Refused(Broken::Other));
                break;
            }
        });
    }
    (heard, std::mem::take(&mut socket.get_mut().answered))
}
