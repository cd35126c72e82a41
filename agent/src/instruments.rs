//! The instruments of one member, made once at the start: DCS, Postgres, peers, archive. Decides nothing.

mod archive;
mod archive_slot;
mod member_slots;
mod peers;
mod supervisor;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use outrider_dcs::{Dcs, Identity, base_path, open_etcd};
use outrider_ha::Policy;
use outrider_postgres::{Observer, Postgres};

pub(crate) use self::archive::Archive;
use self::archive_slot::SlotKeeper;
use self::member_slots::MemberSlots;
pub(crate) use self::peers::Peers;
use crate::clock;
use crate::config::Config;
use crate::gate::Gate;
use crate::state;

/// What the stations work with.
pub(crate) struct Instruments {
    pub(crate) config: Arc<Config>,
    pub(crate) dcs: Arc<dyn Dcs>,
    pub(crate) postgres: Postgres,
    pub(crate) observer: Observer,
    pub(crate) peers: Peers,
    pub(crate) archive: Option<Archive>,
    pub(crate) slot: SlotKeeper,
    pub(crate) member_slots: MemberSlots,
    /// Where prepared data waits for its swap.
    pub(crate) rollback: Gate,
    /// The ttl that a new session begins with.
    pub(crate) first_ttl: Duration,
}

impl Instruments {
    /// Makes them, and the supervisor when nobody else has started one.
    ///
    /// # Errors
    /// What keeps the agent from starting.
    pub(crate) async fn set_up(config: Arc<Config>, policy: &Policy) -> anyhow::Result<Self> {
        make_directory(&config.postgres.state_directory)?;
        let postgres = Postgres::new(Arc::new(config.postgres.clone()));
        supervisor::reach(&config, postgres.supervisor()).await?;
        let identity = Identity {
            name: config.name.clone(),
            base_path: base_path(&config.namespace, &config.scope),
            ttl: policy.ttl,
            session_file: Some(config.postgres.state_directory.join("session")),
            boottime_ns: clock::boottime_ns,
        };
        let dcs = open_etcd(&identity, &config.etcd).context("cannot open etcd")?;
        let archive = match &config.archive {
            Some(archive) => Some(Archive::open(archive, &config.name, postgres.settings()).await?),
            None => None,
        };
        let slot = SlotKeeper::start(postgres.clone(), archive.is_some());
        let member_slots = MemberSlots::start(postgres.clone());
        let observer = postgres.observer();
        let peers = Peers::new().context("cannot set up the client for the other members")?;
        let first_ttl = policy.ttl;
        let rollback = Gate::default();
        Ok(Instruments {
            config,
            dcs,
            postgres,
            observer,
            peers,
            archive,
            slot,
            member_slots,
            rollback,
            first_ttl,
        })
    }

    /// Starts the supervisor again when it is gone and this agent is the one who starts it.
    pub(crate) fn keep_supervisor(&self, known: &mut state::Supervisor) {
        supervisor::keep(&self.config, known);
    }
}

fn make_directory(path: &PathBuf) -> anyhow::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .with_context(|| format!("cannot make the state directory {}", path.display()))
}
