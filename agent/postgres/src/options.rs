//! What every session of the agent, and of the programs that it runs, sets for itself when it begins. PostgreSQL puts that before
//! what is set for the cluster, a database or a role, so that nothing of it changes what the session does.

/// Anybody may set these.
const USUAL: &[(&str, &str)] = &[
    ("statement_timeout", "0"),
    ("lock_timeout", "0"),
    ("idle_in_transaction_session_timeout", "0"),
    ("idle_session_timeout", "0"),
    // Whoever logs in is who acts.
    ("role", "none"),
    ("default_transaction_read_only", "off"),
    ("default_transaction_deferrable", "off"),
    // A standby refuses everything in a serializable transaction.
    ("default_transaction_isolation", "read committed"),
    // What the agent writes must never wait for a standby.
    ("synchronous_commit", "local"),
    // Nor may a name mean another function than PostgreSQL's own.
    ("search_path", "pg_catalog"),
    ("local_preload_libraries", ""),
    ("standard_conforming_strings", "on"),
    // Times and bytes as the agent reads them.
    ("DateStyle", "ISO"),
    ("IntervalStyle", "postgres"),
    ("TimeZone", "UTC"),
    ("bytea_output", "hex"),
    // Compiling takes longer than anything that is asked here.
    ("jit", "off"),
];

/// Only a superuser may set these.
const OF_SUPERUSER: &[(&str, &str)] = &[("session_preload_libraries", "")];

/// What ends a connection that streams WAL or a base backup: such a one reads nothing that is set for roles or databases.
const OF_REPLICATION: &[&str] =
    &["statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout", "idle_session_timeout"];

/// For a session of a superuser, as `options` of a connection or `PGOPTIONS` has them.
#[must_use]
pub fn superuser_options() -> String {
    text(USUAL.iter().chain(OF_SUPERUSER))
}

/// The same for a session of anybody.
pub(crate) fn usual() -> String {
    text(USUAL)
}

/// The same for a connection that replicates.
pub(crate) fn of_replication() -> String {
    text(USUAL.iter().filter(|(name, _)| OF_REPLICATION.contains(name)))
}

/// PostgreSQL parts it at blanks, but for those behind a backslash.
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
