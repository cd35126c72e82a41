//! The swap of prepared data, and what comes after it: offers the data to the round, goes on with what an earlier agent swapped, ends
//! what Postgres runs with.

use outrider_dcs::{RollbackOutcome, RollbackRequest, RollbackSwap, Snapshot};
use outrider_ha::Term;
use outrider_postgres::Postgres;
use outrider_wal::TimelineId;
use tokio::sync::watch;
use tracing::{info, warn};

use super::super::claimed::{Claimed, Ended, Hand, Kind as _, Running, Stepped, Taken};
use super::end::outcome;
use super::{Rollback, Run, Stage};
use crate::clock;
use crate::log::causes;
use crate::report::Report;

impl Claimed<Rollback> {
    pub(super) async fn clean_up(&mut self) {
        let Rollback { postgres, remains, .. } = &mut self.kind;
        match postgres.discard_rollback().await {
            Ok(()) => {
                *remains = false;
                info!(path = %postgres.rollback_directory().display(), "removed remains of a rollback");
            }
            Err(fault) => warn!(fault = %causes(&fault), "cannot remove remains of a rollback yet"),
        }
    }

    pub(super) async fn resume(&mut self, cluster: &Snapshot) {
        let records = Rollback::records(cluster);
        let own = cluster.rollback.as_ref().filter(|taken| taken.mine);
        let Some(mut taken) = self.take(records).await else { return };
        if let Some(own) = own {
            taken.claim = own.claim.clone();
        }
        info!(request = taken.request.id, "going on with a rollback whose data is in its place");
        let (_, told) = watch::channel(taken.claim.clone());
        let stage = Stage::Starting { stopping: None };
        let run = Run { term: 0, timeline: TimelineId::default(), stage, told, news: false, why: None };
        self.hand = Hand::Running(Running { taken, run, given_up: None });
    }

    pub(super) fn let_end(&mut self) {
        let Some(swap) = self.kind.swapped.take() else { return };
        warn!(old_data = %swap.aside.display(), "a rollback of this member was ended by another one");
        if let Err(fault) = self.kind.postgres.finish_rollback() {
            warn!(fault = %causes(&fault), "cannot remove the journal of the rollback");
        }
    }

    /// From here on it cannot be taken back.
    pub(super) async fn offer(&mut self, report: &Report) -> Stepped {
        let Hand::Running(running) = &mut self.hand else { return Stepped::Acted };
        let Stage::Prepared(ready) = &running.run.stage else { return Stepped::Acted };
        let (backup, prepared) = (ready.backup.clone(), &ready.prepared);
        let (new_timeline, new_lsn) = (prepared.timeline, prepared.begins);
        let aside = aside(&self.kind.postgres, clock::wall());
        running.phase("swapping");
        let Taken { request, seen, claim } = &running.taken;
        let swap = RollbackSwap {
            member: claim.member.clone(),
            began: claim.began.clone(),
            target: claim.target.clone(),
            backup,
            old_timeline: running.run.timeline,
            old_lsn: report.postgres.as_ref().map(|seen| seen.position()).unwrap_or_default(),
            new_timeline,
            new_lsn,
            old_data: aside.display().to_string(),
        };
        let request = RollbackRequest { swap: Some(swap), ..request.clone() };
        match self.dcs.begin_rollback_swap(claim, &request, *seen).await {
            Ok(revision) => {
                self.freshness.changed(revision);
                let done = self.kind.gate.offer(request.id.clone(), aside, Term(running.run.term));
                (running.taken.seen, running.taken.request) = (revision, request);
                running.run.stage = Stage::Offered { done, since: clock::monotonic() };
                self.kind.waker.wake();
                Stepped::Acted
            }
            Err(fault) => {
                let why = format!("the DCS does not say that the swap may begin: {}", causes(&fault));
                if let Hand::Running(running) = std::mem::replace(&mut self.hand, Hand::Nothing) {
                    self.hand = Hand::Ended(self.kind.fail(running, why));
                }
                Stepped::Again
            }
        }
    }

    /// Postgres is up with the data in its place.
    pub(super) async fn finish(&mut self, report: &Report) -> Stepped {
        let Hand::Running(running) = &mut self.hand else { return Stepped::Acted };
        running.news();
        let mut outcome = outcome(&running.taken.request, &running.taken.claim, true);
        if let Stage::Starting { stopping: Some(since) } = &running.run.stage {
            outcome.write_gap_seconds = Some(since.elapsed().as_secs_f64());
        }
        let timeline = report.postgres.as_ref().map(|seen| seen.timeline);
        (outcome.new_timeline, outcome.least_timeline) = (timeline, timeline);
        // Their passwords are those of that time.
        if let Err(fault) = self.kind.postgres.create_users().await {
            warn!(fault = %causes(&fault), "cannot set the passwords of the cluster's own users");
        }
        let (timeline, gap_seconds) = (timeline.unwrap_or_default(), outcome.write_gap_seconds);
        info!(%timeline, old_data = outcome.old_data, gap_seconds, "the cluster is rolled back");
        self.end_swapped(outcome)
    }

    pub(super) fn end_supplanted(&mut self, cluster: &Snapshot) -> Stepped {
        let Hand::Running(running) = &mut self.hand else { return Stepped::Acted };
        running.news();
        let mut outcome = outcome(&running.taken.request, &running.taken.claim, true);
        let leader = cluster.leader.as_ref().map(|leader| leader.name.clone()).unwrap_or_default();
        outcome.error = Some(format!(
            "the data of {} was swapped, but {leader} leads now with the data that the cluster had before",
            outcome.member
        ));
        self.end_swapped(outcome)
    }

    /// The swap cannot be undone any more, and its journal is not needed.
    fn end_swapped(&mut self, outcome: RollbackOutcome) -> Stepped {
        if let Err(fault) = self.kind.postgres.finish_rollback() {
            warn!(fault = %causes(&fault), "cannot remove the journal of the rollback");
            return Stepped::Acted;
        }
        self.kind.swapped = None;
        if let Hand::Running(Running { taken, .. }) = std::mem::replace(&mut self.hand, Hand::Nothing) {
            self.hand = Hand::Ended(Ended { taken, outcome, end: (), given_up: None });
        }
        Stepped::Again
    }
}

/// A name for the old data that nothing has yet.
fn aside(postgres: &Postgres, now: jiff::Timestamp) -> std::path::PathBuf {
    let data = &postgres.settings().data_directory;
    let mut name = data.file_name().unwrap_or_default().to_owned();
    name.push(now.strftime(".before-rollback-%Y%m%dT%H%M%SZ").to_string());
    data.with_file_name(name)
}
