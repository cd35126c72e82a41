//! The `backup.info` of a backup that was just taken. Touches no store.

use jiff::Timestamp;
use outrider_wal::{Lsn, SegmentName};

use super::BackupOptions;
use super::claim::Claim;
use super::copy;
use super::source::{Begun, Ended};
use crate::{BackupInfo, BackupStatus};

/// Everything but its size and its end.
pub(crate) fn of(
    claim: &Claim,
    options: &BackupOptions,
    begun: &Begun,
    ended: &Ended,
    begin_time: Timestamp,
) -> BackupInfo {
    // A position at the beginning of a segment means that the one before is the last that is needed.
    let last_byte = Lsn::new(ended.stop.get().saturating_sub(1));
    BackupInfo {
        id: claim.id.clone(),
        name: options.name.clone(),
        status: BackupStatus::Done,
        error: None,
        begin_time: Some(begin_time),
        end_time: None,
        begin_wal: Some(SegmentName::holding(ended.start_timeline, begun.start, begun.segment_size)),
        begin_lsn: Some(begun.start),
        end_wal: Some(SegmentName::holding(ended.stop_timeline, last_byte, begun.segment_size)),
        end_lsn: Some(ended.stop),
        timeline: Some(ended.start_timeline),
        system_identifier: Some(begun.system_identifier),
        version: Some(begun.version),
        segment_size: begun.segment_size,
        data_checksums: begun.data_checksums,
        cluster_size: None,
        pgdata: Some(begun.data_directory.display().to_string()),
        backup_label: Some(ended.label.clone()),
        tablespaces: copy::tablespaces(begun).cloned().collect(),
    }
}
