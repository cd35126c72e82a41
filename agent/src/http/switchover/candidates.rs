//! Asks the members that could take over whether they are healthy, as Patroni does before it accepts a switchover.

use std::time::Duration;

use outrider_dcs::Member;
use serde_json::Value;
use tokio::task::JoinSet;

use crate::config::policy_tags;
use crate::http::Visitors;
use crate::http::status::Status;

/// Time limit for one answer. All members are asked at once.
const ANSWER_LIMIT: Duration = Duration::from_secs(2);
/// Maximum size of an answer, in bytes.
const ANSWER_MAX: usize = 1 << 20;

/// The members that could take over, after asking them.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Those that answer, have a running Postgres and may lead, with their status.
    pub(super) fit: Vec<(String, Value)>,
    /// What is wrong with the others, in words.
    pub(super) unfit: Vec<String>,
}

/// Asks all of them.
pub(super) async fn ask(members: &[&Member], me: &str, visitors: &Visitors) -> Found {
    let mut found = Found::default();
    let client = match reqwest::Client::builder().timeout(ANSWER_LIMIT).no_proxy().build() {
        Ok(client) => client,
        Err(fault) => {
            found.unfit.push(fault.to_string());
            return found;
        }
    };
    let mut asked = JoinSet::new();
    for member in members {
        let name = member.name.clone();
        if name == me {
            let status = Status::now(visitors).await.document(visitors);
            found.note(name, Some(status));
        } else {
            let (client, url) = (client.clone(), member.api_url().map(str::to_owned));
            asked.spawn(async move {
                match url {
                    Some(url) => (name, status(client, url).await),
                    None => (name, None),
                }
            });
        }
    }
    while let Some(answer) = asked.join_next().await {
        if let Ok((name, status)) = answer {
            found.note(name, status);
        }
    }
    found
}

impl Found {
    fn note(&mut self, name: String, status: Option<Value>) {
        match status.as_ref().map(fault) {
            None => self.unfit.push(format!("{name} does not answer")),
            Some(Some(fault)) => self.unfit.push(format!("{name} {fault}")),
            Some(None) => self.fit.extend(status.map(|status| (name, status))),
        }
    }
}

/// What keeps a member with this status from leading. Without positions its Postgres did not answer.
fn fault(status: &Value) -> Option<String> {
    let answers = status.get("xlog").or_else(|| status.get("wal")).is_some();
    let failed = status.get("watchdog_failed") == Some(&Value::Bool(true));
    let tags = status.get("tags").and_then(Value::as_object).cloned().unwrap_or_default();
    if !policy_tags(&tags).may_lead() {
        return Some("may not lead (nofailover, or failover_priority 0)".to_owned());
    }
    if failed {
        return Some("has a watchdog that failed".to_owned());
    }
    let state = status.get("state").and_then(Value::as_str).unwrap_or("unknown");
    (!answers).then(|| format!("has no Postgres that answers (state: {state})"))
}

async fn status(client: reqwest::Client, url: String) -> Option<Value> {
    let mut response = client.get(url).send().await.ok()?;
    let mut body = Vec::new();
    while let Some(part) = response.chunk().await.ok()? {
        if body.len() + part.len() > ANSWER_MAX {
            return None;
        }
        body.extend_from_slice(&part);
    }
    serde_json::from_slice(&body).ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_member_without_positions_or_with_nofailover_is_not_fit() {
        assert_eq!(fault(&json!({"xlog": {"location": 1}})), None);
        for (status, words) in [
            (json!({"state": "starting"}), "starting"),
            (json!({"xlog": {}, "tags": {"nofailover": true}}), "may not lead"),
            (json!({"xlog": {}, "tags": {"failover_priority": 0}}), "may not lead"),
            (json!({"xlog": {}, "watchdog_failed": true}), "watchdog"),
        ] {
            assert!(fault(&status).unwrap().contains(words), "{status}");
        }
    }
}
