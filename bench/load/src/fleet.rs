//! All sessions of the load on one ring: connects them, sends what is queued for each, and hands
//! what comes to a [`Client`].

use std::io;
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::os::fd::AsRawFd;
use std::time::Duration;

use protocol::now_ns;
use ring::{Completion, Ring};
use socket2::{Domain, Socket, Type};

use crate::Failure;

const ENTRIES: u32 = 4096;
const BUFFERS: u16 = 1024;
/// Larger than the servers': a whole message of any workload comes in one completion.
const BUFFER_BYTES: usize = 64 * 1024;
/// How many connections are made before what they send first must be answered: no backlog
/// overflows over so few.
pub(crate) const WAVE: usize = 128;

/// What a workload does with what comes.
pub(crate) trait Client {
    /// Bytes have come to a session.
    fn received(&mut self, out: &mut Outbox, session: usize, bytes: &[u8]) -> Result<(), Failure>;

    /// The server has ended a session, in order.
    fn ended(&mut self, _out: &mut Outbox, session: usize) -> Result<(), Failure> {
        Err(format!("session {session}: ended by the server").into())
    }
}

struct Slot {
    socket: Option<TcpStream>,
    waiting: Vec<u8>,
    sending: Vec<u8>,
    in_flight: bool,
    noted: bool,
    /// It never reads.
    deaf: bool,
}

/// What a client may do: send, and end sessions.
pub(crate) struct Outbox {
    slots: Vec<Slot>,
    noted: Vec<usize>,
    /// When this batch of completions was taken.
    pub(crate) now_ns: u64,
}

impl Outbox {
    /// What is appended to these bytes leaves after this batch of completions.
    pub(crate) fn queue(&mut self, session: usize) -> &mut Vec<u8> {
        self.note(session);
        &mut self.slots[session].waiting
    }

    /// Sends our end of the stream.
    pub(crate) fn finish(&mut self, session: usize) -> io::Result<()> {
        self.slots[session].socket.as_ref().map_or(Ok(()), |it| it.shutdown(Shutdown::Write))
    }

    fn note(&mut self, session: usize) {
        let slot = &mut self.slots[session];
        if !slot.noted {
            slot.noted = true;
            self.noted.push(session);
        }
    }
}

pub(crate) struct Fleet {
    ring: Ring,
    target: SocketAddr,
    connections: u64,
    pub(crate) out: Outbox,
    completions: Vec<Completion>,
}

const RECEIVE: u64 = 0;
const SEND: u64 = 1;

fn token(session: usize, kind: u64) -> u64 {
    (session as u64) << 1 | kind
}

impl Fleet {
    pub(crate) fn new(target: SocketAddr) -> io::Result<Fleet> {
        Ok(Fleet {
            ring: Ring::new(ENTRIES, BUFFERS, BUFFER_BYTES)?,
            target,
            connections: 0,
            out: Outbox { slots: Vec::new(), noted: Vec::new(), now_ns: now_ns() },
            completions: Vec::with_capacity(ENTRIES as usize),
        })
    }

    /// Connects a new session, and says its number.
    pub(crate) fn connect(&mut self) -> Result<usize, Failure> {
        let session = self.add(false)?;
        self.open(session)?;
        Ok(session)
    }

    /// Connects one that never reads.
    pub(crate) fn connect_deaf(&mut self) -> Result<usize, Failure> {
        let session = self.add(true)?;
        self.open(session)?;
        Ok(session)
    }

    fn add(&mut self, deaf: bool) -> Result<usize, Failure> {
        self.out.slots.push(Slot {
            socket: None,
            waiting: Vec::new(),
            sending: Vec::new(),
            in_flight: false,
            noted: false,
            deaf,
        });
        Ok(self.out.slots.len() - 1)
    }

    /// Connects a session, or once more one that has ended.
    pub(crate) fn open(&mut self, session: usize) -> Result<(), Failure> {
        let stream = self.connected().map_err(|error| {
            format!("cannot connect session {session} to {}: {error}", self.target)
        })?;
        let slot = &mut self.out.slots[session];
        if !slot.deaf {
            self.ring.receive(stream.as_raw_fd(), token(session, RECEIVE))?;
        }
        slot.socket = Some(stream);
        Ok(())
    }

