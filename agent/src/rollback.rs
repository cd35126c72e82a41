//! Rolls the running cluster back to a point in time, in its place. The leader prepares the data beside its own while Postgres
//! goes on, and swaps the two when all is ready; the others find themselves diverged and come back by themselves.
//!
//! The keeper is a task of its own beside the round, like that of base backups. The one thing it asks of the round is the
//! swap, which it offers at the gate: `ha` sees that data is prepared and decides when it takes the place of the old.

mod goal;
mod keeper;
mod offer;
mod prepare;
mod run;
mod taking;

pub(crate) use goal::{goal, target};
pub(crate) use keeper::Keeper;
