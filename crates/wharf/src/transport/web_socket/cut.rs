//! Frames to messages, in the memory that they came in.
//!
//! The bytes that wait for a session are, from the oldest on: what has come of a message, without heads and unmasked; then
//! what came behind it, as it came. A pass goes over them once. A message that came whole in one frame is handed out
//! where it lies; of one in fragments, each after the first is moved to the end of those before.

use std::ops::Range;

use super::head::{Head, Opcode};
use super::{Limits, Role, Violation, close, mask};

/// How far the bytes of a session have come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cutter {
    role: Role,
    message: Option<Message>,
    /// Of which frame bytes are to come.
    frame: Option<Frame>,
    empty_fragments: u32,
    control_frames: u32,
    /// The peer has sent a Close frame: what follows is nothing.
    is_closed: bool,
}

/// A message that is not whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Message {
    is_text: bool,
    /// So much of it waits, of which so much is known to be UTF-8.
    bytes: usize,
    valid_bytes: usize,
}

/// A frame of a message, whose head has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Frame {
    is_last: bool,
    key: Option<[u8; 4]>,
    /// Bytes that have come, and those that have not.
    done_bytes: u64,
    left_bytes: u64,
}

/// What is found next. Ranges are of the pass's bytes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Found {
    Message {
        is_text: bool,
        bytes: Range<usize>,
    },
    Ping(Range<usize>),
    Pong(Range<usize>),
    /// The last thing that is found.
    Close {
        code: u16,
        reason: Range<usize>,
    },
    /// No more, in what there is.
    Nothing,
}

/// A look at what waits, and at what has come behind it.
#[derive(Debug)]
pub(crate) struct Pass<'a> {
    pub(crate) bytes: &'a mut [u8],
    /// The message is from `start` to `end`, and from `next` on all is as it came.
    start: usize,
    end: usize,
    next: usize,
}

impl Cutter {
    /// For a session that has this role.
    pub(crate) fn new(role: Role) -> Self {
        Cutter {
            role,
            message: None,
            frame: None,
            empty_fragments: 0,
            control_frames: 0,
            is_closed: false,
        }
    }

