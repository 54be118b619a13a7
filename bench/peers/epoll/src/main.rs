//! An echo server on epoll by hand, one thread, level-triggered: one read and one write for each
//! event. A session is told to epoll as writable only while something waits to be written.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use protocol::{Arguments, Workload, announce};

const BUFFER_BYTES: usize = 64 * 1024;
const EVENTS: usize = 1024;
const LISTENER: u64 = u64::MAX;

struct Epoll(OwnedFd);

impl Epoll {
    fn new() -> io::Result<Epoll> {
        // SAFETY: no memory is passed.
        let epoll = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
        if epoll < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: a new descriptor that nobody else has.
        Ok(Epoll(unsafe { OwnedFd::from_raw_fd(epoll) }))
    }

    fn control(&self, operation: i32, socket: RawFd, interest: i32, token: u64) -> io::Result<()> {
        let mut event = libc::epoll_event { events: interest as u32, u64: token };
        // SAFETY: the event is valid while the call lasts.
        match unsafe { libc::epoll_ctl(self.0.as_raw_fd(), operation, socket, &mut event) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    fn wait<'a>(&self, events: &'a mut [libc::epoll_event]) -> io::Result<&'a [libc::epoll_event]> {
        let (list, room) = (events.as_mut_ptr(), events.len() as i32);
        // SAFETY: the list has so much room.
        let count = unsafe { libc::epoll_wait(self.0.as_raw_fd(), list, room, -1) };
        match usize::try_from(count) {
            Ok(count) => Ok(&events[..count]),
            Err(_) => Err(io::Error::last_os_error()),
        }
    }
}

struct Session {
    stream: TcpStream,
    waiting: Vec<u8>,
}

/// What a session wants next.
enum Next {
    Read,
    Write,
    End,
}

impl Session {
    fn go_on(&mut self, buffer: &mut [u8]) -> Next {
        if self.waiting.is_empty() {
            match self.stream.read(buffer) {
                Ok(0) => return Next::End,
                Ok(count) => match self.stream.write(&buffer[..count]) {
                    Ok(written) => self.waiting.extend_from_slice(&buffer[written..count]),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {
                        self.waiting.extend_from_slice(&buffer[..count]);
                    }
                    Err(_) => return Next::End,
                },
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(_) => return Next::End,
            }
        } else {
            match self.stream.write(&self.waiting) {
                Ok(count) => drop(self.waiting.drain(..count)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(_) => return Next::End,
            }
        }
        if self.waiting.is_empty() { Next::Read } else { Next::Write }
    }
}

fn main() -> io::Result<()> {
    let arguments = Arguments::from_command_line();
    if arguments.workload != Workload::Echo {
        arguments.refuse();
    }
    let listener = TcpListener::bind(arguments.listen)?;
    listener.set_nonblocking(true)?;
    let epoll = Epoll::new()?;
    epoll.control(libc::EPOLL_CTL_ADD, listener.as_raw_fd(), libc::EPOLLIN, LISTENER)?;
    announce(listener.local_addr()?);

    let mut events = vec![libc::epoll_event { events: 0, u64: 0 }; EVENTS];
    let mut sessions: Vec<Option<Session>> = Vec::new();
    let mut free = Vec::new();
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let ready = match epoll.wait(&mut events) {
            Ok(ready) => ready,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        for event in ready {
            let token = event.u64;
            if token == LISTENER {
                while let Ok((stream, _)) = listener.accept() {
                    stream.set_nonblocking(true)?;
                    stream.set_nodelay(true)?;
                    let index = free.pop().unwrap_or_else(|| {
                        sessions.push(None);
                        sessions.len() - 1
                    });
                    let socket = stream.as_raw_fd();
                    epoll.control(libc::EPOLL_CTL_ADD, socket, libc::EPOLLIN, index as u64)?;
                    sessions[index] = Some(Session { stream, waiting: Vec::new() });
                }
                continue;
            }
            let index = token as usize;
            let Some(session) = &mut sessions[index] else { continue };
            let was_writing = !session.waiting.is_empty();
            let interest = match session.go_on(&mut buffer) {
                Next::End => {
                    sessions[index] = None; // closes the socket, and so takes it out of the epoll
                    free.push(index);
                    continue;
                }
                Next::Write if !was_writing => libc::EPOLLOUT,
                Next::Read if was_writing => libc::EPOLLIN,
                _ => continue,
            };
            epoll.control(libc::EPOLL_CTL_MOD, session.stream.as_raw_fd(), interest, token)?;
        }
    }
}
