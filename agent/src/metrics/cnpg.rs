//! Metrics that users of CloudNativePG already query, under its names.

use outrider_postgres::Role;

use super::family::Families;
use crate::config::Config;
use crate::report::Report;

pub(super) fn add(report: &Report, config: &Config, families: &mut Families) {
    families.gauges(
        "cnpg_collector_up",
        "1 if Postgres is up",
        "cluster",
        [(&config.scope, report.postgres.is_some())],
    );
    if let Some(seen) = &report.postgres {
        let lag = match &seen.role {
            Role::Primary { .. } => 0.0,
            Role::Standby { replay_lag_seconds, .. } => *replay_lag_seconds,
        };
        families.gauge("cnpg_pg_replication_lag", "How far a standby is behind its primary, in seconds", lag);
    }
    let sizes = report.database_sizes.iter().map(|(name, size)| (name, *size));
    families.gauges("cnpg_pg_database_size_bytes", "Disk space of the database", "datname", sizes);
}
