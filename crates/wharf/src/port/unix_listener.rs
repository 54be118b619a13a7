//! Listening on Unix-domain sockets.

use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use socket2::{Domain, SockAddr, Socket, Type};

use super::socket::set_kernel_buffers;
use crate::options::Options;

/// A path at which a server listens. Dropping it removes the path, if the socket that was made there is still there.
#[derive(Debug)]
pub(crate) struct BoundPath {
    path: PathBuf,
    /// Of that socket: another server may have replaced it.
    identity: Identity,
}

/// The device and the inode, and when it was made, since a file system gives an inode's number out again at once.
type Identity = (u64, u64, i64, i64);

impl Drop for BoundPath {
    fn drop(&mut self) {
        if identity(&self.path).is_ok_and(|found| found == self.identity) {
            let _ = fs::remove_file(&self.path); // if it is refused, the next server replaces it
        }
    }
}

fn identity(path: &Path) -> io::Result<Identity> {
    let found = fs::symlink_metadata(path)?;
    Ok((found.dev(), found.ino(), found.mtime(), found.mtime_nsec()))
}

/// A socket that is bound to this path and is to listen, and what removes the path. (A name of the abstract namespace is no path.)
pub(super) fn bind_unix(
    path: &Path,
    mode: Option<u32>,
    options: &Options,
) -> io::Result<(Socket, Option<BoundPath>)> {
    let address = SockAddr::unix(path)?;
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    set_kernel_buffers(&socket, options)?;
    match socket.bind(&address) {
        Err(error) if error.kind() == ErrorKind::AddrInUse && is_left_over(path, &address) => {
            match fs::remove_file(path) {
                // Its server has just removed it.
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                removed => removed?,
            }
            socket.bind(&address)?;
        }
        bound => bound?,
    }
    let bound = if path.as_os_str().as_bytes().first() == Some(&0) {
        None
    } else {
        // It does not listen yet: whoever connects already is refused.
        let bound = BoundPath { path: path.to_owned(), identity: identity(path)? };
        if let Some(mode) = mode {
            fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
        }
        Some(bound)
    };
    Ok((socket, bound))
}

/// Whether a socket is there that nobody listens on: its server was killed.
fn is_left_over(path: &Path, address: &SockAddr) -> bool {
    let is_socket = fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket());
    let is_refused = || {
        let probe = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        probe.set_nonblocking(true)?; // its backlog may be full
        probe.connect(address)
    };
    is_socket && is_refused().is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
}
