//! Owns the postmaster and holds the fuse. Knows nothing of the DCS or of which member should be primary.
//!
//! [`run`] is what `outrider supervise` does: one thread that waits in `poll` for signals, a timer, a unix
//! socket and the output of its children. The agent speaks to it as [`protocol`] says.
//!
//! What it guards:
//! - Postgres accepts writes only while a deadline of `CLOCK_BOOTTIME` that the agent arms is in the future.
//!   When it passes, every process of Postgres is killed, whatever the agent does.
//! - An agent that goes away or comes back changes nothing: Postgres keeps running until the fuse blows.
//! - When the supervisor dies, Postgres dies with it.

mod supervisor;

mod child;
mod exit;
mod fuse;
mod postmaster;
mod termination;
mod tool;

mod connection;
mod listener;
mod lock;
pub mod protocol;

mod descendants;
mod log;
mod output;
mod system;

mod error;
mod options;

pub use error::Error;
pub use options::Options;
pub use supervisor::run;
pub use system::boottime_ns;
pub use tool::rollback_directory;
