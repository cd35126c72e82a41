//! A request for a restart, with Patroni's keys, rules and texts, and ours for several members. Does not write it.

use std::time::Duration;

use axum::http::StatusCode;
use jiff::Timestamp;
use jiff::civil::DateTime;
use outrider_dcs::{RestartMember, Snapshot};
use serde_json::{Map, Value};

use crate::{clock, config};

/// Patroni's keys, then ours.
const KEYS: [&str; 8] =
    ["restart_pending", "role", "postgres_version", "timeout", "schedule", "members", "cluster", "wait"];
/// Maximum timeout; a longer one is a typing error.
const TIMEOUT_MAX: Duration = Duration::from_secs(24 * 3600);

/// A refusal: the code and the text.
type Refusal = (StatusCode, String);

/// A request that is valid by itself.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct RestartOrder {
    pub(super) pending: bool,
    pub(super) role: Option<String>,
    /// Only a server below this version, in the form of `server_version_num`.
    pub(super) below_version: Option<u32>,
    pub(super) timeout: Option<Duration>,
    pub(super) scheduled_at: Option<String>,
    /// The named members; none means this one alone.
    named: Vec<String>,
    /// All members.
    cluster: bool,
    /// Whether to answer only when it is done.
    pub(super) wait: bool,
}

impl RestartOrder {
    /// Parses the request.
    pub(super) fn read(request: &Map<String, Value>) -> Result<Self, Refusal> {
        if let Some(unknown) = request.keys().find(|key| !KEYS.contains(&key.as_str())) {
            return refuse(format!("Unknown filter for the restart of member: {unknown}"));
        }
        let order = RestartOrder {
            pending: truth(request, "restart_pending", false)?,
            role: role(request)?,
            below_version: version(request)?,
            timeout: timeout(request)?,
            scheduled_at: schedule(request)?,
            named: names(request)?,
            cluster: truth(request, "cluster", false)?,
            wait: truth(request, "wait", true)?,
        };
        let conditions = order.role.is_some() || order.below_version.is_some();
        if conditions && (order.is_for_several() || order.scheduled_at.is_some()) {
            return refuse(
                "role and postgres_version apply only to the restart of one member, unscheduled; leave \
                them out"
                    .to_owned(),
            );
        }
        if order.cluster && !order.named.is_empty() {
            return refuse("give either members or cluster".to_owned());
        }
        Ok(order)
    }

    /// Whether it is about more than the member that was asked.
    pub(super) fn is_for_several(&self) -> bool {
        self.cluster || !self.named.is_empty()
    }

    /// The members to restart, by name, the leader last.
    pub(super) fn members(&self, cluster: &Snapshot, me: &str) -> Result<Vec<RestartMember>, Refusal> {
        let known = |name: &String| cluster.members.iter().any(|member| member.name == *name);
        if let Some(unknown) = self.named.iter().find(|name| !known(name)) {
            return refuse(format!("{unknown} is not a member of the cluster"));
        }
        let mut names: Vec<String> = if self.cluster {
            cluster.members.iter().map(|member| member.name.clone()).collect()
        } else if self.named.is_empty() {
            vec![me.to_owned()]
        } else {
            self.named.clone()
        };
        let leads = |name: &String| cluster.leader.as_ref().is_some_and(|leader| leader.name == *name);
        names.sort();
        names.dedup();
        names.sort_by_key(leads);
        Ok(names.into_iter().map(|name| RestartMember { name, ..RestartMember::default() }).collect())
    }
}

fn refuse<T>(words: String) -> Result<T, Refusal> {
    Err((StatusCode::BAD_REQUEST, words))
}

fn truth(request: &Map<String, Value>, key: &str, usual: bool) -> Result<bool, Refusal> {
    match request.get(key) {
        None | Some(Value::Null) => Ok(usual),
        Some(Value::Bool(truth)) => Ok(*truth),
        Some(other) => refuse(format!("{key}: expected true or false, found {other}")),
    }
}

fn role(request: &Map<String, Value>) -> Result<Option<String>, Refusal> {
    match request.get("role") {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(role)) if ["primary", "standby_leader", "replica"].contains(&role.as_str()) => {
            Ok(Some(role.clone()))
        }
        Some(_) => refuse("PostgreSQL role should be either primary, standby_leader, or replica".to_owned()),
    }
}

/// `16.4` is 160004; `16` is below every release of version 16.
fn version(request: &Map<String, Value>) -> Result<Option<u32>, Refusal> {
    let text = match request.get("postgres_version") {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    };
    let mut parts = text.split('.').map(|part| part.parse::<u32>().ok().filter(|part| *part < 10_000));
    match (parts.next(), parts.next(), parts.next()) {
        (Some(Some(major)), None, None) if major >= 10 => Ok(Some(major * 10_000)),
        (Some(Some(major)), Some(Some(minor)), None) if major >= 10 => Ok(Some(major * 10_000 + minor)),
        _ => refuse(format!("PostgreSQL version should be in the first.major.minor format, found {text}")),
    }
}

