//! The distributed configuration store (DCS): the leader lease and everything the members of a cluster tell each other.
//! Does not decide anything: it reads, it changes what it is told to change, and it says honestly what happened.
//!
//! [`Dcs`] is what the agent sees.

mod dcs;
mod error;
mod snapshot;
mod values;

pub use dcs::{Changes, Dcs, Leadership, Session};
pub use error::{Cause, Error};
pub use snapshot::{Entry, Leader, Member, Snapshot};
pub use values::{Failover, HistoryRow, Status, SwitchoverIntent, SyncState, compact_json};
