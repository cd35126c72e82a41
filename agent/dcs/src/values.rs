//! The JSON values of Patroni's keys, to the byte, and of Outrider's own. Does not know where they are stored.

mod backup;
mod failover;
mod generation;
mod history;
mod intent;
mod json;
mod restart;
mod rollback;
mod status;
mod sync;

pub(crate) use backup::parse as parse_record;
pub use backup::{BackupClaim, BackupOutcome, BackupRequest};
pub use failover::{Failover, FailoverAnswer, FailoverTerms};
pub use generation::{Generation, RebuiltKeys};
pub use history::HistoryRow;
pub use intent::SwitchoverIntent;
pub use json::compact_json;
pub use restart::{RestartMember, RestartRequest, RestartState};
pub use rollback::{RollbackClaim, RollbackOutcome, RollbackRequest, RollbackSwap, RollbackTarget};
pub use status::{ArchivedTo, Status};
pub use sync::SyncState;
