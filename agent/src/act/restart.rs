//! The steps of a restart that somebody asked for: how far a member is, in the DCS, and the request for a switchover instead.

use outrider_dcs::{Failover, RestartMember, RestartRequest, RestartState};
use outrider_ha::{MemberName, TurnChange, TurnEnd};
use tracing::info;

use super::{Actor, StepError};
use crate::clock;
use crate::deadline::terms;

impl Actor<'_> {
    /// Asks as a person would: whoever is fit takes over from this member.
    pub(super) async fn ask_switchover(&mut self) -> Result<(), StepError> {
        let name = self.instruments.dcs.name().to_owned();
        let id = format!("{name}-restart-{}", clock::wall().as_nanosecond());
        let valid = self.state.rules.policy().request_limit();
        let terms = Some(terms(id, valid, valid));
        let request = Failover { leader: Some(name), outrider: terms, ..Failover::default() };
        self.instruments.dcs.write_failover(&request).await?;
        info!("requested a switchover, because this Postgres has to restart");
        Ok(())
    }

    pub(super) async fn record_restart(
        &mut self,
        member: &MemberName,
        change: &TurnChange,
        seen: i64,
    ) -> Result<(), StepError> {
        let snapshot = self.state.cluster.snapshot();
        let Some(entry) = snapshot.and_then(|snapshot| snapshot.restart.as_ref()) else { return Ok(()) };
        let leader = snapshot.and_then(|snapshot| Some(snapshot.leader.as_ref()?.name.clone()));
        let mut request = entry.value.clone();
        note(&mut request, member.as_str(), change, leader.as_deref(), &clock::wall().to_string());
        self.instruments.dcs.write_restart(&request, seen).await?;
        info!(%member, ?change, "recorded the progress of the restart");
        Ok(())
    }
}

fn note(request: &mut RestartRequest, name: &str, change: &TurnChange, leader: Option<&str>, now: &str) {
    let Some(member) = request.members.iter_mut().find(|member| member.name == name && is_open(member))
    else {
        return;
    };
    let (state, result) = match change {
        TurnChange::Begun { started, switching } => {
            member.started = Some(started.clone());
            (if *switching { RestartState::SwitchingOver } else { RestartState::Restarting }, None)
        }
        TurnChange::Ended(TurnEnd::Standby) => {
            (RestartState::Done, Some("restarted as a standby".to_owned()))
        }
        TurnChange::Ended(TurnEnd::Primary) => {
            (RestartState::Done, Some("restarted as the primary".to_owned()))
        }
        TurnChange::Ended(TurnEnd::SwitchedOver) => {
            let to = leader.unwrap_or("another member");
            (RestartState::Done, Some(format!("switched over to {to}, and restarted as a standby")))
        }
        TurnChange::Ended(TurnEnd::NotPending) => {
            (RestartState::Skipped, Some("no parameter waits for a restart".to_owned()))
        }
        TurnChange::Ended(TurnEnd::TooLate) => {
            let why = match member.state {
                RestartState::Restarting => "Postgres did not come up and stream again in time",
                RestartState::SwitchingOver => "nobody took over in time",
                RestartState::Waiting | RestartState::Done | RestartState::Skipped | RestartState::Failed => {
                    "it did not start: this member, or another one, was not healthy in time"
                }
            };
            request.error = Some(format!("{name}: {why}; nobody else is restarted"));
            (RestartState::Failed, Some(why.to_owned()))
        }
    };
    (member.state, member.result, member.at) = (state, result, Some(now.to_owned()));
    if request.error.is_some() || !request.members.iter().any(is_open) {
        request.finished = Some(now.to_owned());
    }
}

fn is_open(member: &RestartMember) -> bool {
    match member.state {
        RestartState::Waiting | RestartState::Restarting | RestartState::SwitchingOver => true,
        RestartState::Done | RestartState::Skipped | RestartState::Failed => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> RestartRequest {
        let member = |name: &str| RestartMember { name: name.to_owned(), ..RestartMember::default() };
        RestartRequest { members: vec![member("a"), member("b")], ..RestartRequest::default() }
    }

    #[test]
    fn a_restart_ends_when_everybody_has_had_his_turn_and_says_how_each_ended() {
        let mut asked = request();
        let begun = TurnChange::Begun { started: "before".to_owned(), switching: true };
        note(&mut asked, "a", &begun, Some("a"), "1");
        assert_eq!(asked.members[0].state, RestartState::SwitchingOver);
        note(&mut asked, "a", &TurnChange::Ended(TurnEnd::SwitchedOver), Some("b"), "2");
        assert_eq!(
            asked.members[0].result.as_deref(),
            Some("switched over to b, and restarted as a standby")
        );
        assert_eq!(asked.finished, None);
        note(&mut asked, "b", &TurnChange::Ended(TurnEnd::NotPending), Some("b"), "3");
        assert_eq!((asked.members[1].state, asked.finished.as_deref()), (RestartState::Skipped, Some("3")));
        assert_eq!(asked.error, None);
    }

    #[test]
    fn a_member_that_does_not_come_back_ends_the_restart_of_all() {
        let mut asked = request();
        note(&mut asked, "a", &TurnChange::Ended(TurnEnd::TooLate), Some("b"), "1");
        assert!(asked.error.unwrap().starts_with("a: it did not start"));
        assert_eq!(asked.finished.as_deref(), Some("1"));
        assert_eq!(asked.members[1].state, RestartState::Waiting);
    }
}
