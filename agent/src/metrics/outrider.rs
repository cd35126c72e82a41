//! The metrics that only Outrider has: rounds, lease, fuse, standbys, archive.

use std::time::UNIX_EPOCH;

use outrider_archive::{Status, StreamStatus};
use outrider_dcs::Snapshot;
use outrider_ha::Replay;
use outrider_postgres::Observation;

use super::family::Families;
use crate::clock;
use crate::lag::Lag;
use crate::member::replay;
use crate::report::Report;
use crate::state::{Counters, ROUND_BOUNDS};

/// What is wrong with the configuration: its key, its metric, its help text and the label with the words.
const TROUBLES: [(&str, &str, &str, &str); 3] = [
    (
        "not_honoured",
        "outrider_config_not_honoured",
        "1 for each rule of the cluster that this member does not follow",
        "rule",
    ),
    (
        "file_faults",
        "outrider_postgres_file_fault",
        "1 for each line of the configuration files that Postgres cannot use; no switchover before it is fixed",
        "fault",
    ),
    (
        "start_failure",
        "outrider_postgres_start_failure",
        "1 with the words in which Postgres ended, until it answers again",
        "words",
    ),
];

pub(super) fn add(report: &Report, families: &mut Families) {
    let reason = [(report.plan.reason.label(), true)];
    families.gauges(
        "outrider_reason",
        "1 for the reason of the last round; there is only one",
        "reason",
        reason,
    );
    for (key, name, help, label) in TROUBLES {
        let lines = report.troubles.iter().filter(|(kind, _)| *kind == key).flat_map(|(_, lines)| lines);
        families.gauges(name, help, label, lines.map(|line| (line, true)));
    }
    families.gauge("outrider_round_failed", "1 if a step of the last round failed", report.failure.is_some());
    families.gauge(
        "outrider_term",
        "The highest term of the leader lease that was seen",
        report.view.local.watermark.term.0,
    );
    let lease = report.lease_until_boottime_ns.map(clock::until_boottime).unwrap_or_default();
    families.gauge(
        "outrider_lease_seconds",
        "How long the leader lease is certainly held, 0 if it is not",
        lease.as_secs_f64(),
    );
    let fuse = report.view.local.fuse.unwrap_or_default();
    families.gauge(
        "outrider_fuse_seconds",
        "What the fuse had left when the last round began, 0 if it is not armed",
        fuse.as_secs_f64(),
    );
    add_counters(&report.counters, families);
    if let Some(seen) = &report.postgres {
        add_postgres(seen, families);
        add_replay(seen, report.cluster.as_ref(), families);
    }
    if let Some(archive) = &report.archive {
        add_archive(archive, families);
        families.gauge(
            "outrider_archive_kept_for_gap",
            "1 if this member keeps WAL that neither the archive nor the leader has: switch over to it",
            report.kept_for_gap.is_some(),
        );
        add_shipped(archive, families);
    }
    if let Some(stream) = &report.stream {
        add_stream(stream, families);
    }
}

fn add_counters(counters: &Counters, families: &mut Families) {
    let rounds = counters.rounds.iter().map(|(reason, count)| (*reason, *count));
    families.counters("outrider_rounds", "Rounds by their reason", "reason", rounds);
    let bounds = ROUND_BOUNDS.into_iter().chain([f64::INFINITY]);
    let buckets = bounds.zip(counters.round_durations).collect();
    let sum = counters.round_duration_sum.as_secs_f64();
    families.histogram("outrider_round_duration_seconds", "How long rounds took", sum, buckets);
    if let Some(took) = counters.last_renewal {
        let help = "How long the last confirmed renewal of the leader lease took";
        families.gauge("outrider_lease_renewal_seconds", help, took.as_secs_f64());
    }
    let errors = counters.dcs_errors.iter().map(|(kind, count)| (*kind, *count));
    families.counters("outrider_dcs_errors", "Failed requests to the DCS by kind", "kind", errors);
    families.counter(
        "outrider_failovers",
        "Promotions of this member without a planned hand-over",
        counters.failovers,
    );
    families.counter(
        "outrider_switchovers",
        "Planned promotions of this member and hand-overs by it",
        counters.switchovers,
    );
    families.counter("outrider_fenced", "Times that the fuse blew and Postgres was killed", counters.fenced);
    families.counter(
        "outrider_postgres_starts",
        "Times that the agent started Postgres",
        counters.postgres_starts,
    );
    families.counter(
        "outrider_recorder_failures",
        "Rounds that the flight recorder could not write",
        counters.recorder_failures,
    );
    if let Some(gap) = counters.last_write_gap {
        let help = "How long nobody could write in the last switchover away from this member";
        families.gauge("outrider_last_write_gap_seconds", help, gap.as_secs_f64());
    }
}

