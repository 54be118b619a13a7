//! Any bytes, in any pieces, with pauses between messages, as a server and as a client.

use arbitrary::{Arbitrary, Unstructured};

use super::{Broken, Heard, Stranger, Stream, plain};
use crate::session::{Left, ReceiveQueue};
use crate::transport::web_socket::{
    ControlFrame, Cutter, Found, HEAD_BYTES_MAX, Head, Opcode, Role, mask,
};

/// So that no input takes long.
const STREAM_BYTES_MAX: usize = 1 << 17;
/// Of a longer stream the pieces are larger.
const PIECES_MAX: usize = 1 << 11;
/// As many repetitions as pass each bound of frames that bring nothing.
const TIMES_MAX: u16 = 1_030;

#[derive(Debug, Arbitrary)]
struct Input<'a> {
    is_server: bool,
    message_bytes_max: u16,
    /// How many bytes come at a time, over and over; 0: all that are left.
    pieces: [u8; 4],
    /// The session pauses after every so many things that it hears; 0: never.
    pause_after: u8,
    sent: Vec<Sent<'a>>,
}

#[derive(Debug, Arbitrary)]
enum Sent<'a> {
    /// A frame as it should be, but for its first byte.
    Frame {
        first: u8,
        key: [u8; 4],
        payload: &'a [u8],
    },
    /// The same of so many bytes.
    Large {
        first: u8,
        key: [u8; 4],
        bytes: u16,
        fill: u8,
    },
    /// The frame before, so many times more.
    Again {
        times: u16,
    },
    Any {
        bytes: &'a [u8],
    },
}

/// The target.
pub fn web_socket_cut(bytes: &[u8], stranger: Stranger) {
    let Ok(input) = Input::arbitrary_take_rest(Unstructured::new(bytes)) else { return };
    let bytes = input.stream();
    let Input { is_server, pieces, pause_after, .. } = input;
    let message_bytes_max = input.message_bytes_max.into();
    let stream = Stream { is_server, message_bytes_max, bytes: &bytes };

    let scale = 1 + bytes.len() / PIECES_MAX;
    let mut session = Session::new(stream, pause_after);
    let (mut rest, mut pieces) = (&bytes[..], pieces.iter().cycle());
    while !rest.is_empty() {
        let wanted = usize::from(*pieces.next().expect("they are cycled")) * scale;
        let count = if wanted == 0 { rest.len() } else { wanted.min(rest.len()) };
        session.receive(&rest[..count]);
        rest = &rest[count..];
    }
    session.resume();
    let mut at_once = Session::new(stream, 0);
    at_once.receive(&bytes);
    assert_eq!(session.heard, at_once.heard, "the pieces matter");
    assert_eq!(session.heard, plain::hear(stream));
    assert!(session.cutter == at_once.cutter || session.has_ended);

    let (theirs, answered) = stranger(stream);
    judge_with(&session.heard, &theirs);
    let pings = |heard: &[Heard]| heard.iter().filter(|one| matches!(one, Heard::Ping(_))).count();
    let ours = plain::pongs(&session.pongs, !is_server);
    assert_eq!(ours.len(), pings(&session.heard));
    // They answer also what they hear beyond a refusal of ours.
    assert!(plain::pongs(&answered, !is_server).starts_with(&ours), "other pongs are due");
}

/// The others hear the same, but for what is said here.
fn judge_with(ours: &[Heard], theirs: &[Heard]) {
    let mut theirs = theirs.iter();
    for one in ours {
        let other = theirs.next();
        let Heard::Refused(broken) = one else {
            if other == Some(one) {
                continue;
            }
            // They do not know the code 1014, which was registered after RFC 6455.
            assert!(matches!(one, Heard::Close(1014, _)), "{one:?}, they {other:?}");
            return assert_eq!(other, Some(&not_to_be_said()));
        };
        return match (broken, other) {
            (_, Some(Heard::Refused(_))) => {}
            // They take any form of a length, and as many frames that bring nothing as come.
            (Broken::Length | Broken::Nothing, _) => {}
            // They refuse a code in their answer only.
            (Broken::Close, other) => assert_eq!(other, Some(&not_to_be_said())),
            // They look at a frame when it is whole, and ours at each byte.
            (_, None) => {}
            (broken, other) => panic!("{broken:?}, they {other:?}"),
        };
    }
    assert_eq!(theirs.next(), None);
}

/// What the others make of a code that may not be sent.
fn not_to_be_said() -> Heard {
    Heard::Close(1002, "Protocol violation".to_owned())
}

