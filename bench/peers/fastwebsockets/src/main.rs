//! An echo server on fastwebsockets, as its example has it: hyper for the upgrade, then a task for each session, on the
//! current-thread runtime. It joins fragments. TCP_NODELAY.
#![forbid(unsafe_code)]

use std::io;

use fastwebsockets::upgrade::{self, UpgradeFut};
use fastwebsockets::{FragmentCollector, OpCode, WebSocketError};
use http_body_util::Empty;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use protocol::{Arguments, Workload, announce};
use tokio::net::TcpListener;
use tokio::runtime::Builder;
use tokio::task::unconstrained;

async fn serve(upgraded: UpgradeFut) -> Result<(), WebSocketError> {
    let mut socket = FragmentCollector::new(upgraded.await?);
    loop {
        let frame = socket.read_frame().await?;
        match frame.opcode {
            OpCode::Close => return Ok(()),
            OpCode::Text | OpCode::Binary => socket.write_frame(frame).await?,
            _ => {}
        }
    }
}

async fn upgraded(
    mut request: Request<Incoming>,
) -> Result<Response<Empty<Bytes>>, WebSocketError> {
    let (response, upgraded) = upgrade::upgrade(&mut request)?;
    // A peer that resets ends its own task.
    tokio::spawn(async { unconstrained(serve(upgraded)).await.ok() });
    Ok(response)
}

async fn accept_all(arguments: Arguments) -> io::Result<()> {
    let listener = TcpListener::bind(arguments.listen).await?;
    announce(listener.local_addr()?);
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        tokio::spawn(async {
            let service = service_fn(upgraded);
            let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
            connection.with_upgrades().await.ok()
        });
    }
}

fn main() -> io::Result<()> {
    let arguments = Arguments::from_command_line();
    if arguments.workload != Workload::WsEcho {
        arguments.refuse();
    }
    Builder::new_current_thread().enable_io().build()?.block_on(accept_all(arguments))
}
