//! The steps that only change the DCS: the lease with its fuse, `/sync`, history.

use std::time::Duration;

use outrider_dcs::{HistoryRow, Leadership, SyncState};
use outrider_ha::{MemberName, SystemId, Term, fuse_margin};
use outrider_wal::TimelineId;
use tracing::{info, warn};

use super::{Actor, StepError, gap};
use crate::clock;
use crate::state::{HeldLease, sync_state};

impl Actor<'_> {
    pub(super) async fn acquire_lease(
        &mut self,
        sync_revision: Option<i64>,
        request: Option<i64>,
    ) -> Result<(), StepError> {
        // The DCS counts an absent key as revision 0; `None` would mean not to compare at all.
        let sync_revision = Some(sync_revision.unwrap_or(0));
        let dcs = &self.instruments.dcs;
        let leadership = match request {
            None => dcs.acquire_leader(sync_revision).await?,
            Some(seen) => dcs.acquire_leader_on_request(sync_revision, seen).await?,
        };
        info!(term = leadership.term, "acquired the leader lease");
        self.confirm(&leadership).await
    }

    pub(super) async fn renew_lease(&mut self) -> Result<(), StepError> {
        let started = clock::monotonic();
        let leadership = self.instruments.dcs.renew_leader().await?;
        self.state.counters.last_renewal = Some(started.elapsed());
        self.confirm(&leadership).await
    }

    /// Arms the fuse for a confirmed lease. The term is on disk before anything relies on it.
    async fn confirm(&mut self, leadership: &Leadership) -> Result<(), StepError> {
        self.state.dcs.relies_on(Term(leadership.term))?;
        let until_ns = leadership.until_boottime_ns();
        let fuse_ns = until_ns.saturating_sub(nanos(fuse_margin(leadership.ttl)));
        let fuse = self.instruments.postgres.supervisor().arm_fuse(fuse_ns, leadership.term).await?;
        self.state.lease.confirmed(HeldLease { term: Term(leadership.term), fuse, until_ns });
        Ok(())
    }

    pub(super) async fn shorten_fuse(&mut self, within: Duration) -> Result<(), StepError> {
        let lease = self.live_lease("shorten its fuse")?;
        let deadline_ns = clock::boottime_ns().saturating_add(nanos(within));
        if deadline_ns < lease.fuse.deadline_ns() {
            let fuse = self.instruments.postgres.supervisor().arm_fuse(deadline_ns, lease.term.0).await?;
            self.state.lease.fuse_was_shortened(fuse);
        }
        Ok(())
    }

    pub(super) async fn set_ttl(&mut self, ttl: Duration) -> Result<(), StepError> {
        self.instruments.dcs.set_ttl(ttl).await?;
        info!(?ttl, "this member's session, and the lease with it, has another ttl");
        self.state.entry.has_ttl(ttl);
        Ok(())
    }

    pub(super) async fn release_lease(&mut self) -> Result<(), StepError> {
        self.state.lease.given_up();
        self.instruments.dcs.release_leader().await?;
        info!("released the leader lease");
        Ok(())
    }

    pub(super) async fn hand_over_lease(&mut self, to: &MemberName) -> Result<(), StepError> {
        self.state.lease.given_up();
        self.state.dcs.hands_over(to.as_str());
        let term = self.instruments.dcs.hand_over_leader(to.as_str()).await?;
        info!(%to, term, "handed the leader lease over");
        if let Some(since) = self.state.jobs.take_write_gap() {
            self.state.counters.switchovers += 1;
            let member = self.state.cluster.snapshot().and_then(|snapshot| snapshot.member(to.as_str()));
            if let Some(api_url) = member.and_then(|member| member.api_url()) {
                let peers = self.instruments.peers.clone();
                let measurement = gap::measure(since, peers, api_url.to_owned());
                self.state.jobs.measure_write_gap(measurement);
            }
        }
        Ok(())
    }

    /// The keys as this member saw them last, but for `/sync`, which the decision is about.
    pub(super) async fn recreate_cluster(
        &mut self,
        standbys: Option<&[MemberName]>,
    ) -> Result<(), StepError> {
        let me = self.instruments.dcs.name();
        let given_up = self.state.dcs.record().sync().given_up;
        let sync = standbys.map(|standbys| self.sync_state(standbys, given_up));
        let keys = self.state.dcs.record().rebuilt(me, sync);
        let leadership = self.instruments.dcs.recreate_cluster(&keys).await?;
        warn!(
            generation = keys.generation.generation,
            term = leadership.term,
            "the DCS had lost every key of this cluster: wrote them anew and went on as its primary"
        );
        self.confirm(&leadership).await
    }

    /// The value of `/sync` in which this member leads.
    fn sync_state(&self, standbys: &[MemberName], given_up: TimelineId) -> SyncState {
        SyncState {
            leader: Some(self.instruments.dcs.name().to_owned()),
            quorum: 0,
            sync_standby: standbys.iter().map(MemberName::to_string).collect(),
            given_up,
        }
    }

    /// The configuration goes first: members that see the identifier rely on it.
    pub(super) async fn record_initialize(&mut self, system: SystemId) -> Result<(), StepError> {
        if self.state.cluster.snapshot().is_none_or(|snapshot| snapshot.config.is_none()) {
            self.instruments.dcs.create_config(&self.instruments.config.bootstrap_dcs).await?;
        }
        // Before it can be known: from then on others rely on this data.
        self.instruments.postgres.forget_unrecorded()?;
        self.instruments.dcs.write_initialize(&system.to_string()).await?;
        info!(%system, "the cluster has been created");
        Ok(())
    }

    pub(super) async fn record_sync(
        &mut self,
        standbys: &[MemberName],
        revision: Option<i64>,
    ) -> Result<(), StepError> {
        let before = self.state.cluster.snapshot().and_then(|snapshot| snapshot.sync.clone());
        let given_up = before.as_ref().map(|before| before.value.given_up).unwrap_or_default();
        let record = self.sync_state(standbys, given_up);
        let changed = self.instruments.dcs.write_sync(&record, revision.unwrap_or(0)).await?;
        self.state.dcs.changed_sync(&record, changed);
        info!(standbys = ?record.sync_standby, "recorded who may be promoted");
        // Of a standby: for its promotion.
        let promotes = self.state.postgres.seen().is_some_and(|seen| !seen.is_primary());
        let struck = before.filter(|_| promotes).map(|before| sync_state(&before.value, changed));
        self.state.promotion.strikes(struck);
        Ok(())
    }

    pub(super) async fn restore_sync(&mut self, before: &outrider_ha::SyncState) -> Result<(), StepError> {
        let record = SyncState {
            leader: before.leader.as_ref().map(MemberName::to_string),
            quorum: 0,
            sync_standby: before.standbys.iter().map(MemberName::to_string).collect(),
            given_up: before.given_up,
        };
        let changed = self.instruments.dcs.write_sync(&record, before.revision).await?;
        self.state.promotion.strikes(None);
        self.state.dcs.changed_sync(&record, changed);
        warn!(
            leader = ?record.leader, standbys = ?record.sync_standby,
            "nothing was written since: recorded again who could be promoted before"
        );
        Ok(())
    }

    /// The rows that the DCS has already keep their time and leader.
    pub(super) async fn record_history(&mut self) -> Result<(), StepError> {
        let known = self.state.cluster.snapshot().and_then(|snapshot| snapshot.history.as_ref());
        let known = known.map(|entry| entry.value.as_slice()).unwrap_or_default();
        let rows: Vec<HistoryRow> = self
            .state
            .data
            .history()
            .switches()
            .iter()
            .map(|switch| {
                let timeline = switch.timeline.get();
                let same = known.iter().find(|row| row.timeline == timeline && row.lsn == switch.end);
                same.cloned().unwrap_or_else(|| HistoryRow {
                    timeline,
                    lsn: switch.end,
                    reason: switch.reason.clone(),
                    timestamp: Some(clock::wall().to_string()),
                    new_leader: Some(self.instruments.dcs.name().to_owned()),
                })
            })
            .collect();
        Ok(self.instruments.dcs.write_history(&rows).await?)
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
