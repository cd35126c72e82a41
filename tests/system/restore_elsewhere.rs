//! `outrider restore` from another archive and from another server's part of it, started by hand: its WAL comes from there
//! too, and nothing is written.

use outrider_bed::{Archive, BUCKET, Builder};
use serde_json::json;

use crate::by_hand;
use crate::kept::{ROWS, three_rows_archived};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_comes_back_from_another_archive_and_under_another_name() {
    let settings = json!({"archive": {"schedule": "never"}, "bootstrap": {"initdb": ["no-sync"]}});
    let builder = Builder::new().members(1).archive(Archive::Embedded).settings(settings);
    let cluster = builder.start().await.unwrap();
    three_rows_archived(&cluster).await;
    let (member, store) = (&cluster.members[0], cluster.store.as_ref().unwrap());
    member.kill_node();
    // The name of the server is where it lies, and nothing else.
    store.rename_folder("bed", "elsewhere").unwrap();
    store.rename_folder("elsewhere/bed", "elsewhere/twin").unwrap();
    let contents = || store.keys().into_iter().map(|key| (store.object(&key), key)).collect::<Vec<_>>();
    let before = contents();
    let into = cluster.guard.directory().join("restored");
    let archive = format!("s3://{BUCKET}/elsewhere");
    let arguments =
        ["restore", "--archive", &archive, "--from-server", "twin", "--into", into.to_str().unwrap()];
    let output = member.outrider(&arguments).unwrap();
    assert!(output.status.success(), "{output:?}");
    let restored = by_hand::start(&cluster, &into).await;
    assert_eq!(restored.text(ROWS).await.unwrap(), "1,2,3");
    assert!(contents() == before, "a restore has written into the archive that it reads");
    let unknown = ["restore", "--archive", &archive, "--from-server", "nobody", "--plan"];
    let output = member.outrider(&unknown).unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("nobody"), "{output:?}");
}
