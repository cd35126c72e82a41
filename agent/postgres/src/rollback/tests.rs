//! Units of `rollback.rs`.

use tempfile::TempDir;

use super::*;
use crate::settings::tests::settings;
use crate::{Directory, inspect};

/// A data directory and one prepared beside it, each with a file that identifies it.
struct Scene {
    directory: TempDir,
    postgres: Postgres,
}

impl Scene {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        for (name, what) in [("data", "old"), ("data.rollback", "new")] {
            fs::create_dir(path.join(name)).unwrap();
            fs::create_dir(path.join(name).join("pg_wal")).unwrap();
            fs::create_dir(path.join(name).join("pg_tblspc")).unwrap();
            fs::write(path.join(name).join("which"), what).unwrap();
            fs::write(path.join(name).join("pg_ident.conf"), what).unwrap();
        }
        fs::create_dir(path.join("state")).unwrap();
        let postgres = Postgres::new(Arc::new(settings(path)));
        postgres.begin_rollback("r").unwrap();
        Scene { directory, postgres }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn which(&self, name: &str) -> String {
        fs::read_to_string(self.path(name).join("which")).unwrap_or_default()
    }

    fn journal(&self) {
        Journal { id: "r".to_owned(), aside: Some(self.path("data.old")) }
            .write(&self.postgres.settings)
            .unwrap();
    }

    fn swapped(&self) -> Settled {
        Settled::Swapped(Swap { id: "r".to_owned(), aside: self.path("data.old") })
    }
}

fn undone() -> Settled {
    Settled::Undone { id: "r".to_owned() }
}

#[test]
fn a_swap_puts_the_new_data_in_place_with_the_settings_of_the_old() {
    let scene = Scene::new();
    assert_eq!(scene.postgres.settle_rollback().unwrap(), undone());
    let swap = scene.postgres.swap_in("r", &scene.path("data.old")).unwrap();
    assert_eq!(Settled::Swapped(swap), scene.swapped());
    assert_eq!((scene.which("data"), scene.which("data.old")), ("new".to_owned(), "old".to_owned()));
    assert!(!scene.path("data.rollback").exists());
    assert_eq!(fs::read_to_string(scene.path("data/pg_ident.conf")).unwrap(), "old");
    // Killed now, or at any time before the journal is removed.
    assert_eq!(scene.postgres.settle_rollback().unwrap(), scene.swapped());
    assert_eq!(scene.postgres.settle_rollback().unwrap(), scene.swapped());
    scene.postgres.finish_rollback().unwrap();
    assert_eq!(scene.postgres.settle_rollback().unwrap(), Settled::Nothing);
}

#[test]
fn killed_before_the_first_rename_nothing_has_changed() {
    let scene = Scene::new();
    scene.journal();
    assert_eq!(scene.postgres.settle_rollback().unwrap(), undone());
    assert_eq!((scene.which("data"), scene.which("data.rollback")), ("old".to_owned(), "new".to_owned()));
}

#[test]
fn killed_between_the_renames_the_old_data_comes_back_and_is_never_taken_for_an_empty_member() {
    let scene = Scene::new();
    scene.journal();
    fs::rename(scene.path("data"), scene.path("data.old")).unwrap();
    assert!(matches!(inspect(&scene.postgres.settings).unwrap(), Directory::Refused(_)));
    assert_eq!(scene.postgres.settle_rollback().unwrap(), undone());
    assert_eq!((scene.which("data"), scene.which("data.rollback")), ("old".to_owned(), "new".to_owned()));
    assert_eq!(scene.postgres.settle_rollback().unwrap(), undone(), "killed again, it is the same");
}

#[test]
fn killed_after_the_second_rename_the_new_data_stays() {
    let scene = Scene::new();
    scene.journal();
    fs::rename(scene.path("data"), scene.path("data.old")).unwrap();
    fs::rename(scene.path("data.rollback"), scene.path("data")).unwrap();
    assert_eq!(scene.postgres.settle_rollback().unwrap(), scene.swapped());
    assert_eq!(scene.which("data"), "new");
}

#[test]
fn a_swap_that_cannot_be_done_leaves_the_old_data() {
    let scene = Scene::new();
    fs::remove_dir_all(scene.path("data.rollback")).unwrap();
    scene.postgres.swap_in("r", &scene.path("data.old")).unwrap_err();
    let scene = Scene::new();
    fs::create_dir(scene.path("data.old")).unwrap();
    scene.postgres.swap_in("r", &scene.path("data.old")).unwrap_err();
    assert_eq!(scene.which("data"), "old");
    assert_eq!(scene.postgres.settle_rollback().unwrap(), undone());
}

#[test]
fn what_cannot_be_renamed_or_has_no_room_is_an_obstacle() {
    let scene = Scene::new();
    let obstacle = |needed| scene.postgres.rollback_obstacle(needed).unwrap().unwrap_or_default();
    assert_eq!(obstacle(1), "");
    assert!(obstacle(u64::MAX).contains("MiB free"));
    scene.postgres.finish_rollback().unwrap();
    assert!(obstacle(1).contains("does not belong to a rollback"));
    std::os::unix::fs::symlink("/nowhere", scene.path("data/pg_tblspc/16384")).unwrap();
    assert!(obstacle(1).contains("tablespaces"));
    fs::remove_dir_all(scene.path("data/pg_wal")).unwrap();
    std::os::unix::fs::symlink(scene.path("state"), scene.path("data/pg_wal")).unwrap();
    assert!(obstacle(1).contains("pg_wal is a symbolic link"));
    fs::rename(scene.path("data"), scene.path("elsewhere")).unwrap();
    std::os::unix::fs::symlink(scene.path("elsewhere"), scene.path("data")).unwrap();
    assert!(obstacle(1).contains("data is a symbolic link"));
}
