//! A request for another leader, with Patroni's rules and texts. Does not write it.

use std::time::Duration;

use axum::http::StatusCode;
use jiff::Timestamp;
use jiff::civil::DateTime;
use outrider_dcs::{Member, Snapshot};
use serde_json::{Map, Value};

use super::candidates;
use crate::clock;
use crate::http::Api;

/// How long a request is valid that is made before the rules of the cluster are known.
const LIMIT_UNKNOWN: Duration = Duration::from_secs(20);

/// Default for how long to wait for a candidate.
const WAIT_USUAL: Duration = Duration::from_secs(300);
/// Maximum for it, in seconds.
const WAIT_MAX: u64 = 24 * 60 * 60;

/// Planned or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    Switchover,
    Failover,
}

impl Action {
    pub(super) fn word(self) -> &'static str {
        match self {
            Action::Switchover => "switchover",
            Action::Failover => "failover",
        }
    }
}

/// A request that is valid by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LeaderRequest {
    pub(super) action: Action,
    pub(super) leader: Option<String>,
    pub(super) candidate: Option<String>,
    pub(super) scheduled_at: Option<String>,
    /// Whether what the candidate lacks is given up.
    pub(super) accept_data_loss: bool,
    /// How long to wait for a candidate that is not ready yet.
    pub(super) wait: Option<Duration>,
    /// Only show what would be given up.
    pub(super) only_plan: bool,
}

impl LeaderRequest {
    /// Parses the request, or returns the code and text of the refusal.
    pub(super) fn read(action: Action, request: &Map<String, Value>) -> Result<Self, (StatusCode, String)> {
        check_keys(request).map_err(|words| (StatusCode::BAD_REQUEST, words))?;
        Self::of_checked(action, request).map_err(|(code, words)| (code, words.to_owned()))
    }

    fn of_checked(action: Action, request: &Map<String, Value>) -> Result<Self, (StatusCode, &'static str)> {
        let flag = |key: &str| match request.get(key) {
            None | Some(Value::Null) => Ok(false),
            Some(Value::Bool(flag)) => Ok(*flag),
            Some(_) => Err((StatusCode::BAD_REQUEST, "accept_data_loss and plan are true or false")),
        };
        let wait = match request.get("wait") {
            None | Some(Value::Null | Value::Bool(false)) => None,
            Some(Value::Bool(true)) => Some(WAIT_USUAL),
            Some(seconds) => {
                let refusal = (StatusCode::BAD_REQUEST, "wait is a number of seconds, a day at most");
                let seconds = seconds.as_u64().filter(|seconds| *seconds <= WAIT_MAX).ok_or(refusal)?;
                Some(Duration::from_secs(seconds))
            }
        };
        let (accept_data_loss, only_plan) = (flag("accept_data_loss")?, flag("plan")?);
        let text = |key: &str| request.get(key)?.as_str().filter(|text| !text.is_empty()).map(str::to_owned);
        let leader = text("leader");
        let candidate = text("candidate").or_else(|| text("member"));
        let scheduled_at = text("scheduled_at");
        let refuse = |words| Err((StatusCode::BAD_REQUEST, words));
        match action {
            Action::Failover if candidate.is_none() => {
                return refuse("Failover could be performed only to a specific candidate");
            }
            Action::Switchover if leader.is_none() => {
                return refuse("Switchover could be performed only from a specific leader");
            }
            Action::Failover if scheduled_at.is_some() => return refuse("Failover can't be scheduled"),
            Action::Switchover if accept_data_loss => {
                return refuse("A switchover loses nothing; accept_data_loss belongs to a failover");
            }
            Action::Failover if accept_data_loss && leader.is_some() => {
                return refuse("With a leader to switch over from nothing is lost; name only the candidate");
            }
            Action::Failover | Action::Switchover => {}
        }
        if let Some(at) = &scheduled_at {
            check_schedule(at)?;
        }
        if leader == candidate {
            return refuse("Switchover target and source are the same");
        }
        // A failover that names the leader is a switchover.
        let action = if leader.is_some() { Action::Switchover } else { action };
        Ok(LeaderRequest { action, leader, candidate, scheduled_at, accept_data_loss, wait, only_plan })
    }

    /// How long it is valid from when it is due.
    pub(super) fn valid(&self, api: &Api) -> Duration {
        let report = api.reports.borrow();
        let limit = report.as_ref().map_or(LIMIT_UNKNOWN, |report| report.view.policy.request_limit());
        limit + self.wait.unwrap_or_default()
    }

    /// How long until it is due.
    pub(super) fn due_in(&self) -> Duration {
        let at = self.scheduled_at.as_deref().and_then(|at| at.parse::<Timestamp>().ok());
        at.and_then(|at| Duration::try_from(at.duration_since(clock::wall())).ok()).unwrap_or_default()
    }

