//! Asks other members for their state (`GET /patroni`), all at once, each with a deadline. Does not read the answers.

use std::time::Duration;

use outrider_ha::{MemberName, Patience};
use serde_json::Value;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tracing::debug;

/// Time limit for connecting: a dead host does not refuse a connection, it swallows it.
const CONNECT_LIMIT: Duration = Duration::from_millis(300);
/// Time limit for an answer that the decision needs.
const PATIENT_LIMIT: Duration = Duration::from_secs(1);
/// Time limit for an answer that is only useful.
const BRIEF_LIMIT: Duration = Duration::from_millis(300);
/// Maximum size of an answer, in bytes.
const ANSWER_MAX: usize = 1 << 20;

/// The client for the other members.
#[derive(Clone)]
pub(crate) struct Peers {
    client: reqwest::Client,
}

impl Peers {
    /// A client that keeps its connections open.
    ///
    /// # Errors
    /// When TLS cannot be set up.
    pub(crate) fn new() -> Result<Self, reqwest::Error> {
        let client = reqwest::Client::builder()
            .connect_timeout(CONNECT_LIMIT)
            .timeout(PATIENT_LIMIT)
            .pool_idle_timeout(Duration::from_secs(30))
            .no_proxy()
            .build()?;
        Ok(Peers { client })
    }

    /// Whether the member whose API is at `api_url` says that it is the primary with the lease.
    pub(crate) async fn leads(&self, api_url: &str) -> bool {
        let url = api_url.trim_end_matches("/patroni");
        let asked = self.client.get(format!("{url}/primary")).timeout(BRIEF_LIMIT).send().await;
        asked.is_ok_and(|answer| answer.status().is_success())
    }

    /// The answers of all these; `None` where there is none, as where nobody knows the address of the API. Takes as long as the
    /// slowest of them, at most a second.
    pub(crate) async fn ask(
        &self,
        whom: Vec<(MemberName, Option<String>, Patience)>,
    ) -> Vec<(MemberName, Option<Value>)> {
        let mut asked = JoinSet::new();
        for (name, url, patience) in whom {
            let limit = match patience {
                Patience::Patient => PATIENT_LIMIT,
                Patience::Brief => BRIEF_LIMIT,
            };
            let client = self.client.clone();
            asked.spawn(async move {
                let status = match url {
                    Some(url) => timeout(limit, status(&client, &url)).await.ok().flatten(),
                    None => None,
                };
                (name, status)
            });
        }
        let mut answers = Vec::new();
        while let Some(Ok(answer)) = asked.join_next().await {
            answers.push(answer);
        }
        answers
    }
}

async fn status(client: &reqwest::Client, url: &str) -> Option<Value> {
    match read(client, url).await {
        Ok(status) => status,
        Err(fault) => {
            debug!(url, %fault, "a member does not answer");
            None
        }
    }
}

async fn read(client: &reqwest::Client, url: &str) -> Result<Option<Value>, reqwest::Error> {
    let mut response = client.get(url).send().await?;
    let mut body = Vec::new();
    while let Some(part) = response.chunk().await? {
        if body.len() + part.len() > ANSWER_MAX {
            return Ok(None);
        }
        body.extend_from_slice(&part);
    }
    Ok(serde_json::from_slice(&body).ok())
}
