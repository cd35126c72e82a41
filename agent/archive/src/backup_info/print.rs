//! Writes `backup.info` byte for byte as barman does. Chooses no values.

use std::fmt::Display;

use jiff::Timestamp;

use super::literal;
use super::{BackupInfo, Tablespace};

/// What this program wants to know of its own backups and barman has no field for in every version: a comment to barman.
/// An unknown field would end each of its commands with exit 1 (its infofile.py).
pub(super) const OWN: &str = "# outrider ";

impl BackupInfo {
    /// The file, with exactly the fields that barman 3.4 and 3.17 both know, in their order.
    #[must_use]
    pub fn print(&self) -> String {
        let offset = |lsn: outrider_wal::Lsn| lsn.get() % self.segment_size.bytes();
        let mut lines = Lines(String::new());
        lines.add("backup_label", self.backup_label.as_deref().map(literal::print));
        if let Some(name) = &self.name {
            lines.add("backup_name", plain(name));
        }
        lines.add("begin_offset", self.begin_lsn.map(offset));
        lines.add("begin_time", self.begin_time.map(time));
        lines.add("begin_wal", self.begin_wal);
        lines.add("begin_xlog", self.begin_lsn);
        lines.none(&["compression", "config_file", "copy_stats", "deduplicated_size"]);
        lines.add("end_offset", self.end_lsn.map(offset));
        lines.add("end_time", self.end_time.map(time));
        lines.add("end_wal", self.end_wal);
        lines.add("end_xlog", self.end_lsn);
        lines.add("error", self.error.as_deref().and_then(plain));
        lines.none(&["hba_file", "ident_file", "included_files", "mode"]);
        lines.add("pgdata", self.pgdata.as_deref().and_then(plain));
        // Not the server's name: CloudNativePG looks for this word (barman's cloud.py writes it).
        lines.add("server_name", Some("cloud"));
        lines.none(&["size"]);
        lines.add("status", Some(self.status));
        lines.add("systemid", self.system_identifier);
        lines.add("tablespaces", tablespaces(&self.tablespaces));
        lines.add("timeline", self.timeline);
        lines.add("version", self.version);
        lines.add("xlog_segment_size", Some(self.segment_size.bytes()));
        lines.own("data_checksums", Some(if self.data_checksums { "on" } else { "off" }));
        lines.own("cluster_size", self.cluster_size);
        lines.0
    }
}

struct Lines(String);

impl Lines {
    fn add(&mut self, field: &str, value: Option<impl Display>) {
        let value = value.map_or_else(|| "None".to_owned(), |value| value.to_string());
        self.0.push_str(&format!("{field}={value}\n"));
    }

    fn none(&mut self, fields: &[&str]) {
        for field in fields {
            self.add(field, None::<&str>);
        }
    }

    fn own(&mut self, field: &str, value: Option<impl Display>) {
        if let Some(value) = value {
            self.0.push_str(&format!("{OWN}{field}={value}\n"));
        }
    }
}

/// Values without quotes must fit on one line; barman strips their ends. What does not fit is told with spaces.
fn plain(text: &str) -> Option<String> {
    let fitting = text.replace(|c: char| c.is_control(), " ");
    let fitting = fitting.trim();
    (!fitting.is_empty() && fitting != "None").then(|| fitting.to_owned())
}

/// As `str(datetime)` in UTC: microseconds only when there are some.
fn time(time: Timestamp) -> String {
    let micros = time.subsec_microsecond();
    let fraction = if micros == 0 { String::new() } else { format!(".{micros:06}") };
    format!("{}{fraction}+00:00", time.strftime("%Y-%m-%d %H:%M:%S"))
}

fn tablespaces(tablespaces: &[Tablespace]) -> Option<String> {
    let tuple = |tablespace: &Tablespace| {
        let Tablespace { name, oid, location } = tablespace;
        format!("({}, {oid}, {})", literal::print(name), literal::print(location))
    };
    let tuples: Vec<String> = tablespaces.iter().map(tuple).collect();
    (!tuples.is_empty()).then(|| format!("[{}]", tuples.join(", ")))
}
