//! All that a member knows when it decides: the one door in. Holds no rule.

pub(crate) mod cluster;
pub(crate) mod identity;
pub(crate) mod local;
pub(crate) mod member;
pub(crate) mod policy;
pub(crate) mod request;
pub(crate) mod restart;
pub(crate) mod watermark;

use alloc::vec::Vec;
use core::fmt;
use core::time::Duration;

use serde::{Deserialize, Serialize};

use self::cluster::Cluster;
use self::local::Local;
use self::member::{Member, MemberName};
use self::policy::Policy;

/// One look at the world, as one member sees it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct View {
    /// The member that looks.
    pub me: MemberName,
    /// What the DCS said, or that it said nothing.
    pub dcs: Dcs,
    /// This member's own Postgres, fuse and memory.
    pub local: Local,
    /// The other members, by name ascending.
    pub members: Vec<Member>,
    /// The rules of the cluster and this member's tags.
    pub policy: Policy,
    /// The long work that is under way here; at most one.
    pub job: Option<Job>,
}

impl View {
    /// The other member with this name.
    #[must_use]
    pub fn member(&self, name: &MemberName) -> Option<&Member> {
        self.members.iter().find(|member| member.name == *name)
    }
}

/// What came from the DCS.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(clippy::large_enum_variant, reason = "one view a round; a box would only hide the field")]
pub enum Dcs {
    /// No answer within the deadline: nothing is known, and nothing may be assumed.
    Silent {
        /// How long since its last answer.
        #[serde(with = "crate::millis")]
        since: Duration,
    },
    /// A linearizable read.
    Seen(Cluster),
}

/// Work that takes longer than a round may; the round goes on beside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Job {
    /// `initdb`.
    Initdb,
    /// Users, rights and the script of the first start.
    PostBootstrap,
    /// The postmaster is being started.
    Start,
    /// The postmaster is being stopped.
    Stop,
    /// `pg_basebackup` from another member.
    Clone,
    /// `pg_rewind` against the primary.
    Rewind,
    /// A `CHECKPOINT` before a switchover.
    Checkpoint,
    /// The postmaster is being stopped, and rolled back data takes the place of its own.
    Rollback,
}

impl fmt::Display for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Job::Initdb => "initdb",
            Job::PostBootstrap => "creating the users",
            Job::Start => "starting Postgres",
            Job::Stop => "stopping Postgres",
            Job::Clone => "cloning",
            Job::Rewind => "rewinding",
            Job::Checkpoint => "checkpoint",
            Job::Rollback => "swapping the data for a rollback",
        })
    }
}
