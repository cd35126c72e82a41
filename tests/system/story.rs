//! What most tests have in common: a cluster, a writer that never stops, somebody who watches for two primaries, and the
//! final count.

use std::collections::BTreeSet;
use std::time::Duration;

use outrider_bed::{Builder, Cluster, Member, Options, Oracle, Watcher, wait_until};
use serde_json::Value;

/// For something that should happen within a few rounds.
pub(crate) const LIMIT: Duration = Duration::from_secs(40);

/// A cluster with a writer at work.
pub(crate) struct Story {
    pub(crate) cluster: Cluster,
    pub(crate) oracle: Oracle,
    watcher: Watcher,
}

impl Story {
    /// Starts all of it, and waits until a standby is recorded as synchronous.
    pub(crate) async fn begin(builder: Builder) -> Self {
        let story = Self::begin_asynchronous(builder).await;
        story.cluster.wait_until_synchronous().await.unwrap();
        story
    }

    /// The same for a cluster in asynchronous mode.
    pub(crate) async fn begin_asynchronous(builder: Builder) -> Self {
        Self::of(builder.start().await.unwrap()).await
    }

    /// The same for a cluster that runs already.
    pub(crate) async fn of(cluster: Cluster) -> Self {
        let oracle = Oracle::start(cluster.endpoints(), Options::default()).await.unwrap();
        let watcher = Watcher::start(cluster.endpoints());
        Story { cluster, oracle, watcher }
    }

    /// The member that leads now.
    pub(crate) async fn leader(&self) -> &Member {
        self.cluster.wait_for_leader().await.unwrap()
    }

    /// The leader and its synchronous standby, and the one of three that may lack commits.
    pub(crate) async fn who_has_all(&self) -> (Vec<&Member>, &Member) {
        let leader = self.leader().await;
        let synchronous = self.cluster.wait_until_synchronous().await.unwrap();
        let (have_all, lacking): (Vec<&Member>, Vec<&Member>) =
            self.cluster.members.iter().partition(|member| {
                member.name() == leader.name() || synchronous.contains(&member.name().to_owned())
            });
        let [lacking] = lacking[..] else { panic!("one of three is not synchronous: {synchronous:?}") };
        (have_all, lacking)
    }

    /// Writes go on: this many more commits.
    pub(crate) async fn writes(&self, commits: usize) {
        self.oracle.wait_for_commits(commits).await.unwrap();
    }

    /// Waits until everybody streams and writes go on; then nothing may be lost, and never were there two primaries.
    pub(crate) async fn end(self) {
        self.cluster.wait_until_whole().await.unwrap();
        self.writes(50).await;
        let overlaps = self.watcher.overlaps();
        let verdict = self.oracle.finish().await.unwrap();
        assert!(verdict.is_good(), "{verdict:?}");
        assert!(overlaps.is_empty(), "two writable primaries: {overlaps:?}");
    }

    /// The same where commits may be lost, but never may there be two primaries.
    pub(crate) async fn end_with_losses(self) {
        self.end_keeping(&BTreeSet::new()).await;
    }

    /// The same where commits may be lost, but none of these.
    pub(crate) async fn end_keeping(self, safe: &BTreeSet<i64>) {
        self.cluster
            .wait_until_whole()
            .await
            .unwrap_or_else(|fault| panic!("{fault}; {}", logs(&self.cluster)));
        self.writes(50).await;
        let overlaps = self.watcher.overlaps();
        let verdict = self.oracle.finish().await.unwrap();
        assert!(verdict.doubled.is_empty() && verdict.risen.is_empty(), "{verdict:?}");
        let lost: Vec<&i64> = verdict.lost.iter().filter(|serial| safe.contains(serial)).collect();
        assert!(lost.is_empty(), "{lost:?} are lost; the logs: {}", logs(&self.cluster));
        assert!(overlaps.is_empty(), "two writable primaries: {overlaps:?}");
    }
}

/// Waits until the agent has logged this.
pub(crate) async fn logged(member: &Member, text: &str) {
    let there = async || member.log().contains(text).then_some(());
    let outcome = wait_until(format!("{} logs {text:?}", member.name()), LIMIT, there).await;
    assert!(outcome.is_ok(), "{outcome:?}; its log: {}", member.log());
}

/// Whether the supervisor of a member killed its Postgres because the fuse blew; it says so in the log beside Postgres' lines.
pub(crate) fn was_fenced(member: &Member) -> bool {
    let log = std::fs::read_to_string(member.state_directory().join("postgres.log")).unwrap();
    assert!(log.contains("outrider supervise: started"), "the supervisor logs elsewhere: {log}");
    log.contains("fencing postmaster")
}

/// The timeline of a member, from its REST API.
pub(crate) async fn timeline(member: &Member) -> u64 {
    let known = async || member.patroni().await?["timeline"].as_u64();
    wait_until(format!("{} tells its timeline", member.name()), LIMIT, known).await.unwrap()
}

/// The logs of all members, for the words of a test that failed.
pub(crate) fn logs(cluster: &Cluster) -> String {
    cluster.members.iter().map(|member| format!("== {} ==\n{}\n", member.name(), member.log())).collect()
}

/// The three records of a kind of work (`/backup`, `/rollback`), as any member tells them.
pub(crate) async fn records(cluster: &Cluster, path: &str) -> Option<Value> {
    for member in &cluster.members {
        if let Ok(answer) = member.get(path).await
            && answer.status == 200
        {
            return serde_json::from_str(&answer.text).ok();
        }
    }
    None
}
