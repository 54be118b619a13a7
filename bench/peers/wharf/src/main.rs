//! wharf: one worker (or two), `--backend uring` or `--backend readiness`, everything else as it comes by
//! default but for the back-pressure, which is the one that an echo server should have. `--no-long-turns`: no turn is
//! long, and so no callback is measured, however slowly this runs.
#![forbid(unsafe_code)]

mod echo;
mod sessions;

use protocol::{Arguments, Workload, announce};
use wharf::{Backend, Backpressure, Framing, Handler, LengthPrefix, Options, Server};

/// Room for 240 frames. Small, so that senders that go as fast as they can are held back soon.
const SENDER_QUEUE_BYTES: usize = 16 * 1024;

fn main() -> wharf::Result<()> {
    let arguments = Arguments::from_command_line();
    match arguments.workload {
        Workload::Echo => serve(&arguments, Framing::raw(), Options::default(), echo::Echo),
        Workload::Broadcast => {
            serve(&arguments, framing(), Options::default(), sessions::Broadcast)
        }
        Workload::SendById => {
            let options = Options::default().with(|options| {
                options.sending.queue_bytes_max = SENDER_QUEUE_BYTES;
            });
            serve(&arguments, framing(), options, sessions::SendById::new(arguments.clone()))
        }
    }
}

/// Frames of 4 KiB at most: a send queue must hold two of the largest.
fn framing() -> Framing {
    Framing::length_prefixed(LengthPrefix::default().frame_bytes_max(4096))
}

fn serve(
    arguments: &Arguments,
    framing: Framing,
    options: Options,
    handler: impl Handler,
) -> wharf::Result<()> {
    let backend = if arguments.has("readiness") { Backend::Readiness } else { Backend::Uring };
    let backpressure = Backpressure::PauseReceive;
    let workers = if arguments.has("--two-workers") { 2 } else { 1 };
    let options = options.workers(workers).backend(backend).with(|options| {
        options.receiving.backpressure = backpressure;
        if arguments.has("--no-long-turns") {
            options.long_turn = None;
        }
    });
    let server = Server::builder()
        .listen(arguments.listen)
        .framing(framing)
        .options(options)
        .start(handler)?;
    announce(server.addresses()[0]);
    server.wait()
}
