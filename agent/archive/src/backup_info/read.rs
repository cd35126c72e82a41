//! Reads `backup.info`, also what other versions of barman write. Judges no backup.

use std::str::FromStr;

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use outrider_wal::{SegmentName, SegmentSize, TimelineId, WalFileName};

use super::literal::{self, Literal};
use super::print::OWN;
use super::{BackupId, BackupInfo, BackupStatus, Tablespace};

/// What stands in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadBackupInfo {
    /// The backup.
    pub info: BackupInfo,
    /// What in it was guessed, in words.
    pub notes: Vec<String>,
}

/// The file cannot be relied on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line} of backup.info: {fault}")]
pub struct BadBackupInfo {
    /// Counted from 1.
    line: usize,
    /// What is wrong with it.
    fault: String,
}

impl BackupInfo {
    /// A backup of which nothing is known but its name.
    #[must_use]
    pub fn new(id: BackupId) -> Self {
        BackupInfo {
            id,
            name: None,
            status: BackupStatus::Empty,
            error: None,
            begin_time: None,
            end_time: None,
            begin_wal: None,
            begin_lsn: None,
            end_wal: None,
            end_lsn: None,
            timeline: None,
            system_identifier: None,
            version: None,
            segment_size: SegmentSize::DEFAULT,
            data_checksums: false,
            cluster_size: None,
            pgdata: None,
            backup_label: None,
            tablespaces: Vec::new(),
        }
    }

    /// Reads the file. Fields that this program does not know are passed over.
    ///
    /// # Errors
    /// When a line is no field, or a field that matters has an impossible value.
    pub fn read(id: BackupId, text: &str) -> Result<ReadBackupInfo, BadBackupInfo> {
        let mut read = ReadBackupInfo { info: BackupInfo::new(id), notes: Vec::new() };
        for (index, line) in text.split('\n').enumerate() {
            let bad = |fault: String| BadBackupInfo { line: index + 1, fault };
            let line = line.strip_prefix(OWN).unwrap_or(line).trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (field, value) =
                line.split_once('=').ok_or_else(|| bad(format!("{line:?} is not a field with a value")))?;
            let (field, value) = (field.trim(), value.trim());
            if value != "None" {
                read.set(field, value).ok_or_else(|| bad(format!("{field} cannot be {value:?}")))?;
            }
        }
        Ok(read)
    }
}

impl ReadBackupInfo {
    /// `None` when the value is impossible.
    fn set(&mut self, field: &str, value: &str) -> Option<()> {
        let info = &mut self.info;
        match field {
            "backup_name" => info.name = Some(value.to_owned()),
            "status" => info.status = status(value)?,
            "error" => info.error = Some(value.to_owned()),
            "begin_time" => info.begin_time = Some(time(field, value, &mut self.notes)?),
            "end_time" => info.end_time = Some(time(field, value, &mut self.notes)?),
            "begin_wal" => info.begin_wal = Some(segment(value)?),
            "end_wal" => info.end_wal = Some(segment(value)?),
            "begin_xlog" => info.begin_lsn = Some(value.parse().ok()?),
            "end_xlog" => info.end_lsn = Some(value.parse().ok()?),
            "timeline" => info.timeline = Some(TimelineId::new(number(value)?)),
            "systemid" => info.system_identifier = Some(number(value)?),
            "version" => info.version = Some(number(value)?),
            "xlog_segment_size" => info.segment_size = SegmentSize::new(number(value)?)?,
            "data_checksums" => info.data_checksums = value == "on",
            "cluster_size" => info.cluster_size = Some(number(value)?),
            "pgdata" => info.pgdata = Some(value.to_owned()),
            "backup_label" => info.backup_label = label(value)?,
            "tablespaces" => info.tablespaces = tablespaces(value)?,
            _ => {}
        }
        Some(())
    }
}

fn number<T: FromStr>(value: &str) -> Option<T> {
    value.parse().ok()
}

fn segment(value: &str) -> Option<SegmentName> {
    match value.parse().ok()? {
        WalFileName::Segment(segment) => Some(segment),
        WalFileName::Partial(_) | WalFileName::BackupHistory { .. } | WalFileName::History(_) => None,
    }
}