fn add_postgres(seen: &Observation, families: &mut Families) {
    families.gauge("outrider_postgres_connections", "Client connections", seen.connections);
    let senders = &seen.walsenders;
    let end = seen.position().get();
    let bytes =
        senders.iter().map(|sender| (&sender.application_name, end.saturating_sub(sender.replayed.get())));
    families.gauges(
        "outrider_replication_lag_bytes",
        "How far each standby is from having replayed all",
        "standby",
        latest(bytes),
    );
    let seconds = senders.iter().map(|sender| (&sender.application_name, sender.replay_lag_seconds));
    families.gauges(
        "outrider_replication_lag_seconds",
        "How long each standby takes to replay",
        "standby",
        latest(seconds),
    );
}

/// For a standby; a primary is behind nobody.
fn add_replay(seen: &Observation, cluster: Option<&Snapshot>, families: &mut Families) {
    let Some(lag) = Lag::of(seen, cluster) else { return };
    let help = "Bytes that this standby has still to receive of what its primary is known to have";
    families.gauge("outrider_receive_lag_bytes", help, lag.receive);
    let help = "Bytes that this standby has still to replay of what its primary is known to have";
    families.gauge("outrider_replay_lag_bytes", help, lag.replay);
    let replay = replay::of(seen);
    let cause = replay.as_ref().and_then(Replay::cause).map(|cause| (cause.label(), true));
    families.gauges(
        "outrider_replay_held",
        "1 for what keeps replay behind: paused, parameters, conflict or delayed; there is only one",
        "cause",
        cause,
    );
}

/// One sample per name: a standby that reconnects has two connections for a while.
fn latest<'name, V>(
    values: impl Iterator<Item = (&'name String, V)>,
) -> std::collections::BTreeMap<&'name String, V> {
    values.collect()
}

fn add_archive(archive: &Status, families: &mut Families) {
    families.gauge("outrider_archive_enabled", "1 if this member ships WAL", archive.term.is_some());
    families.gauge(
        "outrider_archive_waiting_files",
        "WAL files that Postgres has finished and the archive has not",
        archive.waiting,
    );
    families.gauge("outrider_archive_waiting_bytes", "Their size", archive.waiting_bytes);
    let oldest = archive.oldest_waiting.unwrap_or_default();
    families.gauge(
        "outrider_archive_oldest_waiting_seconds",
        "How long the oldest of them has waited",
        oldest.as_secs_f64(),
    );
    families.gauge(
        "outrider_archive_store_failing",
        "1 if the store did not take the last file",
        archive.store_failing,
    );
    add_volume(archive, families);
    families.gauge(
        "outrider_archive_writer_term",
        "The term for which the archive is claimed by this member, 0 if it is not",
        archive.term.filter(|_| archive.claimed).unwrap_or_default(),
    );
    families.gauge(
        "outrider_archive_writer_conflict",
        "1 if this member leads and another writes to the archive, or it is another cluster's",
        archive.writer_conflict.is_some(),
    );
    let gaps = u64::try_from(archive.gaps.len()).unwrap_or(u64::MAX);
    families.gauge(
        "outrider_archive_wal_gaps",
        "Gaps in the WAL of this server that neither the archive nor pg_wal can fill, 16 at most",
        gaps,
    );
    if let Some((_, lsn)) = archive.archived_to {
        families.gauge(
            "outrider_archive_archived_lsn_bytes",
            "Up to where all finished WAL is in the archive, in bytes since the start of the log",
            lsn.get(),
        );
    }
    families.gauge(
        "outrider_archive_conflict",
        "1 if the archive has another content under the name of a file of ours",
        archive.conflict.is_some(),
    );
    let refused = u64::try_from(archive.refused.len()).unwrap_or(u64::MAX);
    families.gauge("outrider_archive_refused_files", "Files that are not what their names say", refused);
    let last =
        archive.last_archived.as_ref().and_then(|archived| archived.at.duration_since(UNIX_EPOCH).ok());
    let help = "When the store confirmed the last file, in seconds since the epoch; 0 for never";
    families.gauge(
        "outrider_archive_last_archived_timestamp_seconds",
        help,
        last.unwrap_or_default().as_secs_f64(),
    );
}

