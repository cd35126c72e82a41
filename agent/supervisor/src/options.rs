//! The settings that a supervisor is started with. Reads no file and no environment.

use std::path::PathBuf;
use std::time::Duration;

/// The settings of one supervisor. Relative paths are taken from the working directory at the start.
#[derive(Debug, Clone)]
pub struct Options {
    /// The data directory of the one Postgres it guards. It may not exist yet; its parent must.
    pub data_directory: PathBuf,
    /// Where `postgres`, `initdb` and the other programs are.
    pub bin_directory: PathBuf,
    /// The unix socket to listen on. Its directory is created when it is absent.
    pub socket: PathBuf,
    /// How long a fenced Postgres has after SIGQUIT before every process of it gets SIGKILL.
    pub kill_after: Duration,
    /// How long after SIGTERM the agent may still use Postgres, for a switchover.
    pub handover_timeout: Duration,
    /// After SIGTERM everything has ended within this time.
    pub grace_period: Duration,
}

impl Options {
    /// These paths, and the default times: 0.3 s to kill, 5 s to hand over, 30 s of grace.
    pub fn new(data_directory: PathBuf, bin_directory: PathBuf, socket: PathBuf) -> Self {
        Self {
            data_directory,
            bin_directory,
            socket,
            kill_after: Duration::from_millis(300),
            handover_timeout: Duration::from_secs(5),
            grace_period: Duration::from_secs(30),
        }
    }
}