    /// Whether the cluster can do it now: the members that could take over, with their status, or the text of the refusal.
    pub(super) async fn check(&self, cluster: &Snapshot, api: &Api) -> Result<Vec<(String, Value)>, String> {
        let possible = self.possible(cluster)?;
        let found = candidates::ask(&possible, &api.config.name, api).await;
        if !found.fit.is_empty() {
            return Ok(found.fit);
        }
        let word = self.action.word();
        let why = found.unfit.join(", ");
        Err(format!("{word} is not possible: no good candidates have been found ({why})"))
    }

    /// The members that could take over as far as the DCS says.
    fn possible<'cluster>(&self, cluster: &'cluster Snapshot) -> Result<Vec<&'cluster Member>, String> {
        let leader = cluster.leader.as_ref().map(|leader| leader.name.as_str());
        if self.leader.is_some() && self.leader.as_deref() != leader {
            return Err("leader name does not match".to_owned());
        }
        let others = cluster.members.iter().filter(|member| Some(member.name.as_str()) != leader);
        let word = self.action.word();
        if let Some(candidate) = &self.candidate {
            if Some(candidate.as_str()) == leader {
                return Err(format!("{word} is not possible: {candidate} leads already"));
            }
            let found: Vec<&Member> =
                cluster.members.iter().filter(|member| member.name == *candidate).collect();
            if found.is_empty() {
                let known: Vec<&str> = cluster.members.iter().map(|member| member.name.as_str()).collect();
                let known = known.join(", ");
                return Err(format!(
                    "candidate does not exists: no member is called {candidate}; the members are {known}"
                ));
            }
            return Ok(found);
        }
        let found: Vec<&Member> = others.collect();
        if found.is_empty() {
            return Err(format!("{word} is not possible: cluster does not have members except leader"));
        }
        Ok(found)
    }
}

/// A misspelt key or a value of the wrong type is refused, not guessed: without its candidate any other member would do.
fn check_keys(request: &Map<String, Value>) -> Result<(), String> {
    const TEXTS: [&str; 4] = ["leader", "candidate", "member", "scheduled_at"];
    const OTHERS: [&str; 3] = ["accept_data_loss", "plan", "wait"];
    for (key, value) in request {
        let (text, other) = (TEXTS.contains(&key.as_str()), OTHERS.contains(&key.as_str()));
        if !text && !other {
            return Err(format!(
                "{key} is unknown; expected {}",
                [&TEXTS[..], &OTHERS[..]].concat().join(", ")
            ));
        }
        if text && !value.is_string() && !value.is_null() {
            return Err(format!("{key}: {value} is not a text"));
        }
    }
    Ok(())
}

fn check_schedule(at: &str) -> Result<(), (StatusCode, &'static str)> {
    match at.parse::<Timestamp>() {
        Ok(at) if at <= clock::wall() => {
            Err((StatusCode::UNPROCESSABLE_ENTITY, "Cannot schedule switchover in the past"))
        }
        Ok(_) => Ok(()),
        Err(_) if at.parse::<DateTime>().is_ok() => {
            Err((StatusCode::BAD_REQUEST, "Timezone information is mandatory for the scheduled switchover"))
        }
        Err(_) => Err((
            StatusCode::UNPROCESSABLE_ENTITY,
            "Unable to parse scheduled timestamp. It should be in an unambiguous format, e.g. ISO 8601",
        )),
    }
}

#[cfg(test)]
mod tests {
    use outrider_dcs::{Entry, Leader, SyncState};
    use serde_json::json;

    use super::*;
    use crate::sample::entry;

    fn read(action: Action, request: &Value) -> Result<LeaderRequest, (u16, String)> {
        LeaderRequest::read(action, request.as_object().unwrap())
            .map_err(|(code, words)| (code.as_u16(), words))
    }

    fn cluster(members: &[&str], sync: Option<&str>) -> Snapshot {
        Snapshot {
            leader: Some(Leader { name: "p1".to_owned(), term: 1, revision: 1, lease: 1, mine: true }),
            members: members.iter().map(|name| entry(name, json!({}))).collect(),
            sync: sync.map(|text| Entry { value: SyncState::parse(text), revision: 1 }),
            ..Snapshot::default()
        }
    }

    #[test]
    fn requests_that_make_no_sense_are_refused_in_patronis_words() {
        for (action, request, code, words) in [
            (Action::Failover, json!({}), 400, "Failover could be performed only to a specific candidate"),
            (
                Action::Switchover,
                json!({"leader": ""}),
                400,
                "Switchover could be performed only from a specific leader",
            ),
            (
                Action::Failover,
                json!({"member": "p2", "scheduled_at": "2999-01-01T00:00Z"}),
                400,
                "Failover can't be scheduled",
            ),
            (
                Action::Switchover,
                json!({"leader": "p1", "candidate": "p1"}),
                400,
                "Switchover target and source are the same",
            ),
            (
                Action::Switchover,
                json!({"leader": "p1", "scheduled_at": "2999-01-01T12:00"}),
                400,
                "Timezone information is mandatory for the scheduled switchover",
            ),
            (
                Action::Switchover,
                json!({"leader": "p1", "scheduled_at": "2001-01-01T12:00+00:00"}),
                422,
                "Cannot schedule switchover in the past",
            ),
            (
                Action::Switchover,
                json!({"leader": "p1", "scheduled_at": "tomorrow"}),
                422,
                "Unable to parse scheduled timestamp. It should be in an unambiguous format, e.g. ISO 8601",
            ),
        ] {
            assert_eq!(read(action, &request), Err((code, words.to_owned())), "{request}");
        }
    }

