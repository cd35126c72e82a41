//! The way back from the archive: a file of the WAL for PostgreSQL that asks for it, a server to any second, and the proof
//! that both can be had. Writes nothing into an archive but the outcome of a verification.
//!
//! A restore walks straight: a [`Goal`] becomes a [`Plan`] ([`Restorer::plan`]), the plan becomes files ([`Restorer::run`]),
//! Postgres recovers them, and asks for WAL by its `restore_command` ([`client`], [`Server`], [`Fetcher`]). [`drill`] goes
//! that whole way into a scratch directory.
//!
//! The socket of `wal-push` and `wal-fetch` is here and not in `outrider-archive`, since it passes on to the shipper as well as
//! to the fetcher.

#![forbid(unsafe_code)]

mod clock;
mod drill;
mod error;
mod fetch;
mod manifest;
mod plan;
mod protocol;
mod restore;
mod server;
mod target;

pub mod client;
pub mod verify;

pub use drill::{DrillOptions, DrillReport, drill};
pub use error::{Point, RestoreError};
pub use fetch::{AheadOptions, FetchError, Fetched, Fetcher, Patience};
pub use plan::{Plan, Stop, newest_commit};
pub use restore::{Phase, RestoreOptions, RestoreProgress, Restored, Restorer};
pub use server::{Server, ServerError, ServerOptions};
pub use target::{BadTarget, Goal, Target, TargetAction, TargetTimeline};