    /// Begins a look. The bytes are those that the last look has left, and new ones behind them.
    pub(crate) fn pass<'a>(&self, bytes: &'a mut [u8]) -> Pass<'a> {
        let end = self.message.map_or(0, |message| message.bytes);
        debug_assert!(end <= bytes.len(), "what waited is there");
        Pass { bytes, start: 0, end, next: end }
    }

    /// Finds what is next. After a violation, and after a Close, there is nothing more.
    pub(crate) fn next(
        &mut self,
        pass: &mut Pass<'_>,
        limits: &Limits,
    ) -> Result<Found, Violation> {
        loop {
            if self.is_closed {
                pass.next = pass.bytes.len();
                return Ok(Found::Nothing);
            }
            if let (Some(message), Some(frame)) = (&mut self.message, &mut self.frame) {
                frame.take(message, pass)?;
                if frame.left_bytes > 0 {
                    return Ok(Found::Nothing);
                }
                let is_last = frame.is_last;
                self.frame = None;
                if is_last {
                    return self.message_ends(pass);
                }
            }
            let came = &pass.bytes[pass.next..];
            let Some((head, head_bytes)) = Head::read(came, self.role)? else {
                return Ok(Found::Nothing);
            };
            if head.opcode.is_control() {
                let frame_bytes = head_bytes + head.payload_bytes as usize; // at most 125
                if came.len() < frame_bytes {
                    return Ok(Found::Nothing);
                }
                self.control_frames += 1;
                if self.control_frames > limits.control_frames_max {
                    return Err(Violation::ControlFrames);
                }
                let payload = pass.next + head_bytes..pass.next + frame_bytes;
                pass.next = payload.end;
                return self.control(head, payload, pass);
            }
            self.begin(head, limits)?;
            pass.next += head_bytes;
            if head.opcode != Opcode::Continuation {
                (pass.start, pass.end) = (pass.next, pass.next);
            }
        }
    }

    /// Ends a look. Returns what must be kept for the next.
    pub(crate) fn end(&mut self, pass: Pass<'_>) -> Range<usize> {
        let Pass { bytes, start, end, next } = pass;
        let rest = bytes.len() - next; // at most a head, or a control frame
        bytes.copy_within(next.., end);
        start..end + rest
    }

    /// The head of a fragment has come.
    fn begin(&mut self, head: Head, limits: &Limits) -> Result<(), Violation> {
        let waiting = match (head.opcode, self.message) {
            (Opcode::Continuation, None) => return Err(Violation::Continuation),
            (Opcode::Continuation, Some(message)) => message.bytes,
            (_, Some(_)) => return Err(Violation::Interleaved),
            (opcode, None) => {
                let is_text = opcode == Opcode::Text;
                self.message = Some(Message { is_text, bytes: 0, valid_bytes: 0 });
                0
            }
        };
        let (bytes, max) = (waiting as u64 + head.payload_bytes, limits.message_bytes_max);
        if bytes > max as u64 {
            return Err(Violation::TooLong { bytes, max });
        }
        self.control_frames = 0;
        self.empty_fragments = if head.payload_bytes == 0 { self.empty_fragments + 1 } else { 0 };
        if self.empty_fragments > limits.empty_fragments_max {
            return Err(Violation::EmptyFragments);
        }
        let Head { is_last, key, payload_bytes: left_bytes, .. } = head;
        self.frame = Some(Frame { is_last, key, done_bytes: 0, left_bytes });
        Ok(())
    }

    fn message_ends(&mut self, pass: &mut Pass<'_>) -> Result<Found, Violation> {
        let Some(Message { is_text, bytes, valid_bytes }) = self.message.take() else {
            return Ok(Found::Nothing); // there is one
        };
        self.empty_fragments = 0;
        if is_text && valid_bytes < bytes {
            return Err(Violation::NotUtf8);
        }
        let message = pass.start..pass.end;
        debug_assert_eq!(message.len(), bytes);
        (pass.start, pass.end) = (pass.next, pass.next);
        Ok(Found::Message { is_text, bytes: message })
    }

    fn control(
        &mut self,
        head: Head,
        payload: Range<usize>,
        pass: &mut Pass<'_>,
    ) -> Result<Found, Violation> {
        let bytes = &mut pass.bytes[payload.clone()];
        if let Some(key) = head.key {
            mask::apply(bytes, key, 0);
        }
        Ok(match head.opcode {
            Opcode::Ping => Found::Ping(payload),
            Opcode::Pong => Found::Pong(payload),
            _ => {
                let (code, reason) = close::read(bytes)?;
                self.is_closed = true;
                Found::Close { code, reason: payload.end - reason.len()..payload.end }
            }
        })
    }
}

impl Frame {
    /// Takes what has come of it to its message.
    fn take(&mut self, message: &mut Message, pass: &mut Pass<'_>) -> Result<(), Violation> {
        let came = pass.bytes.len() - pass.next;
        let count = usize::try_from(self.left_bytes).unwrap_or(usize::MAX).min(came);
        let (from, to) = (pass.next..pass.next + count, pass.end..pass.end + count);
        if from != to {
            pass.bytes.copy_within(from.clone(), to.start);
        }
        if let Some(key) = self.key {
            mask::apply(&mut pass.bytes[to.clone()], key, (self.done_bytes % 4) as usize);
        }
        (pass.next, pass.end) = (from.end, to.end);
        self.done_bytes += count as u64;
        self.left_bytes -= count as u64;
        message.bytes += count;
        if message.is_text {
            message.validate(&pass.bytes[pass.start..pass.end])?;
        }
        Ok(())
    }
}

impl Message {
    /// Looks at what is new of a text. A character that has not come whole may still become one.
    fn validate(&mut self, text: &[u8]) -> Result<(), Violation> {
        match std::str::from_utf8(&text[self.valid_bytes..]) {
            Ok(_) => self.valid_bytes = text.len(),
            Err(error) if error.error_len().is_some() => return Err(Violation::NotUtf8),
            Err(error) => self.valid_bytes += error.valid_up_to(),
        }
        Ok(())
    }
}
