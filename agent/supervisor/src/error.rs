//! Why a supervisor could not start or go on. What it refuses to an agent is in `protocol`.

use std::fmt;
use std::io;
use std::path::PathBuf;

/// Each variant names the act and the object; the cause is its source.
#[derive(Debug)]
pub enum Error {
    /// A path could not be made absolute.
    ResolvePath {
        /// As it was given.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The data directory has no name of its own, as `/` has none.
    DataDirectoryUnnamed {
        /// As it was given.
        path: PathBuf,
    },
    /// The lock file beside the data directory could not be opened or locked.
    Lock {
        /// The lock file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Another supervisor guards this data directory.
    Locked {
        /// The lock file that it holds.
        path: PathBuf,
        /// The data directory.
        data_directory: PathBuf,
    },
    /// The socket's directory could not be created or given to the owner of the data directory.
    SocketDirectory {
        /// The directory.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Somebody listens on the socket already.
    SocketAnswers {
        /// The socket.
        path: PathBuf,
    },
    /// Where the socket should be there is something that is not a socket.
    NotASocket {
        /// The path.
        path: PathBuf,
    },
    /// The socket could not be inspected, removed, bound or given away.
    Socket {
        /// The socket.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The kernel refused something that the loop cannot do without.
    Kernel {
        /// What was asked of it.
        act: &'static str,
        /// Why not.
        source: io::Error,
    },
}

impl fmt::Display for Error {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ResolvePath { path, .. } => write!(out, "cannot make {} an absolute path", path.display()),
            Self::DataDirectoryUnnamed { path } => {
                write!(out, "{} cannot be a data directory: it has no name and no parent", path.display())
            }
            Self::Lock { path, .. } => {
                write!(out, "cannot lock {}, which keeps a second supervisor away", path.display())
            }
            Self::Locked { path, data_directory } => write!(
                out,
                "another supervisor guards {}: it holds {}",
                data_directory.display(),
                path.display()
            ),
            Self::SocketDirectory { path, .. } => {
                write!(out, "cannot prepare the socket's directory {}", path.display())
            }
            Self::SocketAnswers { path } => write!(out, "somebody listens on {} already", path.display()),
            Self::NotASocket { path } => {
                write!(out, "{} is in the way: it is not a socket and is left alone", path.display())
            }
            Self::Socket { path, .. } => write!(out, "cannot listen on {}", path.display()),
            Self::Kernel { act, .. } => write!(out, "cannot {act}"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::ResolvePath { source, .. }
            | Self::Lock { source, .. }
            | Self::SocketDirectory { source, .. }
            | Self::Socket { source, .. }
            | Self::Kernel { source, .. } => Some(source),
            Self::DataDirectoryUnnamed { .. }
            | Self::Locked { .. }
            | Self::SocketAnswers { .. }
            | Self::NotASocket { .. } => None,
        }
    }
}