fn status(value: &str) -> Option<BackupStatus> {
    let all = [
        BackupStatus::Empty,
        BackupStatus::Started,
        BackupStatus::Failed,
        BackupStatus::WaitingForWals,
        BackupStatus::Done,
        BackupStatus::Syncing,
    ];
    all.into_iter().find(|status| status.to_string() == value)
}

/// Barman writes `str(datetime)` with its zone; older ones `ctime` or no zone, and mean the zone of the machine that they
/// ran on, which nobody knows any more.
fn time(field: &str, value: &str, notes: &mut Vec<String>) -> Option<Timestamp> {
    if let Ok(time) = value.parse::<Timestamp>() {
        return Some(time);
    }
    let naive =
        value.parse::<DateTime>().or_else(|_| DateTime::strptime("%a %b %e %H:%M:%S %Y", value)).ok()?;
    notes.push(format!("{field} {value} has no time zone and was taken for UTC"));
    TimeZone::UTC.to_timestamp(naive).ok()
}

fn label(value: &str) -> Option<Option<String>> {
    match literal::read(value)? {
        Literal::Text(text) => Some(Some(text)),
        Literal::Other => Some(None),
        Literal::Number(_) | Literal::Sequence(_) => None,
    }
}

fn tablespaces(value: &str) -> Option<Vec<Tablespace>> {
    let Literal::Sequence(items) = literal::read(value)? else { return None };
    items.into_iter().map(tablespace).collect()
}

