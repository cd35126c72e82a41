//! A member on which Postgres cannot be made or started, however often it is tried: it lets go of the lease, and a healthy one
//! leads. When there is no other it goes on trying, and says so.

use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use outrider_bed::{Builder, Cluster, Member, wait_until};
use serde_json::{Value, json};

use crate::story::{LIMIT, Story, logged, logs};

/// PostgreSQL's programs for one member, in a directory of its own.
struct Programs {
    directory: PathBuf,
    real: PathBuf,
}

impl Programs {
    fn of(cluster: &Cluster, member: &Member) -> Self {
        let directory = cluster.guard.make_directory(&format!("{}-programs", member.name())).unwrap();
        let real = cluster.guard.programs().postgres.clone();
        for program in std::fs::read_dir(&real).unwrap() {
            let program = program.unwrap().path();
            symlink(&program, directory.join(program.file_name().unwrap())).unwrap();
        }
        member.change_configuration(&json!({"postgresql": {"bin_dir": directory}})).unwrap();
        Programs { directory, real }
    }

    /// A script takes the place of this program; `{real}` is the program itself.
    fn replace(&self, program: &str, script: &str) {
        let path = self.directory.join(program);
        let real = self.real.join(program);
        let next = self.directory.join("next");
        std::fs::write(
            &next,
            format!("#!/bin/sh\n{}\n", script.replace("{real}", &real.display().to_string())),
        )
        .unwrap();
        std::fs::set_permissions(&next, std::fs::Permissions::from_mode(0o755)).unwrap();
        // In one step: it may be started at any moment.
        std::fs::rename(&next, &path).unwrap();
    }
}

/// A server that ends at once while this file is there. All that initdb and the agent ask of `postgres` works.
fn ends_at_once_while(file: &Path) -> String {
    format!(
        "case \" $* \" in *\" --boot \"*|*\" --single \"*|*\" --check \"*|*\" -C \"*|*\" -V \"*|*--version*) exec {{real}} \"$@\";; esac\n\
         if [ -e {} ]; then echo 'FATAL:  this machine has no luck' >&2; exit 1; fi\nexec {{real}} \"$@\"",
        file.display()
    )
}

/// A server for the end of whose recovery this is run.
fn ends_recovery_with(command: &str) -> String {
    format!(
        "case \" $* \" in *\" --boot \"*|*\" --single \"*|*\" --check \"*|*\" -C \"*|*\" -V \"*|*--version*) exec {{real}} \"$@\";; esac\n\
         exec {{real}} \"$@\" -c \"recovery_end_command={command}\""
    )
}

/// The synchronous standby takes over from a primary that crashed, and `command` lets its recovery not end while the file `{mark}` is
/// there: the former primary leads again, and nothing is lost.
async fn the_former_primary_leads_again(builder: Builder, command: &str) {
    let cluster = builder.prepare().await.unwrap();
    let marks = cluster.guard.make_directory("marks").unwrap();
    for member in &cluster.members {
        let command = command.replace("{mark}", &marks.join(member.name()).display().to_string());
        Programs::of(&cluster, member).replace("postgres", &ends_recovery_with(&command));
        member.start().unwrap();
    }
    cluster.wait_until_whole().await.unwrap();
    let story = Story::of(cluster).await;
    let synchronous = story.cluster.wait_until_synchronous().await.unwrap();
    let leader = story.leader().await;
    let [standby] = &synchronous[..] else { panic!("one is synchronous, not {synchronous:?}") };
    let failing = story.cluster.members.iter().find(|member| member.name() == standby).unwrap();
    let mark = marks.join(standby);
    std::fs::write(&mark, "").unwrap();
    leader.kill_postmaster();
    logged(failing, "recorded again who could be promoted before").await;
    let leads = async || leader.leads().await.then_some(());
    let waited = wait_until("the former primary leads again", LIMIT, leads).await;
    waited.unwrap_or_else(|fault| panic!("{fault}; {}", logs(&story.cluster)));
    story.writes(50).await;
    std::fs::remove_file(&mark).unwrap();
    story.end().await;
}

/// Waits until the member shows that this has failed so often.
async fn fails(member: &Member, job: &str, count: u64) {
    let failing = async || {
        let failing = &member.patroni().await?["outrider"]["failing"];
        (failing["job"] == job && failing["count"].as_u64()? >= count).then_some(())
    };
    let waited = wait_until(format!("{} shows that {job} fails", member.name()), LIMIT, failing).await;
    waited.unwrap_or_else(|fault| panic!("{fault}; {}", member.log()));
}

