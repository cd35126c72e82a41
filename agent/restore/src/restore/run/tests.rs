//! Units of `run.rs`.

use super::*;

#[test]
fn tars_are_known_by_their_names() {
    for (name, expected) in [
        ("data.tar", Some((None, Format::Plain))),
        ("data_0001.tar.gz", Some((None, Format::Gzip))),
        ("16400.tar.bz2", Some((Some(16400), Format::Bzip2))),
        ("16400_0012.tar.snappy", Some((Some(16400), Format::Snappy))),
        ("backup.info", None),
        ("data.tar.gz.sha256", None),
        ("data_x.tar", None),
        ("database.tar", None),
        ("99999999999.tar", None),
    ] {
        assert_eq!(tar_of(name), expected, "{name}");
    }
}

#[test]
fn a_tablespace_is_mapped_by_its_old_place() {
    let space = |oid, location: &str| Tablespace { name: "s".into(), oid, location: location.into() };
    let backup = BackupInfo {
        tablespaces: vec![space(1, "/old"), space(2, "/kept"), space(3, "pg_tblspc/3")],
        ..BackupInfo::new("20261124T150000".parse().unwrap())
    };
    let mapped = |old: &str| RestoreOptions {
        tablespaces: vec![(old.to_owned(), PathBuf::from("/new"))],
        ..RestoreOptions::default()
    };
    let options = mapped("/old");
    let places: Vec<Option<PathBuf>> =
        spaces(&backup, &options).unwrap().into_iter().map(|space| space.place).collect();
    assert_eq!(places, [Some("/new".into()), Some("/kept".into()), None]);
    assert!(spaces(&backup, &mapped("/odl")).is_err());
}
