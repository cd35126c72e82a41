//! `outrider restore` from another archive and from another server's part of it, started by hand: its WAL comes from there
//! too, and nothing is written.

use std::path::{Path, PathBuf};

use outrider_bed::{Archive, Builder, wait_until};
use serde_json::json;

use crate::by_hand::{self, files};
use crate::kept::{ROWS, insert, primary};
use crate::story::LIMIT;

/// Every file below a directory with what is in it.
fn contents(directory: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = files(directory);
    found.sort();
    found.into_iter().map(|file| (file.clone(), std::fs::read(directory.join(file)).unwrap())).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_comes_back_from_another_archive_and_under_another_name() {
    let settings = json!({"archive": {"schedule": "never"}, "bootstrap": {"initdb": ["no-sync"]}});
    let builder = Builder::new().members(1).archive(Archive::Directory).settings(settings);
    let cluster = builder.start().await.unwrap();
    insert(&cluster, "(1), (2)").await;
    let output = cluster.members[0].outrider(&["backup"]).unwrap();
    assert!(output.status.success(), "{output:?}");
    insert(&cluster, "(3)").await;
    let segment = primary(&cluster).await.text("SELECT pg_walfile_name(pg_switch_wal())").await.unwrap();
    let stored = format!("{segment}.gz");
    let there = async || {
        let names = files(&cluster.archive_directory());
        names.iter().any(|file| file.ends_with(&stored)).then_some(())
    };
    wait_until(format!("{segment} is in the archive"), LIMIT, there).await.unwrap();
    cluster.members[0].kill_node();
    // The name of the server is where it lies, and nothing else.
    let elsewhere = cluster.guard.make_directory("elsewhere").unwrap();
    std::fs::rename(cluster.archive_directory().join("bed"), elsewhere.join("twin")).unwrap();
    let before = contents(&elsewhere);
    let into = cluster.guard.directory().join("restored");
    let archive = format!("file://{}", elsewhere.display());
    let arguments =
        ["restore", "--archive", &archive, "--from-server", "twin", "--into", into.to_str().unwrap()];
    let output = cluster.members[0].outrider(&arguments).unwrap();
    assert!(output.status.success(), "{output:?}");
    let restored = by_hand::start(&cluster, &into).await;
    assert_eq!(restored.text(ROWS).await.unwrap(), "1,2,3");
    assert!(contents(&elsewhere) == before, "a restore has written into the archive that it reads");
    let unknown = ["restore", "--archive", &archive, "--from-server", "nobody", "--plan"];
    let output = cluster.members[0].outrider(&unknown).unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("nobody"), "{output:?}");
}
