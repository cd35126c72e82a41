//! `outrider restore` and a member that begins with its archive, killed again and again at moments of their progress and a
//! little later, as a seed says: nothing starts what is not whole, and in the end every row is there.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

use outrider_bed::{Archive, Builder, Cluster, Seed, fault_lasts, wait_until};
use serde_json::json;

use crate::by_hand::{self, CONTROL, MARK, files};
use crate::kept::{ROWS, WORK_LIMIT, primary, three_rows_archived};

/// What can be seen of a restore under way.
#[derive(Clone, Copy, Debug)]
enum Moment {
    /// It has claimed the directory, and removes what an earlier one left.
    Begun,
    /// So many of a hundred files are there.
    Files(usize),
    /// It makes them durable.
    Syncs,
    /// Postgres could start.
    Startable,
}

/// A restore into one directory, with a tablespace beside it.
struct Scene {
    cluster: Cluster,
    into: PathBuf,
    space: PathBuf,
    /// Of a whole one.
    files: usize,
}

impl Scene {
    fn arguments(&self, more: &[&str]) -> Vec<String> {
        let moved =
            format!("{}={}", self.cluster.guard.directory().join("space").display(), self.space.display());
        let into = self.into.to_str().unwrap();
        let arguments = ["restore", "--into", into, "--tablespace", &moved];
        arguments.iter().chain(more).map(|argument| (*argument).to_owned()).collect()
    }

    /// Starts one that removes what the one before it left; what it says goes into a file.
    fn begin(&self) -> Child {
        let (guard, member) = (&self.cluster.guard, &self.cluster.members[0]);
        let mut command = guard.command(&guard.programs().outrider, member.directory());
        command.args(self.arguments(&["--overwrite-half"])).env("OUTRIDER_CONFIG", member.configuration());
        command.stdout(Stdio::null()).stderr(File::create(self.words()).unwrap());
        command.spawn().unwrap()
    }

    fn words(&self) -> PathBuf {
        self.into.with_extension("words")
    }

    fn is_reached(&self, moment: Moment) -> bool {
        let said = |words: &str| std::fs::read_to_string(self.words()).unwrap_or_default().contains(words);
        match moment {
            Moment::Begun => said("restoring the backup"),
            Moment::Files(percent) => {
                said("copying") && files(&self.into).len() * 100 >= self.files * percent
            }
            Moment::Syncs => said("making durable"),
            Moment::Startable => said("making durable") && self.into.join(CONTROL).exists(),
        }
    }

    /// Either all of it is there, or Postgres starts nothing and a second restore says what is to be done.
    fn judge(&self, when: &str) {
        let has_mark = self.into.join(MARK).exists();
        if self.into.join(CONTROL).exists() {
            let mut arguments = vec!["--no-parse-wal".to_owned(), self.into.display().to_string()];
            // Written by the restore itself.
            let spaces = std::fs::read_dir(self.into.join("pg_tblspc")).unwrap();
            let marks =
                spaces.map(|space| format!("pg_tblspc/{}/{MARK}", space.unwrap().file_name().display()));
            for name in
                ["postgresql.auto.conf", "recovery.signal", MARK].map(str::to_owned).into_iter().chain(marks)
            {
                arguments.push(format!("--ignore={name}"));
            }
            let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
            let output = by_hand::run(&self.cluster, "pg_verifybackup", &arguments);
            assert!(
                output.status.success(),
                "{when}: Postgres may start it, and it is not whole: {output:?}"
            );
            assert!(
                self.into.join("backup_label").exists() && self.into.join("recovery.signal").exists(),
                "{when}"
            );
        } else {
            let said = by_hand::refused(&self.cluster, &self.into);
            let reasons =
                ["global/pg_control", "is not a valid data directory", "could not access directory"];
            assert!(reasons.iter().any(|reason| said.contains(reason)), "{when}: {said}");
        }
        let before = files(&self.into).len();
        if before == 0 {
            assert_eq!(files(&self.space), Vec::<PathBuf>::new(), "{when}");
            return;
        }
        let arguments = self.arguments(&[]);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let output = self.cluster.members[0].outrider(&arguments).unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        let advice = if has_mark {
            "did not finish: remove it, or let it be removed with --overwrite-half"
        } else {
            "is not empty"
        };
        assert!(!output.status.success() && said.contains(advice), "{when}: {output:?}");
        assert_eq!(files(&self.into).len(), before, "{when}: a refused restore changed something");
    }
}

/// A member with a tablespace, a backup and more rows behind it.
async fn scene() -> Scene {
    let settings = json!({"archive": {"schedule": "never"}, "bootstrap": {"initdb": ["no-sync"]}});
    let cluster =
        Builder::new().members(1).archive(Archive::MinioIfThere).settings(settings).start().await.unwrap();
    let space = cluster.guard.make_directory("space").unwrap();
    let tablespace = format!("CREATE TABLESPACE space LOCATION '{}'", space.display());
    primary(&cluster).await.run(&tablespace).await.unwrap();
    let filled = "CREATE TABLE far TABLESPACE space AS SELECT i, repeat(md5(i::text), 20) FROM generate_series(1, 20000) i";
    primary(&cluster).await.run(filled).await.unwrap();
    three_rows_archived(&cluster).await;
    let directory = cluster.guard.directory().to_owned();
    let data = cluster.members[0].data_directory();
    Scene {
        files: files(&data).len(),
        cluster,
        into: directory.join("restored"),
        space: directory.join("restored_space"),
    }
}

fn remove(directory: &Path) {
    std::fs::remove_dir_all(directory).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restore_killed_at_any_moment_is_never_started_half_and_is_made_anew_when_told_so() {
    let mut seed = Seed::choose(20_261_128);
    let scene = scene().await;
    let mut moments = [
        Moment::Begun,
        Moment::Begun,
        Moment::Files(1),
        Moment::Files(20),
        Moment::Files(50),
        Moment::Files(90),
        Moment::Syncs,
        Moment::Syncs,
        Moment::Startable,
    ];
    seed.shuffle(&mut moments);
    let mut half = 0;
    for moment in moments {
        let offset = Duration::from_millis(seed.below(2) * seed.below(80));
        let when = format!("{moment:?} and {offset:?} later");
        let mut child = scene.begin();
        let reached =
            async || (scene.is_reached(moment) || child.try_wait().unwrap().is_some()).then_some(());
        wait_until(&when, WORK_LIMIT, reached).await.unwrap();
        fault_lasts(offset).await;
        // It may be done by now.
        let _ = child.kill();
        let ended = child.wait().unwrap();
        half += usize::from(scene.into.join(MARK).exists());
        scene.judge(&when);
        if scene.into.join(CONTROL).exists() && !scene.into.join(MARK).exists() {
            // Nobody is allowed to remove it but its owner.
            remove(&scene.into);
            remove(&scene.space);
        } else {
            assert!(!ended.success(), "{when}: it said that it was done");
        }
    }
    assert!(half >= 4, "it was killed in the middle {half} times only");
    let mut last = scene.begin();
    assert!(last.wait().unwrap().success(), "{}", std::fs::read_to_string(scene.words()).unwrap());
    let restored = by_hand::start(&scene.cluster, &scene.into).await;
    assert_eq!(restored.text(ROWS).await.unwrap(), "1,2,3");
    assert_eq!(restored.text("SELECT count(*)::text FROM far").await.unwrap(), "20000");
}
