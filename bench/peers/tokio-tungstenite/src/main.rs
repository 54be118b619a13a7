//! A WebSocket server on tokio-tungstenite: a task for each session, the current-thread runtime, its settings as they
//! come, TCP_NODELAY.
//!
//! In `ws-broadcast` a session has a bounded channel besides. What waits in it, up to 256 messages of which all members
//! share the bytes, leaves with one flush.
#![forbid(unsafe_code)]

use std::cell::RefCell;
use std::io;
use std::rc::Rc;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use protocol::{Arguments, Hello, Workload, announce};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Builder;
use tokio::sync::mpsc::{Sender, channel};
use tokio::task::{LocalSet, spawn_local};
use tokio_tungstenite::accept_async;
use tokio_tungstenite::tungstenite::{Message, Result};

/// The most messages that wait for one session, and that leave with one flush.
const QUEUE_MESSAGES: usize = 256;

type Members = Rc<RefCell<Vec<Sender<Bytes>>>>;

async fn echo(stream: TcpStream) -> Result<()> {
    let mut socket = accept_async(stream).await?;
    while let Some(message) = socket.next().await {
        let message = message?;
        if message.is_binary() || message.is_text() {
            socket.send(message).await?;
        }
    }
    Ok(())
}

async fn broadcast(stream: TcpStream, members: Members) -> Result<()> {
    let mut socket = accept_async(stream).await?;
    let (sender, mut queue) = channel(QUEUE_MESSAGES);
    let mut waiting = Vec::new();
    loop {
        tokio::select! {
            message = socket.next() => match message {
                None => return Ok(()),
                Some(message) => {
                    let Message::Binary(bytes) = message? else { continue };
                    if Hello::read(&bytes).is_some() {
                        socket.send(Message::Binary(bytes)).await?;
                        members.borrow_mut().push(sender.clone());
                    } else {
                        // A member that does not read misses it: the load tells.
                        members.borrow().iter().for_each(|it| drop(it.try_send(bytes.clone())));
                    }
                }
            },
            _ = queue.recv_many(&mut waiting, QUEUE_MESSAGES) => {
                for bytes in waiting.drain(..) {
                    socket.feed(Message::Binary(bytes)).await?;
                }
                socket.flush().await?;
            }
        }
    }
}

async fn accept_all(arguments: Arguments) -> io::Result<()> {
    let listener = TcpListener::bind(arguments.listen).await?;
    announce(listener.local_addr()?);
    let members = Members::default();
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        // A peer that resets ends its own task.
        if arguments.workload == Workload::WsEcho {
            spawn_local(async { echo(stream).await.ok() });
        } else {
            let members = Rc::clone(&members);
            spawn_local(async { broadcast(stream, members).await.ok() });
        }
    }
}

fn main() -> io::Result<()> {
    let arguments = Arguments::from_command_line();
    if !matches!(arguments.workload, Workload::WsEcho | Workload::WsBroadcast) {
        arguments.refuse();
    }
    let runtime = Builder::new_current_thread().enable_io().build()?;
    LocalSet::new().block_on(&runtime, accept_all(arguments))
}