fn tablespace(item: Literal) -> Option<Tablespace> {
    let Literal::Sequence(parts) = item else { return None };
    let [Literal::Text(name), Literal::Number(oid), Literal::Text(location)] = parts.as_slice() else {
        return None;
    };
    let oid = u32::try_from(*oid).ok()?;
    Some(Tablespace { name: name.clone(), oid, location: location.clone() })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As barman 3.17's own `BackupInfo.save` wrote it.
    const BARMAN: &str = r#"backup_label='START WAL LOCATION: 0/2000028 (file 000000010000000000000002)\nLABEL: Barman backup cloud 20260101T101112\n'
backup_name=bk1
begin_offset=40
begin_time=2026-01-01 10:11:12.123456+00:00
begin_wal=000000010000000000000002
begin_xlog=0/2000028
children_backup_ids=None
cluster_size=12345
compression=None
config_file=/c/postgresql.conf
copy_stats={'total_time': 1.5, 'number_of_workers': 2}
data_checksums=on
deduplicated_size=None
encryption=None
end_offset=256
end_time=2026-01-01 10:12:12+00:00
end_wal=000000010000000000000003
end_xlog=0/3000100
error=None
hba_file=/c/pg_hba.conf
ident_file=/c/pg_ident.conf
included_files=['/c/custom.conf']
mode=None
parent_backup_id=None
pgdata=/var/lib/postgresql/data/pgdata
server_name=cloud
size=None
status=DONE
summarize_wal=off
systemid=7300000000000000000
tablespaces=[('ts1', 16400, "/tb's")]
timeline=1
version=170002
xlog_segment_size=16777216
"#;

    fn id() -> BackupId {
        "20260101T101112".parse().unwrap()
    }

    fn read(text: &str) -> ReadBackupInfo {
        BackupInfo::read(id(), text).unwrap()
    }

    #[test]
    fn barmans_own_file_is_read_whole() {
        let ReadBackupInfo { info, notes } = read(BARMAN);
        assert_eq!(notes, [] as [String; 0]);
        let expected = BackupInfo {
            name: Some("bk1".to_owned()),
            status: BackupStatus::Done,
            begin_time: Some("2026-01-01T10:11:12.123456Z".parse().unwrap()),
            end_time: Some("2026-01-01T10:12:12Z".parse().unwrap()),
            begin_wal: segment("000000010000000000000002"),
            begin_lsn: "0/2000028".parse().ok(),
            end_wal: segment("000000010000000000000003"),
            end_lsn: "0/3000100".parse().ok(),
            timeline: Some(TimelineId::FIRST),
            system_identifier: Some(7_300_000_000_000_000_000),
            version: Some(170_002),
            data_checksums: true,
            cluster_size: Some(12345),
            pgdata: Some("/var/lib/postgresql/data/pgdata".to_owned()),
            backup_label: Some(
                "START WAL LOCATION: 0/2000028 (file 000000010000000000000002)\n\
                 LABEL: Barman backup cloud 20260101T101112\n"
                    .to_owned(),
            ),
            tablespaces: vec![Tablespace { name: "ts1".into(), oid: 16400, location: "/tb's".into() }],
            ..BackupInfo::new(id())
        };
        assert_eq!(info, expected);
    }

    #[test]
    fn what_is_printed_has_barmans_lines_and_is_read_back() {
        let info = read(BARMAN).info;
        let printed = info.print();
        assert_eq!(read(&printed).info, info);
        let ours: Vec<&str> = printed.lines().filter(|line| !line.starts_with('#')).collect();
        // Fields that barman 3.4 does not know, and what is not written here, apart.
        let unknown =
            ["children_backup_ids", "cluster_size", "data_checksums", "encryption", "parent_backup_id"];
        let unwritten = ["config_file", "copy_stats", "hba_file", "ident_file", "included_files"];
        let theirs: Vec<String> = BARMAN
            .lines()
            .filter_map(|line| {
                let field = line.split_once('=').unwrap().0;
                if unknown.contains(&field) || field == "summarize_wal" {
                    return None;
                }
                Some(if unwritten.contains(&field) { format!("{field}=None") } else { line.to_owned() })
            })
            .collect();
        assert_eq!(ours, theirs);
        let empty = BackupInfo::new(id());
        assert_eq!(read(&empty.print()).info, empty);
    }

    #[test]
    fn times_without_a_zone_are_taken_for_utc_and_noted() {
        for (text, time, notes) in [
            ("2026-01-01 10:11:12.5+02:00", "2026-01-01T08:11:12.5Z", 0),
            ("2026-01-01T10:11:12Z", "2026-01-01T10:11:12Z", 0),
            ("2026-01-01 10:11:12", "2026-01-01T10:11:12Z", 1),
            ("Thu Jan  1 10:11:12 2026", "2026-01-01T10:11:12Z", 1),
        ] {
            let read = read(&format!("end_time={text}"));
            assert_eq!(read.info.end_time, Some(time.parse().unwrap()), "{text}");
            assert_eq!(read.notes.len(), notes, "{text}");
        }
    }

    #[test]
    fn unknown_fields_comments_and_spaces_are_passed_over() {
        let read = read("# a comment\n\n  status = DONE \r\nnew_in_barman_4={'a': 1}\ntablespaces=None\n");
        assert_eq!(read.info, BackupInfo { status: BackupStatus::Done, ..BackupInfo::new(id()) });
    }

    #[test]
    fn a_file_that_cannot_be_relied_on_is_refused_with_the_line() {
        for (text, fault) in [
            ("status=DONE\nnonsense", "line 2 of backup.info: \"nonsense\" is not a field with a value"),
            ("status=GREAT", "line 1 of backup.info: status cannot be \"GREAT\""),
            ("begin_wal=00000002.history", "line 1 of backup.info: begin_wal cannot be \"00000002.history\""),
            ("xlog_segment_size=17", "line 1 of backup.info: xlog_segment_size cannot be \"17\""),
            (
                "tablespaces=[('a', -1, 'b')]",
                "line 1 of backup.info: tablespaces cannot be \"[('a', -1, 'b')]\"",
            ),
            ("end_time=soon", "line 1 of backup.info: end_time cannot be \"soon\""),
        ] {
            assert_eq!(BackupInfo::read(id(), text).unwrap_err().to_string(), fault);
        }
    }

    #[test]
    fn values_that_would_break_the_file_are_written_so_that_they_do_not() {
        let error = "disk full\nstatus=DONE ".to_owned();
        let info = BackupInfo { error: Some(error), status: BackupStatus::Failed, ..BackupInfo::new(id()) };
        let again = read(&info.print()).info;
        assert_eq!(
            (again.status, again.error.as_deref()),
            (BackupStatus::Failed, Some("disk full status=DONE"))
        );
    }
}