fn timeout(request: &Map<String, Value>) -> Result<Option<Duration>, Refusal> {
    let text = match request.get("timeout") {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::String(text)) => text.clone(),
        Some(Value::Number(number)) => number.to_string(),
        Some(_) => String::new(),
    };
    match config::duration(&text).filter(|time| !time.is_zero() && *time <= TIMEOUT_MAX) {
        Some(time) => Ok(Some(time)),
        None => refuse("Timeout should be a positive number of seconds".to_owned()),
    }
}

fn schedule(request: &Map<String, Value>) -> Result<Option<String>, Refusal> {
    let at = match request.get("schedule") {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::String(text)) => text,
        Some(other) => return refuse(format!("schedule: expected a time, found {other}")),
    };
    let unfit = |words: &str| Err((StatusCode::UNPROCESSABLE_ENTITY, words.to_owned()));
    match at.parse::<Timestamp>() {
        Ok(time) if time <= clock::wall() => unfit("Cannot schedule restart in the past"),
        Ok(_) => Ok(Some(at.clone())),
        Err(_) if at.parse::<DateTime>().is_ok() => {
            refuse("Timezone information is mandatory for the scheduled restart".to_owned())
        }
        Err(_) => {
            unfit("Unable to parse scheduled timestamp. It should be in an unambiguous format, e.g. ISO 8601")
        }
    }
}

fn names(request: &Map<String, Value>) -> Result<Vec<String>, Refusal> {
    let names = match request.get("members") {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(Value::Array(names)) => {
            names.iter().map(|name| name.as_str().map(str::to_owned)).collect::<Option<Vec<_>>>()
        }
        Some(_) => None,
    };
    match names {
        Some(names) if !names.is_empty() => Ok(names),
        Some(_) | None => refuse("members: expected a list of names".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(request: &Value) -> Result<RestartOrder, (u16, String)> {
        RestartOrder::read(request.as_object().unwrap()).map_err(|(code, words)| (code.as_u16(), words))
    }

    #[test]
    fn requests_that_make_no_sense_are_refused() {
        for (request, code, words) in [
            (json!({"pending": true}), 400, "Unknown filter"),
            (json!({"restart_pending": "yes"}), 400, "expected true or false"),
            (json!({"role": "master"}), 400, "should be either primary"),
            (json!({"role": ["primary"]}), 400, "should be either primary"),
            (json!({"postgres_version": "9.6"}), 400, "PostgreSQL version"),
            (json!({"postgres_version": "16.x"}), 400, "PostgreSQL version"),
            (json!({"timeout": 0}), 400, "positive number"),
            (json!({"timeout": "soon"}), 400, "positive number"),
            (json!({"timeout": [1]}), 400, "positive number"),
            (json!({"schedule": 5}), 400, "expected a time"),
            (json!({"schedule": "2999-01-01T00:00"}), 400, "Timezone information is mandatory"),
            (json!({"schedule": "2001-01-01T00:00Z"}), 422, "in the past"),
            (json!({"schedule": "tomorrow"}), 422, "Unable to parse"),
            (json!({"members": "p1"}), 400, "a list of names"),
            (json!({"members": []}), 400, "a list of names"),
            (json!({"members": ["p1"], "cluster": true}), 400, "either members or cluster"),
            (json!({"cluster": true, "role": "replica"}), 400, "leave them out"),
        ] {
            let (found, said) = read(&request).unwrap_err();
            assert!(found == code && said.contains(words), "{request}: {found} {said}");
        }
    }

    #[test]
    fn patronis_keys_are_read() {
        let order = read(
            &json!({"restart_pending": true, "role": "replica", "postgres_version": "16.4", "timeout": "1min"}),
        );
        let order = order.unwrap();
        assert!(order.pending && order.wait && !order.is_for_several());
        assert_eq!((order.below_version, order.timeout), (Some(160_004), Some(Duration::from_secs(60))));
        assert_eq!(read(&json!({"postgres_version": 16})).unwrap().below_version, Some(160_000));
    }

    #[test]
    fn the_leader_comes_last() {
        let leader =
            outrider_dcs::Leader { name: "p1".to_owned(), term: 1, revision: 1, lease: 1, mine: true };
        let cluster = Snapshot {
            leader: Some(leader),
            members: ["p1", "p3", "p2"].map(|name| crate::sample::entry(name, json!({}))).into(),
            ..Snapshot::default()
        };
        let names = |request| {
            let members = read(&request).unwrap().members(&cluster, "p3");
            members.map(|members| members.into_iter().map(|member| member.name).collect::<Vec<_>>())
        };
        assert_eq!(names(json!({"cluster": true})).unwrap(), ["p2", "p3", "p1"]);
        assert_eq!(names(json!({"members": ["p1", "p2", "p1"]})).unwrap(), ["p2", "p1"]);
        assert_eq!(names(json!({})).unwrap(), ["p3"]);
        assert!(names(json!({"members": ["p9"]})).unwrap_err().1.contains("p9 is not a member"));
    }
}
