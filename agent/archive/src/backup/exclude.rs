//! What of a data directory is no part of a base backup: PostgreSQL's lists (basebackup.c) and barman's. Reads nothing.

/// Top directories that are copied without what is in them: it belongs to a running server, or is rebuilt.
const EMPTIED: [&str; 9] = [
    "pg_stat_tmp",
    "pg_replslot",
    "pg_dynshmem",
    "pg_notify",
    "pg_serial",
    "pg_snapshots",
    "pg_subtrans",
    // Barman's additions.
    "log",
    "pg_log",
];
/// Files that are left out wherever they are.
const FILES: [&str; 11] = [
    "postgresql.auto.conf.tmp",
    "current_logfiles.tmp",
    "backup_label",
    "tablespace_map",
    "backup_manifest",
    "postmaster.pid",
    "postmaster.opts",
    ".DS_Store",
    // A copy is no standby until someone says so (barman).
    "standby.signal",
    "recovery.signal",
    "recovery.conf",
];
/// Everything that begins like this: temporary files, and the relation cache with its temporary names.
const PREFIXES: [&str; 2] = ["pgsql_tmp", "pg_internal.init"];
/// Directories of pg_wal that a server expects; its files come from the archive.
const WAL_DIRECTORIES: [&str; 2] = ["archive_status", "summaries"];

/// What becomes of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Keep,
    /// The directory, without what is in it.
    Empty,
    /// pg_wal and the empty directories in it.
    Wal,
    Skip,
}

/// About an entry that lies at `parent` (relative to the data directory, empty for itself).
pub(crate) fn verdict(parent: &[u8], name: &[u8]) -> Verdict {
    let is = |list: &[&str]| list.iter().any(|item| item.as_bytes() == name);
    if PREFIXES.iter().any(|prefix| name.starts_with(prefix.as_bytes())) || is(&FILES) {
        return Verdict::Skip;
    }
    match parent {
        b"" if name == b"pg_wal" => Verdict::Wal,
        b"" if is(&EMPTIED) => Verdict::Empty,
        // Read last of all, by itself.
        b"global" if name == b"pg_control" => Verdict::Skip,
        _ => Verdict::Keep,
    }
}

/// Whether a directory in pg_wal is kept, empty.
pub(crate) fn is_wal_directory(name: &[u8]) -> bool {
    WAL_DIRECTORIES.iter().any(|directory| directory.as_bytes() == name)
}

/// The file of a relation, such as `16384`, `16384_fsm` or `16384.2`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Relation {
    /// Its file node.
    pub number: u32,
    /// Whether it is the fork from which an unlogged relation is begun anew.
    pub is_init: bool,
    /// Which part of the relation's fork.
    pub segment: u32,
}

/// Reads the name of a relation's file; `None` when it is not one (common/relpath.c).
pub fn relation(name: &[u8]) -> Option<Relation> {
    let text = std::str::from_utf8(name).ok()?;
    let (text, segment) = match text.split_once('.') {
        Some((text, segment)) => (text, number(segment)?),
        None => (text, 0),
    };
    let (text, fork) = text.split_once('_').map_or((text, None), |(text, fork)| (text, Some(fork)));
    if !matches!(fork, None | Some("fsm" | "vm" | "init")) {
        return None;
    }
    Some(Relation { number: number(text)?, is_init: fork == Some("init"), segment })
}

/// Whether it is the file of a temporary relation, such as `t3_16384_fsm` (looks_like_temp_rel_name).
pub(crate) fn is_temporary_relation(name: &[u8]) -> bool {
    let rest = name.strip_prefix(b"t").and_then(|rest| std::str::from_utf8(rest).ok());
    rest.and_then(|rest| rest.split_once('_'))
        .is_some_and(|(backend, file)| number(backend).is_some() && relation(file.as_bytes()).is_some())
}

/// Whether relations lie in this directory: `global`, `base/5`, or `PG_15_202209061/5` of a tablespace.
pub fn holds_relations(directory: &[u8]) -> bool {
    let Ok(directory) = std::str::from_utf8(directory) else { return false };
    if directory == "global" {
        return true;
    }
    let mut parts = directory.rsplit('/');
    let is_database = parts.next().and_then(number).is_some();
    is_database && parts.next().is_some_and(|above| above == "base" || above.starts_with("PG_"))
}

fn number(text: &str) -> Option<u32> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_running_server_needs_alone_is_left_out() {
        for (parent, name, expected) in [
            ("", "postmaster.pid", Verdict::Skip),
            ("", "standby.signal", Verdict::Skip),
            ("", "pg_wal", Verdict::Wal),
            ("base", "pg_wal", Verdict::Keep),
            ("", "pg_replslot", Verdict::Empty),
            ("", "log", Verdict::Empty),
            ("", "pg_logical", Verdict::Keep),
            ("global", "pg_control", Verdict::Skip),
            ("global", "pg_internal.init.123", Verdict::Skip),
            ("base", "pgsql_tmp", Verdict::Skip),
            ("", "postgresql.conf", Verdict::Keep),
            ("", "postgresql.base.conf", Verdict::Keep),
        ] {
            assert_eq!(verdict(parent.as_bytes(), name.as_bytes()), expected, "{parent}/{name}");
        }
    }

    #[test]
    fn names_of_relations_are_read() {
        let read = |name: &str| relation(name.as_bytes()).map(|r| (r.number, r.is_init, r.segment));
        assert_eq!(read("16384"), Some((16384, false, 0)));
        assert_eq!(read("16384.12"), Some((16384, false, 12)));
        assert_eq!(read("16384_fsm"), Some((16384, false, 0)));
        assert_eq!(read("16384_init.1"), Some((16384, true, 1)));
        for name in ["pg_filenode.map", "16384_old", "16384.", "PG_VERSION", "t3_16384", "1_2_3", ""] {
            assert_eq!(read(name), None, "{name}");
        }
        for (name, expected) in
            [("t3_16384", true), ("t3_16384_vm.1", true), ("t3", false), ("t_1", false), ("3_1", false)]
        {
            assert_eq!(is_temporary_relation(name.as_bytes()), expected, "{name}");
        }
    }

    #[test]
    fn directories_of_relations_are_known() {
        for (path, expected) in [
            ("global", true),
            ("base/5", true),
            ("PG_15_202209061/16384", true),
            ("pg_tblspc/16400/PG_15_202209061/5", true),
            ("base", false),
            ("pg_xact/5", false),
            ("5", false),
            ("", false),
        ] {
            assert_eq!(holds_relations(path.as_bytes()), expected, "{path}");
        }
    }
}
