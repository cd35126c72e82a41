//! Where each file lies in the archive: barman-cloud's keys, so that its tools find them. Touches no store.

use outrider_wal::{TimelineId, WalFileName};

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

    /// The server's name.
    #[must_use]
    pub fn server(&self) -> &str {
        &self.server
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

    /// Everything of one kind lies below this, such as `homepage/wals/`.
    #[must_use]
    pub fn wals(&self) -> String {
        format!("{}/wals/", self.server)
    }

    /// Every base backup lies below this, each in a folder that is named by its [`crate::BackupId`].
    #[must_use]
    pub fn backups(&self) -> String {
        format!("{}/base/", self.server)
    }

    /// An object of a base backup, such as `backup.info`, `data.tar.gz` or `16400.tar.gz`.
    #[must_use]
    pub fn backup(&self, id: &crate::BackupId, file: &str) -> String {
        format!("{}/base/{id}/{file}", self.server)
    }

    /// What was streamed of segments that are not finished lies below this: of `segment`, or of all.
    #[must_use]
    pub fn stream(&self, segment: Option<outrider_wal::SegmentName>) -> String {
        let server = &self.server;
        segment.map_or_else(
            || format!("{server}/outrider/stream/"),
            |segment| format!("{server}/outrider/stream/{segment}/"),
        )
    }

    /// The bytes `from..to` (offsets in the segment) that were streamed of a segment before it was finished: one gzip
    /// member. Keys sort by their place in the segment.
    #[must_use]
    pub fn stream_chunk(&self, segment: outrider_wal::SegmentName, from: u64, to: u64) -> String {
        format!("{}{from:08X}-{to:08X}.gz", self.stream(Some(segment)))
    }

    /// Who may write WAL here: the term and the system identifier of the last leader that claimed it.
    #[must_use]
    pub fn writer(&self) -> String {
        format!("{}/outrider/writer.json", self.server)
    }

    /// How the WAL of a timeline is compressed: the first who writes any of it decides.
    #[must_use]
    pub fn compression(&self, timeline: TimelineId) -> String {
        format!("{}/outrider/compression/{:08X}", self.server, timeline.get())
    }

    /// The outcome of the last `outrider verify`.
    #[must_use]
    pub fn verified(&self) -> String {
        format!("{}/outrider/verified.json", self.server)
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
