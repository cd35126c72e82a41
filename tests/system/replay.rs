//! The object store dies while a member replays what it fetches from there: the recovery waits, or stops and begins anew, and
//! ends at the very last row, never at the gap.

use std::time::Duration;

use outrider_bed::{Gate, wait_until};
use serde_json::json;

use crate::bootstrap::{lose_everything, restart, with_archive};
use crate::kept::{back_up, insert, primary, rows, streamed};
use crate::story::{LIMIT, logs};

/// For a `wal-fetch` to give up: it tries for half a minute.
const GIVEN_UP: Duration = Duration::from_secs(90);
/// Behind the backup, each with a row.
const SEGMENTS: usize = 24;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_dies_in_the_middle_of_a_replay_is_not_the_end_of_the_archive() {
    // Small segments, so that there are many.
    let settings = json!({"bootstrap": {"initdb": ["no-sync", {"wal-segsize": "1"}]}});
    let cluster = with_archive().members(1).settings(settings).start().await.unwrap();
    let store = cluster.store.as_ref().unwrap();
    let gate = Gate::before(store.endpoint().trim_start_matches("http://")).await.unwrap();
    insert(&cluster, "(0)").await;
    back_up(&cluster).await;
    for row in 1..SEGMENTS {
        insert(&cluster, &format!("({row})")).await;
        primary(&cluster).await.text("SELECT pg_switch_wal()::text").await.unwrap();
    }
    // Nobody ends the last one.
    insert(&cluster, &format!("({SEGMENTS})")).await;
    streamed(&cluster).await;
    let member = &cluster.members[0];
    lose_everything(&cluster).await;
    let log = member.log().len();

    // Nobody takes the gap for the end while it is waited for.
    let until = async |what: &str, limit: Duration, condition: &dyn Fn() -> bool| {
        let ended = || member.log()[log..].contains("redo done");
        let waited = wait_until(what, limit, async || (condition() || ended()).then_some(())).await;
        assert!(waited.is_ok() && !ended(), "{what}: {waited:?}; {}", logs(&cluster));
    };
    let restored = || member.log()[log..].matches("restored log file").count();
    // A request is tried three times before it is called a failure, which wal-fetch meets with more patience.
    let tried = || gate.is_closed() && gate.in_vain() >= 8;
    // Away for a moment: the same recovery goes on.
    gate.open_for(6);
    let endpoint = json!({"bootstrap": {"method": "archive"}, "archive": {"endpoint": gate.endpoint()}});
    restart(&cluster, &endpoint);
    until("wal-fetch meets a dead store", LIMIT, &tried).await;
    let before = restored();
    assert!(before > 0, "{}", logs(&cluster));
    // Away until the recovery is given up.
    gate.open_for(3);
    until("it goes on and meets a dead store again", LIMIT, &|| tried() && restored() > before).await;
    let failed = || member.log()[log..].contains("failed job=initdb");
    until("the recovery is given up", GIVEN_UP, &failed).await;
    let said = member.log()[log..].to_owned();
    assert!(said.contains("could not restore file") && said.contains("cannot fetch"), "{said}");
    // And before the last row, which a plan reads too: only when it is replayed.
    gate.open_for(usize::MAX);
    let before = restored();
    until("another recovery begins", LIMIT, &|| restored() > before).await;
    gate.open_until_streamed();
    until("it wants what was streamed", LIMIT, &tried).await;
    assert!(restored() >= before + SEGMENTS - 1, "{}", logs(&cluster));
    gate.open_for(usize::MAX);
    let expected: Vec<String> = (0..=SEGMENTS).map(|row| row.to_string()).collect();
    assert_eq!(rows(&cluster).await, expected.join(","), "{}", logs(&cluster));
}
