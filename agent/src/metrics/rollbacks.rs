//! The metrics of rollbacks: whether one is in progress, and how the last one went.

use jiff::Timestamp;
use outrider_dcs::Snapshot;

use super::family::Families;

pub(super) fn add(cluster: Option<&Snapshot>, families: &mut Families) {
    let Some(cluster) = cluster else { return };
    let help = "1 if the cluster is being rolled back, or prepared to be";
    families.gauge("outrider_rollback_running", help, cluster.rollback.is_some());
    let Some(last) = cluster.rollback_last.as_ref().map(|entry| &entry.value) else { return };
    let finished = last.finished.parse::<Timestamp>().map_or(0.0, |at| at.as_millisecond() as f64 / 1000.0);
    let help = "When the last requested rollback ended, in seconds since the epoch";
    families.gauge("outrider_rollback_last_timestamp_seconds", help, finished);
    families.gauge(
        "outrider_rollback_last_failed",
        "1 if the last requested rollback failed",
        last.error.is_some() && !last.cancelled,
    );
}
