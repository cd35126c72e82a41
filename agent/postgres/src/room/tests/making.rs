//! Old data with tablespaces makes room, whatever is in the way, also after an interruption in the middle.

use std::os::unix::fs::{PermissionsExt as _, symlink};

use tempfile::TempDir;

use super::super::*;
use crate::settings::tests::settings;

/// What PostgreSQL calls the directory of a version in a tablespace.
const VERSION: &str = "PG_15_202209061";

/// A complete data directory with a tablespace beside it; each holds a file that says which it is.
struct Scene {
    directory: TempDir,
    settings: Settings,
}

impl Scene {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let settings = settings(directory.path());
        let scene = Scene { directory, settings };
        fs::create_dir(scene.path("state")).unwrap();
        scene.fill("old");
        scene
    }

    /// The data and the tablespace of a server.
    fn fill(&self, which: &str) {
        fs::create_dir_all(self.path("data/pg_tblspc")).unwrap();
        fs::set_permissions(self.path("data"), fs::Permissions::from_mode(0o700)).unwrap();
        fs::write(self.path("data/PG_VERSION"), "15\n").unwrap();
        fs::write(self.path("data/which"), which).unwrap();
        fs::create_dir_all(self.path("space").join(VERSION)).unwrap();
        fs::write(self.path("space").join(VERSION).join("which"), which).unwrap();
        symlink(self.path("space"), self.path("data/pg_tblspc/16384")).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn make_room(&self, bytes: Option<u64>) -> Result<(), Error> {
        make_room(&self.settings, Work::Clone, &Coming { tablespaces: vec![self.path("space")], bytes })
    }

    fn which(&self, name: &str) -> String {
        fs::read_to_string(self.path(name).join("which")).unwrap_or_default()
    }

    /// The content of a directory; empty if it does not exist.
    fn names(&self, name: &str) -> Vec<String> {
        let entries = fs::read_dir(self.path(name)).into_iter().flatten().flatten();
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
    }

    /// A copy could begin now, and an interrupted one starts again.
    fn is_free(&self) {
        assert_eq!(self.names("data"), [""; 0]);
        assert_eq!(self.names("space"), [""; 0]);
        let found = inspect(&self.settings).unwrap();
        assert!(matches!(found, Directory::Empty | Directory::HalfCloned), "{found:?}");
        let places = directory::places_of_unfinished_work(&self.settings).unwrap();
        assert_eq!(places, [self.path("space")]);
    }

    /// The old data was moved aside, and its link leads to its tablespace there.
    fn is_aside(&self, which: &str) {
        assert_eq!(self.which("data.replaced"), which);
        assert_eq!(self.which(&format!("data.replaced/pg_tblspc/16384/{VERSION}")), which);
    }
}

#[test]
fn old_data_goes_aside_with_its_tablespaces_and_one_copy_of_it_is_kept() {
    let scene = Scene::new();
    scene.make_room(Some(1)).unwrap();
    scene.is_free();
    scene.is_aside("old");
    fs::remove_file(scene.path("state/cloning")).unwrap();
    scene.fill("newer");
    scene.make_room(Some(1)).unwrap();
    scene.is_free();
    scene.is_aside("newer");
}

#[test]
fn what_a_copy_wrote_into_a_tablespace_before_it_was_broken_off_is_removed_and_the_old_data_stays_aside() {
    let scene = Scene::new();
    scene.make_room(None).unwrap();
    // pg_basebackup writes the tablespaces before it links them.
    fs::create_dir_all(scene.path("space").join(VERSION)).unwrap();
    fs::create_dir_all(scene.path("data/base")).unwrap();
    scene.make_room(None).unwrap();
    scene.is_free();
    scene.is_aside("old");
}

#[test]
fn broken_off_after_the_data_was_renamed_the_tablespaces_follow() {
    let scene = Scene::new();
    fs::rename(scene.path("data"), scene.path("data.replaced")).unwrap();
    scene.make_room(None).unwrap();
    scene.is_free();
    scene.is_aside("old");
    // In the middle of the move of a tablespace: what had been moved is found again.
    let scene = Scene::new();
    fs::rename(scene.path("data"), scene.path("data.replaced")).unwrap();
    fs::create_dir(scene.path("space.replaced")).unwrap();
    fs::rename(scene.path("space").join(VERSION), scene.path("space.replaced").join(VERSION)).unwrap();
    scene.make_room(None).unwrap();
    scene.is_free();
    scene.is_aside("old");
}

#[test]
fn a_data_directory_that_is_a_link_stays_one_and_its_content_goes() {
    let scene = Scene::new();
    fs::rename(scene.path("data"), scene.path("volume")).unwrap();
    symlink(scene.path("volume"), scene.path("data")).unwrap();
    scene.make_room(Some(1)).unwrap();
    scene.is_free();
    assert!(fs::symlink_metadata(scene.path("data")).unwrap().is_symlink());
    assert!(!scene.path("data.replaced").exists());
}

#[test]
fn wal_that_lies_elsewhere_goes_with_data_that_cannot_be_kept_and_nothing_else_there_does() {
    let scene = Scene::new();
    for name in ["wal", "wal/archive_status"] {
        fs::create_dir(scene.path(name)).unwrap();
    }
    for name in ["wal/000000010000000000000001", "wal/00000002.history", "wal/lost+found"] {
        fs::write(scene.path(name), "").unwrap();
    }
    symlink(scene.path("wal"), scene.path("data/pg_wal")).unwrap();
    fs::rename(scene.path("data"), scene.path("volume")).unwrap();
    symlink(scene.path("volume"), scene.path("data")).unwrap();
    scene.make_room(None).unwrap();
    scene.is_free();
    assert_eq!(scene.names("wal"), ["lost+found"]);
}

#[test]
fn a_tablespace_that_is_not_ours_or_holds_other_files_is_refused_and_nothing_is_touched() {
    let refused = |scene: &Scene| {
        let fault = scene.make_room(None).unwrap_err().to_string();
        assert!(scene.which(&format!("space/{VERSION}")) == "old", "touched");
        fault
    };
    let scene = Scene::new();
    fs::write(scene.path("space/diary.txt"), "dear diary").unwrap();
    let fault = refused(&scene);
    assert!(fault.contains("holds diary.txt, which is not PostgreSQL's"), "{fault}");
    assert_eq!(scene.which("data"), "old");
    // A new member on a machine where another server has a tablespace in the same place.
    let scene = Scene::new();
    fs::remove_dir_all(scene.path("data")).unwrap();
    let fault = refused(&scene);
    assert!(fault.contains("nothing says that its content belongs to this member"), "{fault}");
}

#[test]
fn a_cluster_that_has_no_room_even_where_the_old_data_was_leaves_it_alone() {
    let scene = Scene::new();
    let fault = scene.make_room(Some(u64::MAX / 4)).unwrap_err().to_string();
    assert!(fault.contains("nothing was touched"), "{fault}");
    assert_eq!((scene.which("data"), scene.which(&format!("space/{VERSION}"))), ("old".into(), "old".into()));
    assert_eq!(inspect(&scene.settings).unwrap(), Directory::Complete);
}
