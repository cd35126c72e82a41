//! Members that begin with their archive, killed again and again while they restore and recover, as a seed says: the cluster
//! comes up with every row, made by one of them.

use std::time::Duration;

use outrider_bed::{Cluster, Member, Seed, fault_lasts, wait_until};
use serde_json::json;

use crate::bootstrap::{lose_everything, restart, with_archive};
use crate::by_hand::{MARK, files};
use crate::kept::{WORK_LIMIT, everybody_has, insert, primary, rows, three_rows_archived};
use crate::story::logs;

const IDENTIFIER: &str = "/service/bed/initialize";

/// What can be seen of a bootstrap under way.
#[derive(Clone, Copy, Debug)]
enum Moment {
    /// The agent has logged this since it was started.
    Logs(&'static str),
    /// One of its agents has logged this, which is logged once.
    Once(&'static str),
    /// So many files are there, and not all.
    Files(usize),
}

impl Moment {
    /// `log`: how much of the log is older than its agent.
    fn is_reached(self, member: &Member, log: usize) -> bool {
        match self {
            Moment::Logs(text) => member.log()[log..].contains(text),
            Moment::Once(text) => member.log().contains(text),
            Moment::Files(count) => {
                let data = member.data_directory();
                data.join(MARK).exists() && files(&data).len() >= count
            }
        }
    }
}

/// Kills the agent that makes the cluster at each of the moments, or all of its node, and starts it again.
async fn kill_at(cluster: &Cluster, moments: &[Moment], seed: &mut Seed) {
    let mut begun = vec![0; cluster.members.len()];
    for moment in moments {
        let offset = Duration::from_millis(seed.below(2) * seed.below(100));
        let when = format!("{moment:?} and {offset:?} later");
        let there = async || (0..begun.len()).find(|at| moment.is_reached(&cluster.members[*at], begun[*at]));
        let waited = wait_until(&when, WORK_LIMIT, there).await;
        let at = waited.unwrap_or_else(|fault| panic!("{fault}; {}", logs(cluster)));
        fault_lasts(offset).await;
        let member = &cluster.members[at];
        if seed.below(2) == 0 {
            member.kill_agent();
        } else {
            member.kill_node();
        }
        begun[at] = member.log().len();
        member.start().unwrap();
    }
}

/// With the logs, where the moments are looked for.
async fn lose_everything_and_the_logs(cluster: &Cluster) {
    lose_everything(cluster).await;
    for member in &cluster.members {
        std::fs::write(member.directory().join("agent.log"), "").unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bootstrap_from_the_archive_killed_at_any_moment_makes_one_cluster_with_every_row() {
    let mut seed = Seed::choose(20_261_128);
    let cluster =
        with_archive().settings(json!({"bootstrap": {"initdb": ["no-sync"]}})).start().await.unwrap();
    let system = cluster.etcd.get(IDENTIFIER).await.unwrap();
    three_rows_archived(&cluster).await;
    lose_everything_and_the_logs(&cluster).await;
    restart(&cluster, &json!({"bootstrap": {"method": "archive"}}));
    let mut moments = [
        Moment::Logs("begins job=initdb"),
        Moment::Logs("restoring from the archive"),
        Moment::Files(2),
        Moment::Files(500),
        Moment::Logs("the files are there"),
        Moment::Logs("recovering from the archive"),
        Moment::Logs("restored log file"),
    ];
    seed.shuffle(&mut moments);
    kill_at(&cluster, &moments, &mut seed).await;
    // What was recovered to the end is not made anew.
    let makes_users = Moment::Once("begins job=creating the users");
    kill_at(&cluster, &[Moment::Once("done job=initdb"), makes_users], &mut seed).await;
    // Not its line in the log: an agent that is killed between the key and that line never writes it.
    let identifier = async || cluster.etcd.get(IDENTIFIER).await.ok()?.filter(|known| !known.is_empty());
    wait_until("the cluster has been created", WORK_LIMIT, identifier).await.unwrap();
    kill_at(&cluster, &[makes_users], &mut seed).await;
    everybody_has(&cluster, "1,2,3").await;
    insert(&cluster, "(4)").await;
    everybody_has(&cluster, "1,2,3,4").await;
    assert_eq!(cluster.etcd.get(IDENTIFIER).await.unwrap(), system);
    assert!(logs(&cluster).matches("the cluster has been created").count() <= 1, "{}", logs(&cluster));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bootstrap_with_a_tablespace_that_was_killed_is_made_anew() {
    let mut seed = Seed::choose(20_261_128);
    let settings = json!({"bootstrap": {"initdb": ["no-sync"]}});
    let cluster = with_archive().members(1).settings(settings).start().await.unwrap();
    let space = cluster.guard.make_directory("space").unwrap();
    let tablespace = format!("CREATE TABLESPACE space LOCATION '{}'", space.display());
    primary(&cluster).await.run(&tablespace).await.unwrap();
    primary(&cluster).await.run("CREATE TABLE kept (row int) TABLESPACE space").await.unwrap();
    three_rows_archived(&cluster).await;
    lose_everything_and_the_logs(&cluster).await;
    std::fs::remove_dir_all(&space).unwrap();
    restart(&cluster, &json!({"bootstrap": {"method": "archive"}}));
    let moments =
        [Moment::Files(500), Moment::Logs("the files are there"), Moment::Logs("restored log file")];
    kill_at(&cluster, &moments, &mut seed).await;
    assert_eq!(rows(&cluster).await, "1,2,3", "{}", logs(&cluster));
}
