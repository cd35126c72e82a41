//! Real etcd processes in a directory of their own. They die with the test: on drop, and by the kernel if the test is
//! killed.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use etcd_client::{Client, ConnectOptions};
use outrider_bed::process::{self, Signal};
use tempfile::TempDir;
use tokio::time::{Instant, sleep, timeout};

use super::PATIENCE;

pub(crate) struct EtcdCluster {
    directory: TempDir,
    scheme: &'static str,
    extra: Vec<String>,
    ports: Vec<(u16, u16)>,
    members: Vec<Option<Child>>,
}

impl EtcdCluster {
    /// `count` members that serve plain HTTP, each with the `extra` arguments.
    pub(crate) async fn start(count: usize, extra: &[&str]) -> Self {
        // A free port may be taken before etcd binds it: then start over with others.
        for _ in 0..5 {
            let mut cluster = Self::launch(count, "http", extra);
            if cluster.serves().await {
                return cluster;
            }
        }
        panic!("etcd did not start; is Debian's etcd-server installed?");
    }

    /// One member that serves TLS only. Whether it serves is for the test to find out.
    pub(crate) fn launch_with_tls(extra: &[&str]) -> Self {
        Self::launch(1, "https", extra)
    }

    fn launch(count: usize, scheme: &'static str, extra: &[&str]) -> Self {
        let ports = (0..count).map(|_| (free_port(), free_port())).collect();
        let extra = extra.iter().map(|argument| (*argument).to_owned()).collect();
        let directory = tempfile::tempdir().unwrap();
        let mut cluster = EtcdCluster { directory, scheme, extra, ports, members: Vec::new() };
        for index in 0..count {
            let member = cluster.spawn(index);
            cluster.members.push(Some(member));
        }
        cluster
    }

    fn spawn(&self, index: usize) -> Child {
        let name = |index: usize| format!("m{index}");
        let peer = |index: usize| format!("http://127.0.0.1:{}", self.ports[index].1);
        let everyone = (0..self.ports.len()).map(|index| format!("{}={}", name(index), peer(index)));
        let everyone = everyone.collect::<Vec<_>>().join(",");
        let data = self.directory.path().join(name(index));
        let log =
            std::fs::File::options().create(true).append(true).open(data.with_extension("log")).unwrap();
        // setpriv becomes etcd, so that the pid is etcd's and the kernel kills it with the thread that started it.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--", "etcd", "--name", &name(index), "--data-dir"]).arg(&data);
        command.args(["--listen-peer-urls", &peer(index), "--initial-advertise-peer-urls", &peer(index)]);
        command.args(["--listen-client-urls", &self.url(index), "--advertise-client-urls", &self.url(index)]);
        command.args(["--initial-cluster", &everyone, "--logger", "zap", "--log-outputs", "stderr"]);
        command.args(&self.extra).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        command.spawn().expect("setpriv is part of util-linux")
    }

    async fn serves(&mut self) -> bool {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if self.members.iter_mut().flatten().any(|member| member.try_wait().unwrap().is_some()) {
                return false;
            }
            let mut answering = 0;
            for index in 0..self.ports.len() {
                answering += usize::from(self.answers(index).await);
            }
            if answering == self.ports.len() {
                return true;
            }
            sleep(Duration::from_millis(20)).await;
        }
        false
    }

    /// Whether this member answers a linearizable read.
    async fn answers(&self, index: usize) -> bool {
        let look = async { Client::connect([self.url(index)], None).await?.get("x", None).await };
        matches!(timeout(Duration::from_secs(1), look).await, Ok(Ok(_)))
    }

    pub(crate) fn url(&self, index: usize) -> String {
        format!("{}://127.0.0.1:{}", self.scheme, self.ports[index].0)
    }

    pub(crate) fn port(&self, index: usize) -> u16 {
        self.ports[index].0
    }

    pub(crate) fn urls(&self) -> Vec<String> {
        (0..self.ports.len()).map(|index| self.url(index)).collect()
    }

    /// A client past the DCS, to any member.
    pub(crate) async fn client(&self) -> Client {
        let options = ConnectOptions::new().with_timeout(Duration::from_secs(10));
        Client::connect(self.urls(), Some(options)).await.unwrap()
    }

    /// The member that leads etcd's own consensus.
    pub(crate) async fn raft_leader(&self) -> usize {
        for index in 0..self.ports.len() {
            let mut client = Client::connect([self.url(index)], None).await.unwrap();
            let status = client.status().await.unwrap();
            if status.leader() == status.header().unwrap().member_id() {
                return index;
            }
        }
        panic!("no etcd member leads");
    }

    /// SIGKILL, and wait until it is gone.
    pub(crate) fn kill(&mut self, index: usize) {
        if let Some(mut member) = self.members[index].take() {
            member.kill().unwrap();
            member.wait().unwrap();
        }
    }

    /// Starts a killed member again on its data.
    pub(crate) async fn restart(&mut self, index: usize) {
        self.members[index] = Some(self.spawn(index));
        assert!(self.serves().await, "etcd did not come back");
    }

    /// As [`EtcdCluster::restart`], without waiting until it serves.
    pub(crate) fn respawn(&mut self, index: usize) {
        self.members[index] = Some(self.spawn(index));
    }

    /// SIGSTOP: it keeps its connections and answers nothing.
    pub(crate) fn freeze(&self, index: usize) {
        self.signal(index, Signal::Stop);
    }

    pub(crate) fn thaw(&self, index: usize) {
        self.signal(index, Signal::Continue);
    }

    fn signal(&self, index: usize, signal: Signal) {
        let pid = self.members[index].as_ref().expect("the test has not killed it").id();
        process::send(pid.cast_signed(), signal);
    }
}

impl Drop for EtcdCluster {
    fn drop(&mut self) {
        for index in 0..self.members.len() {
            self.kill(index);
        }
        if std::thread::panicking() {
            for index in 0..self.ports.len() {
                let log = std::fs::read_to_string(self.directory.path().join(format!("m{index}.log")));
                let log = log.unwrap_or_default();
                let tail: Vec<&str> = log.lines().rev().take(5).collect();
                eprintln!("end of the log of etcd member {index}, last line first:\n{}", tail.join("\n"));
            }
        }
    }
}

fn free_port() -> u16 {
    TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port()
}
