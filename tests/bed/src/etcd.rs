//! Real etcd processes, one or three, that can be killed, frozen and started again. Says nothing about Patroni's keys.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use anyhow::{Context as _, bail};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};

use crate::process::{self, Signal};
use crate::{Guard, Port, wait_until};

const START_LIMIT: Duration = Duration::from_secs(20);

/// The members of one etcd cluster. They die with the [`Guard`] that they were started under.
#[derive(Debug)]
pub struct Etcd {
    members: Vec<Node>,
    http: reqwest::Client,
}

#[derive(Debug)]
struct Node {
    name: String,
    client: Port,
    peer: Port,
    directory: PathBuf,
    child: Mutex<Option<Child>>,
}

impl Etcd {
    /// Starts `count` members and waits until each answers.
    ///
    /// # Errors
    /// When they do not start.
    pub async fn start(guard: &Guard, count: usize) -> anyhow::Result<Self> {
        Self::prepare(guard, count)?.started(guard).await
    }

    /// Starts another one of one member beside the first, and waits until it answers.
    ///
    /// # Errors
    /// When it does not start.
    pub async fn start_another(guard: &Guard) -> anyhow::Result<Self> {
        Self::prepare_as(guard, "other-etcd", 1)?.started(guard).await
    }

    async fn started(self, guard: &Guard) -> anyhow::Result<Self> {
        for index in 0..self.len() {
            self.start_member(guard, index)?;
        }
        self.wait_ready().await?;
        Ok(self)
    }

