//! What the agent remembers from one round to the next; a restart forgets it, but for what is on disk. Each thing that is remembered
//! has a type of its own, which alone says what may happen to it. The round owns them all and lends them to the stations.

mod addresses;
mod background;
mod cluster;
mod commits;
mod counters;
mod data;
mod dcs_memory;
mod entry;
mod failures;
mod jobs;
mod lease;
mod postgres;
mod promotion;
mod requests;
mod retained;
mod rules;
mod settings;
mod supervisor;
mod term;

use outrider_postgres::Configuration;

pub(crate) use self::addresses::Addresses;
pub(crate) use self::background::Background;
pub(crate) use self::cluster::Cluster;
pub(crate) use self::commits::Commits;
pub(crate) use self::counters::{Counters, ROUND_BOUNDS};
pub(crate) use self::data::Data;
pub(crate) use self::dcs_memory::{DcsMemory, DcsRecord, sync_state};
pub(crate) use self::entry::Entry;
pub(crate) use self::failures::Failed;
pub(crate) use self::jobs::{Ended, Jobs};
pub(crate) use self::lease::{HeldLease, Lease};
pub(crate) use self::postgres::Postgres;
pub(crate) use self::promotion::Promotion;
pub(crate) use self::requests::SwitchoverProgress;
pub(crate) use self::retained::Retained;
pub(crate) use self::rules::{Answered, Rules};
pub(crate) use self::settings::Settings;
pub(crate) use self::supervisor::Supervisor;
pub(crate) use self::term::TermError;

/// The memory of one agent.
pub(crate) struct State {
    /// The leader lease, as it was last confirmed.
    pub(crate) lease: Lease,
    /// This member's entry in the DCS.
    pub(crate) entry: Entry,
    /// How far the DCS has been seen, on disk.
    pub(crate) dcs: DcsMemory,
    /// What the DCS showed last.
    pub(crate) cluster: Cluster,
    /// The rules of the cluster.
    pub(crate) rules: Rules,
    /// From where the members connect.
    pub(crate) addresses: Addresses,
    /// For whom a leader keeps slots.
    pub(crate) retained: Retained,
    /// How Postgres is to be configured.
    pub(crate) settings: Settings,
    /// The supervisor, and the postmaster's exits.
    pub(crate) supervisor: Supervisor,
    /// The local Postgres, while it runs.
    pub(crate) postgres: Postgres,
    /// The promotion that was begun here and has not ended recovery.
    pub(crate) promotion: Promotion,
    /// Whom its commits wait for.
    pub(crate) commits: Commits,
    /// Its data directory.
    pub(crate) data: Data,
    /// Long work.
    pub(crate) jobs: Jobs,
    /// Sums since the start.
    pub(crate) counters: Counters,
}

impl State {
    /// Of an agent that has seen nothing yet.
    pub(crate) fn new(
        dcs: DcsMemory,
        rules: Rules,
        addresses: Addresses,
        configuration: Configuration,
    ) -> Self {
        State {
            lease: Lease::new(),
            entry: Entry::default(),
            dcs,
            cluster: Cluster::new(),
            rules,
            addresses,
            retained: Retained::default(),
            settings: Settings::new(configuration),
            supervisor: Supervisor::default(),
            postgres: Postgres::default(),
            promotion: Promotion::default(),
            commits: Commits::default(),
            data: Data::default(),
            jobs: Jobs::default(),
            counters: Counters::default(),
        }
    }
}
