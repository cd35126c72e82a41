//! Units of `files.rs`.

use super::*;
use crate::restore::untar::Untar;

fn destination(root: &Path) -> Destination {
    Destination {
        object: "data.tar".to_owned(),
        root: root.to_owned(),
        prefix: String::new(),
        shared: Arc::default(),
    }
}

fn tar(entries: &[(&str, tar::EntryType, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (path, kind, bytes) in entries {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(*kind);
        header.set_size(bytes.len() as u64);
        match kind {
            tar::EntryType::Symlink | tar::EntryType::Link => {
                builder.append_link(&mut header, path, "/etc/passwd").unwrap();
            }
            _ => builder.append_data(&mut header, path, *bytes).unwrap(),
        }
    }
    builder.into_inner().unwrap()
}

fn unpack(bytes: &[u8], mut destination: Destination) -> Result<(), RestoreError> {
    let shared = destination.shared.clone();
    let parts = Untar::new().feed(bytes, &mut destination)?;
    write(bytes, parts, &shared)
}

#[test]
fn links_are_left_out_and_never_followed() {
    use tar::EntryType::{Link, Regular, Symlink};
    let directory = tempfile::tempdir().unwrap();
    let destination = destination(directory.path());
    let shared = destination.shared.clone();
    let tar = tar(&[
        ("pg_wal", Symlink, b""),
        ("pg_tblspc/16400", Symlink, b""),
        ("postgresql.conf", Symlink, b""),
        ("hard", Link, b""),
        ("standby.signal", Regular, b"x"),
        ("base/1/2", Regular, b"good"),
    ]);
    unpack(&tar, destination.clone()).unwrap();
    destination.complete_directories().unwrap();
    assert_eq!(shared.left_out(), ["postgresql.conf", "hard", "standby.signal"]);
    assert_eq!(fs::read(directory.path().join("base/1/2")).unwrap(), b"good");
    assert!(directory.path().join("pg_wal/archive_status").is_dir());
    assert!(!directory.path().join("pg_wal").is_symlink());
    assert!(!directory.path().join("hard").exists() && !directory.path().join("standby.signal").exists());
}

#[test]
fn a_file_that_comes_twice_is_an_error() {
    let directory = tempfile::tempdir().unwrap();
    let regular = tar::EntryType::Regular;
    let tar = tar(&[("base/1", regular, b"a"), ("base/1", regular, b"b")]);
    let fault = unpack(&tar, destination(directory.path())).unwrap_err();
    assert!(matches!(fault, RestoreError::Damaged { .. }), "{fault}");
}

#[test]
fn parts_in_any_order_give_the_checksum_of_the_whole() {
    let directory = tempfile::tempdir().unwrap();
    let bytes: Vec<u8> = (0..100_000u32).flat_map(u32::to_le_bytes).collect();
    let output = |crc32c: u32| Output {
        file: create(&directory.path().join("f"), true, None).unwrap(),
        path: directory.path().join("f"),
        name: b"f".to_vec(),
        object: String::new(),
        size: bytes.len() as u64,
        stated: Some(Stated { size: bytes.len() as u64, crc32c: Some(crc32c) }),
        parts: Mutex::default(),
        shared: Arc::default(),
    };
    let write_all = |output: &Output| {
        output.write(300_000, &bytes[300_000..])?;
        output.write(0, &bytes[..1000])?;
        output.write(1000, &bytes[1000..300_000])
    };
    let sum = crc32c::crc32c(&bytes);
    write_all(&output(sum)).unwrap();
    assert_eq!(fs::read(directory.path().join("f")).unwrap(), bytes);
    assert!(write_all(&output(sum ^ 1)).is_err());
}
