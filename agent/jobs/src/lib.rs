//! The decisions about the long work of a cluster, one file for each kind: what a member sees comes in as a [`View`] and a job,
//! what it does next about that job goes out as one [`Step`].
//!
//! Pure, like `outrider_ha`: no clock, no logger, no I/O. Time is an age (`Duration`). One step at a time: what comes after it is
//! decided on what is seen then. A kind whose requests stand in the DCS has one claim in the cluster, on the session of the member
//! that has taken the request up; the claim goes with that session, and that is the hand-over when a member dies.

#![no_std]
#![forbid(unsafe_code)]
#![deny(clippy::wildcard_enum_match_arm)]

extern crate alloc;

pub mod backup;
pub mod drill;
pub mod rollback;
mod step;
mod turn;
mod view;

pub use step::{Claim, Step};
pub use view::{Leader, Member, Postgres, View};
