//! Waits until a switchover has succeeded or failed, by the changes in the DCS, and reports it in Patroni's words.

use std::sync::Arc;
use std::time::Duration;

use axum::http::{HeaderName, StatusCode};
use axum::response::{IntoResponse, Response};
use outrider_dcs::{Changes, FailoverAnswer, Snapshot};
use outrider_ha::Reason;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};

use super::super::Visitors;
use super::super::answer::text;
use super::wish::{Action, Wish};
use crate::clock;
use crate::log::causes;
use crate::report::{Board, Report};

/// Extra time beyond `switchover_timeout` for a switchover that was already stopping the old primary at its deadline.
const END_LIMIT: Duration = Duration::from_secs(10);
/// Time limit for the answer of a member that has just removed the request.
const CONFLICT_LIMIT: Duration = Duration::from_secs(2);
/// Interval between reads of the DCS when it reports no change.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// Time limit for the old primary to measure the write gap.
const GAP_LIMIT: Duration = Duration::from_secs(2);
/// Time limit for the round to say why it refused.
const REFUSAL_LIMIT: Duration = Duration::from_millis(500);
/// Response header with the write gap in seconds.
const GAP_HEADER: HeaderName = HeaderName::from_static("outrider-write-gap-seconds");

/// Response header of a 412: the option that is missing, `accept_data_loss`.
const NEEDS_HEADER: HeaderName = HeaderName::from_static("outrider-needs");

/// A requested switchover or failover.
pub(super) struct Awaited {
    /// The request's id.
    id: String,
    action: Action,
    leader: Option<String>,
    candidate: Option<String>,
    changes: watch::Receiver<Changes>,
    board: Board,
    /// Whether this member led before it, so that it measures the gap and knows why it failed.
    is_leader: bool,
    gap_before: Option<Duration>,
    /// Why this member refused it or rolled it back, if it did.
    refusal: Option<String>,
    /// What the new leader is known to lack.
    given_up: Option<String>,
}

/// How far it has come.
#[derive(Debug, PartialEq, Eq)]
enum Progress {
    UnderWay,
    /// This member leads now and accepts writes.
    Done(String),
    /// The request is gone; with the answer to it.
    Failed(Option<FailoverAnswer>),
}

impl Awaited {
    /// `before`: the cluster as it was before the request.
    pub(super) fn new(
        visitors: &Visitors,
        before: Snapshot,
        wish: &Wish,
        id: String,
        given_up: Option<String>,
    ) -> Self {
        let board = visitors.board.clone();
        let gap_before = last_gap(board.borrow().as_ref());
        let leader = before.leader.map(|leader| leader.name);
        Awaited {
            id,
            action: wish.action,
            is_leader: leader.as_deref() == Some(&visitors.config.name),
            leader,
            candidate: wish.candidate.clone(),
            changes: visitors.dcs.watch(),
            gap_before,
            board,
            refusal: None,
            given_up,
        }
    }

    /// Waits for the outcome. A request that is not done within `valid` is withdrawn, so that nothing comes of it later.
    pub(super) async fn outcome(mut self, visitors: &Visitors, revision: i64, valid: Duration) -> Response {
        let mut deadline = clock::monotonic() + valid;
        let mut withdrawn = false;
        loop {
            self.changes.mark_unchanged();
            // A DCS that does not answer is asked again: until it does, the outcome is not known.
            let cluster = visitors.dcs.read().await;
            match cluster.as_ref().map(|cluster| self.progress(cluster, revision)) {
                Ok(Progress::Done(leader)) => return self.done(&leader).await,
                Ok(Progress::Failed(answer)) if !withdrawn => return self.failed(answer).await,
                Ok(Progress::Failed(_) | Progress::UnderWay) | Err(_) => {}
            }
            let stopping =
                |cluster: &Snapshot| cluster.intent.as_ref().is_some_and(|intent| intent.value.stopping);
            if withdrawn && !cluster.is_ok_and(|cluster| stopping(&cluster)) {
                return self.too_late(valid);
            }
            if clock::monotonic() >= deadline {
                if withdrawn {
                    return self.unknown("the old primary is still being stopped");
                }
                deadline = clock::monotonic() + self.switchover_timeout() + END_LIMIT;
                match visitors.dcs.clear_failover(revision).await {
                    Ok(()) => withdrawn = true,
                    // Somebody is answering it right now.
                    Err(fault) if fault.is_conflict() => deadline = clock::monotonic() + CONFLICT_LIMIT,
                    Err(fault) => {
                        let words = format!(
                            "{}; the request expires at its deadline, and is not carried out after that",
                            causes(&fault)
                        );
                        return self.unknown(&words);
                    }
                }
                continue;
            }
            self.wait(deadline).await;
        }
    }

    fn switchover_timeout(&self) -> Duration {
        let report = self.board.borrow();
        report.as_ref().map(|report| report.view.policy.switchover_timeout).unwrap_or_default()
    }

