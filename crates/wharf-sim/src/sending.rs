//! Sends of the program's, in each of the ways that there are, and what becomes of them.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use wharf::{EncodeError, Handle, SendError, SessionId};

use crate::forms::Form;
use crate::frames::Message;
use crate::misbehaviour::Bytes;
use crate::rules::Rule;
use crate::truth::{SharedTruth, is_latest, key_of};

/// An error without the frame, and the frame.
pub(crate) enum Refused {
    Gone,
    GoneOrFull,
    Full(usize, usize),
    Other(String),
}

pub(crate) type Sending = Result<(), (Refused, Vec<u8>)>;

pub(crate) fn error_of<T>(
    error: SendError<T>,
    frame_of: impl FnOnce(T) -> Vec<u8>,
) -> (Refused, Vec<u8>) {
    let refused = without_frame(&error);
    (refused, frame_of(error.into_inner()))
}

fn without_frame<T>(error: &SendError<T>) -> Refused {
    match error {
        SendError::Gone(_) => Refused::Gone,
        SendError::Full { queued, max, .. } => Refused::Full(*queued, *max),
        error => Refused::Other(error.to_string()),
    }
}

/// Notes what became of a frame that was handed over.
pub(crate) fn judge(
    truth: &SharedTruth,
    id: SessionId,
    (sender, number): (u32, u32),
    frame: &[u8],
    result: Sending,
    was_over: bool,
) {
    let mut truth = truth.lock();
    truth.has_returned(id);
    let about = vec![id.to_bits()];
    let Err((refused, bytes)) = result else {
        truth.has_accepted(id, sender, number);
        if was_over {
            let what = format!("a frame was accepted for {id}, which was over");
            truth.broken(Rule::GoneIsGone, about, what);
        }
        return;
    };
    truth.did_not_send(id, sender);
    if bytes != frame {
        let what = format!("another frame than was sent to {id} came back");
        truth.broken(Rule::FramesArriveWhole, about.clone(), what);
    }
    match refused {
        Refused::Gone => truth.found_gone(id),
        Refused::GoneOrFull => {
            truth.found_gone(id);
            truth.found_full(id);
        }
        // It is no reason to end: nothing is noted.
        Refused::Full(queued, max) => {
            // Here what waits beside the queue is told too.
            let max = if is_latest(sender) { 2 * max } else { max };
            let max = max + truth.control_bytes_max();
            if queued > max {
                let what = format!("{queued} bytes are queued for {id}, of at most {max}");
                truth.broken(Rule::BoundsAreKept, about, what);
            }
        }
        Refused::Other(error) => {
            truth.broken(Rule::GoneIsGone, about, format!("a frame to {id} was refused: {error}"));
        }
    }
}

/// What was only shown to a call comes to its end: dropped, if it was taken.
fn given_back(bytes: Bytes<'_>, is_taken: bool, refused: Refused) -> Sending {
    if is_taken {
        drop(bytes);
        return Ok(());
    }
    Err((refused, bytes.into_frame()))
}

/// Sends a frame that a newer one of its key may replace.
pub(crate) fn send_latest(
    truth: &SharedTruth,
    handle: &Handle,
    id: SessionId,
    sender: u32,
    bytes: usize,
) {
    let (number, was_over) = {
        let mut truth = truth.lock();
        let was_over = truth.takes_no_more(id);
        truth.may_be_placed(bytes);
        (truth.begins_to_send(id, sender), was_over)
    };
    let frame = truth.write(Message { to: id, sender, number }, bytes);
    let around = if truth.lock().shape.is_text() { Form::ENVELOPE_BYTES_MAX } else { 0 };
    let result = handle.send_latest(id, key_of(sender, number), &frame);
    let result = result.map_err(|error| {
        let refused = match &error {
            // It could not be published, so it is not encoded. (Of the program's own framing it is not known
            // beforehand how much it adds.)
            SendError::TooLarge { max, .. } if frame.len() + around > *max => {
                Refused::Full(0, *max)
            }
            error => without_frame(error),
        };
        (refused, error.into_inner().clone())
    });
    judge(truth, id, (sender, number), &frame, result, was_over);
}

/// Sends a frame through a handle; `own`: in a callback of this session, which a panic ends.
pub(crate) fn send(
    truth: &SharedTruth,
    handle: &Handle,
    id: SessionId,
    sender: u32,
    bytes: usize,
    own: Option<SessionId>,
) {
    let (number, was_over) = {
        let mut truth = truth.lock();
        let was_over = truth.takes_no_more(id);
        truth.may_be_placed(bytes);
        (truth.begins_to_send(id, sender), was_over)
    };
    let frame = truth.write(Message { to: id, sender, number }, bytes);
    let bytes = Bytes::new(&frame, handle, id);
    let is_unreadable = bytes.is_unreadable();
    let sent = catch_unwind(AssertUnwindSafe(|| {
        // The first two may end the session, and do not say why.
        match number % 8 {
            0 | 2 | 4 => {
                let sent = handle.send(id, bytes);
                sent.map_err(|gone| (Refused::GoneOrFull, Bytes::into_frame(gone.0)))
            }
            6 => {
                let who_never_was = SessionId::from_bits(u64::MAX);
                let sent = handle.send_many(&[who_never_was, id], &bytes);
                let (is_taken, refused) = match sent {
                    // It could not be published, so it is not encoded.
                    Err(EncodeError::TooLarge { max, .. }) if frame.len() > max => {
                        (false, Refused::Full(0, max))
                    }
                    sent => (sent.is_ok_and(|count| count == 1), Refused::GoneOrFull),
                };
                given_back(bytes, is_taken, refused)
            }
            7 => {
                let refused = match handle.encode(&bytes) {
                    Ok(encoded) => handle.try_send(id, encoded).err().as_ref().map(without_frame),
                    // It could not be published, so it is not encoded.
                    Err(EncodeError::TooLarge { max, .. }) if frame.len() > max => {
                        Some(Refused::Full(0, max))
                    }
                    Err(error) => Some(Refused::Other(error.to_string())),
                };
                given_back(bytes, refused.is_none(), refused.unwrap_or(Refused::Gone))
            }
            _ => handle.try_send(id, bytes).map_err(|error| error_of(error, Bytes::into_frame)),
        }
    }));
    match sent {
        Ok(result) => judge(truth, id, (sender, number), &frame, result, was_over),
        Err(panic) => {
            let mut truth = truth.lock();
            truth.has_returned(id);
            if is_unreadable {
                truth.did_not_send(id, sender);
            }
            let Some(own) = own else { return };
            truth.panics(own, false);
            drop(truth);
            resume_unwind(panic);
        }
    }
}
