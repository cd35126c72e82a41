//! A small world around the shipped `outrider_ha::decide`: a DCS, two or three nodes with Postgres, fuse and agent,
//! their WAL, clients, and faults, as one stateright model that is searched exhaustively.
//!
//! What is real: `decide`, `whom_to_ask` and `invariant::check` are the shipped ones, on views with everything in them.
//! An agent observes in one transition and takes each step of its plan in another, so anything can happen between.
//! An agent that hangs, a network that is cut and a node that is frozen are agents and streams whose turn does not come:
//! every interleaving is searched, so also the ones in which it never does.
//!
//! What is abstracted away, and therefore not proven here:
//!
//! - **Time.** Nothing has a duration. A fuse may blow at any moment (one fault each); a live one blows before the lease
//!   of the same term expires, unless that was shortened under it; a dead one does not and the lease may expire at any moment. That the deadlines of the
//!   shell and the supervisor have this order is for their own tests. Waits are either short or long enough.
//! - **Views.** An agent may read the DCS early (`Setup::early_reads`); its own Postgres and its peers are then seen at
//!   one later moment. What peers publish in the DCS may be old (`Setup::late_members`). Any of them may fail to answer in any round.
//! - **Jobs.** Checkpoint, rewind, clone and the start of a standby are done at once or refused; promotions and
//!   starts of a primary take their time, and stops where `Setup::slow` says so. There a Postgres may also cease to answer:
//!   its sessions and its standbys go on, as under a postmaster that hangs. It can always be killed, but by a dead fuse.
//!   A rewind or a clone breaks off half done, and a data directory gets lost, where `Setup::broken_data` says so; then nothing that is
//!   left can be relied on. That `pg_rewind` fails and leaves all as it was is not in it.
//! - **The DCS** is linearizable, and no lease is lost before its time. It goes back to a copy where `Setup::restores` says so,
//!   and only after every fuse has blown; then whoever is not lost answers. Agents are led to another, empty one where
//!   `Setup::led_elsewhere` says so, each once, and back while it is empty; all of them is the same as a DCS that is wiped, but for its identity.
//!   Neither happens in the milliseconds between a change of `/sync` and the look of whom it names, nor between the answers of all and the
//!   writing of the keys. Keys are rebuilt by hand in one act, on whoever answers, and nothing is given up.
//! - **WAL** is a list of whole records; flushed is received; no record is ever torn or lost from a disk. A promotion
//!   writes one record at which the new timeline begins. The checkpoint after it is taken as done.
//! - **A rollback** begins with its data ready, restored to where the primary is at that moment; it is given up at any moment before the swap.
//!   Its two renames are one: an agent that ends between them puts the old data back.
//! - **A restart** is of all members, of which each waits for one; `--pending` and schedules have situations.
//! - **Slots** are in it where `Setup::slots` says so; elsewhere no WAL is ever removed. `ha` decides that a primary makes those that are
//!   missing. What a leader publishes, what standbys hold for it and what servers remove is written here anew, as `agent/src/round/member_slots.rs`
//!   and PostgreSQL have it (`tests/system/slots.rs` tests those); copies follow at once what is published. A slot goes while its member is away: one
//!   fault. Nobody of ours clones a member whose WAL is gone: a person empties its data directory.
//! - **Promotions** fail for ever, one node a fault, where `Setup::promotions_fail` says so: Postgres ends before recovery does, and the agent has
//!   seen that so often that it gives up. A promotion that hangs, and one that has begun a timeline before it failed, have situations.
//! - **Faults** are bounded, as are commits, switchovers and terminations; bootstrap, tags, mode changes and a
//!   failover by hand that gives something up are not in it. They have situations in `agent/ha/tests/scenarios`.
//! - A plan of nothing but `RenewLease` is carried out in the transition that decides on it.

mod act;
mod apply;
mod event;
mod ids;
mod look;
mod mutant;
mod node;
mod oracle;
mod perform;
mod properties;
mod property_names;
mod rebuild;
mod recovery;
mod restart;
mod search;
mod setup;
mod state;
mod store;
mod wal;

pub use act::{Act, Acts, Note};
pub use event::Event;
pub use ids::{NodeId, Nodes};
pub use mutant::{Mutant, catches};
pub use node::{Hang, Node, Postgres, Published, Read};
pub use property_names::{
    ALL_BACK, BORN_ONCE, COMES_TO_REST_WHOLE, COPIED_ANEW, ELIGIBLE, FAILOVER, HANDED_OVER_READY, IN_ORDER,
    NOTHING_LOST, ONE_AT_A_TIME, ONE_CLUSTER, ONLY_WHOLE_DATA, ROLLBACK, ROLLED_BACK, RULES_KEPT,
    SINGLE_WRITER, SWITCHED_FIRST, SWITCHOVER, TERMS_ASCEND, WAL_KEPT,
};
pub use recovery::{Recovery, search_recovery};
pub use search::{Finding, search, search_for};
pub use setup::{Fuse, Setup};
pub use state::past::{Elsewhere, Keys, Mark, Past, Seen};
pub use state::rollback::{Rollback, Stage, Turn};
pub use state::slots::Slots;
pub use state::{Budget, Oracle, State, Wrong};
pub use store::{Request, Restart, Store, Sync, Turn as RestartTurn};
pub use wal::{Branches, Record, Wal};

/// The model.
#[derive(Clone, Debug)]
pub struct World {
    /// Its size and its faults.
    pub setup: Setup,
}
