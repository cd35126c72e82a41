//! Asks the members that could take over whether they are well, as Patroni does before it accepts a switchover.

use std::time::Duration;

use outrider_dcs::Member;
use serde_json::Value;
use tokio::task::JoinSet;

use crate::config::policy_tags;
use crate::http::Visitors;
use crate::http::status::Status;

/// For one answer. All are asked at once.
const ANSWER_LIMIT: Duration = Duration::from_secs(2);
/// The longest answer that is read, in bytes.
const ANSWER_MAX: usize = 1 << 20;

/// Whether one of them answers, has a running Postgres and may lead.
pub(super) async fn any_fit(members: &[&Member], me: &str, visitors: &Visitors) -> bool {
    let Ok(client) = reqwest::Client::builder().timeout(ANSWER_LIMIT).no_proxy().build() else {
        return false;
    };
    let mut asked = JoinSet::new();
    for member in members {
        if member.name == me {
            let status = Status::now(visitors).await.document(visitors);
            if is_fit(&status) {
                return true;
            }
        } else if let Some(url) = member.api_url() {
            asked.spawn(status(client.clone(), url.to_owned()));
        }
    }
    while let Some(answer) = asked.join_next().await {
        if answer.ok().flatten().is_some_and(|status| is_fit(&status)) {
            return true;
        }
    }
    false
}

/// Without positions its Postgres did not answer.
fn is_fit(status: &Value) -> bool {
    let answers = status.get("xlog").or_else(|| status.get("wal")).is_some();
    let failed = status.get("watchdog_failed") == Some(&Value::Bool(true));
    let tags = status.get("tags").and_then(Value::as_object).cloned().unwrap_or_default();
    answers && !failed && policy_tags(&tags).may_lead()
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
        assert!(is_fit(&json!({"xlog": {"location": 1}})));
        assert!(!is_fit(&json!({"state": "starting"})));
        assert!(!is_fit(&json!({"xlog": {}, "tags": {"nofailover": true}})));
        assert!(!is_fit(&json!({"xlog": {}, "tags": {"failover_priority": 0}})));
        assert!(!is_fit(&json!({"xlog": {}, "watchdog_failed": true})));
    }
}