    /// Chooses ports and directories; nothing runs yet.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn prepare(guard: &Guard, count: usize) -> anyhow::Result<Self> {
        Self::prepare_as(guard, "etcd", count)
    }

    fn prepare_as(guard: &Guard, prefix: &str, count: usize) -> anyhow::Result<Self> {
        let node = |index: usize| {
            let name = format!("{prefix}{}", index + 1);
            let directory = guard.make_directory(&name)?;
            anyhow::Ok(Node {
                name,
                client: Port::free()?,
                peer: Port::free()?,
                directory,
                child: Mutex::new(None),
            })
        };
        let members = (0..count).map(node).collect::<Result<_, _>>()?;
        Ok(Etcd { members, http: http_client()? })
    }

    /// Starts one member, for the first time or again on its data; does not wait.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start_member(&self, guard: &Guard, index: usize) -> anyhow::Result<()> {
        let node = self.members.get(index).context("no such member of etcd")?;
        let url = |port: &Port| format!("http://127.0.0.1:{}", port.number());
        let everyone = self.members.iter().map(|node| format!("{}={}", node.name, url(&node.peer)));
        let everyone = everyone.collect::<Vec<_>>().join(",");
        let log = File::options().create(true).append(true).open(node.directory.join("log"))?;
        let mut command = guard.command(&guard.programs().etcd, &node.directory);
        command.args([
            "--name",
            &node.name,
            "--data-dir",
            "data",
            "--logger",
            "zap",
            "--log-outputs",
            "stderr",
        ]);
        command.args([
            "--listen-peer-urls",
            &url(&node.peer),
            "--initial-advertise-peer-urls",
            &url(&node.peer),
        ]);
        command.args([
            "--listen-client-urls",
            &url(&node.client),
            "--advertise-client-urls",
            &url(&node.client),
        ]);
        command.args(["--initial-cluster", &everyone]).stdout(Stdio::null()).stderr(log);
        node.client.release();
        node.peer.release();
        *node.child() = Some(command.spawn().context("cannot start etcd")?);
        Ok(())
    }

    /// Waits until every member answers that it is healthy.
    ///
    /// # Errors
    /// When one does not.
    pub async fn wait_ready(&self) -> anyhow::Result<()> {
        for (index, node) in self.members.iter().enumerate() {
            let log = node.directory.join("log");
            let what = format!("etcd answers (log: {})", log.display());
            wait_until(what, START_LIMIT, async || self.is_healthy(index).await.then_some(())).await?;
        }
        Ok(())
    }

    async fn is_healthy(&self, index: usize) -> bool {
        let Ok(answer) = self.http.get(format!("http://{}/health", self.hosts()[index])).send().await else {
            return false;
        };
        answer.status().is_success()
    }

    /// `host:port` of every member.
    pub fn hosts(&self) -> Vec<String> {
        self.members.iter().map(|node| format!("127.0.0.1:{}", node.client.number())).collect()
    }

    /// The number of members.
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// SIGKILL to one member; it is gone on return.
    pub fn kill(&self, index: usize) {
        if let Some(mut child) = self.members[index].child().take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// SIGSTOP to one member: it keeps its connections and answers nothing.
    pub fn freeze(&self, index: usize) {
        self.signal(index, Signal::Stop);
    }

    /// SIGCONT to one member.
    pub fn thaw(&self, index: usize) {
        self.signal(index, Signal::Continue);
    }

    /// Copies the data of a member that was killed to a directory beside it, for [`Etcd::restore`].
    ///
    /// # Errors
    /// When the system refuses.
    pub fn copy(&self, guard: &Guard, index: usize) -> anyhow::Result<()> {
        let directory = &self.members[index].directory;
        copy_tree(guard, &directory.join("data"), &directory.join("copy"))
    }

    /// Puts the copy in the place of the data of a member that was killed.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn restore(&self, guard: &Guard, index: usize) -> anyhow::Result<()> {
        self.wipe(index)?;
        let directory = &self.members[index].directory;
        copy_tree(guard, &directory.join("copy"), &directory.join("data"))
    }

    /// Removes the data of a member that was killed.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn wipe(&self, index: usize) -> anyhow::Result<()> {
        std::fs::remove_dir_all(self.members[index].directory.join("data")).context("cannot wipe etcd's data")
    }

    /// Which member leads etcd's own consensus.
    ///
    /// # Errors
    /// When none says so.
    pub async fn raft_leader(&self) -> anyhow::Result<usize> {
        for index in 0..self.len() {
            let status = self.call(index, "maintenance/status", json!({})).await?;
            if status["leader"].is_string() && status["leader"] == status["header"]["member_id"] {
                return Ok(index);
            }
        }
        bail!("no member of etcd leads")
    }

    /// The value of a key; `None` when it is absent.
    ///
    /// # Errors
    /// When no member answers.
    pub async fn get(&self, key: &str) -> anyhow::Result<Option<String>> {
        let answer = self.call_any("kv/range", json!({ "key": BASE64_STANDARD.encode(key) })).await?;
        let Some(value) = answer["kvs"][0]["value"].as_str() else {
            return Ok(answer["kvs"][0]["key"].is_string().then(String::new));
        };
        Ok(Some(String::from_utf8(BASE64_STANDARD.decode(value)?)?))
    }

    /// Writes a key, past everybody.
    ///
    /// # Errors
    /// When no member answers.
    pub async fn put(&self, key: &str, value: &str) -> anyhow::Result<()> {
        let body = json!({ "key": BASE64_STANDARD.encode(key), "value": BASE64_STANDARD.encode(value) });
        self.call_any("kv/put", body).await.map(drop)
    }

    /// Deletes every key that begins with `prefix`, as if the store had been lost and made anew.
    ///
    /// # Errors
    /// When no member answers.
    pub async fn delete_all(&self, prefix: &str) -> anyhow::Result<()> {
        let mut end = prefix.as_bytes().to_vec();
        if let Some(last) = end.last_mut() {
            *last += 1;
        }
        let body = json!({ "key": BASE64_STANDARD.encode(prefix), "range_end": BASE64_STANDARD.encode(end) });
        self.call_any("kv/deleterange", body).await.map(drop)
    }

    async fn call_any(&self, path: &str, body: Value) -> anyhow::Result<Value> {
        let mut last = anyhow::anyhow!("etcd has no members");
        for index in 0..self.len() {
            match self.call(index, path, body.clone()).await {
                Ok(answer) => return Ok(answer),
                Err(fault) => last = fault,
            }
        }
        Err(last)
    }

    async fn call(&self, index: usize, path: &str, body: Value) -> anyhow::Result<Value> {
        let url = format!("http://{}/v3/{path}", self.hosts()[index]);
        let answer = self.http.post(&url).json(&body).send().await?.error_for_status()?;
        Ok(answer.json().await?)
    }

    fn signal(&self, index: usize, signal: Signal) {
        if let Some(child) = self.members[index].child().as_ref() {
            process::send(child.id().cast_signed(), signal);
        }
    }
}

fn copy_tree(guard: &Guard, from: &Path, to: &Path) -> anyhow::Result<()> {
    guard.account().make_directory(to)?;
    for entry in std::fs::read_dir(from).with_context(|| format!("cannot read {}", from.display()))? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_tree(guard, &entry.path(), &target)?;
        } else {
            std::fs::copy(entry.path(), &target)?;
            guard.account().own(&target)?;
        }
    }
    Ok(())
}

impl Node {
    fn child(&self) -> std::sync::MutexGuard<'_, Option<Child>> {
        self.child.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// A client for local servers: one that does not answer within 2 s does not answer.
pub(crate) fn http_client() -> anyhow::Result<reqwest::Client> {
    http_client_builder().build().context("cannot make an HTTP client")
}

/// The same, to be given an authority.
pub(crate) fn http_client_builder() -> reqwest::ClientBuilder {
    // There is one provider in the program; whoever comes second finds it there.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let limit = Duration::from_secs(2);
    reqwest::Client::builder().no_proxy().timeout(limit)
}
