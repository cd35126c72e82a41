//! `POST /switchover` and `POST /failover`: checks the request as Patroni does, writes it into the DCS, and answers when
//! the outcome is known. `DELETE` of either cancels what is pending.

mod candidates;
mod missing;
mod outcome;
mod wish;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use outrider_dcs::{Failover, FailoverTerms, Snapshot};
use serde_json::{Map, Value};
use tracing::info;

use self::outcome::Awaited;
use self::wish::{Action, Wish};
use super::answer::{dcs_fault, text};
use super::{Visitors, asked};
use crate::{clock, deadline};

/// `POST /switchover`.
pub(super) async fn switchover(State(visitors): State<Visitors>, request: Request) -> Response {
    ask(visitors, Action::Switchover, request).await
}

/// `POST /failover`.
pub(super) async fn failover(State(visitors): State<Visitors>, request: Request) -> Response {
    ask(visitors, Action::Failover, request).await
}

/// `DELETE /switchover` and `DELETE /failover`: cancels whatever is pending, for now or for later.
pub(super) async fn cancel(State(visitors): State<Visitors>) -> Response {
    let before = match visitors.dcs.read().await {
        Ok(cluster) => cluster,
        Err(fault) => return dcs_fault(&fault),
    };
    let Some(entry) = &before.failover else {
        return text(StatusCode::NOT_FOUND, "no switchover is scheduled");
    };
    if let Err(fault) = visitors.dcs.clear_failover(entry.revision).await {
        return dcs_fault(&fault);
    }
    visitors.waker.wake();
    info!(id = entry.value.id(), "a request for another leader was cancelled");
    // Either the announcement of the stop, or the candidate's lease, came before this in the DCS, or it never comes.
    match visitors.dcs.read().await {
        Err(fault) => dcs_fault(&fault),
        Ok(after) => match begun(&before, &after, entry.value.member.as_deref()) {
            Some(words) => text(StatusCode::CONFLICT, words),
            None if entry.value.scheduled_at.is_some() => {
                text(StatusCode::OK, "scheduled switchover deleted")
            }
            None if entry.value.leader.is_some() => text(StatusCode::OK, "switchover deleted"),
            None => text(StatusCode::OK, "failover deleted"),
        },
    }
}

/// What had begun before the request was cancelled and is therefore done all the same.
fn begun(before: &Snapshot, after: &Snapshot, candidate: Option<&str>) -> Option<String> {
    if let Some(stopping) = after.intent.as_ref().map(|entry| &entry.value).filter(|intent| intent.stopping) {
        return Some(format!("too late: {} is being stopped, and {} takes over", stopping.from, stopping.to));
    }
    let leader = |cluster: &Snapshot| cluster.leader.as_ref().map(|leader| leader.name.clone());
    let now = leader(after)?;
    (leader(before).as_ref() != Some(&now) && candidate == Some(now.as_str()))
        .then(|| format!("too late: {now} leads already"))
}

async fn ask(visitors: Visitors, action: Action, request: Request) -> Response {
    let read = |object: &Map<String, Value>| Wish::read(action, object);
    let (wish, cluster) = match asked::wish(&visitors, request, read).await {
        Ok(both) => both,
        Err(answer) => return *answer,
    };
    if let (None, Some(taken), Action::Switchover) = (&wish.scheduled_at, &cluster.rollback, action) {
        let words = format!(
            "{} prepares a rollback ({}), which a switchover would end: wait for it, or cancel it",
            taken.claim.member, taken.claim.phase
        );
        return text(StatusCode::PRECONDITION_FAILED, words);
    }
    let mut given_up = None;
    if wish.scheduled_at.is_none() {
        let fit = match wish.check(&cluster, &visitors).await {
            Ok(fit) => fit,
            Err(words) => return text(StatusCode::PRECONDITION_FAILED, words),
        };
        given_up = fit
            .first()
            .filter(|_| wish.accept_data_loss)
            .map(|(name, status)| missing::of(&cluster, name, status));
    }
    if wish.only_plan {
        return text(StatusCode::OK, given_up.unwrap_or_else(|| "it can be done".to_owned()));
    }
    carry_out(&visitors, cluster, wish, given_up).await
}

/// Writes the request, and waits for the outcome.
async fn carry_out(visitors: &Visitors, cluster: Snapshot, wish: Wish, given_up: Option<String>) -> Response {
    let valid = wish.valid(visitors);
    let id = format!("{}-{}", visitors.config.name, clock::wall().as_microsecond());
    let terms = FailoverTerms {
        accept_data_loss: wish.accept_data_loss,
        wait: wish.wait.is_some(),
        ..deadline::terms(id.clone(), wish.due_in() + valid, valid)
    };
    let failover = Failover {
        leader: wish.leader.clone(),
        member: wish.candidate.clone(),
        scheduled_at: wish.scheduled_at.clone(),
        outrider: Some(terms),
    };
    // Watched from before the request is written, so that nothing is missed.
    let awaited = Awaited::new(visitors, cluster, &wish, id.clone(), given_up);
    let revision = match visitors.dcs.write_failover(&failover).await {
        Ok(revision) => revision,
        Err(fault) => {
            let words = format!("failed to write failover key into DCS: {}", crate::log::causes(&fault));
            return text(StatusCode::SERVICE_UNAVAILABLE, words);
        }
    };
    let what = wish.action.word();
    info!(
        id,
        leader = wish.leader,
        candidate = wish.candidate,
        at = wish.scheduled_at,
        "a {what} was requested"
    );
    visitors.waker.wake();
    if wish.scheduled_at.is_some() {
        return text(StatusCode::ACCEPTED, "Switchover scheduled");
    }
    awaited.outcome(visitors, revision, valid).await
}
