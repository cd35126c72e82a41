//! The unix socket that agents connect to, and who may. Reads nothing from them.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, chown};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use crate::error::Error;
use crate::system;

/// The listening socket; its file is removed on drop.
pub(crate) struct Listener {
    listener: UnixListener,
    path: PathBuf,
}

impl Listener {
    /// Listens at `path`. `owner` is the data directory's: a supervisor running as root gives it the socket.
    ///
    /// # Errors
    /// When somebody already listens there, something else is there, or the file system refuses.
    pub(crate) fn open(path: &Path, owner: Option<u32>) -> Result<Self, Error> {
        let owner = owner.filter(|_| system::effective_uid() == 0);
        prepare_directory(path, owner)?;
        remove_stale(path)?;
        let failed = |source| Error::Socket { path: path.to_owned(), source };
        // The umask of the process makes it private.
        let listener = UnixListener::bind(path).map_err(failed)?;
        let listener = Self { listener, path: path.to_owned() };
        if owner.is_some() {
            chown(path, owner, None).map_err(failed)?;
        }
        listener.listener.set_nonblocking(true).map_err(failed)?;
        Ok(listener)
    }

    /// The next waiting connection of a permitted user: ours, root, or the data directory's owner.
    pub(crate) fn accept(&self, owner: Option<u32>) -> Option<Result<UnixStream, String>> {
        let stream = match self.listener.accept() {
            Ok((stream, _)) => stream,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return None,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return None,
            Err(error) => return Some(Err(format!("cannot accept a connection: {error}"))),
        };
        Some(match system::peer_uid(&stream) {
            Ok(uid) if uid == 0 || uid == system::effective_uid() || Some(uid) == owner => {
                stream.set_nonblocking(true).map(|()| stream).map_err(|error| error.to_string())
            }
            Ok(uid) => Err(format!("connection refused: user {uid} is not allowed here")),
            Err(error) => Err(format!("connection refused: cannot identify the peer: {error}")),
        })
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        // If left behind, the next supervisor finds it stale.
        let _ = fs::remove_file(&self.path);
    }
}

impl AsRawFd for Listener {
    fn as_raw_fd(&self) -> RawFd {
        self.listener.as_raw_fd()
    }
}

fn prepare_directory(path: &Path, owner: Option<u32>) -> Result<(), Error> {
    let Some(directory) = path.parent().filter(|directory| !directory.exists()) else { return Ok(()) };
    let failed = |source| Error::SocketDirectory { path: directory.to_owned(), source };
    DirBuilder::new().mode(0o700).create(directory).map_err(failed)?;
    if owner.is_some() {
        chown(directory, owner, None).map_err(failed)?;
    }
    Ok(())
}

fn remove_stale(path: &Path) -> Result<(), Error> {
    let failed = |source| Error::Socket { path: path.to_owned(), source };
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(error)),
        Ok(found) if !found.file_type().is_socket() => {
            return Err(Error::NotASocket { path: path.to_owned() });
        }
        Ok(_) => {}
    }
    if system::somebody_listens(path).map_err(failed)? {
        return Err(Error::SocketAnswers { path: path.to_owned() });
    }
    fs::remove_file(path).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_that_answers_is_left_alone_and_a_stale_one_is_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("made").join("socket");
        let first = Listener::open(&path, None).unwrap();
        assert!(matches!(Listener::open(&path, None), Err(Error::SocketAnswers { .. })));
        drop(first);
        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        assert!(Listener::open(&path, None).is_ok());
    }

    #[test]
    fn a_file_in_the_place_of_the_socket_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        fs::write(&path, "precious").unwrap();
        assert!(matches!(Listener::open(&path, None), Err(Error::NotASocket { .. })));
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    }
}
