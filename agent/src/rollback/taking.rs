//! Takes a rollback up: one that was asked for, or one that an earlier agent left. What was begun and has lost its agent before
//! the swap is recorded as failed.

use outrider_dcs::{Entry, RollbackClaim, RollbackRequest, Snapshot};
use outrider_wal::SegmentSize;
use tracing::{info, warn};

use super::goal;
use super::keeper::{Desk, Ended};
use super::prepare::Work;
use super::run::{Run, outcome_of};
use crate::clock;
use crate::log::causes;
use crate::report::Report;

impl Desk {
    /// This member does none: whether one was left, or is to be taken up.
    pub(super) async fn look_for_work(&mut self, cluster: &Snapshot, report: &Report) {
        let mine = cluster.rollback.as_ref().map(|taken| taken.mine);
        let leads = cluster.leader.as_ref().is_some_and(|leader| leader.mine);
        let Some(asked) = cluster.rollback_request.clone() else {
            if let Some(swap) = self.swapped.take() {
                warn!(old_data = %swap.aside.display(), "a rollback of this member was ended by another one");
                if let Err(fault) = self.postgres.finish_rollback() {
                    warn!(fault = %causes(&fault), "cannot remove the journal of the rollback");
                }
            }
            return;
        };
        let resumes = self.swapped.as_ref().is_some_and(|swap| swap.id == asked.value.id);
        match mine {
            Some(false) => {}
            Some(true) if resumes => {
                self.resume(asked, cluster.rollback.as_ref().map(|taken| taken.claim.clone()))
            }
            Some(true) => self.give_up_anothers(&asked, cluster).await,
            None if resumes => {
                let claim = self.claim(&asked.value);
                if let Some(seen) = self.take_up(&claim, &asked).await {
                    self.resume(Entry { revision: seen, ..asked }, Some(claim));
                }
            }
            None if !leads => {}
            None if asked.value.begun => {
                let claim = self.claim(&asked.value);
                if let Some(seen) = self.take_up(&claim, &asked).await {
                    self.give_up_anothers(&Entry { revision: seen, ..asked }, cluster).await;
                }
            }
            None => self.begin(asked, cluster, report).await,
        }
    }

    fn resume(&mut self, asked: Entry<RollbackRequest>, claim: Option<RollbackClaim>) {
        info!(request = asked.value.id, "going on with a rollback whose data is in its place");
        let claim = claim.unwrap_or_else(|| self.claim(&asked.value));
        self.run = Some(Run::resumed((asked.value, asked.revision), claim));
    }

    /// Whoever began with it is gone.
    async fn give_up_anothers(&mut self, asked: &Entry<RollbackRequest>, cluster: &Snapshot) {
        let swap = asked.value.swap.as_ref();
        let member = swap.map_or(self.dcs.name(), |swap| swap.member.as_str());
        let mut outcome = outcome_of(&asked.value, member);
        outcome.error = Some(match swap {
            None => "the agent that prepared it ended, or lost the lease; nothing was changed".to_owned(),
            Some(swap) => format!(
                "{} was lost in the middle of the swap; the cluster goes on with what its leader has (on {} the old data is in its \
                 place, or in {})",
                swap.member, swap.member, swap.old_data
            ),
        });
        self.ended = Some(Ended { outcome, request: asked.value.clone(), seen: asked.revision });
        self.record(cluster).await;
    }

    async fn begin(&mut self, asked: Entry<RollbackRequest>, cluster: &Snapshot, report: &Report) {
        // A Postgres that does not answer is not rolled back.
        let Some(leader) = cluster.leader.as_ref().filter(|_| !report.view.local.terminating) else { return };
        let Some(postgres) = report.postgres.as_ref().filter(|seen| seen.is_primary()) else { return };
        let term = leader.term;
        let target = goal(&asked.value.target, clock::wall());
        let mut claim = self.claim(&asked.value);
        if let Ok(goal) = &target {
            claim.target = goal.target.to_string();
        }
        let work = target.and_then(|goal| {
            let backup = asked.value.backup.as_deref().map(str::parse).transpose();
            let mut wanted = report.configuration.clone();
            wanted.set_synchronous(&[]);
            wanted.upstream = None;
            Ok(Work {
                id: asked.value.id.clone(),
                goal,
                backup: backup.map_err(|_| "the backup has no name that a backup can have".to_owned())?,
                archive: self.config.archive.clone().ok_or("the leader has no archive: set archive.store")?,
                shipper: self.shipper.clone(),
                postgres: self.postgres.clone(),
                wanted,
                system: postgres.system_identifier,
                timeline: postgres.timeline,
                segment_size: SegmentSize::new(postgres.wal_segment_size)
                    .ok_or("its WAL segments have no size")?,
            })
        });
        let Some(seen) = self.take_up(&claim, &asked).await else { return };
        let request = RollbackRequest { begun: true, ..asked.value };
        match work {
            Ok(work) => {
                info!(request = request.id, by = request.by, target = claim.target, "preparing a rollback");
                self.run = Some(Run::begin(work, (request, seen), claim, term));
            }
            Err(why) => {
                let mut outcome = outcome_of(&request, self.dcs.name());
                (outcome.target, outcome.error) = (claim.target, Some(why));
                self.ended = Some(Ended { outcome, request, seen });
            }
        }
    }

    pub(super) fn claim(&self, request: &RollbackRequest) -> RollbackClaim {
        RollbackClaim {
            request: request.id.clone(),
            member: self.dcs.name().to_owned(),
            began: clock::wall().to_string(),
            phase: "beginning".to_owned(),
            ..RollbackClaim::default()
        }
    }

    pub(super) async fn take_up(
        &mut self,
        claim: &RollbackClaim,
        asked: &Entry<RollbackRequest>,
    ) -> Option<i64> {
        let request = RollbackRequest { begun: true, ..asked.value.clone() };
        match self.dcs.claim_rollback(claim, &request, asked.revision).await {
            Ok(revision) => {
                self.freshness.changed(revision);
                Some(revision)
            }
            // It was taken back, or somebody else was first.
            Err(fault) if fault.is_conflict() => None,
            Err(fault) => {
                warn!(fault = %causes(&fault), "cannot claim the rollback");
                None
            }
        }
    }
}
