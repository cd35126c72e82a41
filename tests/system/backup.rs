//! Base backups of a real cluster: taken by a standby, taken over when that member dies, taken by themselves, taken back.

use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use outrider_bed::process::{self, Signal};
use outrider_bed::{Archive, Builder, Cluster, Member, fault_lasts, wait_until};
use serde_json::{Value, json};

use crate::bootstrap::{lose_everything, restart};
use crate::kept::{back_up, insert};
use crate::story::{LIMIT, Story, logs, records};

/// For a backup on a machine that does much else: checkpoint, copy, the last WAL.
const BACKUP_LIMIT: Duration = Duration::from_secs(120);

fn on_request() -> Value {
    json!({"archive": {"schedule": "never"}})
}

/// Asks for a backup; the id of the request.
pub(crate) async fn ask(member: &Member) -> String {
    let answer = member.post("/backup", &json!({})).await.unwrap();
    assert_eq!(answer.status, 202, "{}", answer.text);
    let document: Value = serde_json::from_str(&answer.text).unwrap();
    document["id"].as_str().unwrap().to_owned()
}

/// Waits until the backup has ended well.
pub(crate) async fn taken(cluster: &Cluster, id: &str) -> Value {
    let ended = async || {
        let last = records(cluster, "/backup").await?["last"].clone();
        (last["request"] == id).then_some(last)
    };
    let last = wait_until(format!("the backup {id} has ended"), BACKUP_LIMIT, ended).await;
    let last = last.unwrap_or_else(|fault| panic!("{fault}; the logs: {}", logs(cluster)));
    assert_eq!(last["error"], Value::Null, "{last}; the logs: {}", logs(cluster));
    last
}

/// Waits until somebody takes the backup; who.
async fn taker(cluster: &Cluster) -> String {
    let begun = async || Some(records(cluster, "/backup").await?["running"]["member"].as_str()?.to_owned());
    wait_until("somebody takes the backup", LIMIT, begun).await.unwrap()
}

