//! The steps that answer a request for another leader: its deadline, its answer, the announcements of a switchover.

use outrider_dcs::{Failover, FailoverAnswer, SwitchoverIntent};
use outrider_ha::{MemberName, Reason};
use tracing::info;

use super::{Actor, StepError};
use crate::clock;
use crate::deadline::{expires_in, terms};

impl Actor<'_> {
    /// Takes the request away; whoever waits for its outcome is told why.
    pub(super) async fn clear_request(&mut self, revision: i64) -> Result<(), StepError> {
        let dcs = &self.instruments.dcs;
        let id = self.state.cluster.request().and_then(|request| request.id().map(str::to_owned));
        match (id, self.reason) {
            (Some(id), Some(reason)) => {
                let lacks_data = matches!(reason, Reason::FailoverRefused { .. });
                let answer = FailoverAnswer { id, why: reason.to_string(), lacks_data };
                Ok(dcs.answer_failover(&answer, revision).await?)
            }
            (None, _) | (_, None) => Ok(dcs.clear_failover(revision).await?),
        }
    }

    /// Writes down until when a request holds that says nothing of it: from then on every member knows, whoever is restarted.
    pub(super) async fn date_request(&mut self, revision: i64) -> Result<(), StepError> {
        let Some(request) = self.state.cluster.request().cloned() else { return Ok(()) };
        let left =
            expires_in(&request, self.state.cluster.request_seen_for(revision), self.state.rules.policy());
        let id = format!("{}-{}", self.instruments.dcs.name(), clock::wall().as_millisecond());
        // A schedule is counted from its own time.
        let valid =
            if request.scheduled_at.is_some() { self.state.rules.policy().request_limit() } else { left };
        let terms = terms(id, left, valid);
        info!(id = terms.id, ?left, "gave a deadline to a request that had none");
        let dated = Failover { outrider: Some(terms), ..request };
        self.instruments.dcs.replace_failover(&dated, revision).await?;
        Ok(())
    }

    pub(super) async fn announce_switchover(&mut self, to: &MemberName) -> Result<(), StepError> {
        let from = self.instruments.dcs.name().to_owned();
        let now = clock::wall().as_millisecond();
        let limit = self.state.rules.policy().switchover_timeout.as_millis();
        let announcement = SwitchoverIntent {
            id: format!("{from}-{to}-{now}"),
            from,
            to: to.to_string(),
            deadline_unix_ms: u64::try_from(now).unwrap_or_default()
                + u64::try_from(limit).unwrap_or_default(),
            stopping: false,
        };
        let seen = self.state.cluster.announced().map_or(0, |(_, revision)| revision);
        self.instruments.dcs.write_intent(&announcement, seen).await?;
        self.state.cluster.takes_part_in(&announcement.id);
        info!(%to, "announced a switchover");
        Ok(())
    }

    /// From here on the request cannot be taken back: either this comes first in the DCS or the withdrawal does.
    pub(super) async fn announce_stop(&mut self, to: &MemberName, request: i64) -> Result<(), StepError> {
        let Some((announced, seen)) = self.state.cluster.announced() else { return Ok(()) };
        let limit =
            u64::try_from(self.state.rules.policy().switchover_timeout.as_millis()).unwrap_or_default();
        let now = u64::try_from(clock::wall().as_millisecond()).unwrap_or_default();
        let stopping =
            SwitchoverIntent { stopping: true, deadline_unix_ms: now + limit, ..announced.clone() };
        self.instruments.dcs.write_intent_on_request(&stopping, seen, request).await?;
        info!(%to, "announced that Postgres is stopped for the switchover");
        Ok(())
    }

    pub(super) async fn clear_switchover(&mut self) -> Result<(), StepError> {
        self.state.cluster.takes_part_in_none();
        match self.state.cluster.announced() {
            Some((_, seen)) => Ok(self.instruments.dcs.clear_intent(seen).await?),
            None => Ok(()),
        }
    }
}
