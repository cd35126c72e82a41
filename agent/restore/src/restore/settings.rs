//! The settings with which a restored server recovers: `postgresql.auto.conf` and the signal file. Writes no file.

use outrider_wal::TimelineId;

use crate::target::{Goal, TargetAction};

/// What another server's settings must not say to a restored one: where to recover to, whom to follow, and where to
/// archive. Names that begin with `recovery_target` are left out as well.
const LEFT_OUT: [&str; 12] = [
    "restore_command",
    "recovery_end_command",
    "archive_cleanup_command",
    "recovery_min_apply_delay",
    "primary_conninfo",
    "primary_slot_name",
    "promote_trigger_file",
    "archive_command",
    "archive_library",
    "hot_standby",
    "synchronous_standby_names",
    "allow_in_place_tablespaces",
];

/// What a server that answers queries in recovery must have at least as much of as its primary had when the WAL was written.
pub(super) const HOT_STANDBY: [&str; 5] = [
    "max_connections",
    "max_worker_processes",
    "max_wal_senders",
    "max_prepared_transactions",
    "max_locks_per_transaction",
];

/// From this `server_version_num` on there is `archive_library`.
const ARCHIVE_LIBRARY: u32 = 150_000;

/// What else than the goal decides about them.
pub(super) struct Circumstances<'a> {
    pub(super) timeline: TimelineId,
    pub(super) standby: bool,
    pub(super) restore_command: &'a str,
    pub(super) version: Option<u32>,
    /// Whether there is a tablespace in the data directory itself.
    pub(super) in_place: bool,
    /// The least that a hot standby needs, in the order of [`HOT_STANDBY`]; `None` for a server that answers nobody in recovery.
    pub(super) least: Option<[u32; 5]>,
}

/// Whether the server answers queries before it is a primary.
pub(super) fn is_hot(goal: &Goal, standby: bool) -> bool {
    standby || goal.action == TargetAction::Pause
}

/// The new text of `postgresql.auto.conf`: what else was in it stays.
pub(super) fn auto_conf(old: &str, goal: &Goal, circumstances: &Circumstances<'_>) -> String {
    let ours = |name: &str| {
        LEFT_OUT.contains(&name)
            || name.starts_with("recovery_target")
            || (circumstances.least.is_some() && HOT_STANDBY.contains(&name))
    };
    let name = |line: &str| {
        let line = line.trim_start();
        let end = line.find(|c: char| c == '=' || c.is_whitespace()).unwrap_or(line.len());
        line[..end].to_ascii_lowercase()
    };
    let mut text: String =
        old.lines().filter(|line| !ours(&name(line))).map(|line| format!("{line}\n")).collect();
    text.push_str("# From here on written by `outrider restore`.\n");
    let mut add = |name: &str, value: &str| text.push_str(&format!("{name} = {}\n", quoted(value)));
    add("restore_command", circumstances.restore_command);
    if circumstances.standby {
        add("recovery_target_timeline", "latest");
    } else {
        goal.settings(circumstances.timeline).iter().for_each(|(name, value)| add(name, value));
    }
    if let Some(least) = circumstances.least {
        add("hot_standby", "on");
        for (name, least) in HOT_STANDBY.iter().zip(least) {
            add(name, &least.to_string());
        }
    } else {
        // Else PostgreSQL breaks off, or waits for ever, where the old primary had more connections, workers or locks than the
        // files of the backup say, at any time up to the target. A primary does not care.
        add("hot_standby", "off");
    }
    if circumstances.in_place {
        // Else no recovery comes to its end (PostgreSQL, CheckTablespaceDirectory).
        add("allow_in_place_tablespaces", "on");
    }
    // Whoever commits would wait for standbys that the copy does not have.
    add("synchronous_standby_names", "");
    // A copy of a server that still runs must not write into its archive: until somebody decides, WAL waits in pg_wal.
    // The agent sets its own.
    add("archive_command", "false");
    if circumstances.version.is_some_and(|version| version >= ARCHIVE_LIBRARY) {
        add("archive_library", "");
    }
    text
}

/// Files without which Postgres does not start, and that lie elsewhere on some systems (Debian's `/etc/postgresql`), so that a
/// backup of another program has none.
pub(super) const WHERE_THERE_IS_NONE: [(&str, &str); 3] = [
    ("postgresql.conf", "# Written by `outrider restore`: the backup has none.\n"),
    (
        "pg_hba.conf",
        "# Written by `outrider restore`: the backup has none.\nlocal all all peer\nhost all all samehost scram-sha-256\n",
    ),
    ("pg_ident.conf", "# Written by `outrider restore`: the backup has none.\n"),
];

/// The file that makes Postgres recover from the archive.
pub(super) fn signal(standby: bool) -> &'static str {
    if standby { "standby.signal" } else { "recovery.signal" }
}

/// As guc-file.l reads it; there are no control characters in what we write.
fn quoted(value: &str) -> String {
    format!("'{}'", value.replace('\\', "\\\\").replace('\'', "''"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::target::Target;

    const OLD: &str = "# Do not edit this file manually!\nwork_mem = '64MB'\nPrimary_ConnInfo = 'host=a'\n\
                       recovery_target_lsn='0/1'\nrestore_command = 'x'\narchive_command='cp'\n";

    fn circumstances(standby: bool) -> Circumstances<'static> {
        Circumstances {
            timeline: TimelineId::new(2),
            standby,
            restore_command: "/usr/bin/outrider wal-fetch 'it''s' %f %p",
            version: Some(150_018),
            in_place: false,
            least: standby.then_some([150, 9, 12, 3, 64]),
        }
    }

    #[test]
    fn what_the_old_server_was_told_goes_and_the_rest_stays() {
        let text = auto_conf(OLD, &Goal::to(Target::name("it's").unwrap()), &circumstances(false));
        assert_eq!(
            text,
            "# Do not edit this file manually!\nwork_mem = '64MB'\n\
             # From here on written by `outrider restore`.\n\
             restore_command = '/usr/bin/outrider wal-fetch ''it''''s'' %f %p'\n\
             recovery_target_name = 'it''s'\nrecovery_target_timeline = '2'\nrecovery_target_action = 'promote'\n\
             hot_standby = 'off'\nsynchronous_standby_names = ''\narchive_command = 'false'\narchive_library = ''\n"
        );
    }

    #[test]
    fn a_standby_has_no_target() {
        let text = auto_conf("", &Goal::to(Target::Immediate), &circumstances(true));
        assert!(text.contains("recovery_target_timeline = 'latest'\n"), "{text}");
        assert!(!text.contains("recovery_target ") && !text.contains("recovery_target_action"), "{text}");
        assert_eq!((signal(true), signal(false)), ("standby.signal", "recovery.signal"));
    }

    #[test]
    fn who_answers_queries_in_recovery_has_what_that_needs() {
        let old = "max_connections = 20\nhot_standby = off\n";
        let pause = Goal { action: TargetAction::Pause, ..Goal::to(Target::Immediate) };
        for (goal, standby) in [(pause, false), (Goal::to(Target::Latest), true)] {
            let text =
                auto_conf(old, &goal, &Circumstances { standby, in_place: true, ..circumstances(true) });
            let expected = "hot_standby = 'on'\nmax_connections = '150'\nmax_worker_processes = '9'\nmax_wal_senders = '12'\n\
                            max_prepared_transactions = '3'\nmax_locks_per_transaction = '64'\n\
                            allow_in_place_tablespaces = 'on'\n";
            assert!(text.contains(expected) && !text.contains("= 20"), "{text}");
        }
    }
}