/// The other member makes the cluster, and the first one becomes its standby.
async fn the_other_makes_it(cluster: &Cluster) {
    let [failing, healthy] = &cluster.members[..] else { panic!("two members") };
    healthy.start().unwrap();
    let leads = async || healthy.leads().await.then_some(());
    let waited = wait_until("the other member leads", LIMIT * 2, leads).await;
    waited.unwrap_or_else(|fault| panic!("{fault}; {}", logs(cluster)));
    cluster.wait_until_whole().await.unwrap_or_else(|fault| panic!("{fault}; {}", logs(cluster)));
    let healthy_again = async || {
        let status = failing.patroni().await?;
        status["outrider"]["failing"].is_null().then_some(())
    };
    wait_until("nothing fails any more", LIMIT, healthy_again).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_whose_initdb_fails_leaves_the_cluster_to_one_whose_works() {
    let cluster = Builder::new().members(2).prepare().await.unwrap();
    let failing = &cluster.members[0];
    Programs::of(&cluster, failing).replace("initdb", "echo 'initdb: error: no luck' >&2; exit 1");
    failing.start().unwrap();
    // Alone it goes on trying, with the lease.
    fails(failing, "initdb", 4).await;
    assert_eq!(cluster.etcd.get("/service/bed/leader").await.unwrap().as_deref(), Some(failing.name()));
    the_other_makes_it(&cluster).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_whose_new_cluster_does_not_start_leaves_it_to_one_where_it_does() {
    let cluster = Builder::new().members(2).prepare().await.unwrap();
    let failing = &cluster.members[0];
    let mark = cluster.guard.make_directory("marks").unwrap().join("no luck");
    std::fs::write(&mark, "").unwrap();
    let mark_in_shell = PathBuf::from(format!("'{}'", mark.display()));
    Programs::of(&cluster, failing).replace("postgres", &ends_at_once_while(&mark_in_shell));
    failing.start().unwrap();
    fails(failing, "start", 3).await;
    let started = async || {
        cluster.members[1].leads().await.then(|| std::fs::remove_file(&mark).is_ok()).filter(|gone| *gone)
    };
    let repaired = wait_until("the other leads", LIMIT * 3, started);
    tokio::join!(the_other_makes_it(&cluster), async { drop(repaired.await) });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_whose_postgres_can_not_be_started_any_more_lets_a_standby_lead() {
    // A crashed primary is restarted where it is in this mode.
    let cluster = Builder::new().dcs(json!({"synchronous_mode": false})).prepare().await.unwrap();
    let marks = cluster.guard.make_directory("marks").unwrap();
    for member in &cluster.members {
        let mark = marks.join(member.name());
        Programs::of(&cluster, member).replace("postgres", &ends_at_once_while(&mark));
        member.start().unwrap();
    }
    cluster.wait_until_whole().await.unwrap();
    let story = Story::of(cluster).await;
    let leader = story.leader().await;
    let mark = marks.join(leader.name());
    std::fs::write(&mark, "").unwrap();
    leader.kill_postmaster();
    story.cluster.wait_for_another(leader.name()).await.unwrap();
    story.writes(50).await;
    let list = String::from_utf8(leader.outrider(&["list"]).unwrap().stdout).unwrap();
    assert!(list.contains("this machine has no luck"), "{list}");
    std::fs::remove_file(&mark).unwrap();
    logged(leader, "a standby, following the leader").await;
    story.end_with_losses().await;
}

/// PostgreSQL ends where the command of a recovery's end is not found, each time after it has begun a timeline.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_standby_whose_promotion_fails_for_ever_gives_the_lease_to_the_former_primary() {
    the_former_primary_leads_again(Builder::new(), "test ! -e '{mark}' || exit 127").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_standby_whose_promotion_does_not_end_gives_the_lease_to_the_former_primary() {
    let builder = Builder::new().dcs(json!({"primary_start_timeout": 5}));
    the_former_primary_leads_again(builder, "while test -e '{mark}'; do sleep 0.1; done").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lone_leader_whose_postgres_does_not_start_goes_on_trying_and_says_so() {
    let cluster = Builder::new().members(1).prepare().await.unwrap();
    let member = &cluster.members[0];
    let mark = cluster.guard.make_directory("marks").unwrap().join("lone");
    Programs::of(&cluster, member).replace("postgres", &ends_at_once_while(&mark));
    member.start().unwrap();
    cluster.wait_until_whole().await.unwrap();
    let story = Story::of(cluster).await;
    let member = story.leader().await;
    let timeline = member.patroni().await.unwrap()["timeline"].clone();
    std::fs::write(&mark, "").unwrap();
    member.kill_postmaster();
    fails(member, "start", 4).await;
    let list = member.outrider(&["list", "--format", "json"]).unwrap();
    let list: Value = serde_json::from_slice(&list.stdout).unwrap();
    assert!(list[0]["Reason"].as_str().unwrap().contains("start failed"), "{list}");
    std::fs::remove_file(&mark).unwrap();
    story.writes(50).await;
    assert_eq!(member.patroni().await.unwrap()["timeline"], timeline);
    story.end().await;
}
