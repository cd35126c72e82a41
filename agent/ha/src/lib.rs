//! The decision core: everything a member knows comes in as a [`View`], everything it will do goes out as a [`Plan`].
//!
//! Pure: no clock, no logger, no I/O, no allocation failure to handle; it cannot fail and it cannot wait. Time is an
//! age (`Duration`), never an instant, so that the same view always gives the same plan and a recorded round replays.

#![no_std]
#![forbid(unsafe_code)]
#![deny(clippy::wildcard_enum_match_arm)]

extern crate alloc;

mod ask;
mod decide;
mod fuse;
pub mod invariant;
mod millis;
mod plan;
mod reason;
mod rebuild;
mod view;

pub use ask::{Patience, must_read_again, whom_to_ask};
pub use decide::{decide, leave, may_take_over};
pub use fuse::{KILL_BUDGET, fuse_margin};
pub use plan::{Plan, StartAs, Step, StopMode};
pub use reason::{Lack, Reason, Unfit};
pub use rebuild::{NotRebuilt, Rebuilding, Testimony, Witness, rebuild};
pub use view::cluster::{Cluster, Initialize, Lease, SyncState};
pub use view::identity::{SystemId, Term};
pub use view::local::{Local, Postgres, Promotion, Shutdown, Streaming, Synchronous, Unusable, WalSender};
pub use view::member::{
    Answer, Cause, Hold, Lacking, Member, MemberName, MemberState, Query, Replay, Role, Tags,
};
pub use view::policy::{Policy, SynchronousMode};
pub use view::request::{Request, RequestKind, Switchover};
pub use view::restart::{Restart, RestartTurn, TurnChange, TurnEnd, TurnState};
pub use view::watermark::{Lost, StoreId, Watermark};
pub use view::{Dcs, Job, View};
