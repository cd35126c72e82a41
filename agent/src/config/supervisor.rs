//! `supervisor`: the process that owns the postmaster, and whether the agent starts it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::error::Findings;
use super::section::Section;

/// Name of its socket in the state directory, where the user of the data directory can create it.
pub(crate) const SOCKET: &str = "supervisor.sock";
/// Longest path that a unix socket can have, in bytes.
const SOCKET_PATH_MAX: usize = 107;

/// The supervisor of one member.
#[derive(Clone, Debug)]
pub(crate) struct Supervised {
    /// Where it listens.
    pub(crate) socket: PathBuf,
    /// Whether the agent starts it when nothing listens there.
    pub(crate) start: bool,
    /// How long after SIGTERM the agent may still use Postgres.
    pub(crate) handover_timeout: Duration,
    /// After SIGTERM everything has ended within this time.
    pub(crate) grace_period: Duration,
}

pub(super) fn read(root: &Section<'_>, state_directory: &Path, findings: &mut Findings) -> Supervised {
    let section = root.section("supervisor", findings);
    let rule = "expected an absolute path of at most 107 bytes, the limit for unix sockets";
    let socket = section.parsed("socket", rule, findings, |text| {
        (text.starts_with('/') && text.len() <= SOCKET_PATH_MAX).then(|| PathBuf::from(text))
    });
    let usual = state_directory.join(SOCKET);
    if section.get("socket").is_none() && usual.as_os_str().len() > SOCKET_PATH_MAX {
        let words = format!(
            "is missing: the usual place, {}, is too long for a unix socket; {rule}",
            usual.display()
        );
        findings.missing(section.name("socket"), words);
    }
    let supervised = Supervised {
        socket: socket.unwrap_or(usual),
        start: section.boolean("start", findings).unwrap_or(true),
        handover_timeout: section.duration("handover_timeout", findings).unwrap_or(Duration::from_secs(5)),
        grace_period: section.duration("grace_period", findings).unwrap_or(Duration::from_secs(30)),
    };
    if supervised.handover_timeout >= supervised.grace_period {
        findings.missing(
            section.name("handover_timeout"),
            "must be shorter than grace_period, in which Postgres also stops",
        );
    }
    supervised
}
