//! Where each file lies in the archive: barman-cloud's keys, so that its tools find them. Touches no store.

use outrider_wal::WalFileName;

use crate::Compression;

/// The keys of one server in an archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    server: String,
}

/// The name cannot be a part of a key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{server:?} cannot be a server's name in the archive: it must be a single part of a path, not `.` or `..`"
)]
pub struct BadServerName {
    server: String,
}

impl Layout {
    /// The keys of the server that barman would call `server`.
    ///
    /// # Errors
    /// When the name is empty or could lead elsewhere.
    pub fn new(server: impl Into<String>) -> Result<Self, BadServerName> {
        let server = server.into();
        let odd = |c: char| c == '/' || c.is_control();
        if server.is_empty() || server == "." || server == ".." || server.contains(odd) {
            return Err(BadServerName { server });
        }
        Ok(Layout { server })
    }

    /// The key of a file of the WAL, compressed like this. Only a timeline history lies directly under `wals/`.
    #[must_use]
    pub fn wal(&self, name: WalFileName, compression: Compression) -> String {
        let (server, suffix) = (&self.server, compression.suffix());
        match name {
            WalFileName::History(_) => format!("{server}/wals/{name}{suffix}"),
            WalFileName::Segment(segment)
            | WalFileName::Partial(segment)
            | WalFileName::BackupHistory { segment, .. } => {
                format!("{server}/wals/{}/{name}{suffix}", segment.folder())
            }
        }
    }

    /// Our own object for finding out how the store treats a second put. Barman reads nothing under `outrider/`.
    #[must_use]
    pub fn probe(&self) -> String {
        format!("{}/outrider/probe", self.server)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_lie_where_barman_cloud_puts_them() {
        let layout = Layout::new("homepage").unwrap();
        let key = |name: &str, compression| layout.wal(name.parse().unwrap(), compression);
        let gzip = Compression::GZIP;
        for (name, expected) in [
            ("000000020000000A000000FF", "homepage/wals/000000020000000A/000000020000000A000000FF.gz"),
            (
                "000000020000000A000000FF.partial",
                "homepage/wals/000000020000000A/000000020000000A000000FF.partial.gz",
            ),
            (
                "000000010000000000000002.00000028.backup",
                "homepage/wals/0000000100000000/000000010000000000000002.00000028.backup.gz",
            ),
            ("0000000A.history", "homepage/wals/0000000A.history.gz"),
        ] {
            assert_eq!(key(name, gzip), expected);
            assert_eq!(key(name, Compression::None), expected.trim_end_matches(".gz"));
        }
    }

    #[test]
    fn a_server_name_cannot_lead_elsewhere() {
        for name in ["", ".", "..", "a/b", "/", "a\n"] {
            assert!(Layout::new(name).is_err(), "{name:?}");
        }
    }
}
