//! epoll, level-triggered.

use std::io::{self, ErrorKind};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

pub(crate) struct Epoll(OwnedFd);

impl Epoll {
    pub(crate) fn new() -> io::Result<Epoll> {
        // SAFETY: no memory is passed.
        let epoll = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
        if epoll < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: a new descriptor that nobody else has.
        Ok(Epoll(unsafe { OwnedFd::from_raw_fd(epoll) }))
    }

    /// To be told when it can be read.
    pub(crate) fn add(&self, socket: RawFd, token: u64) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_ADD, socket, libc::EPOLLIN, token)
    }

    /// To be told when it can be written, or again when it can be read.
    pub(crate) fn change(&self, socket: RawFd, writes: bool, token: u64) -> io::Result<()> {
        let interest = if writes { libc::EPOLLOUT } else { libc::EPOLLIN };
        self.control(libc::EPOLL_CTL_MOD, socket, interest, token)
    }

    fn control(&self, operation: i32, socket: RawFd, interest: i32, token: u64) -> io::Result<()> {
        let mut event = libc::epoll_event { events: interest as u32, u64: token };
        // SAFETY: the event is valid while the call lasts.
        match unsafe { libc::epoll_ctl(self.0.as_raw_fd(), operation, socket, &mut event) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    pub(crate) fn wait<'a>(
        &self,
        events: &'a mut [libc::epoll_event],
    ) -> io::Result<&'a [libc::epoll_event]> {
        let (list, room) = (events.as_mut_ptr(), events.len() as i32);
        // SAFETY: the list has so much room.
        let count = unsafe { libc::epoll_wait(self.0.as_raw_fd(), list, room, -1) };
        match usize::try_from(count) {
            Ok(count) => Ok(&events[..count]),
            Err(_) => match io::Error::last_os_error() {
                error if error.kind() == ErrorKind::Interrupted => Ok(&events[..0]),
                error => Err(error),
            },
        }
    }
}
