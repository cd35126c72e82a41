//! The archive: ships finished WAL to a store and fetches it back, and takes base backups. Restores none.
//!
//! Objects lie where barman-cloud puts them, so that its tools read this archive and this program reads theirs.
//! An object is written once: never changed, never overwritten, and what differs is an alarm.

#![forbid(unsafe_code)]

mod backup;
mod backup_info;
mod clock;
mod compression;
mod content;
mod fetch;
mod layout;
mod listing;
#[cfg(test)]
mod memory;
mod owner;
mod protocol;
mod queue;
mod server;
mod ship;
mod status;
mod stream;
mod upload;

pub mod catalog;
pub mod client;
pub mod restore;
pub mod retention;
pub mod verify;

pub use backup::{
    BackupError, BackupIndex, BackupOptions, BackupReport, Begun, Ended, INDEX, Inside, MANIFEST, Phase,
    Point, Progress, Source, SourceError, StoredWal, TarIndex, WalArchived, WalMissing, sweep_abandoned,
    take_backup,
};
pub use backup_info::{
    BackupId, BackupInfo, BackupStatus, BadBackupId, BadBackupInfo, ReadBackupInfo, Tablespace,
};
pub use compression::{Compression, Format};
pub use content::Fault;
pub use fetch::{AheadOptions, FetchError, Fetched, Fetcher, Patience};
pub use layout::{BadServerName, Layout};
pub use owner::{Leader, NotOwned, Owned, prove, prove_by_hand};
pub use server::{Server, ServerError, ServerOptions};
pub use ship::{Leadership, NotDurable, ShipOptions, Shipper};
pub use status::{Archived, Conflict, Counters, Failure, Status};
pub use stream::{FlushPosition, StreamCounters, StreamOptions, StreamStatus, Streamer};