    #[test]
    fn only_a_failover_without_a_leader_accepts_a_loss() {
        let lossy = |request: Value| {
            let action = if request.get("leader").is_some() { Action::Switchover } else { Action::Failover };
            read(action, &request)
        };
        assert!(lossy(json!({"candidate": "p2", "accept_data_loss": true})).unwrap().accept_data_loss);
        assert!(!lossy(json!({"candidate": "p2"})).unwrap().accept_data_loss);
        for request in [
            json!({"leader": "p1", "accept_data_loss": true}),
            json!({"candidate": "p2", "accept_data_loss": "yes"}),
            json!({"candidate": "p2", "plan": 1}),
            json!({"leader": "p1", "wait": "long"}),
            json!({"leader": "p1", "wait": -1}),
            json!({"leader": "p1", "wait": 1_000_000}),
        ] {
            assert_eq!(lossy(request.clone()).unwrap_err().0, 400, "{request}");
        }
        let failover = json!({"leader": "p1", "member": "p2", "accept_data_loss": true});
        assert_eq!(read(Action::Failover, &failover).unwrap_err().0, 400);
    }

    #[test]
    fn what_is_of_the_wrong_kind_or_misspelt_is_refused_and_not_left_out() {
        for (action, request, words) in [
            (
                Action::Switchover,
                json!({"leader": "p1", "candidate": ["p2"]}),
                "candidate: [\"p2\"] is not a text",
            ),
            (Action::Switchover, json!({"leader": "p1", "candidate": 2}), "candidate: 2 is not a text"),
            (Action::Switchover, json!({"leader": "p1", "candidate": {}}), "candidate: {} is not a text"),
            (Action::Switchover, json!({"leader": true}), "leader: true is not a text"),
            (
                Action::Failover,
                json!({"member": ["p2"], "candidate": "p3"}),
                "member: [\"p2\"] is not a text",
            ),
            (Action::Switchover, json!({"leader": "p1", "scheduled_at": 1}), "scheduled_at: 1 is not a text"),
            (Action::Switchover, json!({"leader": "p1", "candidat": "p2"}), "candidat is unknown"),
        ] {
            let (code, said) = read(action, &request).unwrap_err();
            assert_eq!(code, 400);
            assert!(said.starts_with(words), "{request}: {said}");
        }
        // What patronictl sends for an absent value.
        let nulls = json!({"leader": "p1", "candidate": null, "scheduled_at": null});
        assert_eq!(read(Action::Switchover, &nulls).unwrap().candidate, None);
    }

    #[test]
    fn a_failover_from_a_named_leader_is_a_switchover() {
        let parsed = read(Action::Failover, &json!({"leader": "p1", "member": "p2"})).unwrap();
        assert_eq!((parsed.action, parsed.candidate.as_deref()), (Action::Switchover, Some("p2")));
        let scheduled = json!({"leader": "p1", "scheduled_at": "2999-01-01T12:00+00:00"});
        assert!(read(Action::Switchover, &scheduled).is_ok());
    }

    #[test]
    fn what_the_cluster_cannot_do_is_refused_in_patronis_words() {
        let sync = r#"{"leader":"p1","sync_standby":"p2"}"#;
        for (request, cluster, words) in [
            (json!({"leader": "p9"}), cluster(&["p1", "p2"], None), "leader name does not match"),
            (
                json!({"leader": "p1", "candidate": "p9"}),
                cluster(&["p1", "p2"], None),
                "candidate does not exists",
            ),
            (
                json!({"leader": "p1"}),
                cluster(&["p1"], None),
                "switchover is not possible: cluster does not have members except leader",
            ),
        ] {
            let parsed = read(Action::Switchover, &request).unwrap();
            assert!(parsed.possible(&cluster).unwrap_err().starts_with(words), "{request}");
        }
        let parsed = read(Action::Switchover, &json!({"leader": "p1"})).unwrap();
        let cluster = cluster(&["p1", "p2", "p3"], Some(sync));
        let names: Vec<&str> =
            parsed.possible(&cluster).unwrap().iter().map(|member| member.name.as_str()).collect();
        assert_eq!(names, ["p2", "p3"]);
        // A candidate that is not synchronous is made so first.
        let parsed = read(Action::Switchover, &json!({"leader": "p1", "candidate": "p3"})).unwrap();
        assert_eq!(parsed.possible(&cluster).unwrap().len(), 1);
    }
}