    /// From one loopback address after the other, since each has ports of its own: none is used
    /// again while the kernel still keeps it.
    fn connected(&mut self) -> io::Result<TcpStream> {
        const ADDRESSES: u64 = 32;
        let socket = Socket::new(Domain::IPV4, Type::STREAM.cloexec(), None)?;
        choose_port_late(&socket)?;
        let host = (1 + self.connections % ADDRESSES) as u8;
        self.connections += 1;
        let from = SocketAddr::from((Ipv4Addr::new(127, 0, 1, host), 0));
        socket.bind(&from.into())?;
        socket.connect(&self.target.into())?;
        socket.set_tcp_nodelay(true)?;
        Ok(socket.into())
    }

    /// Sends what is queued, waits for completions, and deals with all there are.
    pub(crate) fn turn(
        &mut self,
        patience: Option<Duration>,
        client: &mut impl Client,
    ) -> Result<(), Failure> {
        self.post()?;
        let mut completions = std::mem::take(&mut self.completions);
        self.ring.wait(patience, &mut completions)?;
        self.out.now_ns = now_ns();
        for completion in completions.drain(..) {
            let session = (completion.token >> 1) as usize;
            match completion.token & 1 {
                RECEIVE => self.received(session, completion, client)?,
                _ => self.sent(session, completion.result)?,
            }
        }
        self.completions = completions;
        Ok(())
    }

    fn received(
        &mut self,
        session: usize,
        completion: Completion,
        client: &mut impl Client,
    ) -> Result<(), Failure> {
        if let Some(buffer) = completion.buffer() {
            let bytes = self.ring.lent(buffer, completion.result.max(0) as usize);
            let taken = match bytes {
                [] => Ok(()),
                bytes => client.received(&mut self.out, session, bytes),
            };
            self.ring.give_back(buffer);
            taken?;
        }
        if completion.more() {
            return Ok(());
        }
        match completion.result {
            0 => {
                self.out.slots[session].socket = None;
                client.ended(&mut self.out, session)
            }
            result if result > 0 || result == -libc::ENOBUFS => {
                if let Some(socket) = &self.out.slots[session].socket {
                    self.ring.receive(socket.as_raw_fd(), token(session, RECEIVE))?;
                }
                Ok(())
            }
            result => {
                let error = io::Error::from_raw_os_error(-result);
                Err(format!("session {session}: receive failed: {error}").into())
            }
        }
    }

    fn sent(&mut self, session: usize, result: i32) -> Result<(), Failure> {
        let slot = &mut self.out.slots[session];
        if slot.deaf {
            return Ok(()); // stuck at some point, as it should be
        }
        if result < 0 {
            let error = io::Error::from_raw_os_error(-result);
            return Err(format!("session {session}: send failed: {error}").into());
        }
        slot.in_flight = false;
        let rest = slot.sending.split_off(result as usize);
        slot.sending.clear();
        if !rest.is_empty() {
            slot.waiting.splice(..0, rest);
        }
        if !slot.waiting.is_empty() {
            self.out.note(session);
        }
        Ok(())
    }

    fn post(&mut self) -> io::Result<()> {
        for session in std::mem::take(&mut self.out.noted) {
            let slot = &mut self.out.slots[session];
            slot.noted = false;
            let Some(socket) = &slot.socket else { continue };
            if slot.in_flight || slot.waiting.is_empty() {
                continue;
            }
            std::mem::swap(&mut slot.waiting, &mut slot.sending);
            slot.in_flight = true;
            // SAFETY: the bytes are not touched until the completion has come.
            unsafe {
                self.ring.send(socket.as_raw_fd(), &slot.sending, token(session, SEND))?;
            }
        }
        Ok(())
    }
}

/// IP_BIND_ADDRESS_NO_PORT: the port is chosen when it connects, so that one may serve again which
/// the kernel still keeps for a session with another end.
fn choose_port_late(socket: &Socket) -> io::Result<()> {
    let yes: libc::c_int = 1;
    let length = size_of_val(&yes) as libc::socklen_t;
    let (level, name) = (libc::IPPROTO_IP, libc::IP_BIND_ADDRESS_NO_PORT);
    let value = (&raw const yes).cast();
    // SAFETY: `value` points to `length` bytes.
    match unsafe { libc::setsockopt(socket.as_raw_fd(), level, name, value, length) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