/// Unknown values are left out: 0 would be an alarm.
fn add_volume(archive: &Status, families: &mut Families) {
    if let Some(free) = archive.free_bytes {
        families.gauge("outrider_archive_free_bytes", "What the volume of pg_wal has left", free);
    }
    if let Some(left) = archive.full_in {
        families.gauge(
            "outrider_archive_full_seconds",
            "In how long that is used up if the waiting WAL goes on to grow; absent while it does not",
            left.as_secs_f64(),
        );
    }
}

fn add_stream(stream: &StreamStatus, families: &mut Families) {
    families.gauge(
        "outrider_archive_stream_enabled",
        "1 if this member streams the WAL segment that is being written",
        stream.term.is_some(),
    );
    families.gauge(
        "outrider_archive_stream_lsn_bytes",
        "The end of the WAL that is safe in the archive, in bytes since the start of the log",
        stream.streamed_to.unwrap_or_default().get(),
    );
    families.gauge(
        "outrider_archive_stream_behind_seconds",
        "Age of the oldest flushed byte that the archive does not have: what losing every member now would lose",
        stream.behind().as_secs_f64(),
    );
    families.gauge(
        "outrider_archive_stream_behind_bytes",
        "Flushed bytes that the archive does not have",
        stream.behind_bytes(),
    );
    let last = stream.last_streamed.and_then(|at| at.duration_since(UNIX_EPOCH).ok()).unwrap_or_default();
    families.gauge(
        "outrider_archive_last_streamed_timestamp_seconds",
        "When the store confirmed the last chunk, in seconds since the epoch; 0 for never",
        last.as_secs_f64(),
    );
    families.gauge(
        "outrider_archive_stream_failing",
        "1 if the last chunk was not stored",
        stream.store_failing,
    );
    families.gauge(
        "outrider_archive_stream_conflict",
        "1 if the archive has other bytes for the segment that is being written",
        stream.conflict.is_some(),
    );
    let counters = &stream.counters;
    families.counter("outrider_archive_stream_chunks", "Chunks that the store confirmed", counters.chunks);
    families.counter("outrider_archive_stream_bytes", "Their size before compression", counters.bytes_in);
    families.counter(
        "outrider_archive_stream_compressed_bytes",
        "Their size after compression",
        counters.bytes_out,
    );
    families.counter("outrider_archive_stream_requests", "Requests to the store", counters.requests);
    families.counter("outrider_archive_stream_failures", "Attempts that failed", counters.failures);
}

fn add_shipped(archive: &Status, families: &mut Families) {
    let counters = &archive.counters;
    families.counter("outrider_archive_segments", "WAL segments that the store confirmed", counters.segments);
    families.counter("outrider_archive_files", "All files that the store confirmed", counters.files);
    families.counter("outrider_archive_bytes", "Their size before compression", counters.bytes_in);
    families.counter("outrider_archive_compressed_bytes", "Their size after compression", counters.bytes_out);
    let compressing = counters.compressing.as_secs_f64();
    families.counter(
        "outrider_archive_compressing_seconds",
        "Time spent reading, checking and compressing",
        compressing,
    );
    families.counter("outrider_archive_failures", "Attempts to ship a file that failed", counters.failures);
}
