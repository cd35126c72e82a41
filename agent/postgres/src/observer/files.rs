//! What Postgres makes of its configuration files: which parameters wait for a restart, and which lines it cannot use. Only
//! reads.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use tokio_postgres::Row;

use crate::configuration::waiting;
use crate::control::is_hot_standby_minimum;
use crate::error::Error;
use crate::observation::{FileFault, PendingRestart};
use crate::session::Session;
use crate::settings::Settings;

/// Each with the value in effect, and the winning one in the files. For PostgreSQL a value that was written and reverted
/// before a restart stays pending, though nothing is waiting.
const PENDING: &str = "
SELECT s.name, current_setting(s.name), coalesce(f.setting, s.boot_val, '')
FROM pg_settings s
     LEFT JOIN LATERAL (SELECT setting FROM pg_file_settings WHERE lower(name) = s.name ORDER BY seqno DESC LIMIT 1) AS f ON true
WHERE s.pending_restart AND (f.setting IS NOT NULL OR s.source = 'configuration file')
ORDER BY 1";

const IN_EFFECT: &str = "SELECT name, current_setting(name) FROM pg_settings WHERE name = ANY($1)";

/// `pg_file_settings` also reports as an error that a value waits for a restart.
const FAULTS: &str = "
SELECT lower(f.name), f.setting, f.sourcefile, f.sourceline, f.error FROM pg_file_settings f
WHERE f.error IS NOT NULL AND coalesce(lower(f.name), '') NOT IN (SELECT name FROM pg_settings WHERE pending_restart)
UNION ALL
SELECT NULL, NULL, current_setting('hba_file'), line_number, error FROM pg_hba_file_rules WHERE error IS NOT NULL
UNION ALL
SELECT NULL, NULL, current_setting('ident_file'), line_number, error FROM pg_ident_file_mappings WHERE error IS NOT NULL
LIMIT 20";

const LIMITS: &str = "
SELECT name, setting FROM pg_settings
WHERE name IN ('max_connections', 'max_worker_processes', 'max_wal_senders', 'max_prepared_transactions',
               'max_locks_per_transaction')";

/// What the files hold besides what is in effect.
#[derive(Clone, Debug, Default)]
pub(super) struct Files {
    pub(super) pending_restart: Vec<PendingRestart>,
    pub(super) faults: Vec<FileFault>,
    /// The values in effect of the parameters that standbys must not have less of than their primary.
    pub(super) limits: BTreeMap<String, u32>,
}

/// Queries all of it.
pub(super) async fn ask(session: &Session, settings: &Settings, limit: Duration) -> Result<Files, Error> {
    let client = session.client();
    let act = "list parameters that wait for a restart";
    let pending = session.within(act, limit, client.query(PENDING, &[])).await?;
    let faults = session.within("check its configuration files", limit, client.query(FAULTS, &[])).await?;
    let limits = session.within("read its limits", limit, client.query(LIMITS, &[])).await?;
    // PostgreSQL compares with its file, which has the values in effect; the pending ones are in it under another name.
    let waiting = waiting(&settings.data_directory)?;
    let names: Vec<&str> = waiting.iter().map(|(name, _)| name.as_str()).collect();
    let effect = session.within(act, limit, client.query(IN_EFFECT, &[&names])).await?;
    let old = |name: &str| effect.iter().find(|row| row.get::<_, &str>(0) == name).map(|row| row.get(1));
    let mut pending_restart: Vec<PendingRestart> = pending.iter().map(pending_restart).collect();
    pending_restart.retain(|asked| !names.contains(&asked.name.as_str()));
    pending_restart.extend(waiting.iter().filter_map(|(name, new_value)| {
        Some(PendingRestart { name: name.clone(), old_value: old(name)?, new_value: new_value.clone() })
    }));
    pending_restart.sort_by(|one, other| one.name.cmp(&other.name));
    let limit = |row: &Row| Some((row.get(0), row.get::<_, &str>(1).parse().ok()?));
    let of_standbys = |(name, _): &(String, u32)| is_hot_standby_minimum(name);
    Ok(Files {
        limits: limits.iter().filter_map(limit).filter(of_standbys).collect(),
        pending_restart,
        faults: faults.iter().map(fault).collect(),
    })
}

fn pending_restart(row: &Row) -> PendingRestart {
    PendingRestart { name: row.get(0), old_value: row.get(1), new_value: row.get(2) }
}

/// Only its file name: nobody outside the member needs to know where its data directory is.
fn fault(row: &Row) -> FileFault {
    let path = row.get::<_, Option<&str>>(2).unwrap_or_default();
    let file = Path::new(path).file_name().map(|name| name.to_string_lossy().into_owned());
    FileFault {
        name: row.get(0),
        value: row.get(1),
        file: file.unwrap_or_default(),
        line: row.get::<_, Option<i32>>(3).unwrap_or_default(),
        error: row.get(4),
    }
}
