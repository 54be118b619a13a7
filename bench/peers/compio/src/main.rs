//! An echo server on compio: a task and a read buffer for each session, TCP_NODELAY, and a ring
//! whose completions run when its thread waits for them.
#![forbid(unsafe_code)]

use std::io;

use compio::buf::{IntoInner, IoBuf};
use compio::driver::ProactorBuilder;
use compio::io::{AsyncRead, AsyncWriteExt};
use compio::net::{TcpListener, TcpStream};
use compio::runtime::RuntimeBuilder;
use protocol::{Arguments, Workload, announce};

const BUFFER_BYTES: usize = 16 * 1024;

async fn serve(mut stream: TcpStream) -> io::Result<()> {
    let mut buffer = Vec::with_capacity(BUFFER_BYTES);
    loop {
        buffer.clear();
        let (count, bytes) = stream.read(buffer).await.into();
        let count: usize = count?;
        if count == 0 {
            return Ok(());
        }
        let (written, bytes) = stream.write_all(bytes.slice(..count)).await.into();
        let () = written?;
        buffer = bytes.into_inner();
    }
}

async fn accept_all(arguments: Arguments) -> io::Result<()> {
    let listener = TcpListener::bind(arguments.listen).await?;
    announce(listener.local_addr()?);
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        // A peer that resets ends its own task.
        compio::runtime::spawn(async move { serve(stream).await.ok() }).detach();
    }
}

fn main() -> io::Result<()> {
    let arguments = Arguments::from_command_line();
    if arguments.workload != Workload::Echo {
        arguments.refuse();
    }
    let mut ring = ProactorBuilder::new();
    ring.capacity(4096).single_issuer(true).defer_taskrun(true);
    let runtime = RuntimeBuilder::new().with_proactor(ring).build()?;
    runtime.block_on(accept_all(arguments))
}
