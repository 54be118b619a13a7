//! An echo server on monoio: a task and a read buffer for each session, TCP_NODELAY, and a ring
//! whose completions run when its thread waits for them.
#![forbid(unsafe_code)]

use std::io;

use monoio::buf::IoBuf;
use monoio::io::{AsyncReadRent, AsyncWriteRentExt};
use monoio::net::{ListenerOpts, TcpListener, TcpStream};
use monoio::{IoUringDriver, RuntimeBuilder};
use protocol::{Arguments, Workload, announce};

const BUFFER_BYTES: usize = 16 * 1024;

async fn serve(mut stream: TcpStream) -> io::Result<()> {
    let mut buffer = Vec::with_capacity(BUFFER_BYTES);
    loop {
        let (count, bytes) = stream.read(buffer).await;
        let count = count?;
        if count == 0 {
            return Ok(());
        }
        let (written, bytes) = stream.write_all(bytes.slice(..count)).await;
        written?;
        buffer = bytes.into_inner();
        buffer.clear();
    }
}

async fn accept_all(arguments: Arguments) -> io::Result<()> {
    let options = ListenerOpts::new().backlog(4096);
    let listener = TcpListener::bind_with_config(arguments.listen, &options)?;
    announce(listener.local_addr()?);
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        // A peer that resets ends its own task.
        monoio::spawn(async move { serve(stream).await.ok() });
    }
}

fn main() -> io::Result<()> {
    let arguments = Arguments::from_command_line();
    if arguments.workload != Workload::Echo {
        arguments.refuse();
    }
    let mut ring = io_uring::IoUring::builder();
    ring.setup_single_issuer().setup_defer_taskrun();
    let mut runtime =
        RuntimeBuilder::<IoUringDriver>::new().with_entries(4096).uring_builder(ring).build()?;
    runtime.block_on(accept_all(arguments))
}
