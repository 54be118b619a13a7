//! Frames to messages, in the memory that they came in.
//!
//! The bytes that wait for a session are, from the oldest on: what has come of a message, without heads and unmasked; then
//! what came behind it, as it came. A pass goes over them once. A message that came whole in one frame is handed out
//! where it lies; of one in fragments, each after the first is moved to the end of those before.

use std::ops::Range;

use super::head::{Head, Opcode};
use super::rules::{CONTROL_FRAMES_MAX, EMPTY_FRAGMENTS_MAX, Role, Violation};
use super::{close, mask};

/// How far the bytes of a session have come. Each session has one, so it is kept small.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cutter {
    message: Option<Message>,
    /// Of which frame bytes are to come.
    frame: Option<Frame>,
    message_bytes_max: u32,
    control_frames: u16,
    empty_fragments: u8,
    role: Role,
    /// The peer has sent a Close frame: what follows is nothing.
    is_closed: bool,
}

/// A message that is not whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Message {
    /// So much of it waits, of which so much is known to be UTF-8.
    bytes: u32,
    valid_bytes: u32,
    is_text: bool,
}

/// A frame of a message, whose head has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Frame {
    /// Bytes that have not come.
    left_bytes: u32,
    /// What the next byte meets first. Zeros, if it is not masked.
    key: [u8; 4],
    is_last: bool,
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

impl Pass<'_> {
    /// Whether nothing is left that was not looked at.
    pub(crate) fn is_done(&self) -> bool {
        self.next == self.bytes.len()
    }
}

impl Cutter {
    /// For a session that has this role, and messages of at most so many bytes.
    pub(crate) fn new(role: Role, message_bytes_max: u32) -> Self {
        Cutter {
            message: None,
            frame: None,
            message_bytes_max,
            control_frames: 0,
            empty_fragments: 0,
            role,
            is_closed: false,
        }
    }

    pub(crate) fn role(&self) -> Role {
        self.role
    }

    /// The control frames that have come do not count any more: there was a pause behind them.
    pub(crate) fn no_flood(&mut self) {
        self.control_frames = 0;
    }

    /// How many bytes must come, at least, behind what waits for more to be found. 0: look at what waits.
    pub(crate) fn wants(&self, waiting: &[u8]) -> usize {
        match self.frame {
            Some(frame) => frame.left_bytes as usize,
            None => {
                let came = &waiting[self.message.map_or(0, |message| message.bytes as usize)..];
                Head::bytes_needed(came).saturating_sub(came.len())
            }
        }
    }

    /// Begins a look. The bytes are those that the last look has left, and new ones behind them.
    pub(crate) fn pass<'a>(&self, bytes: &'a mut [u8]) -> Pass<'a> {
        let end = self.message.map_or(0, |message| message.bytes as usize);
        debug_assert!(end <= bytes.len(), "what waited is there");
        Pass { bytes, start: 0, end, next: end }
    }

    /// Finds what is next. After a violation, and after a Close, there is nothing more.
    #[inline]
    pub(crate) fn next(&mut self, pass: &mut Pass<'_>) -> Result<Found, Violation> {
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
                if self.control_frames > CONTROL_FRAMES_MAX {
                    return Err(Violation::ControlFrames);
                }
                let payload = pass.next + head_bytes..pass.next + frame_bytes;
                pass.next = payload.end;
                return self.control(head, payload, pass);
            }
            self.begin(head)?;
            pass.next += head_bytes;
            if head.opcode != Opcode::Continuation {
                (pass.start, pass.end) = (pass.next, pass.next);
            }
        }
    }

    /// Ends a look. Returns what must be kept for the next.
    pub(crate) fn end(&mut self, pass: Pass<'_>) -> Range<usize> {
        let Pass { bytes, start, end, next } = pass;
        if self.message.is_none() {
            return next..bytes.len();
        }
        let rest = bytes.len() - next;
        if next > end {
            bytes.copy_within(next.., end);
        }
        start..end + rest
    }

    /// The head of a fragment has come.
    fn begin(&mut self, head: Head) -> Result<(), Violation> {
        let waiting = match (head.opcode, self.message) {
            (Opcode::Continuation, None) => return Err(Violation::Continuation),
            (Opcode::Continuation, Some(message)) => message.bytes,
            (_, Some(_)) => return Err(Violation::Interleaved),
            (opcode, None) => {
                let is_text = opcode == Opcode::Text;
                self.message = Some(Message { bytes: 0, valid_bytes: 0, is_text });
                0
            }
        };
        let bytes = u64::from(waiting) + head.payload_bytes;
        if bytes > self.message_bytes_max.into() {
            return Err(Violation::TooLong { bytes, max: self.message_bytes_max });
        }
        self.control_frames = 0;
        self.empty_fragments = if head.payload_bytes == 0 { self.empty_fragments + 1 } else { 0 };
        if self.empty_fragments > EMPTY_FRAGMENTS_MAX {
            return Err(Violation::EmptyFragments);
        }
        let Head { is_last, key, payload_bytes, .. } = head;
        let left_bytes = payload_bytes as u32; // at most `message_bytes_max`
        self.frame = Some(Frame { left_bytes, key: key.unwrap_or_default(), is_last });
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
        debug_assert_eq!(message.len(), bytes as usize);
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
            mask::apply(bytes, key);
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
    #[inline]
    fn take(&mut self, message: &mut Message, pass: &mut Pass<'_>) -> Result<(), Violation> {
        let count = (self.left_bytes as usize).min(pass.bytes.len() - pass.next);
        let (from, to) = (pass.next..pass.next + count, pass.end..pass.end + count);
        if from != to {
            pass.bytes.copy_within(from.clone(), to.start);
        }
        if self.key != [0; 4] {
            mask::apply(&mut pass.bytes[to.clone()], self.key);
            self.key.rotate_left(count % 4);
        }
        (pass.next, pass.end) = (from.end, to.end);
        self.left_bytes -= count as u32; // no more than that
        message.bytes += count as u32;
        if message.is_text {
            message.validate(&pass.bytes[pass.start..pass.end])?;
        }
        Ok(())
    }
}

impl Message {
    /// Looks at what is new of a text. A character that has not come whole may still become one.
    fn validate(&mut self, text: &[u8]) -> Result<(), Violation> {
        match simdutf8::compat::from_utf8(&text[self.valid_bytes as usize..]) {
            Ok(_) => self.valid_bytes = self.bytes,
            Err(error) if error.error_len().is_some() => return Err(Violation::NotUtf8),
            Err(error) => self.valid_bytes += error.valid_up_to() as u32, // no more than there is
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_session_keeps_of_its_web_socket_is_small() {
        assert!(size_of::<Cutter>() <= 40, "{}", size_of::<Cutter>());
    }
}
