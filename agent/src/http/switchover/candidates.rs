//! Asks the members that could take over whether they are healthy, as Patroni does before it accepts a switchover.

use std::time::Duration;

use outrider_dcs::Member;
use outrider_ha::{Unfit, may_take_over};
use serde_json::Value;
use tokio::task::JoinSet;

use crate::http::Api;
use crate::http::status::Status;
use crate::observe::members;

/// Time limit for one answer. All members are asked at once.
const ANSWER_LIMIT: Duration = Duration::from_secs(2);
/// Maximum size of an answer, in bytes.
const ANSWER_MAX: usize = 1 << 20;

/// The members that could take over, after asking them.
#[derive(Debug, Default)]
pub(super) struct Candidates {
    /// Those that answer, have a running Postgres and may lead, with their status.
    pub(super) fit: Vec<(String, Value)>,
    /// What is wrong with the others, in words.
    pub(super) unfit: Vec<String>,
}

/// Asks all of them.
pub(super) async fn ask(members: &[&Member], me: &str, api: &Api) -> Candidates {
    let mut found = Candidates::default();
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
            let status = Status::now(api).await.document(api);
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

impl Candidates {
    fn note(&mut self, name: String, status: Option<Value>) {
        match (fault(status.as_ref()), status) {
            (Some(fault), _) => self.unfit.push(format!("{name} {fault}")),
            (None, status) => self.fit.extend(status.map(|status| (name, status))),
        }
    }
}

/// What keeps a member with this status from leading; `None` when it is fit.
fn fault(status: Option<&Value>) -> Option<String> {
    let answer = status.and_then(members::answered);
    let of_status = |key: &str| status.and_then(|status| status.get(key));
    let tags = members::tags(of_status("tags").unwrap_or(&Value::Null));
    match may_take_over(tags, answer.as_ref()) {
        // Patroni's members have one.
        Ok(_) if of_status("watchdog_failed") == Some(&Value::Bool(true)) => {
            Some("has a watchdog that failed".to_owned())
        }
        Ok(_) => None,
        Err(Unfit::NoAnswer) => Some("does not answer".to_owned()),
        Err(Unfit::MayNotLead) => Some("may not lead (nofailover, or failover_priority 0)".to_owned()),
        Err(Unfit::NotRunning) => {
            let state = of_status("state").and_then(Value::as_str).unwrap_or("unknown");
            Some(format!("has no Postgres that answers (state: {state})"))
        }
        Err(why) => Some(why.to_string()),
    }
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
        let running = json!({"state": "running", "role": "replica", "xlog": {"location": 1}});
        assert_eq!(fault(Some(&running)), None);
        let with = |key: &str, value: Value| {
            let mut status = running.clone();
            status[key] = value;
            status
        };
        for (status, words) in [
            (json!({"state": "starting"}), "starting"),
            (with("tags", json!({"nofailover": true})), "may not lead"),
            (with("tags", json!({"failover_priority": 0})), "may not lead"),
            (with("watchdog_failed", json!(true)), "watchdog"),
        ] {
            assert!(fault(Some(&status)).unwrap().contains(words), "{status}");
        }
        assert_eq!(fault(None).as_deref(), Some("does not answer"));
    }
}
