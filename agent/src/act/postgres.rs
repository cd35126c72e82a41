//! The steps that change a running Postgres at once: promote, follow, whom commits wait for, slots.

use outrider_ha::MemberName;
use outrider_postgres::Upstream;
use tracing::info;

use super::{Actor, Fault, job};

impl Actor<'_> {
    pub(super) async fn promote(&mut self) -> Result<(), Fault> {
        let lease = self.live_lease("promote Postgres")?;
        // From the first commit on nobody is waited for: whoever is to be, is set and proven first. The file still names
        // whom this member waited for when it was last a primary, so it is written before recovery ends.
        if !self.memory.configuration.synchronous.is_empty() {
            self.memory.configuration.set_synchronous(&[]);
            self.instruments.postgres.configure(&self.memory.configuration).await?;
        }
        if let Some(own) = self.memory.history_of {
            self.instruments.postgres.complete_histories(own, &self.memory.history)?;
        }
        self.instruments.postgres.promote(&lease.fuse).await?;
        self.memory.commits_wait_for(&[]);
        self.memory.promotion.begins();
        let planned = self.memory.snapshot.as_ref().is_some_and(|snapshot| {
            snapshot.intent.as_ref().is_some_and(|intent| intent.value.to == self.instruments.dcs.name())
        });
        if planned {
            self.memory.counters.switchovers += 1;
        } else {
            self.memory.counters.failovers += 1;
        }
        info!(term = %lease.term, planned, "promoting Postgres");
        Ok(())
    }

    pub(super) async fn follow(&mut self, leader: &MemberName) -> Result<(), Fault> {
        self.memory.configuration.upstream = Some(self.upstream(leader)?);
        self.instruments.postgres.configure(&self.memory.configuration).await?;
        info!(%leader, "following");
        Ok(())
    }

    pub(super) async fn set_synchronous(&mut self, names: &[MemberName]) -> Result<(), Fault> {
        let set: Vec<String> = names.iter().map(ToString::to_string).collect();
        self.memory.forget_synchronous();
        self.memory.configuration.set_synchronous(&set);
        self.instruments.postgres.configure(&self.memory.configuration).await?;
        self.memory.commits_wait_for(names);
        if !names.is_empty() {
            self.memory.proving = Some(job::prove(self.instruments, self.memory.configuration.clone()));
        }
        info!(?set, "commits wait for");
        Ok(())
    }

    pub(super) async fn create_slots(&mut self, names: &[MemberName]) -> Result<(), Fault> {
        let members: Vec<String> = names.iter().map(ToString::to_string).collect();
        self.instruments.postgres.create_slots(&members).await?;
        info!(?members, "created replication slots");
        Ok(())
    }

    pub(super) async fn hasten_replay(&mut self, resume: bool) -> Result<(), Fault> {
        self.memory.configuration.hastened = true;
        Ok(self.instruments.postgres.hasten_replay(&self.memory.configuration, resume).await?)
    }

    pub(super) async fn relax_replay(&mut self) -> Result<(), Fault> {
        self.memory.configuration.hastened = false;
        self.instruments.postgres.configure(&self.memory.configuration).await?;
        info!("queries may hold up replay again");
        Ok(())
    }

    /// Where a member's Postgres listens.
    pub(super) fn upstream(&self, name: &MemberName) -> Result<Upstream, Fault> {
        self.memory.upstream(name).ok_or_else(|| Fault::NoAddress { member: name.clone() })
    }
}