/// The good backups that the archive has.
async fn good(member: &Member) -> Vec<String> {
    let answer = member.get("/backups").await.unwrap();
    let listed: Value = serde_json::from_str(&answer.text).unwrap();
    let backups = listed["backups"].as_array().unwrap();
    let good = backups.iter().filter(|backup| backup["state"] == "good");
    good.map(|backup| backup["id"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_standby_takes_the_backup_that_was_asked_for_and_the_archive_lists_it() {
    let story =
        Story::begin(Builder::new().members(2).archive(Archive::MinioIfThere).settings(on_request())).await;
    let standby = story.cluster.standbys().await.unwrap()[0].name().to_owned();
    let leader = story.leader().await;
    let id = ask(leader).await;
    let last = taken(&story.cluster, &id).await;
    assert_eq!(last["member"], standby.as_str(), "{last}");
    let backup = last["backup"].as_str().unwrap().to_owned();
    let listed = async || good(leader).await.contains(&backup).then_some(());
    wait_until("the archive lists it", LIMIT, listed).await.unwrap();
    let window: Value = serde_json::from_str(&leader.get("/archive").await.unwrap().text).unwrap();
    assert_eq!(window["window"]["first"]["backup"], backup.as_str(), "{window}");
    let output = leader.outrider(&["backup"]).unwrap();
    assert!(output.status.success(), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stdout).contains(&format!("taken by {standby}")), "{output:?}");
    story.end().await;
}

/// A copied configuration is enough: the same scope, the same store, another cluster.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_whose_archive_is_anothers_backs_up_nothing_there_and_removes_nothing() {
    let settings = json!({"archive": {"schedule": "never", "retention": {"window": "1s"}}});
    let builder = Builder::new().members(1).archive(Archive::Embedded).settings(settings);
    let cluster = builder.start().await.unwrap();
    insert(&cluster, "(1)").await;
    back_up(&cluster).await;
    let owner = cluster.etcd.get("/service/bed/initialize").await.unwrap().unwrap();
    lose_everything(&cluster).await;
    // The owner's backups, and the claim of one that it may be taking at this moment.
    let store = cluster.store.as_ref().unwrap();
    let contents = || {
        let keys = store.keys().into_iter().filter(|key| !key.ends_with("/outrider/probe"));
        keys.map(|key| (store.object(&key), key)).collect::<Vec<_>>()
    };
    let before = contents();
    restart(&cluster, &json!({}));
    insert(&cluster, "(2)").await;
    let member = &cluster.members[0];
    let stranger = cluster.etcd.get("/service/bed/initialize").await.unwrap().unwrap();
    assert_ne!(owner, stranger);
    let id = ask(member).await;
    let ended = async || {
        let last = records(&cluster, "/backup").await?["last"].clone();
        (last["request"] == id.as_str()).then_some(last)
    };
    let last = wait_until("the backup is refused", LIMIT, ended).await.unwrap();
    let error = last["error"].as_str().unwrap_or_default();
    assert!(
        error.contains("belongs to another cluster") && error.contains(&owner) && error.contains(&stranger),
        "{last}"
    );
    let backup =
        before.iter().find_map(|(_, key)| key.strip_suffix("/backup.info")?.rsplit('/').next()).unwrap();
    for arguments in [&["backups", "prune"][..], &["backups", "delete", backup, "--force"]] {
        let output = member.outrider(arguments).unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains("belongs to another cluster"), "{output:?}");
    }
    assert!(contents() == before, "the stranger has changed the owner's archive");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_member_takes_over_when_the_one_that_takes_it_is_killed() {
    let slow = json!({"archive": {"schedule": "never", "backup_rate": "1MB"}});
    let story = Story::begin(Builder::new().archive(Archive::Embedded).settings(slow)).await;
    let leader = story.leader().await;
    let id = ask(leader).await;
    let first = taker(&story.cluster).await;
    assert_ne!(first, leader.name());
    story.cluster.member(&first).kill_node();
    let another = async || {
        let second = records(&story.cluster, "/backup").await?["running"]["member"].as_str()?.to_owned();
        (second != first).then_some(second)
    };
    let second = wait_until("another takes it over", LIMIT, another).await.unwrap();
    let last = taken(&story.cluster, &id).await;
    assert_eq!(last["member"], second.as_str(), "{last}");
    story.cluster.member(&first).start().unwrap();
    story.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_outlives_the_failover_that_promotes_the_member_that_takes_it() {
    let slow = json!({"archive": {"schedule": "never", "backup_rate": "1MB"}});
    let story = Story::begin(Builder::new().archive(Archive::Embedded).settings(slow)).await;
    let former = story.leader().await.name().to_owned();
    let id = ask(story.leader().await).await;
    let first = taker(&story.cluster).await;
    let wish = json!({"leader": former, "candidate": first});
    let candidate_is_synchronous = async || {
        let names = story.cluster.wait_until_synchronous().await.ok()?;
        names.contains(&first).then_some(())
    };
    // Whoever is asked to lead must be recorded; if it is the other standby, that one is promoted, which is as good.
    let promoted =
        if wait_until("it is synchronous", Duration::from_secs(2), candidate_is_synchronous).await.is_ok() {
            wish
        } else {
            json!({"leader": former, "candidate": story.cluster.wait_until_synchronous().await.unwrap()[0]})
        };
    let answer = story.leader().await.post("/switchover", &promoted).await.unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text);
    taken(&story.cluster, &id).await;
    story.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_that_is_taken_back_leaves_nothing_in_the_archive() {
    let slow = json!({"archive": {"schedule": "never", "backup_rate": "1MB"}});
    let story = Story::begin(Builder::new().members(2).archive(Archive::Directory).settings(slow)).await;
    let leader = story.leader().await;
    let id = ask(leader).await;
    taker(&story.cluster).await;
    let again = leader.post("/backup", &json!({})).await.unwrap();
    assert_eq!(again.status, 409, "{}", again.text);
    let output = leader.outrider(&["backup", "--cancel"]).unwrap();
    assert!(output.status.success(), "{output:?}");
    let cancelled = async || {
        let last = records(&story.cluster, "/backup").await?["last"].clone();
        (last["request"] == id.as_str()).then_some(last)
    };
    let last = wait_until("it has ended", LIMIT, cancelled).await.unwrap();
    assert_eq!(last["cancelled"], true, "{last}");
    let base = story.cluster.archive_directory().join("bed/base");
    let left: Vec<_> = walk(&base);
    assert!(left.is_empty(), "{left:?}");
    story.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_backup_and_those_that_are_due_are_taken_by_themselves_and_old_ones_go() {
    let often =
        json!({"archive": {"schedule": "*/5 * * * * *", "retention": {"window": "1s", "minimum": 1}}});
    let story = Story::begin(Builder::new().members(2).archive(Archive::Embedded).settings(often)).await;
    let leader = story.leader().await;
    let mut first = None;
    let newer_and_fewer = async || {
        let now = good(leader).await;
        let first = first.get_or_insert(now.first()?.clone());
        (!now.contains(first) && !now.is_empty()).then_some(())
    };
    wait_until("a newer backup has taken the place of the first", BACKUP_LIMIT, newer_and_fewer)
        .await
        .unwrap();
    story.end().await;
}

/// A schedule with the two whole seconds after this time and none else for a year, and when they have passed.
fn two_seconds_after(now: Timestamp) -> (String, Timestamp) {
    let mut from = now.as_second();
    loop {
        let [first, last] = [1, 2].map(|more| Timestamp::from_second(from + more).unwrap());
        let [one, other] = [first, last].map(|at| at.strftime("%M %H %d %m *").to_string());
        if one == other {
            return (format!("{},{} {one}", first.strftime("%S"), last.strftime("%S")), last);
        }
        from += 1;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_due_while_every_member_was_down_is_made_up_for_once() {
    let builder = Builder::new().members(2).archive(Archive::Embedded).settings(on_request());
    let cluster = builder.start().await.unwrap();
    back_up(&cluster).await;
    cluster.members.iter().for_each(Member::kill_node);
    let (schedule, passed) = two_seconds_after(Timestamp::now());
    let left = passed.duration_since(Timestamp::now()).unsigned_abs();
    fault_lasts(left + Duration::from_millis(1)).await;
    for member in &cluster.members {
        member.change_configuration(&json!({"archive": {"schedule": schedule}})).unwrap();
        member.start().unwrap();
    }
    let made_up = async || (records(&cluster, "/backup").await?["last"]["by"] == "schedule").then_some(());
    let waited = wait_until("it is made up for", BACKUP_LIMIT, made_up).await;
    assert!(waited.is_ok(), "{waited:?}; the logs: {}", logs(&cluster));
    // The one that leads next has the same schedule, and nothing to make up for any more.
    cluster.wait_until_synchronous().await.unwrap();
    let former = cluster.wait_for_leader().await.unwrap();
    let answer = former.post("/switchover", &json!({"leader": former.name()})).await.unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text);
    cluster.wait_until_whole().await.unwrap();
    back_up(&cluster).await;
    let keys = cluster.store.as_ref().unwrap().keys();
    let backups: Vec<&String> = keys.iter().filter(|key| key.ends_with("/backup.info")).collect();
    assert_eq!(backups.len(), 3, "one before, one that was due, one after: {backups:?}; {}", logs(&cluster));
}

/// Every file below a directory.
fn walk(directory: &std::path::Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    entries
        .flat_map(|entry| if entry.path().is_dir() { walk(&entry.path()) } else { vec![entry.path()] })
        .collect()
}

/// What a member tells of its archive.
async fn archive(member: &Member) -> Option<Value> {
    serde_json::from_str(&member.get("/archive").await.ok()?.text).ok()
}

/// Waits until the archive says that a backup was restored for proof, and everybody reads it.
async fn proven(cluster: &Cluster) {
    for member in &cluster.members {
        let shown = async || archive(member).await?["last_verified"].as_str().map(str::to_owned);
        let waited = wait_until(format!("{} shows the proof", member.name()), BACKUP_LIMIT, shown).await;
        assert!(waited.is_ok(), "{waited:?}; the logs: {}", logs(cluster));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_standby_restores_the_first_backup_for_proof_at_once_and_leaves_nothing_of_it() {
    let due = json!({"archive": {"drill": "0 3 * * *"}});
    let story = Story::begin(Builder::new().members(2).archive(Archive::Embedded).settings(due)).await;
    proven(&story.cluster).await;
    let (leader, standby) = (story.leader().await, story.cluster.standbys().await.unwrap()[0]);
    let done = async || (archive(standby).await?["drill"]["done"] == 1).then_some(());
    let waited = wait_until("the standby has done it", LIMIT, done).await;
    assert!(waited.is_ok(), "{waited:?}; the logs: {}", logs(&story.cluster));
    assert_eq!(archive(leader).await.unwrap()["drill"]["done"], 0, "once is enough");
    let scratch = standby.directory().join(format!("{}.drill", standby.name()));
    assert!(!scratch.exists(), "it is left behind");
    story.end().await;
}

/// The member that drills is promoted while all of its drill stands still, as on a disk that hangs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_promotion_waits_for_no_drill_which_is_given_up_and_made_by_the_next_standby() {
    // The first drill is made as soon as there is a backup, so that this is not made before it can be seen.
    let due = json!({"archive": {"schedule": "never", "drill": "0 3 * * *"}});
    let story = Story::begin(Builder::new().members(2).archive(Archive::Embedded).settings(due)).await;
    let (former, standby) = (story.leader().await, story.cluster.standbys().await.unwrap()[0]);
    let scratch = standby.directory().join(format!("{}.drill", standby.name()));
    let frozen = async || {
        let servers = process::postgres_in(&scratch.join("data"));
        let programs = drills_in(&scratch);
        let both = !servers.is_empty() && !programs.is_empty();
        let drill: Vec<i32> = both.then(|| programs.into_iter().chain(servers).collect())?;
        drill.iter().for_each(|pid| process::send(*pid, Signal::Stop));
        Some(drill)
    };
    ask(former).await;
    let drill = wait_until("a server recovers for the drill", BACKUP_LIMIT, frozen).await;
    let drill = drill.unwrap_or_else(|fault| panic!("{fault}; the logs: {}", logs(&story.cluster)));
    former.kill_node();
    story.cluster.wait_for_another(former.name()).await.unwrap();
    story.writes(50).await;
    former.start().unwrap();
    story.cluster.wait_until_whole().await.unwrap();
    assert!(drill.iter().all(|pid| process::is_alive(*pid)), "the drill was over, and nothing is shown");
    drill.iter().for_each(|pid| process::send(*pid, Signal::Continue));
    let ended = async || {
        let nothing = drills_in(&scratch).is_empty() && process::postgres_in(&scratch).is_empty();
        (nothing && !scratch.exists()).then_some(())
    };
    let waited = wait_until("nothing is left of the drill", LIMIT, ended).await;
    assert!(waited.is_ok(), "{waited:?}; the logs: {}", logs(&story.cluster));
    let told = async |member: &Member, what: &str| archive(member).await?["drill"][what].as_u64();
    let as_it_was = async || {
        let given_up = (told(standby, "given_up").await?, told(standby, "done").await?);
        (given_up == (1, 0) && told(former, "done").await? == 1).then_some(())
    };
    let waited = wait_until("one has given it up and the other made it", LIMIT, as_it_was).await;
    assert!(waited.is_ok(), "{waited:?}; the logs: {}", logs(&story.cluster));
    assert_eq!(told(standby, "failed").await, Some(0));
    story.end().await;
}

/// The processes of the program that drill in this directory.
fn drills_in(scratch: &Path) -> Vec<i32> {
    let drills = |pid: &i32| {
        let arguments = process::arguments(*pid);
        arguments.iter().any(|argument| argument == "verify")
            && arguments.iter().any(|argument| Path::new(argument) == scratch)
            && process::is_alive(*pid)
    };
    process::all().into_iter().filter(drills).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drill_ends_with_its_agent_even_when_that_is_killed_and_is_made_later() {
    let due = json!({"archive": {"drill": "0 3 * * *"}});
    let story = Story::begin(Builder::new().members(2).archive(Archive::Embedded).settings(due)).await;
    let standby = story.cluster.standbys().await.unwrap()[0];
    let scratch = standby.directory().join(format!("{}.drill", standby.name()));
    let begun =
        async || (scratch.exists() || archive(standby).await?["last_verified"].is_string()).then_some(());
    let waited = wait_until("the drill has begun", BACKUP_LIMIT, begun).await;
    assert!(waited.is_ok(), "{waited:?}; the logs: {}", logs(&story.cluster));
    standby.kill_agent();
    let gone = async || (!scratch.exists()).then_some(());
    wait_until("nothing is left of the drill", LIMIT, gone).await.unwrap();
    assert!(process::postgres_in(&scratch.join("data")).is_empty());
    standby.start().unwrap();
    proven(&story.cluster).await;
    story.end().await;
}
