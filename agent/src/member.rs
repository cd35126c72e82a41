//! What a member says of itself, in the DCS, over HTTP and in metrics: Patroni's words, and ours where Patroni has none.

pub(crate) mod replay;

use outrider_archive::Status;
use outrider_ha::{Job, Postgres, Shutdown, View};
use outrider_postgres::PendingRestart;
use serde_json::{Value, json};

use crate::state::State;

/// Patroni's word for the state of the local Postgres.
pub(crate) fn state(view: &View) -> &'static str {
    match (view.job, &view.local.postgres) {
        (Some(Job::Initdb), _) => "initializing new cluster",
        (Some(Job::Clone), _) => "creating replica",
        (Some(Job::Rewind), _) => "running pg_rewind",
        (Some(Job::Stop), _) => "stopping",
        (Some(Job::Rollback), _) => "rolling back",
        (_, Postgres::Primary { .. } | Postgres::Standby { .. }) => "running",
        (_, Postgres::Starting { .. }) | (Some(Job::Start), _) => "starting",
        (_, Postgres::Unresponsive { .. }) => "unknown",
        (_, Postgres::Stopped { shutdown: Shutdown::CrashedPrimary, .. }) => "crashed",
        (_, Postgres::Stopped { .. }) => "stopped",
        (_, Postgres::Empty) => "uninitialized",
        (_, Postgres::Unusable(_)) => "start failed",
    }
}

/// Patroni's format: each parameter with the value in effect and the pending one.
pub(crate) fn pending_restart_reason(pending: &[PendingRestart]) -> Value {
    let parameter = |one: &PendingRestart| {
        (one.name.clone(), json!({"old_value": one.old_value, "new_value": one.new_value}))
    };
    Value::Object(pending.iter().map(parameter).collect())
}

/// What is amiss at this member with the configuration and with the archive, by the key under which it is shown.
pub(crate) fn troubles(state: &State, archive: Option<&Status>) -> Vec<(&'static str, Vec<String>)> {
    let seen = state.postgres.seen();
    let faults = seen.into_iter().flat_map(|seen| &seen.file_faults).map(ToString::to_string).collect();
    let gaps = archive.into_iter().flat_map(|status| &status.gaps);
    let gaps = gaps.map(|(first, last)| format!("{first} to {last}")).collect();
    let kinds = [
        ("archive_gaps", gaps),
        ("not_honoured", state.rules.not_honoured().to_vec()),
        ("file_faults", faults),
        ("start_failure", state.supervisor.start_failure().map(str::to_owned).into_iter().collect()),
    ];
    kinds.into_iter().filter(|(_, lines): &(_, Vec<String>)| !lines.is_empty()).collect()
}
