//! The limit: a WebSocket server on epoll by hand, one thread, level-triggered. One read and one write for each event; a
//! message is unmasked in the buffer that all share and leaves from there, with the head of its answer put before it.
//! In `ws-broadcast` what one read has brought leaves in one write to each member.
//!
//! It is no library: it has binary messages in one frame of less than 64 KiB and nothing else, no bounds and no
//! time-outs.

mod epoll;
mod messages;

use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;

use epoll::Epoll;
use messages::{Wrong, change, upgrade};
use protocol::{Arguments, Hello, Workload, announce};

const BUFFER_BYTES: usize = 128 * 1024;
const EVENTS: usize = 1024;
const LISTENER: u64 = u64::MAX;

struct Session {
    stream: TcpStream,
    /// What has come of a message, or of the upgrade.
    came: Vec<u8>,
    waiting: Vec<u8>,
    is_open: bool,
    is_told_to_write: bool,
}

impl Session {
    /// Writes what can be written; the rest waits.
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if !self.waiting.is_empty() {
            self.waiting.extend_from_slice(bytes);
            return Ok(());
        }
        let written = match self.stream.write(bytes) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
            written => written?,
        };
        self.waiting.extend_from_slice(&bytes[written..]);
        Ok(())
    }

    fn write_waiting(&mut self) -> io::Result<()> {
        let waiting = std::mem::take(&mut self.waiting);
        self.write(&waiting)
    }

    /// Reads once, behind what has come before. Returns how many bytes there are, or `None` at the end.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        let came = self.came.len();
        buffer[..came].copy_from_slice(&self.came);
        self.came.clear();
        match self.stream.read(&mut buffer[came..]) {
            Ok(0) => Ok(None),
            Ok(count) => Ok(Some(came + count)),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(Some(came)),
            Err(error) => Err(error),
        }
    }
}

struct Server {
    epoll: Epoll,
    listener: TcpListener,
    has_members: bool,
    sessions: Vec<Option<Session>>,
    free: Vec<usize>,
    members: Vec<usize>,
    buffer: Vec<u8>,
    /// What goes to all members.
    published: Vec<u8>,
}

impl Server {
    fn accept(&mut self) -> io::Result<()> {
        while let Ok((stream, _)) = self.listener.accept() {
            stream.set_nonblocking(true)?;
            stream.set_nodelay(true)?;
            let index = self.free.pop().unwrap_or_else(|| {
                self.sessions.push(None);
                self.sessions.len() - 1
            });
            self.epoll.add(stream.as_raw_fd(), index as u64)?;
            let (came, waiting) = (Vec::new(), Vec::new());
            let session =
                Session { stream, came, waiting, is_open: false, is_told_to_write: false };
            self.sessions[index] = Some(session);
        }
        Ok(())
    }

    /// The session goes on. `false`: it ends.
    fn go_on(&mut self, index: usize) -> bool {
        let Some(session) = &mut self.sessions[index] else { return true };
        if !session.waiting.is_empty() {
            return session.write_waiting().is_ok();
        }
        let Ok(Some(count)) = session.read(&mut self.buffer) else { return false };
        let bytes = &mut self.buffer[..count];
        if !session.is_open {
            return match upgrade(bytes) {
                Ok(Some(answer)) => {
                    session.is_open = true;
                    session.write(answer.as_bytes()).is_ok()
                }
                Ok(None) => {
                    session.came.extend_from_slice(bytes);
                    true
                }
                Err(Wrong) => false,
            };
        }
        let (members, published) = (&mut self.members, &mut self.published);
        let changed = change(bytes, |message, head_bytes| {
            if !self.has_members {
                return false;
            }
            let is_hello = Hello::read(&message[head_bytes..]).is_some();
            if is_hello {
                members.push(index);
            } else {
                published.extend_from_slice(message);
            }
            !is_hello
        });
        let Ok(changed) = changed else { return false };
        session.came.extend_from_slice(&bytes[changed.rest]);
        if session.came.is_empty() && session.came.capacity() > 0 {
            session.came = Vec::new(); // a quiet session holds nothing
        }
        changed.answers.is_empty() || session.write(&bytes[changed.answers]).is_ok()
    }

    /// Writes what was published to each member.
    fn publish(&mut self) -> io::Result<()> {
        let published = std::mem::take(&mut self.published);
        for index in std::mem::take(&mut self.members) {
            let Some(session) = &mut self.sessions[index] else { continue };
            if session.write(&published).is_ok() {
                self.members.push(index);
                self.tell(index)?;
            }
        }
        self.published = published;
        self.published.clear();
        Ok(())
    }

    /// Tells epoll what the session waits for, if that is something else now.
    fn tell(&mut self, index: usize) -> io::Result<()> {
        let Some(session) = &mut self.sessions[index] else { return Ok(()) };
        let has_to_write = !session.waiting.is_empty();
        if has_to_write != session.is_told_to_write {
            session.is_told_to_write = has_to_write;
            self.epoll.change(session.stream.as_raw_fd(), has_to_write, index as u64)?;
        }
        Ok(())
    }

    fn run(&mut self) -> io::Result<()> {
        let mut events = vec![libc::epoll_event { events: 0, u64: 0 }; EVENTS];
        loop {
            for event in self.epoll.wait(&mut events)? {
                let token = event.u64;
                if token == LISTENER {
                    self.accept()?;
                    continue;
                }
                let index = token as usize;
                if !self.go_on(index) {
                    self.sessions[index] = None; // closes the socket, and so takes it out of the epoll
                    self.members.retain(|member| *member != index);
                    self.free.push(index);
                    continue;
                }
                self.tell(index)?;
                if !self.published.is_empty() {
                    self.publish()?;
                }
            }
        }
    }
}

fn main() -> io::Result<()> {
    let arguments = Arguments::from_command_line();
    if !matches!(arguments.workload, Workload::WsEcho | Workload::WsBroadcast) {
        arguments.refuse();
    }
    let listener = TcpListener::bind(arguments.listen)?;
    listener.set_nonblocking(true)?;
    let epoll = Epoll::new()?;
    epoll.add(listener.as_raw_fd(), LISTENER)?;
    announce(listener.local_addr()?);
    let mut server = Server {
        epoll,
        listener,
        has_members: arguments.workload == Workload::WsBroadcast,
        sessions: Vec::new(),
        free: Vec::new(),
        members: Vec::new(),
        buffer: vec![0; BUFFER_BYTES],
        published: Vec::new(),
    };
    server.run()
}
