//! Talks to a Postgres and its supervisor: configuration files, positions, start and stop, promotion, clone, rewind.
//! Obeys; decides nothing, and knows neither the leader lease nor the archive.

mod archive_slot;
mod backup;
mod configuration;
mod conninfo;
mod control;
mod directory;
mod error;
mod file;
mod flushed;
mod instrument;
mod observation;
mod observer;
mod quote;
mod rebuild;
mod replay;
mod restored;
mod rollback;
mod room;
mod session;
mod settings;
mod statement;
mod supervisor;
mod switch;
mod timelines;

pub use archive_slot::{ARCHIVE_SLOT, ArchiveSlot};
pub use backup::{BackupBegun, BackupEnded, BackupSession, TablespaceLocation};
pub use configuration::{Configuration, slot_name};
pub use conninfo::Upstream;
pub use control::ControlData;
pub use directory::{Directory, inspect};
pub use error::Error;
pub use flushed::FlushedWal;
pub use instrument::Postgres;
pub use observation::{Blocker, Observation, Role, WalSender};
pub use observer::Observer;
pub use rollback::{Prepared, Settled, Swap};
pub use settings::{Password, Settings, User};
pub use supervisor::{ArmedFuse, News, Supervisor};
