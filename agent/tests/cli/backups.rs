//! `outrider backups` and `outrider verify` on an archive in a directory, without any server.

use std::fs;
use std::path::PathBuf;

use serde_json::Value;
use tempfile::TempDir;

use crate::program::{Run, run_in};

/// An archive with two good backups, the WAL since, and the configuration of a member of its cluster.
struct Archive {
    directory: TempDir,
}

impl Archive {
    fn new() -> Self {
        let archive = Archive { directory: tempfile::tempdir().expect("there is room for a directory") };
        let store = archive.directory.path().join("archive");
        let text = format!(
            "scope: demo\nname: p1\netcd3: {{hosts: [\"127.0.0.1:2379\"]}}\npostgresql:\n  data_dir: {}/data\n  \
             bin_dir: /usr/bin\n  authentication: {{superuser: {{password: a}}, replication: {{password: b}}}}\n\
             archive: {{store: \"file://{}\", retention: {{count: 1}}}}\n",
            archive.directory.path().display(),
            store.display()
        );
        fs::write(archive.directory.path().join("p1.yml"), text).expect("there is room for a file");
        for (id, segment) in [("20260101T100000", 2), ("20260102T100000", 5)] {
            archive.put(&format!("base/{id}/data.tar.gz"), "0123456789");
            let lines = format!(
                "begin_time=2026-01-01 10:00:00+00:00\nend_time=2026-01-01 10:00:08+00:00\n\
                 begin_wal=00000001000000000000000{segment}\nbegin_xlog=0/{segment}000028\n\
                 end_wal=00000001000000000000000{segment}\nend_xlog=0/{segment}000100\nstatus=DONE\ntimeline=1\nversion=150018\n"
            );
            archive.put(&format!("base/{id}/backup.info"), &lines);
        }
        for segment in 1..=6 {
            archive.put(&format!("wals/0000000100000000/00000001000000000000000{segment}"), "x");
        }
        archive
    }

    fn path(&self, key: &str) -> PathBuf {
        self.directory.path().join("archive/demo").join(key)
    }

    fn put(&self, key: &str, content: &str) {
        let path = self.path(key);
        fs::create_dir_all(path.parent().expect("a key has a folder"))
            .expect("there is room for a directory");
        fs::write(path, content).expect("there is room for a file");
    }

    fn run(&self, arguments: &[&str]) -> Run {
        let mut all: Vec<&str> = arguments.to_vec();
        all.extend(["-c", "p1.yml"]);
        run_in(self.directory.path(), &all, &[])
    }

    fn ids(&self) -> Vec<String> {
        let run = self.run(&["backups", "--format", "json"]);
        assert_eq!(run.code, 0, "{run:?}");
        let document: Value = serde_json::from_str(&run.out).expect("it is JSON");
        let backups = document["backups"].as_array().expect("it is a list").clone();
        backups.iter().map(|backup| backup["id"].as_str().expect("it is a text").to_owned()).collect()
    }
}

#[test]
fn a_needed_backup_is_deleted_only_by_force() {
    let archive = Archive::new();
    assert_eq!(archive.ids(), ["20260101T100000", "20260102T100000"]);
    let run = archive.run(&["backups", "delete", "20260102T100000"]);
    assert_eq!(run.code, 1, "{run:?}");
    assert!(run.err.contains("is needed: one of the newest good ones. --force"), "{run:?}");
    let run = archive.run(&["backups", "delete", "20260103T100000"]);
    assert!(run.code == 1 && run.err.contains("there is no backup 20260103T100000"), "{run:?}");
    let run = archive.run(&["backups", "delete", "yesterday"]);
    assert!(run.code == 64 && run.err.contains("expected a time such as"), "{run:?}");
    let run = archive.run(&["backups", "delete", "20260102T100000", "--force"]);
    assert_eq!(run.code, 0, "{run:?}");
    assert_eq!(archive.ids(), ["20260101T100000"]);
}

#[test]
fn what_is_marked_stays_and_the_rest_is_pruned_after_a_look() {
    let archive = Archive::new();
    assert_eq!(archive.run(&["backups", "keep", "20260101T100000"]).code, 0);
    let run = archive.run(&["backups", "prune"]);
    assert!(run.code == 0 && run.out.starts_with("Removed 0 backups and 1 files of WAL"), "{run:?}");
    assert_eq!(archive.run(&["backups", "keep", "20260101T100000", "--release"]).code, 0);
    let look = archive.run(&["backups", "prune", "--dry-run"]);
    assert!(
        look.code == 0
            && look.out.contains("3 WAL segments would be removed: those before 000000010000000000000005"),
        "{look:?}"
    );
    assert_eq!(archive.ids().len(), 2);
    let run = archive.run(&["backups", "prune"]);
    assert!(run.code == 0 && run.out.starts_with("Removed 1 backups and 3 files of WAL"), "{run:?}");
    assert_eq!(archive.ids(), ["20260102T100000"]);
    assert!(!archive.path("wals/0000000100000000/000000010000000000000004").exists());
    assert!(archive.path("wals/0000000100000000/000000010000000000000005").exists());
}

