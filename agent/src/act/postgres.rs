//! The steps that change a running Postgres at once: promote, follow, whom commits wait for, slots.

use outrider_ha::MemberName;
use outrider_postgres::Upstream;
use tracing::info;

use super::{Actor, StepError, job};

impl Actor<'_> {
    pub(super) async fn promote(&mut self) -> Result<(), StepError> {
        let lease = self.live_lease("promote Postgres")?;
        // From the first commit on nobody is waited for: whoever is to be, is set and proven first. The file still names
        // whom this member waited for when it was last a primary, so it is written before recovery ends.
        if !self.state.settings.wanted().synchronous.is_empty() {
            self.state.settings.wait_for(&[]);
            self.instruments.postgres.configure(self.state.settings.wanted()).await?;
        }
        if let Some(own) = self.state.data.history_of() {
            self.instruments.postgres.complete_histories(own, self.state.data.history())?;
        }
        self.instruments.postgres.promote(&lease.fuse).await?;
        self.state.commits.were_set_to(&[]);
        self.state.promotion.begins();
        let me = self.instruments.dcs.name();
        let planned = self.state.cluster.announced().is_some_and(|(announced, _)| announced.to == me);
        if planned {
            self.state.counters.switchovers += 1;
        } else {
            self.state.counters.failovers += 1;
        }
        info!(term = %lease.term, planned, "promoting Postgres");
        Ok(())
    }

    pub(super) async fn follow(&mut self, leader: &MemberName) -> Result<(), StepError> {
        let upstream = self.upstream(leader)?;
        self.state.settings.follow(Some(upstream));
        self.instruments.postgres.configure(self.state.settings.wanted()).await?;
        info!(%leader, "following");
        Ok(())
    }

    pub(super) async fn set_synchronous(&mut self, names: &[MemberName]) -> Result<(), StepError> {
        let set: Vec<String> = names.iter().map(ToString::to_string).collect();
        self.state.commits.forget();
        self.state.settings.wait_for(&set);
        self.instruments.postgres.configure(self.state.settings.wanted()).await?;
        self.state.commits.were_set_to(names);
        if !names.is_empty() {
            let proof = job::prove(self.instruments, self.state.settings.wanted().clone());
            self.state.commits.are_being_proven(proof);
        }
        info!(?set, "commits wait for");
        Ok(())
    }

    pub(super) async fn create_slots(&mut self, names: &[MemberName]) -> Result<(), StepError> {
        let members: Vec<String> = names.iter().map(ToString::to_string).collect();
        self.instruments.postgres.create_slots(&members).await?;
        info!(?members, "created replication slots");
        Ok(())
    }

    pub(super) async fn hasten_replay(&mut self, resume: bool) -> Result<(), StepError> {
        self.state.settings.hasten(true);
        Ok(self.instruments.postgres.hasten_replay(self.state.settings.wanted(), resume).await?)
    }

    pub(super) async fn relax_replay(&mut self) -> Result<(), StepError> {
        self.state.settings.hasten(false);
        self.instruments.postgres.configure(self.state.settings.wanted()).await?;
        info!("queries may hold up replay again");
        Ok(())
    }

    /// Where a member's Postgres listens.
    pub(super) fn upstream(&self, name: &MemberName) -> Result<Upstream, StepError> {
        self.state.cluster.upstream(name).ok_or_else(|| StepError::NoAddress { member: name.clone() })
    }
}
