//! An echo server on message-io: raw TCP, its own poll thread, handled as its examples do.
#![forbid(unsafe_code)]

use std::io;

use message_io::network::{NetEvent, Transport};
use message_io::node;
use protocol::{Arguments, Workload, announce};

fn main() -> io::Result<()> {
    let arguments = Arguments::from_command_line();
    if arguments.workload != Workload::Echo {
        arguments.refuse();
    }
    let (handler, listener) = node::split::<()>();
    let (_, address) = handler.network().listen(Transport::Tcp, arguments.listen)?;
    announce(address);
    listener.for_each(move |event| {
        if let NetEvent::Message(endpoint, bytes) = event.network() {
            // It waits until all is written; one that is over says so by another event.
            handler.network().send(endpoint, bytes);
        }
    });
    Ok(())
}