#[test]
fn what_is_not_this_clusters_own_is_shown_and_not_changed() {
    let archive = Archive::new();
    let writer = r#"{"term":7,"system_identifier":"4200","member":"p1","claimed_at":"2026-01-01T00:00:00Z"}"#;
    archive.put("outrider/writer.json", writer);
    let strange = fs::read_to_string(archive.path("base/20260102T100000/backup.info")).expect("it is there");
    archive.put("base/20260103T100000/data.tar.gz", "0123456789");
    archive.put("base/20260103T100000/backup.info", &(strange + "systemid=4300\n"));
    let changes: [&[&str]; 4] = [
        &["backups", "prune"],
        &["backups", "delete", "20260101T100000", "--force"],
        &["backups", "keep", "20260101T100000"],
        &["backups", "keep", "20260101T100000", "--release"],
    ];
    // Nothing here knows whose archive it is.
    for change in changes {
        let run = archive.run(change);
        assert!(
            run.code == 1 && run.err.contains("nothing was changed") && run.err.contains("4200"),
            "{run:?}"
        );
        assert!(run.err.contains("--system-identifier"), "{run:?}");
    }
    let control = archive.directory.path().join("data/global");
    fs::create_dir_all(&control).expect("there is room for a directory");
    // The data directory is that of the stranger: nobody talks it out of that.
    fs::write(control.join("pg_control"), 4300_u64.to_ne_bytes()).expect("there is room for a file");
    for change in changes {
        let run = archive.run(change);
        assert!(run.code == 1 && run.err.contains("belongs to another cluster"), "{run:?}");
        let run = archive.run(&[change, &["--system-identifier", "4200"]].concat());
        assert!(run.code == 1 && run.err.contains("is not that of this cluster, which is 4300"), "{run:?}");
    }
    assert_eq!(archive.ids().len(), 3);
    let run = archive.run(&["verify"]);
    assert!(run.code == 0 && run.out.contains("not written into it"), "{run:?}");
    assert!(!archive.path("outrider/verified.json").exists());
    // It is the owner's. What the stranger left is shown, and neither counts nor goes.
    fs::write(control.join("pg_control"), 4200_u64.to_ne_bytes()).expect("there is room for a file");
    let run = archive.run(&["verify"]);
    assert!(run.code == 0 && run.out.contains("The archive is sound: 2 backups"), "{run:?}");
    assert!(
        run.out.contains("20260103T100000 is of another cluster, whose system identifier is 4300"),
        "{run:?}"
    );
    for force in [&[][..], &["--force"]] {
        let run = archive.run(&[&["backups", "delete", "20260103T100000"], force].concat());
        assert!(run.code == 1 && run.err.contains("is of another cluster"), "{run:?}");
    }
    let look = archive.run(&["backups", "prune", "--dry-run"]);
    assert!(look.code == 0 && look.out.contains("of another cluster (system identifier 4300)"), "{look:?}");
    let run = archive.run(&["backups", "prune"]);
    assert!(run.code == 0 && run.out.starts_with("Removed 1 backups and 4 files of WAL"), "{run:?}");
    assert_eq!(archive.ids(), ["20260102T100000", "20260103T100000"]);
    let run = archive.run(&["restore", "--plan", "--backup", "20260103T100000"]);
    assert!(run.code == 1 && run.err.contains("it is of another cluster"), "{run:?}");
}

#[test]
fn verify_ends_with_1_when_something_is_wrong_and_writes_it_down() {
    let archive = Archive::new();
    let run = archive.run(&["verify"]);
    assert!(run.code == 0 && run.out.contains("The archive is sound: 2 backups, 5 segments"), "{run:?}");
    fs::remove_file(archive.path("wals/0000000100000000/000000010000000000000003")).expect("it was there");
    let run = archive.run(&["verify"]);
    assert!(run.code == 1 && run.out.contains("Fault: WAL 000000010000000000000003 is missing\n"), "{run:?}");
    // None of these objects is what its name says.
    let run = archive.run(&["verify", "--full", "--format", "json"]);
    let document: Value = serde_json::from_str(&run.out).expect("it is JSON");
    assert_eq!((run.code, &document["sound"], &document["full"]), (1, &false.into(), &true.into()));
    assert!(document["faults"].as_array().is_some_and(|faults| faults.len() >= 8), "{document}");
    let run = archive.run(&["verify", "--drill", "--format", "json"]);
    let document: Value = serde_json::from_str(&run.out).expect("it is JSON");
    let failed = |fault: &Value| fault.as_str().is_some_and(|fault| fault.starts_with("the drill failed"));
    assert!(
        run.code == 1 && document["faults"].as_array().is_some_and(|all| all.iter().any(failed)),
        "{run:?}"
    );
    let written = fs::read_to_string(archive.path("outrider/verified.json")).expect("it is there");
    assert!(written.contains("\"ok\": false"), "{written}");
}

#[test]
fn without_an_archive_the_commands_say_what_is_missing() {
    let nowhere = tempfile::tempdir().expect("there is room for a directory");
    let run = run_in(nowhere.path(), &["backups"], &[]);
    assert!(run.code == 64 && run.err.contains("which archive?"), "{run:?}");
}
