//! `GET /dcs`: what this member remembers of the DCS and what its own data is, for `outrider dcs rebuild`.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use outrider_ha::{Postgres, Role};
use outrider_wal::{Lsn, TimelineId};
use serde_json::json;

use super::Api;
use super::cluster::unseen;
use crate::config;

/// Answers 503 before the first round has ended.
pub(super) async fn show(State(api): State<Api>) -> Response {
    let Some(report) = api.reports.borrow().clone() else { return unseen() };
    let (role, timeline, position) = data(&report.view.local.postgres);
    Json(json!({
        "name": api.config.name,
        "role": role,
        "system_identifier": report.view.local.system.map(|system| system.to_string()),
        "timeline": timeline,
        "position": position,
        "may_lead": config::policy_tags(&api.config.tags).may_lead(),
        "record": *report.dcs_record,
    }))
    .into_response()
}

/// The role of Postgres and the position of its data, also when it does not run.
fn data(postgres: &Postgres) -> (Role, TimelineId, Lsn) {
    match postgres {
        Postgres::Primary { timeline, position, .. } => (Role::Primary, *timeline, *position),
        // It is about to be a primary, whatever keys are written meanwhile.
        Postgres::Standby { timeline, position, promoting: true, .. } => {
            (Role::Primary, *timeline, *position)
        }
        Postgres::Standby { timeline, position, .. } => (Role::Standby, *timeline, *position),
        Postgres::Stopped { timeline, end, .. } => (Role::NotRunning, *timeline, *end),
        Postgres::Starting { writable: true, .. } | Postgres::Unresponsive { writable: true, .. } => {
            (Role::Primary, TimelineId::default(), Lsn::INVALID)
        }
        Postgres::Empty
        | Postgres::Unusable(_)
        | Postgres::Starting { writable: false, .. }
        | Postgres::Unresponsive { writable: false, .. } => {
            (Role::NotRunning, TimelineId::default(), Lsn::INVALID)
        }
    }
}

#[cfg(test)]
mod tests {
    use outrider_ha::Streaming;

    use super::*;

    #[test]
    fn a_standby_that_is_being_promoted_counts_as_a_primary() {
        let standby = |promoting| Postgres::Standby {
            timeline: TimelineId::FIRST,
            position: Lsn::new(7),
            streaming: Streaming { upstream: None, active: false },
            promoting,
            replay: None,
        };
        assert_eq!(data(&standby(true)), (Role::Primary, TimelineId::FIRST, Lsn::new(7)));
        assert_eq!(data(&standby(false)), (Role::Standby, TimelineId::FIRST, Lsn::new(7)));
    }
}
