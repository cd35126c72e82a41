//! `POST /switchover` and `POST /failover`: checks the wish as Patroni does, writes it into the DCS, and answers when the
//! outcome is known. `DELETE /switchover` takes a scheduled one back.

mod candidates;
mod outcome;
mod wish;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use outrider_dcs::Failover;
use tracing::info;

use self::outcome::Awaited;
use self::wish::{Action, Wish};
use super::answer::{dcs_fault, text};
use super::{Visitors, body};

/// `POST /switchover`.
pub(super) async fn switchover(State(visitors): State<Visitors>, request: Request) -> Response {
    ask(visitors, Action::Switchover, request).await
}

/// `POST /failover`.
pub(super) async fn failover(State(visitors): State<Visitors>, request: Request) -> Response {
    ask(visitors, Action::Failover, request).await
}

/// `DELETE /switchover`.
pub(super) async fn cancel(State(visitors): State<Visitors>) -> Response {
    let cluster = match visitors.dcs.read().await {
        Ok(cluster) => cluster,
        Err(fault) => return dcs_fault(&fault),
    };
    match cluster.failover.filter(|entry| entry.value.scheduled_at.is_some()) {
        None => text(StatusCode::NOT_FOUND, "no switchover is scheduled"),
        Some(entry) => match visitors.dcs.clear_failover(entry.revision).await {
            Ok(()) => {
                visitors.waker.wake();
                text(StatusCode::OK, "scheduled switchover deleted")
            }
            Err(fault) => dcs_fault(&fault),
        },
    }
}

async fn ask(visitors: Visitors, action: Action, request: Request) -> Response {
    let wish = match body::object(request).await {
        Ok(object) => Wish::read(action, &object),
        Err(answer) => return *answer,
    };
    let wish = match wish {
        Ok(wish) => wish,
        Err((code, words)) => return text(code, words),
    };
    let cluster = match visitors.dcs.read().await {
        Ok(cluster) => cluster,
        Err(fault) => return dcs_fault(&fault),
    };
    if let (None, Some(taken), Action::Switchover) = (&wish.scheduled_at, &cluster.rollback, action) {
        let words = format!(
            "{} prepares a rollback ({}), which a switchover would end: wait for it, or cancel it",
            taken.claim.member, taken.claim.phase
        );
        return text(StatusCode::PRECONDITION_FAILED, words);
    }
    if wish.scheduled_at.is_none()
        && let Err(words) = wish.check(&cluster, &visitors).await
    {
        return text(StatusCode::PRECONDITION_FAILED, words);
    }
    let leader = cluster.leader.map(|leader| leader.name);
    // Watched from before the wish is written, so that nothing that comes of it is missed.
    let awaited = Awaited::new(&visitors, leader, &wish);
    let failover = Failover {
        leader: wish.leader.clone(),
        member: wish.candidate.clone(),
        scheduled_at: wish.scheduled_at.clone(),
    };
    if let Err(fault) = visitors.dcs.write_failover(&failover).await {
        let words = format!("failed to write failover key into DCS: {}", crate::report::causes(&fault));
        return text(StatusCode::SERVICE_UNAVAILABLE, words);
    }
    info!(leader = ?wish.leader, candidate = ?wish.candidate, at = ?wish.scheduled_at, "a {} was asked for", wish.action.word());
    visitors.waker.wake();
    if wish.scheduled_at.is_some() {
        return text(StatusCode::ACCEPTED, "Switchover scheduled");
    }
    awaited.outcome(&visitors).await
}
