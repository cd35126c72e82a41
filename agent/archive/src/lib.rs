//! The archive: ships finished WAL to a store and streams what is being written, takes base backups, lists both, and removes what
//! retention lets go. The way back is in `outrider-restore`.
//!
//! Objects lie where barman-cloud puts them, so that its tools read this archive and this program reads theirs.
//! An object is written once: never changed, never overwritten, and what differs is an alarm.

#![forbid(unsafe_code)]

mod backup_info;
mod clock;
mod layout;
mod listing;
#[cfg(test)]
mod memory;
mod owner;
mod ready;
mod ship;
mod status;
mod stream;
mod upload;

pub mod backup;
pub mod catalog;
pub mod compression;
pub mod content;
pub mod metadata;
pub mod retention;

pub use backup::{
    BackupError, BackupIndex, BackupOptions, BackupProgress, BackupReport, Begun, Ended, INDEX, Inside,
    MANIFEST, Phase, Point, Source, SourceError, StoredWal, TarIndex, WalArchived, WalMissing,
    sweep_abandoned, take_backup,
};
pub use backup_info::{
    BackupId, BackupInfo, BackupStatus, BadBackupId, BadBackupInfo, ReadBackupInfo, Tablespace,
};
pub use compression::{Compression, Format};
pub use content::ContentError;
pub use layout::{BadServerName, Layout};
pub use owner::{Leader, NotOwned, Owned, prove, prove_by_hand};
pub use ship::{Leadership, NotDurable, ShipOptions, Shipper};
pub use status::{Archived, Conflict, Counters, Failure, Status};
pub use stream::{FlushPosition, StreamCounters, StreamOptions, StreamStatus, Streamer};