    fn unknown(&self, why: &str) -> Response {
        let words = format!("{} status unknown: {why}", capitalized(self.action.word()));
        text(StatusCode::SERVICE_UNAVAILABLE, words)
    }

    fn too_late(&self, valid: Duration) -> Response {
        let report = self.board.borrow();
        let last = report.as_ref().map(|report| format!(" ({})", report.plan.reason)).unwrap_or_default();
        let words = format!(
            "{} failed: it was not done within {} seconds{last}; the request was withdrawn and will not be carried out",
            capitalized(self.action.word()),
            valid.as_secs()
        );
        text(StatusCode::SERVICE_UNAVAILABLE, words)
    }

    fn progress(&self, cluster: &Snapshot, revision: i64) -> Progress {
        match &cluster.leader {
            Some(leader) if Some(&leader.name) != self.leader.as_ref() => {
                let leads = cluster.member(&leader.name).and_then(|member| member.role()) == Some("primary");
                if leads { Progress::Done(leader.name.clone()) } else { Progress::UnderWay }
            }
            // Another request may have taken its place.
            Some(_) | None if cluster.failover.as_ref().map(|entry| entry.revision) != Some(revision) => {
                Progress::Failed(cluster.failover_answer.clone().filter(|answer| answer.id == self.id))
            }
            Some(_) | None => Progress::UnderWay,
        }
    }

    /// Until the DCS or the report changes, at most a second.
    async fn wait(&mut self, deadline: Instant) {
        let next = deadline.min(clock::monotonic() + LOOK_INTERVAL);
        loop {
            tokio::select! {
                () = sleep_until(next) => return,
                // Both end only with the agent.
                _ = self.changes.changed() => return,
                changed = self.board.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    self.note_refusal();
                }
            }
        }
    }

    fn note_refusal(&mut self) {
        let report = self.board.borrow_and_update();
        if let Some(refusal) = report.as_ref().and_then(|report| refusal(report)) {
            self.refusal = Some(refusal);
        }
    }

    async fn done(mut self, leader: &str) -> Response {
        let verb = match self.action {
            Action::Switchover => "switched",
            Action::Failover => "failed",
        };
        let words = match &self.candidate {
            Some(candidate) if candidate != leader => {
                format!("{} over to \"{leader}\" instead of \"{candidate}\"", capitalized(verb))
            }
            Some(_) | None => format!("Successfully {verb} over to \"{leader}\""),
        };
        let words = match &self.given_up {
            Some(given_up) => format!("{words}; given up: {given_up}"),
            None => words,
        };
        if !self.is_leader {
            return text(StatusCode::OK, words);
        }
        let before = self.gap_before;
        let measured = async {
            let is_new = |report: &Option<_>| last_gap(report.as_ref()) != before;
            self.board.wait_for(is_new).await.ok().and_then(|report| last_gap(report.as_ref()))
        };
        match timeout(GAP_LIMIT, measured).await.ok().flatten() {
            Some(gap) => {
                (StatusCode::OK, [(GAP_HEADER, format!("{:.3}", gap.as_secs_f64()))], words).into_response()
            }
            None => text(StatusCode::OK, words),
        }
    }

    async fn failed(mut self, answer: Option<FailoverAnswer>) -> Response {
        let failed = format!("{} failed", capitalized(self.action.word()));
        if let Some(answer) = answer {
            let words = format!("{failed}: {}", answer.why);
            if !answer.lacks_data {
                return text(StatusCode::SERVICE_UNAVAILABLE, words);
            }
            let needs = [(NEEDS_HEADER, "accept_data_loss")];
            return (StatusCode::PRECONDITION_FAILED, needs, words).into_response();
        }
        self.note_refusal();
        if self.refusal.is_none() && self.is_leader {
            // The round has removed the request and is about to say why.
            let said = |report: &Option<Arc<Report>>| {
                report.as_ref().is_some_and(|report| refusal(report).is_some())
            };
            let report = timeout(REFUSAL_LIMIT, self.board.wait_for(said)).await;
            self.refusal = report.ok().and_then(Result::ok).and_then(|report| refusal(report.as_ref()?));
        }
        let words = match self.refusal {
            Some(refusal) => format!("{failed}: {refusal}"),
            None => failed,
        };
        text(StatusCode::SERVICE_UNAVAILABLE, words)
    }
}

/// Why the round refused, if it says so.
fn refusal(report: &Report) -> Option<String> {
    match &report.plan.reason {
        reason @ (Reason::SwitchoverRefused { .. }
        | Reason::SwitchoverRolledBack { .. }
        | Reason::NotTheLeaderNamed
        | Reason::SwitchoverWithdrawn) => Some(reason.to_string()),
        _ => None,
    }
}

fn last_gap(report: Option<&Arc<Report>>) -> Option<Duration> {
    report.and_then(|report| report.counters.last_write_gap)
}

fn capitalized(word: &str) -> String {
    let mut letters = word.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}
