//! wharf: one worker (or two), `--backend uring` or `--backend readiness`, everything else as it comes by
//! default but for the back-pressure, which is the one that an echo server should have. `--no-long-turns`: no turn is
//! long, and so no callback is measured, however slowly this runs. `--length-prefixed`: what is asked for over a
//! WebSocket is served without one, with a length before each frame, to be compared with it.
#![forbid(unsafe_code)]

mod echo;
mod sessions;

use protocol::{Arguments, Workload, announce};
use wharf::{
    Backend, Backpressure, Framing, Handler, LengthPrefix, Listener, Options, Server, WebSocket,
};

/// Room for 240 frames. Small, so that senders that go as fast as they can are held back soon.
const SENDER_QUEUE_BYTES: usize = 16 * 1024;
/// Of the session layer's frames. A send queue must hold two of the largest.
const FRAME_BYTES_MAX: usize = 4096;

fn main() -> wharf::Result<()> {
    let arguments = Arguments::from_command_line();
    let (plain, options) = (Listener::new(arguments.listen), Options::default());
    let has_web_socket = !arguments.has("--length-prefixed");
    match arguments.workload {
        Workload::Echo => serve(&arguments, plain, Framing::raw(), options, echo::Echo),
        Workload::Broadcast => serve(&arguments, plain, framing(), options, sessions::Broadcast),
        Workload::SendById => {
            let options = options.with(|options| {
                options.sending.queue_bytes_max = SENDER_QUEUE_BYTES;
            });
            let handler = sessions::SendById::new(arguments.clone());
            serve(&arguments, plain, framing(), options, handler)
        }
        Workload::WsEcho => {
            let listener = if has_web_socket { plain.transport(WebSocket::new()) } else { plain };
            let framing = Framing::length_prefixed(LengthPrefix::default());
            serve(&arguments, listener, framing, options, echo::Echo)
        }
        Workload::WsBroadcast => {
            let web_socket = WebSocket::new().message_bytes_max(FRAME_BYTES_MAX);
            let listener = if has_web_socket { plain.transport(web_socket) } else { plain };
            serve(&arguments, listener, framing(), options, sessions::Broadcast)
        }
    }
}

fn framing() -> Framing {
    Framing::length_prefixed(LengthPrefix::default().frame_bytes_max(FRAME_BYTES_MAX))
}

fn serve(
    arguments: &Arguments,
    listener: Listener,
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
    let server =
        Server::builder().listen(listener).framing(framing).options(options).start(handler)?;
    announce(server.addresses()[0]);
    server.wait()
}
