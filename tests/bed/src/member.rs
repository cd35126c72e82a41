//! One member: a Postgres with its supervisor and its agent, as three kinds of processes that can be killed, frozen and
//! started again, and its REST API. Waits for nothing by itself.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use serde_json::{Value, json};

use crate::etcd::http_client;
use crate::process::{self, Signal};
use crate::{Guard, Port, finish, last_lines};

/// The password of every user of the bed.
pub const PASSWORD: &str = "a bed's password";

/// For an agent that was told to end.
const END_LIMIT: Duration = Duration::from_secs(10);
/// For an answer of the REST API; a switchover answers when it is done.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);
/// For a command of the program; a backup or a restore takes the longest.
const COMMAND_LIMIT: Duration = Duration::from_secs(300);

/// An answer of the REST API.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The body.
    pub text: String,
    /// `outrider-write-gap-seconds`, when the answer has it.
    pub write_gap: Option<f64>,
}

/// A member on this machine.
#[derive(Debug)]
pub struct Member {
    guard: Arc<Guard>,
    name: String,
    directory: PathBuf,
    postgres: Port,
    rest: Port,
    agent: Mutex<Option<Child>>,
}

impl Member {
    /// Prepares the member: directory, ports, configuration. `settings` are laid over the file's own, key by key.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn prepare(
        guard: &Arc<Guard>,
        name: &str,
        etcd: &[String],
        settings: &Value,
    ) -> anyhow::Result<Self> {
        let directory = guard.make_directory(name)?;
        let member = Member {
            guard: guard.clone(),
            name: name.to_owned(),
            directory,
            postgres: Port::free()?,
            rest: Port::free()?,
            agent: Mutex::new(None),
        };
        let mut file = member.usual(etcd);
        lay_over(&mut file, settings);
        member.write_configuration(&file)?;
        Ok(member)
    }

    fn usual(&self, etcd: &[String]) -> Value {
        let user = |name: &str| json!({"username": name, "password": PASSWORD});
        let rest = format!("127.0.0.1:{}", self.rest.number());
        let postgres = format!("127.0.0.1:{}", self.postgres.number());
        json!({
            "scope": "bed",
            "name": self.name,
            "etcd3": {"hosts": etcd},
            "restapi": {"listen": rest, "connect_address": rest},
            "postgresql": {
                "listen": postgres,
                "connect_address": postgres,
                "data_dir": self.data_directory(),
                "bin_dir": self.guard.programs().postgres,
                "authentication": {
                    "superuser": user("postgres"), "replication": user("replicator"), "rewind": user("rewinder"),
                },
                "pg_hba": ["host all all 127.0.0.1/32 scram-sha-256"],
                "parameters": {"max_connections": 40, "shared_buffers": "16MB"},
            },
            "supervisor": {"socket": self.directory.join("run/supervisor")},
        })
    }

    /// Replaces the configuration file; JSON is YAML.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn write_configuration(&self, file: &Value) -> anyhow::Result<()> {
        let path = self.configuration();
        std::fs::write(&path, serde_json::to_string_pretty(file)?).context("cannot write a member's file")?;
        self.guard.account().own(&path)
    }

    /// Lays settings over those of its file.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn change_configuration(&self, settings: &Value) -> anyhow::Result<()> {
        let text = std::fs::read_to_string(self.configuration()).context("cannot read a member's file")?;
        let mut file: Value = serde_json::from_str(&text)?;
        lay_over(&mut file, settings);
        self.write_configuration(&file)
    }

    /// Removes its data and its agent's state: the disk is lost. Its processes must be gone.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn lose_disk(&self) -> anyhow::Result<()> {
        for path in [self.data_directory(), self.state_directory()] {
            if path.exists() {
                std::fs::remove_dir_all(&path)
                    .with_context(|| format!("cannot remove {}", path.display()))?;
            }
        }
        Ok(())
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its directory.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Its configuration file.
    pub fn configuration(&self) -> PathBuf {
        self.directory.join("member.yml")
    }

    /// Its data directory.
    pub fn data_directory(&self) -> PathBuf {
        self.directory.join("data")
    }

    /// The directory of its agent's state.
    pub fn state_directory(&self) -> PathBuf {
        self.directory.join("data.outrider")
    }

    /// The port of its Postgres.
    pub fn port(&self) -> u16 {
        self.postgres.number()
    }

    /// The address of its REST API.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.rest.number())
    }

    /// Starts its agent, which starts the rest.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn start(&self) -> anyhow::Result<()> {
        self.start_as(self.guard.command(&self.guard.programs().outrider, &self.directory))
    }

    /// The same on a machine of its own as far as these directories go: it finds the first of each pair in the place of the
    /// second. Only root can do that.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn start_with_mounts(&self, mounts: &[(PathBuf, PathBuf)]) -> anyhow::Result<()> {
        self.start_as(self.guard.command_with_mounts(
            &self.guard.programs().outrider,
            &self.directory,
            mounts,
        )?)
    }

    /// As a shell without job control starts what is to run in the background: SIGINT is ignored until the program itself asks for it.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn start_in_the_background(&self) -> anyhow::Result<()> {
        let mut command = self.guard.command(Path::new("/bin/sh"), &self.directory);
        command.args(["-c", "trap '' INT; exec \"$@\"", "sh"]).arg(&self.guard.programs().outrider);
        self.start_as(command)
    }

    fn start_as(&self, mut command: Command) -> anyhow::Result<()> {
        let log = self.directory.join("agent.log");
        let log =
            File::options().create(true).append(true).open(log).context("cannot open an agent's log")?;
        command.arg("agent").arg(self.configuration());
        command.stdout(Stdio::null()).stderr(log);
        self.postgres.release();
        self.rest.release();
        let child = command.spawn().context("cannot start an agent")?;
        *self.agent() = Some(child);
        Ok(())
    }

    /// The agent's process; `None` when none was started, or it was killed.
    pub fn agent_pid(&self) -> Option<i32> {
        self.agent().as_ref().map(|child| child.id().cast_signed())
    }

    /// The supervisor's process.
    pub fn supervisor_pid(&self) -> Option<i32> {
        let data_directory = self.data_directory();
        let guards_it = |pid: &i32| {
            let arguments = process::arguments(*pid);
            arguments.get(1).is_some_and(|verb| verb == "supervise")
                && arguments.iter().any(|argument| Path::new(argument) == data_directory)
                && process::is_alive(*pid)
        };
        process::all().into_iter().find(guards_it)
    }

    /// The postmaster's process.
    pub fn postmaster_pid(&self) -> Option<i32> {
        let file = std::fs::read_to_string(self.data_directory().join("postmaster.pid")).ok()?;
        file.lines().next()?.parse().ok().filter(|pid| process::is_alive(*pid))
    }

    /// SIGKILL to the agent alone.
    pub fn kill_agent(&self) {
        if let Some(mut child) = self.agent().take() {
            // Gone already is as good.
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// SIGTERM (or another) to the agent, and waits until it has ended.
    ///
    /// # Errors
    /// When it does not end in time.
    pub fn end_agent(&self, signal: Signal) -> anyhow::Result<()> {
        let Some(mut child) = self.agent().take() else { return Ok(()) };
        process::send(child.id().cast_signed(), signal);
        for _ in 0..END_LIMIT.as_millis() / 10 {
            if child.try_wait()?.is_some() {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = child.kill();
        anyhow::bail!("the agent of {} did not end within {END_LIMIT:?}", self.name)
    }

    /// Whether the agent that was started still runs; one that has ended by itself is reaped.
    pub fn agent_runs(&self) -> bool {
        self.agent().as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }

    /// SIGSTOP or SIGCONT to the agent alone.
    pub fn signal_agent(&self, signal: Signal) {
        if let Some(pid) = self.agent_pid() {
            process::send(pid, signal);
        }
    }

    /// SIGKILL to the postmaster alone.
    pub fn kill_postmaster(&self) {
        if let Some(pid) = self.postmaster_pid() {
            process::send(pid, Signal::Kill);
        }
    }

    /// SIGSTOP or SIGCONT to every process of Postgres, the postmaster first. Those that it was sent to.
    pub fn signal_postgres(&self, signal: Signal) -> Vec<i32> {
        let pids = self.postmaster_pid().map(process::tree).unwrap_or_default();
        pids.iter().for_each(|pid| process::send(*pid, signal));
        pids
    }

    /// SIGTERM to the supervisor: the container ends.
    pub fn terminate_supervisor(&self) {
        if let Some(pid) = self.supervisor_pid() {
            process::send(pid, Signal::Terminate);
        }
    }

    /// SIGKILL to everything of this member at once.
    pub fn kill_node(&self) {
        for pid in self.node() {
            process::send(pid, Signal::Kill);
        }
        self.kill_agent();
    }

    /// SIGSTOP or SIGCONT to everything of this member.
    pub fn signal_node(&self, signal: Signal) {
        for pid in self.node() {
            process::send(pid, signal);
        }
    }

    /// Every process of this member: agent, supervisor, Postgres.
    fn node(&self) -> Vec<i32> {
        let mut pids = process::postgres_in(&self.data_directory());
        pids.extend(self.supervisor_pid());
        pids.extend(self.agent_pid());
        pids
    }

    /// What the agent has logged so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.directory.join("agent.log")).unwrap_or_default()
    }

    /// `GET /patroni`; `None` when it does not answer.
    pub async fn patroni(&self) -> Option<Value> {
        let answer = self.get("/patroni").await.ok()?;
        serde_json::from_str(&answer.text).ok()
    }

    /// Whether `GET /primary` says that it leads.
    pub async fn leads(&self) -> bool {
        self.get("/primary").await.is_ok_and(|answer| answer.status == 200)
    }

    /// A GET.
    ///
    /// # Errors
    /// When nobody answers.
    pub async fn get(&self, path: &str) -> anyhow::Result<Answer> {
        self.request(reqwest::Method::GET, path, None).await
    }

    /// A POST of JSON.
    ///
    /// # Errors
    /// When nobody answers.
    pub async fn post(&self, path: &str, body: &Value) -> anyhow::Result<Answer> {
        self.request(reqwest::Method::POST, path, Some(body.to_string())).await
    }

    /// Any request with any body.
    ///
    /// # Errors
    /// When nobody answers.
    pub async fn request(
        &self,
        method: reqwest::Method,
        path: &str,
        body: Option<String>,
    ) -> anyhow::Result<Answer> {
        let request = http_client()?.request(method, format!("{}{path}", self.url())).timeout(ANSWER_LIMIT);
        let request = match body {
            Some(body) => request.header("content-type", "application/json").body(body),
            None => request,
        };
        let answer = request.send().await.with_context(|| format!("{} does not answer", self.name))?;
        let write_gap = answer.headers().get("outrider-write-gap-seconds");
        let write_gap = write_gap.and_then(|gap| gap.to_str().ok()?.parse().ok());
        Ok(Answer { status: answer.status().as_u16(), text: answer.text().await?, write_gap })
    }

    /// A command of the program about this member, such as `outrider list -c FILE`.
    ///
    /// # Errors
    /// When it cannot be run or does not end.
    pub fn outrider(&self, arguments: &[&str]) -> anyhow::Result<std::process::Output> {
        let mut command = self.guard.command(&self.guard.programs().outrider, &self.directory);
        command.args(arguments).env("OUTRIDER_CONFIG", self.configuration());
        finish(&mut command, COMMAND_LIMIT)
            .with_context(|| format!("its agent logged last:\n{}", last_lines(&self.log())))
    }

    fn agent(&self) -> std::sync::MutexGuard<'_, Option<Child>> {
        self.agent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Lays the values of `over` over `under`, object by object.
pub fn lay_over(under: &mut Value, over: &Value) {
    match (under, over) {
        (Value::Object(under), Value::Object(over)) => {
            for (key, value) in over {
                lay_over(under.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
        (under, over) => *under = over.clone(),
    }
}
