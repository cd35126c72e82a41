//! What the instrument does to the files of a data directory, and what it refuses to touch. No Postgres runs.
#![expect(clippy::unwrap_used, reason = "a test ends where it meets what it did not expect")]

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use outrider_postgres::{Directory, Password, Settings, Tls, User, inspect};

fn settings(directory: &Path) -> Settings {
    let user = |name: &str| User {
        name: name.to_owned(),
        password: Password::new("secret:word".to_owned()),
        tls: Tls::default(),
    };
    fs::create_dir_all(directory.join("state")).unwrap();
    Settings {
        name: "member1".to_owned(),
        scope: "homepage".to_owned(),
        data_directory: directory.join("data"),
        bin_directory: "/nowhere".into(),
        state_directory: directory.join("state"),
        socket_directory: directory.to_owned(),
        listen_addresses: "127.0.0.1".to_owned(),
        port: 5432,
        supervisor_socket: directory.join("supervisor"),
        superuser: user("postgres"),
        replication: user("replicator"),
        rewind: user("rewinder"),
        parameters: [("work_mem".to_owned(), "it's".to_owned())].into(),
        pg_hba: Vec::new(),
        initdb: Vec::new(),
        archive_command: None,
        restore_command: None,
    }
}

/// A directory that looks like one of PostgreSQL's.
fn data(settings: &Settings, version: &str) {
    fs::create_dir_all(&settings.data_directory).unwrap();
    fs::set_permissions(&settings.data_directory, Permissions::from_mode(0o700)).unwrap();
    fs::write(settings.data_directory.join("PG_VERSION"), version).unwrap();
}

#[track_caller]
fn refused(settings: &Settings, because: &str) {
    match inspect(settings).unwrap() {
        Directory::Refused(why) => assert!(why.contains(because), "{why}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn nothing_is_empty_and_the_root_of_a_volume_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let settings = settings(directory.path());
    assert_eq!(inspect(&settings).unwrap(), Directory::Empty);
    fs::create_dir_all(settings.data_directory.join("lost+found")).unwrap();
    refused(&settings, "a directory below it");
}

#[test]
fn a_data_directory_is_complete() {
    let directory = tempfile::tempdir().unwrap();
    let settings = settings(directory.path());
    data(&settings, "15\n");
    assert_eq!(inspect(&settings).unwrap(), Directory::Complete);
}

#[test]
fn what_is_not_ours_is_refused_and_the_reason_says_what_to_do() {
    let directory = tempfile::tempdir().unwrap();
    let settings = settings(directory.path());
    data(&settings, "14");
    refused(&settings, "15 and newer");
    data(&settings, "15");
    fs::set_permissions(&settings.data_directory, Permissions::from_mode(0o755)).unwrap();
    refused(&settings, "chmod");
    fs::set_permissions(&settings.data_directory, Permissions::from_mode(0o700)).unwrap();
    fs::rename(settings.data_directory.join("PG_VERSION"), settings.data_directory.join("letters")).unwrap();
    refused(&settings, "not a data directory");
    fs::remove_dir_all(&settings.data_directory).unwrap();
    fs::write(&settings.data_directory, "a file").unwrap();
    refused(&settings, "not a directory");
}

#[test]
fn unfinished_work_is_seen_whatever_else_is_there() {
    let directory = tempfile::tempdir().unwrap();
    let settings = settings(directory.path());
    data(&settings, "15");
    for (mark, seen) in [
        ("initializing", Directory::HalfInitialized),
        ("cloning", Directory::HalfCloned),
        ("rewinding", Directory::HalfRewound),
    ] {
        fs::write(settings.state_directory.join(mark), "").unwrap();
        assert_eq!(inspect(&settings).unwrap(), seen);
        fs::remove_file(settings.state_directory.join(mark)).unwrap();
    }
}
