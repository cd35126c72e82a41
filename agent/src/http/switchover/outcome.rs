//! Waits until a switchover has succeeded or failed, by the changes in the DCS, and says so in Patroni's words.

use std::sync::Arc;
use std::time::Duration;

use axum::http::{HeaderName, StatusCode};
use axum::response::{IntoResponse, Response};
use outrider_dcs::{Changes, Snapshot};
use outrider_ha::Reason;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};

use super::super::Visitors;
use super::super::answer::text;
use super::wish::{Action, Wish};
use crate::clock;
use crate::report::{Board, Report};

/// At the least; with a long `loop_wait` twice that.
const WAIT_MIN: Duration = Duration::from_secs(20);
/// Between two looks when the DCS tells of no change.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// For the old primary to measure how long nobody could write.
const GAP_LIMIT: Duration = Duration::from_secs(2);
/// For the round to say why it did not do it.
const REFUSAL_LIMIT: Duration = Duration::from_millis(500);
/// Carries, in seconds, how long nobody could write.
const GAP_HEADER: HeaderName = HeaderName::from_static("outrider-write-gap-seconds");

/// A switchover that was asked for.
pub(super) struct Awaited {
    action: Action,
    leader: Option<String>,
    candidate: Option<String>,
    changes: watch::Receiver<Changes>,
    board: Board,
    /// This member leads before it, and so measures the gap and knows why it failed.
    is_leader: bool,
    gap_before: Option<Duration>,
    /// Why this member refused it or took it back, when it was seen to.
    refusal: Option<String>,
}

/// How far it is.
#[derive(Debug, PartialEq, Eq)]
enum Progress {
    UnderWay,
    /// This member leads now, and says that it accepts writes.
    Done(String),
    Failed,
}

impl Awaited {
    /// `leader`: who leads before it.
    pub(super) fn new(visitors: &Visitors, leader: Option<String>, wish: &Wish) -> Self {
        let board = visitors.board.clone();
        let gap_before = last_gap(board.borrow().as_ref());
        Awaited {
            action: wish.action,
            is_leader: leader.as_deref() == Some(&visitors.config.name),
            leader,
            candidate: wish.candidate.clone(),
            changes: visitors.dcs.watch(),
            gap_before,
            board,
            refusal: None,
        }
    }

    /// Answers when it is known, and after a while in any case.
    pub(super) async fn outcome(mut self, visitors: &Visitors) -> Response {
        let loop_wait =
            self.board.borrow().as_ref().map_or(Duration::ZERO, |report| report.view.policy.loop_wait);
        let limit = WAIT_MIN.max(loop_wait * 2);
        let deadline = clock::monotonic() + limit;
        let word = self.action.word();
        loop {
            self.changes.mark_unchanged();
            // A DCS that does not answer is asked again: the outcome is not known before it does.
            match visitors.dcs.read().await.map(|cluster| self.progress(&cluster)) {
                Ok(Progress::Done(leader)) => return self.done(&leader).await,
                Ok(Progress::Failed) => return self.failed().await,
                Ok(Progress::UnderWay) | Err(_) => {}
            }
            if clock::monotonic() >= deadline {
                let words = format!(
                    "{} status unknown after {} seconds; operation may still be in progress",
                    capitalized(word),
                    limit.as_secs()
                );
                return text(StatusCode::SERVICE_UNAVAILABLE, words);
            }
            self.wait(deadline).await;
        }
    }

    fn progress(&self, cluster: &Snapshot) -> Progress {
        match &cluster.leader {
            Some(leader) if Some(&leader.name) != self.leader.as_ref() => {
                let leads = cluster.member(&leader.name).and_then(|member| member.role()) == Some("primary");
                if leads { Progress::Done(leader.name.clone()) } else { Progress::UnderWay }
            }
            Some(_) if cluster.failover.is_none() => Progress::Failed,
            Some(_) | None => Progress::UnderWay,
        }
    }

    /// Until something changes in the DCS or on the board, or a second is over.
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

    async fn failed(mut self) -> Response {
        self.note_refusal();
        if self.refusal.is_none() && self.is_leader {
            // The round has cleared the wish and is about to say why.
            let said = |report: &Option<Arc<Report>>| {
                report.as_ref().is_some_and(|report| refusal(report).is_some())
            };
            let report = timeout(REFUSAL_LIMIT, self.board.wait_for(said)).await;
            self.refusal = report.ok().and_then(Result::ok).and_then(|report| refusal(report.as_ref()?));
        }
        let words = format!("{} failed", capitalized(self.action.word()));
        let words = match self.refusal {
            Some(refusal) => format!("{words}: {refusal}"),
            None => words,
        };
        text(StatusCode::SERVICE_UNAVAILABLE, words)
    }
}

/// Why the round did not do it, when it says so.
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
