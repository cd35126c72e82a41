//! The settings with which every session of the agent, and of the programs it runs, starts. PostgreSQL ranks them above what is
//! set for the cluster, a database or a role, so that none of that changes what the session does.

/// Settings that anybody may make.
const USUAL: &[(&str, &str)] = &[
    ("statement_timeout", "0"),
    ("lock_timeout", "0"),
    ("idle_in_transaction_session_timeout", "0"),
    ("idle_session_timeout", "0"),
    // The user who logs in is the one who acts.
    ("role", "none"),
    ("default_transaction_read_only", "off"),
    ("default_transaction_deferrable", "off"),
    // A standby refuses everything in a serializable transaction.
    ("default_transaction_isolation", "read committed"),
    // The agent's writes must never wait for a standby.
    ("synchronous_commit", "local"),
    // A name must not mean another function than PostgreSQL's own.
    ("search_path", "pg_catalog"),
    ("local_preload_libraries", ""),
    ("standard_conforming_strings", "on"),
    // Times and bytes in the format that the agent reads.
    ("DateStyle", "ISO"),
    ("IntervalStyle", "postgres"),
    ("TimeZone", "UTC"),
    ("bytea_output", "hex"),
    // JIT compilation takes longer than any query here.
    ("jit", "off"),
];

/// Settings that only a superuser may make.
const OF_SUPERUSER: &[(&str, &str)] = &[("session_preload_libraries", "")];

/// What would end a connection that streams WAL or a base backup: such a connection reads no settings of roles or
/// databases.
const OF_REPLICATION: &[&str] =
    &["statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout", "idle_session_timeout"];

/// For a superuser's session, as `options` of a connection or `PGOPTIONS`.
#[must_use]
pub fn superuser_options() -> String {
    text(USUAL.iter().chain(OF_SUPERUSER))
}

/// The same for any user's session.
pub(crate) fn usual() -> String {
    text(USUAL)
}

/// The same for a replication connection.
pub(crate) fn of_replication() -> String {
    text(USUAL.iter().filter(|(name, _)| OF_REPLICATION.contains(name)))
}

/// PostgreSQL splits it at blanks, except those after a backslash.
fn text<'one>(settings: impl IntoIterator<Item = &'one (&'static str, &'static str)>) -> String {
    let one = |(name, value): &(&str, &str)| format!("-c {name}={}", value.replace(' ', "\\ "));
    settings.into_iter().map(one).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blanks_in_values_part_nothing() {
        assert!(usual().contains(r" -c default_transaction_isolation=read\ committed "));
        assert!(superuser_options().ends_with(" -c session_preload_libraries="));
        assert_eq!(
            of_replication(),
            "-c statement_timeout=0 -c lock_timeout=0 -c idle_in_transaction_session_timeout=0 -c idle_session_timeout=0"
        );
    }
}
