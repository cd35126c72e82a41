//! Rolls the running cluster back to a point in time, in its place. The leader prepares the data beside its own while Postgres
//! goes on, and swaps the two when all is ready; the others find themselves diverged and come back by themselves.
//!
//! Who does it, and what becomes of it, is in `jobs`. The one thing that job asks of the round is the swap, which it offers at the
//! `swap_offer`: `ha` sees that data is prepared and decides when it takes the place of the old.

mod goal;
mod prepare;

pub(crate) use goal::{goal, target};
pub(crate) use prepare::{Preparation, Ready, prepare};
