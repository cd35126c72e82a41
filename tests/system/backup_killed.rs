//! The agent killed again and again while it takes a base backup, at moments of its progress and a little later, as a seed
//! says: no half backup is ever listed, the one that was asked for is taken in the end, and what was broken off is swept.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use outrider_bed::{Archive, Builder, Cluster, Seed, fault_lasts, wait_until};
use serde_json::{Value, json};

use crate::backup::{ask, taken};
use crate::kept::{WORK_LIMIT, insert, primary};
use crate::story::{logs, records};
use crate::{by_hand, kept};

/// What can be seen of a backup under way.
#[derive(Clone, Copy, Debug)]
enum Moment {
    /// The request is taken up.
    TakenUp,
    /// So many MiB of it are in the store, in parts.
    Uploaded(u64),
    /// It has this object.
    Has(&'static str),
    /// It waits for its last WAL.
    Waits,
}

/// A request is given up after five attempts, so each is killed a few times only.
const KILLS_OF_ONE: usize = 3;
/// Twenty MiB that nobody can compress: an upload of several parts.
const BALLAST: &str = "CREATE TABLE ballast AS \
    SELECT i, (SELECT string_agg(decode(md5((i * 100 + j)::text), 'hex'), '') FROM generate_series(1, 64) j) \
    FROM generate_series(1, 20480) i";
/// What a whole one consists of.
const WHOLE: [&str; 4] = ["backup.info", "backup_manifest", "data.tar.gz", "outrider.json"];

/// The base backups in the store, whole and not, each with its objects.
fn folders(cluster: &Cluster) -> BTreeMap<String, BTreeSet<String>> {
    let mut folders: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for key in cluster.store.as_ref().unwrap().keys() {
        if let Some((id, object)) = key.strip_prefix("bed/bed/base/").and_then(|rest| rest.split_once('/')) {
            folders.entry(id.to_owned()).or_default().insert(object.to_owned());
        }
    }
    folders
}

/// Whether the attempt that began with these folders and bytes in the store has come so far, or further.
async fn is_reached(cluster: &Cluster, moment: Moment, before: &BTreeSet<String>, bytes: u64) -> Option<()> {
    let now = folders(cluster);
    nothing_is_a_backup_before_it_is_whole(cluster, &now);
    let has = |object: &str| now.iter().any(|(id, objects)| !before.contains(id) && objects.contains(object));
    let running = async || records(cluster, "/backup").await.map(|records| records["running"].clone());
    let reached = match moment {
        Moment::TakenUp => running().await?["member"].is_string(),
        Moment::Uploaded(mib) => {
            cluster.store.as_ref().unwrap().uploaded_bytes() >= bytes + (mib << 20) || has("data.tar.gz")
        }
        Moment::Has(object) => has(object),
        Moment::Waits => running().await?["phase"] == "waiting for WAL" || has("backup.info"),
    };
    reached.then_some(())
}

fn is_whole(objects: &BTreeSet<String>) -> bool {
    WHOLE.iter().all(|object| objects.contains(*object))
}

/// Looked at all the time: `backup.info` is the last object.
fn nothing_is_a_backup_before_it_is_whole(cluster: &Cluster, seen: &BTreeMap<String, BTreeSet<String>>) {
    let is_half = |objects: &BTreeSet<String>| objects.contains("backup.info") && !is_whole(objects);
    for id in seen.iter().filter(|(_, objects)| is_half(objects)).map(|(id, _)| id) {
        // What was written while the folder was read may be in it or not.
        let again = &folders(cluster)[id];
        assert!(!is_half(again), "{id}: {again:?}");
    }
}

/// What is listed as good is whole, and what is not whole is no backup.
fn no_half_one_is_listed(cluster: &Cluster, when: &str) -> Vec<String> {
    let output = cluster.members[0].outrider(&["backups", "--format", "json"]).unwrap();
    assert!(output.status.success(), "{when}: {output:?}");
    let listed: Value = serde_json::from_slice(&output.stdout).unwrap();
    let folders = folders(cluster);
    let mut good = Vec::new();
    for backup in listed["backups"].as_array().unwrap() {
        let id = backup["id"].as_str().unwrap();
        let objects = &folders[id];
        match backup["state"].as_str().unwrap() {
            "done" if is_whole(objects) => good.push(id.to_owned()),
            "unfinished" if !objects.contains("backup.info") => {}
            _ => panic!("{when}: {backup}: {objects:?}"),
        }
    }
    good
}

/// Whether the request has come to its end.
async fn has_ended(cluster: &Cluster, id: &str) -> bool {
    records(cluster, "/backup").await.is_some_and(|records| records["last"]["request"] == id)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_killed_at_any_moment_of_a_backup_takes_it_in_the_end_and_leaves_no_half_one() {
    let mut seed = Seed::choose(20_261_128);
    let mut moments = [
        Moment::TakenUp,
        Moment::Has("outrider.claim"),
        Moment::Uploaded(1),
        Moment::Uploaded(8),
        Moment::Has("data.tar.gz"),
        Moment::Has("backup_manifest"),
        Moment::Has("outrider.json"),
        Moment::Waits,
        Moment::Has("backup.info"),
    ];
    seed.shuffle(&mut moments);
    let settings = json!({
        "archive": {"schedule": "never", "backup_rate": "40MB"},
        "bootstrap": {"initdb": ["no-sync"]},
    });
    let cluster =
        Builder::new().members(1).archive(Archive::Embedded).settings(settings).start().await.unwrap();
    primary(&cluster).await.run(BALLAST).await.unwrap();
    let (member, store) = (&cluster.members[0], cluster.store.as_ref().unwrap());
    let mut backups = Vec::new();
    for (row, moments) in moments.chunks(KILLS_OF_ONE).enumerate() {
        insert(&cluster, &format!("({row})")).await;
        let mut id = ask(member).await;
        for moment in moments {
            let (before, bytes) = (folders(&cluster).into_keys().collect(), store.uploaded_bytes());
            let reached = async || {
                if has_ended(&cluster, &id).await {
                    // The kill before came when all was done.
                    id = ask(member).await;
                }
                is_reached(&cluster, *moment, &before, bytes).await
            };
            // Half of them at once.
            let offset = Duration::from_millis(seed.below(2) * seed.below(120));
            let when = format!("{moment:?} and {offset:?} later");
            wait_until(&when, WORK_LIMIT, reached)
                .await
                .unwrap_or_else(|fault| panic!("{fault}; {}", logs(&cluster)));
            fault_lasts(offset).await;
            member.kill_agent();
            no_half_one_is_listed(&cluster, &when);
            member.start().unwrap();
        }
        backups.push(taken(&cluster, &id).await["backup"].as_str().unwrap().to_owned());
    }
    let good = no_half_one_is_listed(&cluster, "in the end");
    assert!(backups.iter().all(|backup| good.contains(backup)), "{backups:?} of {good:?}");

    what_was_broken_off_is_swept(&cluster, &good).await;
    // Each has the rows that were there when it was asked for.
    assert_eq!(restored(&cluster, &backups[0]).await, "0");
    assert_eq!(restored(&cluster, &backups[2]).await, "0,1,2");
}

/// By the next backup, when it is old enough to be sure that nobody is at it.
async fn what_was_broken_off_is_swept(cluster: &Cluster, good: &[String]) {
    let store = cluster.store.as_ref().unwrap();
    let half: Vec<String> = folders(cluster).into_keys().filter(|id| !good.contains(id)).collect();
    assert!(half.len() >= 3 && !store.uploading().is_empty(), "nothing is left to be swept: {half:?}");
    for (number, id) in half.iter().enumerate() {
        store
            .rename_folder(&format!("bed/bed/base/{id}"), &format!("bed/bed/base/20260101T00000{number}"))
            .unwrap();
    }
    taken(cluster, &ask(&cluster.members[0]).await).await;
    let left = folders(cluster);
    assert!(left.len() == good.len() + 1 && left.values().all(is_whole), "{left:?}; {}", logs(cluster));
    assert_eq!((store.uploading(), store.uploaded_bytes()), (Vec::new(), 0));
}

/// The rows of this backup alone.
async fn restored(cluster: &Cluster, backup: &str) -> String {
    let into = cluster.guard.directory().join(backup);
    let arguments =
        ["restore", "--backup", backup, "--immediate", "--no-sync", "--into", into.to_str().unwrap()];
    let output = cluster.members[0].outrider(&arguments).unwrap();
    assert!(output.status.success(), "{output:?}");
    by_hand::start(cluster, &into).await.text(kept::ROWS).await.unwrap()
}
