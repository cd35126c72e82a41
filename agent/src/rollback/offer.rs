//! Offers prepared data to the round, once the DCS says that it cannot be taken back any more; and what speaks against it.

use std::time::Duration;

use outrider_dcs::{RollbackRequest, RollbackSwap, Snapshot};
use outrider_ha::{Postgres as State, Term};
use outrider_postgres::Postgres;

use super::keeper::Desk;
use super::prepare::Ready;
use super::run::{GivenUp, Run, Stage};
use crate::clock;
use crate::log::causes;
use crate::report::Report;

/// For the round to begin the swap: it relaxes `/sync` and the setting first.
const OFFER_LIMIT: Duration = Duration::from_secs(30);

impl Desk {
    /// From here on it cannot be taken back.
    pub(super) async fn offer(&mut self, ready: Ready) {
        let report = self.board.borrow().clone();
        let Some(run) = &mut self.run else { return };
        let position = report.as_ref().and_then(|report| Some(report.postgres.as_ref()?.position()));
        let aside = aside(&self.postgres, clock::wall());
        let claim = run.claim(Some("swapping"));
        let swap = RollbackSwap {
            member: claim.member.clone(),
            began: claim.began.clone(),
            target: claim.target.clone(),
            backup: ready.backup,
            old_timeline: run.timeline,
            old_lsn: position.unwrap_or_default(),
            new_timeline: ready.prepared.timeline,
            new_lsn: ready.prepared.begins,
            old_data: aside.display().to_string(),
        };
        let request = RollbackRequest { swap: Some(swap), ..run.request.clone() };
        if run.given_up().is_some() {
            return self.fail("it was given up".to_owned()).await;
        }
        match self.dcs.begin_rollback_swap(&claim, &request, run.seen).await {
            Ok(revision) => {
                (run.seen, run.request) = (revision, request);
                self.freshness.changed(revision);
                let done = self.gate.offer(run.request.id.clone(), aside, Term(run.term));
                run.stage = Stage::Offered { done, since: clock::monotonic() };
                self.waker.wake();
            }
            Err(fault) => {
                let why = format!("the DCS does not say that the swap may begin: {}", causes(&fault));
                self.fail(why).await;
            }
        }
    }
}

/// Why a rollback may not go on to its swap.
pub(super) fn why_not(run: &Run, cluster: &Snapshot, report: &Report) -> Option<GivenUp> {
    let wanted = cluster.rollback_request.as_ref().is_some_and(|entry| entry.value.id == run.request.id);
    let leads = cluster.leader.as_ref().is_some_and(|leader| leader.mine && leader.term == run.term);
    let runs = match &report.view.local.postgres {
        State::Primary { timeline, .. } => *timeline == run.timeline,
        State::Unresponsive { .. } => true,
        State::Standby { .. }
        | State::Starting { .. }
        | State::Stopped { .. }
        | State::Empty
        | State::Unusable(_) => false,
    };
    let late = matches!(&run.stage, Stage::Offered { since, .. } if since.elapsed() > OFFER_LIMIT);
    let given_up = |why: &str, cancelled| Some(GivenUp { why: why.to_owned(), cancelled });
    if !wanted {
        given_up("it was taken back", true)
    } else if !leads {
        given_up("the leader lease was lost or has changed hands", false)
    } else if report.view.local.terminating {
        given_up("the leader was told to end", false)
    } else if !runs {
        given_up("Postgres of the leader went down, or is on another timeline", false)
    } else if late {
        given_up("the round did not come to the swap in time", false)
    } else {
        None
    }
}

/// A name for the old data that nothing has yet.
fn aside(postgres: &Postgres, now: jiff::Timestamp) -> std::path::PathBuf {
    let data = &postgres.settings().data_directory;
    let mut name = data.file_name().unwrap_or_default().to_owned();
    name.push(now.strftime(".before-rollback-%Y%m%dT%H%M%SZ").to_string());
    data.with_file_name(name)
}