impl Input<'_> {
    fn stream(&self) -> Vec<u8> {
        let (mut stream, mut last) = (Vec::new(), 0..0);
        for sent in &self.sent {
            let start = stream.len();
            match sent {
                Sent::Frame { first, key, payload } => {
                    self.write(*first, *key, payload, &mut stream);
                }
                Sent::Large { first, key, bytes, fill } => {
                    self.write(*first, *key, &vec![*fill; usize::from(*bytes)], &mut stream);
                }
                Sent::Again { times } => {
                    let frame = stream[last.clone()].to_vec();
                    let room = (STREAM_BYTES_MAX - stream.len()) / frame.len().max(1);
                    let times = usize::from(*times % TIMES_MAX).min(room);
                    stream.extend(frame.repeat(times));
                    continue;
                }
                Sent::Any { bytes } => stream.extend_from_slice(bytes),
            }
            if stream.len() > STREAM_BYTES_MAX {
                stream.truncate(start);
                break;
            }
            last = start..stream.len();
        }
        stream
    }

    /// Writes a frame by the codec's own means.
    fn write(&self, first: u8, key: [u8; 4], payload: &[u8], stream: &mut Vec<u8>) {
        let (opcode, key) = (Opcode::Binary, self.is_server.then_some(key));
        let payload_bytes = payload.len() as u64;
        let head = Head { is_last: true, opcode, is_deflated: false, key, payload_bytes };
        let mut out = [0; HEAD_BYTES_MAX];
        let end = head.write(&mut out);
        out[0] = first;
        let mut payload = payload.to_vec();
        if let Some(key) = key {
            mask(&mut payload, key);
        }
        stream.extend_from_slice(&out[..end]);
        stream.extend_from_slice(&payload);
    }
}

/// The way of the bytes in a session: whole messages straight from what came, an unfinished one by the receive queue.
struct Session {
    cutter: Cutter,
    queue: ReceiveQueue,
    room: Left,
    message_bytes_max: usize,
    pause_after: u8,
    until_pause: u8,
    is_paused: bool,
    has_ended: bool,
    heard: Vec<Heard>,
    /// What is answered, as it leaves.
    pongs: Vec<u8>,
}

impl Session {
    fn new(stream: Stream<'_>, pause_after: u8) -> Self {
        Session {
            cutter: Cutter::new(stream.role(), stream.message_bytes_max),
            queue: ReceiveQueue::default(),
            room: Left::default(),
            message_bytes_max: stream.message_bytes_max as usize,
            pause_after,
            until_pause: pause_after,
            is_paused: false,
            has_ended: false,
            heard: Vec::new(),
            pongs: Vec::new(),
        }
    }

    fn receive(&mut self, bytes: &[u8]) {
        self.resume();
        if self.has_ended {
            return;
        }
        let mut bytes = bytes.to_vec(); // what it may overwrite
        let mut done = 0;
        while !self.queue.is_empty() && !self.is_paused && !self.has_ended {
            let wanted = self.cutter.wants(self.queue.contents());
            assert_ne!(wanted, 0, "what waits was looked at");
            let taken = wanted.min(bytes.len() - done);
            assert!(self.queue.append(&bytes[done..done + taken], &self.room));
            done += taken;
            self.hear_waiting();
            if taken == 0 {
                break;
            }
        }
        let rest = &mut bytes[done..];
        if self.queue.is_empty() {
            let left = self.hear(rest);
            assert!(self.queue.append(&rest[left], &self.room));
        } else {
            assert!(self.queue.append(rest, &self.room));
        }
        let kept_max = self.message_bytes_max + HEAD_BYTES_MAX + 125;
        assert!(self.is_paused || self.has_ended || self.queue.len() <= kept_max);
    }

    /// Goes on until all is heard that waits.
    fn resume(&mut self) {
        while std::mem::take(&mut self.is_paused) && !self.has_ended {
            self.hear_waiting();
        }
    }

    fn hear_waiting(&mut self) {
        let mut queue = std::mem::take(&mut self.queue);
        let len = queue.len();
        let left = self.hear(queue.contents());
        queue.truncate(len - left.end, &self.room);
        queue.consume(left.start, &self.room);
        self.queue = queue;
    }

    /// Returns what is to be kept.
    fn hear(&mut self, bytes: &mut [u8]) -> std::ops::Range<usize> {
        let mut pass = self.cutter.pass(bytes);
        while !pass.is_done() && !self.is_paused && !self.has_ended {
            let found = self.cutter.next(&mut pass);
            let copy = |range: std::ops::Range<usize>| pass.bytes[range].to_vec();
            let text = |range| String::from_utf8(copy(range)).expect("it was looked at");
            let heard = match found {
                Ok(Found::Nothing) => break,
                Ok(Found::Message { is_text: true, bytes, .. }) => Heard::Text(text(bytes)),
                Ok(Found::Message { is_text: false, bytes, .. }) => Heard::Binary(copy(bytes)),
                Ok(Found::Ping(payload)) => {
                    let key = (self.cutter.role() == Role::Client).then_some([3, 1, 4, 15]);
                    let pong = ControlFrame::new(Opcode::Pong, &pass.bytes[payload.clone()], key);
                    self.pongs.extend_from_slice(pong.bytes());
                    Heard::Ping(copy(payload))
                }
                Ok(Found::Pong(payload)) => Heard::Pong(copy(payload)),
                Ok(Found::Close { code, reason }) => Heard::Close(code, text(reason)),
                Err(violation) => Heard::Refused(Broken::of(violation)),
            };
            self.has_ended = matches!(heard, Heard::Close(..) | Heard::Refused(_));
            self.heard.push(heard);
            self.until_pause = self.until_pause.wrapping_sub(1);
            if self.until_pause == 0 && self.pause_after > 0 {
                (self.is_paused, self.until_pause) = (true, self.pause_after);
            }
        }
        self.cutter.end(pass)
    }
}
