//! An echo server on mio, one thread. Edge-triggered: a short read means that nothing more is there,
//! so most messages cost one read, one write, and their part of a wait. One buffer for all sessions.
#![forbid(unsafe_code)]

use std::io::{self, ErrorKind, Read, Write};

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use protocol::{Arguments, Workload, announce};

const BUFFER_BYTES: usize = 64 * 1024;
const LISTENER: Token = Token(usize::MAX);

struct Session {
    stream: TcpStream,
    /// Read, and not written yet. While there is any, nothing more is read.
    waiting: Vec<u8>,
}

impl Session {
    /// Goes on until nothing more can be read or written. False: the session is over.
    fn go_on(&mut self, buffer: &mut [u8]) -> bool {
        loop {
            if !self.waiting.is_empty() {
                match self.stream.write(&self.waiting) {
                    Ok(count) => drop(self.waiting.drain(..count)),
                    Err(error) => return error.kind() == ErrorKind::WouldBlock,
                }
                continue;
            }
            let count = match self.stream.read(buffer) {
                Ok(0) => return false,
                Ok(count) => count,
                Err(error) => return error.kind() == ErrorKind::WouldBlock,
            };
            let written = match self.stream.write(&buffer[..count]) {
                Ok(written) => written,
                Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
                Err(_) => return false,
            };
            if written < count {
                self.waiting = buffer[written..count].to_vec();
                return true; // it will be writable again
            }
            if count < buffer.len() {
                return true;
            }
        }
    }
}

fn main() -> io::Result<()> {
    let arguments = Arguments::from_command_line();
    if arguments.workload != Workload::Echo {
        arguments.refuse();
    }
    let mut listener = TcpListener::bind(arguments.listen)?;
    let mut poll = Poll::new()?;
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    announce(listener.local_addr()?);

    let mut events = Events::with_capacity(1024);
    let mut sessions: Vec<Option<Session>> = Vec::new();
    let mut free = Vec::new();
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        if let Err(error) = poll.poll(&mut events, None)
            && error.kind() != ErrorKind::Interrupted
        {
            return Err(error);
        }
        for event in &events {
            let Token(index) = event.token();
            if event.token() == LISTENER {
                while let Ok((mut stream, _)) = listener.accept() {
                    stream.set_nodelay(true)?;
                    let index = free.pop().unwrap_or_else(|| {
                        sessions.push(None);
                        sessions.len() - 1
                    });
                    let interest = Interest::READABLE | Interest::WRITABLE;
                    poll.registry().register(&mut stream, Token(index), interest)?;
                    sessions[index] = Some(Session { stream, waiting: Vec::new() });
                }
            } else if let Some(session) = &mut sessions[index]
                && !(event.is_writable() && !event.is_readable() && session.waiting.is_empty())
                && !session.go_on(&mut buffer)
            {
                sessions[index] = None; // closes the socket, and so takes it out of the poll
                free.push(index);
            }
        }
    }
}
