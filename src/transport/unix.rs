//! Unix sockets that are bound without harm to anything else.
//!
//! A killed server leaves its socket behind, and bind(2) fails as long as the file is there. Only a
//! socket that refuses connections is replaced: a regular file, a link, a socket of a server that is
//! busy or that may not be asked stay as they are. A socket is removed by the process that bound it.

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};
use std::fs;
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use tokio::net::UnixListener;

/// A listener whose socket is removed from the file system when it is dropped.
#[derive(Debug)]
pub struct BoundSocket {
    listener: UnixListener,
    path: PathBuf,
    /// Device and inode of the socket that this process bound.
    file: Option<(u64, u64)>,
}

impl BoundSocket {
    /// Binds `path`, in place of a socket that refuses connections.
    ///
    /// # Errors
    /// `AddrInUse`: a server has the socket. `AlreadyExists`: something else than a socket is there.
    /// Else what the system said.
    pub fn bind(path: &Path) -> io::Result<Self> {
        match fs::symlink_metadata(path) {
            Ok(there) if there.file_type().is_socket() => {
                remove_dead(path)?;
            }
            Ok(there) => {
                let kind = if there.is_symlink() {
                    "a link"
                } else {
                    "no socket"
                };
                return Err(io::Error::new(
                    io::ErrorKind::AlreadyExists,
                    format!("the file there is {kind} and was left alone; choose another path"),
                ));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let listener = UnixListener::bind(path)?;
        Ok(Self {
            listener,
            path: path.to_owned(),
            file: identity(path),
        })
    }

    /// The socket itself.
    pub fn listener(&self) -> &UnixListener {
        &self.listener
    }
}

impl Drop for BoundSocket {
    fn drop(&mut self) {
        // Another process may have put its own socket there meanwhile.
        if self.file.is_some() && identity(&self.path) == self.file {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    let file = fs::symlink_metadata(path).ok()?;
    Some((file.dev(), file.ino()))
}

/// Removes a socket on which connecting is refused.
fn remove_dead(path: &Path) -> io::Result<()> {
    let why = match try_connect(path) {
        Err(Errno::ECONNREFUSED) => return fs::remove_file(path),
        Err(Errno::ENOENT) => return Ok(()),
        Ok(()) => "another process answers on this socket",
        // The queue of a live server is full: a blocking connect would wait for it.
        Err(Errno::EAGAIN) => "another process has this socket and is busy",
        Err(Errno::EPROTOTYPE) => "another process has a socket of another type there",
        Err(error) => return Err(error.into()),
    };
    Err(io::Error::new(io::ErrorKind::AddrInUse, why))
}

/// Connects, without waiting for a place in the queue of the server.
fn try_connect(path: &Path) -> Result<(), Errno> {
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let client = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    connect(client.as_raw_fd(), &UnixAddr::new(path)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;
    use std::os::unix::net::{UnixDatagram, UnixListener as StdListener, UnixStream};

    #[tokio::test]
    async fn the_socket_of_a_killed_server_is_replaced_and_a_live_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        // Nothing removes the file of this one.
        drop(StdListener::bind(&path).unwrap());
        let live = BoundSocket::bind(&path).unwrap();
        let refused = BoundSocket::bind(&path).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::AddrInUse);
        UnixStream::connect(&path).unwrap();
        drop(live);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_server_whose_queue_is_full_keeps_its_socket() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let _live = StdListener::bind(&path).unwrap();
        let mut waiting = Vec::new();
        while waiting.len() < 10_000 && try_connect(&path) != Err(Errno::EAGAIN) {
            let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
            let client = socket(AddressFamily::Unix, SockType::Stream, flags, None).unwrap();
            let _ = connect(client.as_raw_fd(), &UnixAddr::new(&path).unwrap());
            waiting.push(client);
        }
        assert_eq!(try_connect(&path), Err(Errno::EAGAIN));
        let refused = BoundSocket::bind(&path).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::AddrInUse);
        assert!(path.exists());
    }

    // The loss: a slip in a path that costs the file there.
    #[tokio::test]
    async fn what_is_no_dead_socket_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::write(at("file"), "precious").unwrap();
        symlink("file", at("link")).unwrap();
        symlink("nowhere", at("dangling")).unwrap();
        drop(StdListener::bind(at("dead")).unwrap());
        symlink("dead", at("to a dead socket")).unwrap();
        fs::create_dir(at("directory")).unwrap();
        let _other = UnixDatagram::bind(at("datagram")).unwrap();
        for name in [
            "file",
            "link",
            "dangling",
            "to a dead socket",
            "directory",
            "datagram",
        ] {
            let before = identity(&at(name));
            assert!(BoundSocket::bind(&at(name)).is_err(), "{name}");
            assert_eq!(identity(&at(name)), before, "{name}");
        }
        assert_eq!(fs::read(at("file")).unwrap(), b"precious");
        assert!(!at("nowhere").exists());
    }

    #[tokio::test]
    async fn a_socket_that_took_the_place_of_ours_is_not_removed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let ours = BoundSocket::bind(&path).unwrap();
        fs::rename(&path, dir.path().join("moved")).unwrap();
        let theirs = BoundSocket::bind(&path).unwrap();
        drop(ours);
        assert_eq!(identity(&path), theirs.file);
    }
}
