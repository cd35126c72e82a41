//! The JSON values of Patroni's keys, to the byte, and of our own. Does not know where they are kept.

mod failover;
mod history;
mod intent;
mod json;
mod status;
mod sync;

pub use failover::Failover;
pub use history::HistoryRow;
pub use intent::SwitchoverIntent;
pub use json::compact_json;
pub use status::Status;
pub use sync::SyncState;
