//! Units of `place.rs`.

use super::*;

struct Bench {
    directory: tempfile::TempDir,
    root: PathBuf,
    space: PathBuf,
}

impl Bench {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (root, space) = (directory.path().join("data"), directory.path().join("space"));
        Bench { directory, root, space }
    }

    fn claim(&self, again: bool) -> Result<Place, RestoreError> {
        // As root somebody else must own it; as another user this is not looked at.
        Place::claim(&self.root, vec![self.space.clone()], Some((1, 1)), again)
    }
}

fn write_something(place: &Place) {
    fs::create_dir_all(place.root.join("global")).unwrap();
    fs::write(place.root.join(CONTROL_MEANWHILE), "control").unwrap();
    fs::create_dir_all(place.tablespaces[0].join("PG_15_1")).unwrap();
}

#[test]
fn a_finished_restore_leaves_no_mark_and_a_control_file() {
    for durable in [true, false] {
        let bench = Bench::new();
        let place = bench.claim(false).unwrap();
        write_something(&place);
        place.finish(durable).unwrap();
        assert!(bench.root.join(CONTROL).exists() && !bench.root.join(MARK).exists());
        assert!(!bench.space.join(MARK).exists());
        assert_eq!(fs::metadata(&bench.root).unwrap().mode() & 0o777, 0o700);
    }
}

#[test]
fn one_that_breaks_off_at_its_very_end_can_be_removed_too() {
    let bench = Bench::new();
    let place = bench.claim(false).unwrap();
    write_something(&place);
    fs::remove_file(place.root.join(CONTROL_MEANWHILE)).unwrap();
    place.finish(true).unwrap_err();
    assert!(bench.root.join(MARK).exists());
    let place = bench.claim(true).unwrap();
    assert_eq!(names(&bench.space).unwrap(), [MARK]);
    drop(place);
}

#[test]
fn an_unfinished_one_is_refused_until_it_may_be_removed() {
    let bench = Bench::new();
    let place = bench.claim(false).unwrap();
    write_something(&place);
    let fault = bench.claim(true).unwrap_err().to_string();
    assert!(fault.contains("by another process"), "{fault}");
    drop(place);
    let fault = bench.claim(false).unwrap_err().to_string();
    assert!(fault.contains("did not finish"), "{fault}");
    let place = bench.claim(true).unwrap();
    assert_eq!(names(&place.root).unwrap(), [MARK]);
    assert_eq!(names(&bench.space).unwrap(), [MARK]);
    assert!(place.remove_everything());
    assert!(bench.root.parent().unwrap().exists());
}

#[test]
fn what_holds_something_is_refused_and_not_touched() {
    for name in ["postmaster.pid", "PG_VERSION", "mine"] {
        let bench = Bench::new();
        fs::create_dir(&bench.root).unwrap();
        fs::write(bench.root.join(name), "x").unwrap();
        for again in [false, true] {
            assert!(matches!(bench.claim(again), Err(RestoreError::InTheWay { .. })), "{name}");
        }
        assert_eq!(names(&bench.root).unwrap(), [name]);
    }
}

#[test]
fn a_tablespace_that_holds_something_is_refused_and_not_touched() {
    let bench = Bench::new();
    fs::create_dir(&bench.space).unwrap();
    fs::write(bench.space.join("mine"), "x").unwrap();
    assert!(bench.claim(false).is_err() && bench.claim(true).is_err());
    assert_eq!(names(&bench.space).unwrap(), ["mine"]);
    assert_eq!(names(bench.directory.path()).unwrap(), ["space"]);
}

#[test]
fn a_tablespace_inside_another_directory_is_refused() {
    let bench = Bench::new();
    for space in ["data/space", "data", "", "space/below"] {
        let space = bench.directory.path().join(space);
        let spaces = vec![bench.space.clone(), space];
        assert!(Place::claim(&bench.root, spaces, Some((1, 1)), false).is_err());
    }
    let relative = vec![PathBuf::from("space")];
    assert!(Place::claim(&bench.root, relative, Some((1, 1)), false).is_err());
    assert_eq!(names(bench.directory.path()).unwrap(), Vec::<std::ffi::OsString>::new());
}

#[test]
fn what_was_there_before_stays_when_everything_is_removed() {
    let bench = Bench::new();
    fs::create_dir(&bench.root).unwrap();
    let place = bench.claim(false).unwrap();
    write_something(&place);
    assert!(place.remove_everything());
    assert_eq!(names(bench.directory.path()).unwrap(), ["data"]);
    assert_eq!(names(&bench.root).unwrap(), Vec::<std::ffi::OsString>::new());
}
