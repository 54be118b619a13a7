//! The loop of a sending thread in `send-by-id`: one for all servers, so that only the way from the
//! thread to the session differs.

use std::thread;
use std::time::Duration;

use crate::Arguments;
use crate::clock::now_ns;
use crate::frame::{FRAME_BYTES, Frame};
use crate::pattern::mix;

/// What became of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    Queued,
    /// There is no room. The thread rests, and tries the same frame again.
    Full,
    /// The session is over.
    Gone,
}

/// How long a sender rests when it finds a queue full or is ahead of its rate.
const REST: Duration = Duration::from_micros(100);

/// Sends to random sessions until one of them is gone, as sender number `sender`. `send` gets the
/// session's index and the frame as it goes on the wire.
pub fn run_sender(
    arguments: &Arguments,
    sender: u32,
    mut send: impl FnMut(usize, &[u8; FRAME_BYTES]) -> Sent,
) {
    let period_ns = match arguments.rate {
        0.0 => 0.0,
        rate => 1e9 * arguments.senders as f64 / rate,
    };
    let mut sequences = vec![0; arguments.sessions];
    let mut random = mix(u64::from(sender));
    let start_ns = now_ns();
    for number in 0_u64.. {
        let mut due_ns = start_ns + (number as f64 * period_ns) as u64;
        if period_ns == 0.0 {
            due_ns = now_ns();
        }
        while now_ns() < due_ns {
            thread::sleep(REST);
        }
        random = mix(random);
        let index = (random % arguments.sessions as u64) as usize;
        let frame =
            Frame { sender, recipient: index as u32, sequence: sequences[index], due_ns }.bytes();
        loop {
            match send(index, &frame) {
                Sent::Queued => break,
                Sent::Full => thread::sleep(REST),
                Sent::Gone => return,
            }
        }
        sequences[index] += 1;
    }
}
