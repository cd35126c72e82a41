//! A command's connection to a member's REST API: which member, with which password, and what it means when it does not
//! answer.

use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use clap::Args;
use reqwest::{Client, Method, StatusCode};
use serde_json::Value;

use super::exit::{self, Refusal};
use crate::config::{Config, Rest};

/// Time limit for reading.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);
/// Time limit for a switchover: the member answers when the outcome is known.
const OUTCOME_LIMIT: Duration = Duration::from_secs(120);
/// Maximum size of an answer, in bytes.
const ANSWER_MAX: usize = 4 << 20;

/// Which member to ask. Any member of the cluster will do.
#[derive(Args)]
pub(super) struct MemberOptions {
    /// The configuration file of a member: its restapi says where to ask, and with which password
    #[arg(short, long, value_name = "FILE", env = "OUTRIDER_CONFIG")]
    pub(super) config: Option<PathBuf>,
    /// The REST API of a member instead, such as http://10.0.0.1:8008
    #[arg(long, value_name = "URL", conflicts_with = "config")]
    url: Option<String>,
}

/// A member reached over HTTP.
pub(super) struct Member {
    client: Client,
    /// Through the member's own socket, when it is on this machine and lets us in.
    local: Option<Client>,
    base: String,
    credentials: Option<(String, String)>,
}

/// What a member answered.
pub(super) struct Answer {
    /// The HTTP status.
    pub(super) status: StatusCode,
    /// A line of text, or JSON.
    pub(super) body: String,
    /// The write gap in seconds; only after a switchover.
    pub(super) write_gap: Option<String>,
}

impl Member {
    /// The member that the command line names.
    pub(super) fn of(options: MemberOptions) -> Result<Self, Refusal> {
        match (options.url, options.config) {
            (Some(url), _) => Member::at(&url, None),
            (None, Some(file)) => Member::configured(&exit::load(&file)?),
            (None, None) => Err(Refusal::Usage(
                "which cluster? Give the configuration file of a member with -c FILE or in OUTRIDER_CONFIG, or its REST \
                 API with --url http://host:8008"
                    .to_owned(),
            )),
        }
    }

    /// The member with this configuration.
    pub(super) fn configured(config: &Config) -> Result<Self, Refusal> {
        let rest = &config.rest;
        let password = rest.password.as_ref().map(|password| password.expose().to_owned());
        let mut member =
            Member::at(&format!("http://{}", rest.connect_address), rest.username.clone().zip(password))?;
        member.local = local(&Rest::socket(&config.postgres.state_directory))?;
        Ok(member)
    }

    fn at(url: &str, credentials: Option<(String, String)>) -> Result<Self, Refusal> {
        let url = if url.contains("://") { url.to_owned() } else { format!("http://{url}") };
        let parsed = reqwest::Url::parse(&url)
            .map_err(|fault| Refusal::Usage(format!("{url} is not the URL of a REST API: {fault}")))?;
        if parsed.host_str().is_none() || !matches!(parsed.scheme(), "http" | "https") {
            return Err(Refusal::Usage(format!(
                "{url} is not the URL of a REST API: expected http://host:8008"
            )));
        }
        let client = Client::builder().no_proxy().build().context("cannot set up the HTTP client")?;
        Ok(Member {
            client,
            local: None,
            base: parsed.origin().ascii_serialization(),
            credentials: credentials.or_else(|| of_url(&parsed)),
        })
    }

    /// Another member of the same cluster, with the same password.
    pub(super) fn other(&self, api_url: &str) -> anyhow::Result<Self> {
        let url = reqwest::Url::parse(api_url)
            .with_context(|| format!("{api_url} is not the URL of a REST API"))?;
        let base = url.origin().ascii_serialization();
        Ok(Member { client: self.client.clone(), local: None, base, credentials: self.credentials.clone() })
    }

    /// `GET` of JSON.
    pub(super) async fn get(&self, path: &str) -> anyhow::Result<Value> {
        let answer = self.ask(Method::GET, path, None, ANSWER_LIMIT).await?;
        if !answer.status.is_success() {
            bail!("{}{path} answers {}: {}", self.base, answer.status.as_u16(), answer.body.trim());
        }
        serde_json::from_str(&answer.body)
            .with_context(|| format!("{}{path} does not answer with JSON", self.base))
    }

    /// `POST`, answered when the outcome is known.
    pub(super) async fn post(&self, path: &str, body: &Value) -> anyhow::Result<Answer> {
        self.ask(Method::POST, path, Some(body), OUTCOME_LIMIT).await
    }

    /// The same, when the member may wait this long before it begins.
    pub(super) async fn post_within(
        &self,
        path: &str,
        body: &Value,
        wait: Duration,
    ) -> anyhow::Result<Answer> {
        self.ask(Method::POST, path, Some(body), OUTCOME_LIMIT + wait).await
    }

    /// `DELETE`.
    pub(super) async fn delete(&self, path: &str) -> anyhow::Result<Answer> {
        self.ask(Method::DELETE, path, None, ANSWER_LIMIT).await
    }

    async fn ask(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        limit: Duration,
    ) -> anyhow::Result<Answer> {
        let url = format!("{}{path}", self.base);
        let client = self.local.as_ref().unwrap_or(&self.client);
        let mut request = client.request(method, &url).timeout(limit);
        if let Some((username, password)) = &self.credentials {
            request = request.basic_auth(username, Some(password));
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        let no_answer =
            || format!("cannot ask the member at {url}; is its agent running, and reachable from here?");
        let mut response =
            request.send().await.map_err(reqwest::Error::without_url).with_context(no_answer)?;
        let gap = response.headers().get("outrider-write-gap-seconds").and_then(|gap| gap.to_str().ok());
        let write_gap = gap.map(str::to_owned);
        let mut bytes = Vec::new();
        while let Some(part) =
            response.chunk().await.map_err(reqwest::Error::without_url).with_context(no_answer)?
        {
            if bytes.len() + part.len() > ANSWER_MAX {
                return Err(anyhow!("{url} answers with more than {ANSWER_MAX} bytes"));
            }
            bytes.extend_from_slice(&part);
        }
        let body = String::from_utf8_lossy(&bytes).into_owned();
        Ok(Answer { status: response.status(), body, write_gap })
    }
}

/// A connection through the member's own socket; `None` when nothing answers there or we may not use it.
fn local(socket: &Path) -> anyhow::Result<Option<Client>> {
    if UnixStream::connect(socket).is_err() {
        return Ok(None);
    }
    let client = Client::builder().no_proxy().unix_socket(socket).build();
    Ok(Some(client.context("cannot set up the HTTP client")?))
}

/// `http://name:password@host`.
fn of_url(url: &reqwest::Url) -> Option<(String, String)> {
    (!url.username().is_empty())
        .then(|| (url.username().to_owned(), url.password().unwrap_or_default().to_owned()))
}
