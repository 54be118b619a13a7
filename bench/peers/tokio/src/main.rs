//! Echo servers on tokio: a task for each session, TCP_NODELAY.
//!
//! As they come: a read buffer for each session, on the current-thread runtime; with `--threads` on
//! the multi-thread one with its defaults. With `--lean`, one buffer for all sessions, as whoever
//! holds many of them would write it: a session holds bytes only while its peer does not read.
#![forbid(unsafe_code)]

use std::cell::RefCell;
use std::io::{self, ErrorKind};

use protocol::{Arguments, Workload, announce};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Builder;

const BUFFER_BYTES: usize = 16 * 1024;
/// The one that all share may be larger.
const SHARED_BYTES: usize = 64 * 1024;

async fn serve(mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let count = stream.read(&mut buffer).await?;
        if count == 0 {
            return Ok(());
        }
        stream.write_all(&buffer[..count]).await?;
    }
}

async fn serve_lean(mut stream: TcpStream) -> io::Result<()> {
    thread_local! {
        static BUFFER: RefCell<Vec<u8>> = RefCell::new(vec![0; SHARED_BYTES]);
    }
    stream.set_nodelay(true)?;
    loop {
        stream.readable().await?;
        let rest = BUFFER.with_borrow_mut(|buffer| echo_once(&stream, buffer));
        match rest {
            Ok(None) => return Ok(()),
            Ok(Some(rest)) if rest.is_empty() => {}
            Ok(Some(rest)) => stream.write_all(&rest).await?,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
}

/// Reads and writes once. What could not be written; None at the end of the stream.
fn echo_once(stream: &TcpStream, buffer: &mut [u8]) -> io::Result<Option<Vec<u8>>> {
    let count = stream.try_read(buffer)?;
    if count == 0 {
        return Ok(None);
    }
    let written = match stream.try_write(&buffer[..count]) {
        Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
        written => written?,
    };
    Ok(Some(buffer[written..count].to_vec()))
}

async fn accept_all(arguments: Arguments) -> io::Result<()> {
    let listener = TcpListener::bind(arguments.listen).await?;
    announce(listener.local_addr()?);
    let lean = arguments.has("--lean");
    loop {
        let (stream, _) = listener.accept().await?;
        // A peer that resets ends its own task.
        if lean {
            tokio::spawn(async move { serve_lean(stream).await.ok() });
        } else {
            tokio::spawn(async move { serve(stream).await.ok() });
        }
    }
}

fn main() -> io::Result<()> {
    let arguments = Arguments::from_command_line();
    if arguments.workload != Workload::Echo {
        arguments.refuse();
    }
    if arguments.has("--threads") {
        // The accepting task on a worker too, like all others.
        let runtime = Builder::new_multi_thread().enable_io().build()?;
        runtime.block_on(async { tokio::spawn(accept_all(arguments)).await? })
    } else {
        Builder::new_current_thread().enable_io().build()?.block_on(accept_all(arguments))
    }
}
