//! Finds PostgreSQL's programs when `postgresql.bin_dir` does not say where they are.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::sync_channel;
use std::time::Duration;

/// The programs that the agent and the supervisor start.
const PROGRAMS: [&str; 5] = ["postgres", "initdb", "pg_controldata", "pg_basebackup", "pg_rewind"];
/// Where Debian keeps one directory for each major version.
const DEBIAN: &str = "/usr/lib/postgresql";
/// Time limit for `pg_config`, which only prints.
const PG_CONFIG_LIMIT: Duration = Duration::from_secs(5);
/// Most that is read of its output, in bytes.
const SAID_MAX: u64 = 4096;

/// The directory with all of PostgreSQL's programs: on the search path, where `pg_config` says, or Debian's newest.
pub(super) fn find(search_path: &str) -> Option<PathBuf> {
    std::env::split_paths(search_path)
        .find(|directory| has_programs(directory))
        .or_else(|| said_by_pg_config(search_path))
        .or_else(|| newest_under(Path::new(DEBIAN)))
}

/// Which of PostgreSQL's programs are not in this directory.
pub(super) fn missing(directory: &Path) -> Vec<&'static str> {
    PROGRAMS.into_iter().filter(|program| !directory.join(program).is_file()).collect()
}

fn has_programs(directory: &Path) -> bool {
    directory.is_absolute() && missing(directory).is_empty()
}

fn said_by_pg_config(search_path: &str) -> Option<PathBuf> {
    let program = std::env::split_paths(search_path)
        .map(|directory| directory.join("pg_config"))
        .find(|path| path.is_file())?;
    let mut command = Command::new(program);
    command.arg("--bindir").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().ok()?;
    let mut stdout = child.stdout.take()?.take(SAID_MAX);
    let (answer, answered) = sync_channel(1);
    std::thread::spawn(move || {
        let mut said = String::new();
        let read = stdout.read_to_string(&mut said).map(|_| said);
        // By then nobody may be waiting any more.
        let _ = answer.send(read);
    });
    let said = answered.recv_timeout(PG_CONFIG_LIMIT);
    // It has ended, or never will.
    let _ = child.kill();
    let _ = child.wait();
    let directory = PathBuf::from(said.ok()?.ok()?.trim());
    has_programs(&directory).then_some(directory)
}

fn newest_under(root: &Path) -> Option<PathBuf> {
    let version = |path: &Path| path.file_name()?.to_str()?.parse::<u32>().ok();
    std::fs::read_dir(root)
        .ok()?
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|path| has_programs(&path.join("bin")))
        .max_by_key(|path| version(path))
        .map(|path| path.join("bin"))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn install(directory: &Path) {
        fs::create_dir_all(directory).unwrap();
        for program in PROGRAMS {
            fs::write(directory.join(program), "").unwrap();
        }
    }

    #[test]
    fn the_newest_version_is_taken_by_number() {
        let root = tempfile::tempdir().unwrap();
        for version in ["9", "15", "16", "common"] {
            install(&root.path().join(version).join("bin"));
        }
        let incomplete = root.path().join("17/bin");
        install(&incomplete);
        fs::remove_file(incomplete.join("pg_rewind")).unwrap();
        assert_eq!(newest_under(root.path()), Some(root.path().join("16/bin")));
    }

    #[test]
    fn pg_config_is_asked_and_one_that_says_nothing_is_given_up() {
        use std::os::unix::fs::PermissionsExt as _;
        let root = tempfile::tempdir().unwrap();
        let (path, directory) = (root.path().join("path"), root.path().join("bin"));
        install(&directory);
        fs::create_dir(&path).unwrap();
        let program = path.join("pg_config");
        for (script, found) in
            [(format!("echo {}", directory.display()), Some(directory)), ("exec sleep 1000".to_owned(), None)]
        {
            fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
            fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
            assert_eq!(said_by_pg_config(path.to_str().unwrap()), found);
        }
    }

    #[test]
    fn the_search_path_comes_first() {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("here");
        install(&directory);
        let search_path = format!("/nowhere:{}", directory.display());
        assert_eq!(find(&search_path), Some(directory));
    }
}
