//! The distributed configuration store (DCS): the leader lease and everything that the members of a cluster tell each
//! other. Decides nothing: it reads, changes what it is told to, and reports honestly what happened.
//!
//! [`Dcs`] is what the agent sees. [`open_etcd`] keeps Patroni's keys in etcd v3, [`MemoryCluster`] keeps them in this
//! process. One set of rules for the keys (`keyed`) serves both, on the few operations of a key-value store (`store`).

mod dcs;
mod documents;
mod error;
mod snapshot;
mod values;

mod keyed;
mod keys;
mod session;
mod store;

mod etcd;
mod memory;

pub use dcs::{Changes, Dcs, Leadership, Session};
pub use error::{Cause, Error};
pub use etcd::{Credentials, EtcdOptions, OpenEtcdError, TlsFiles, open_etcd};
pub use keyed::Identity;
pub use keys::base_path;
pub use memory::MemoryCluster;
pub use session::SessionError;
pub use snapshot::{BackupTaken, Entry, Leader, Member, RollbackTaken, Snapshot};
pub use values::{
    ArchivedTo, BackupClaim, BackupOutcome, BackupRequest, Failover, FailoverAnswer, FailoverTerms,
    Generation, HistoryRow, RebuiltKeys, RestartMember, RestartRequest, RestartState, RollbackClaim,
    RollbackOutcome, RollbackRequest, RollbackSwap, RollbackTarget, Status, SwitchoverIntent, SyncState,
    compact_json,
};
