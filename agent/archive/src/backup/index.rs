//! What lies where in the tars of a base backup: `outrider.json` beside `backup.info`. Reads and writes no store.

use serde::{Deserialize, Serialize};

/// The name of the object. Barman ignores it, since it begins neither with `data` nor with a digit.
pub const INDEX: &str = "outrider.json";
/// The name of the manifest: PostgreSQL's own, as `pg_basebackup` writes it.
pub const MANIFEST: &str = "backup_manifest";

/// The whole of `outrider.json`.
///
/// Each tar is **one** gzip member, so that `gunzip` and barman read it from front to end. Inside, it is cut at points:
/// the deflate stream before a point ends with a sync flush on a byte, and the one after it refers to nothing before.
/// So the bytes `points[i].stored .. points[i + 1].stored` of the object are raw deflate (no header, no trailer) that
/// yield exactly `points[i + 1].plain - points[i].plain` bytes of the tar, whoever unpacked the others. After the last
/// point the stream goes on to its end (`stored_end`), where an empty final block and the gzip trailer follow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupIndex {
    /// Of this format: 1. A reader refuses others and reads the tars from front to end.
    pub version: u32,
    /// The backup's id.
    pub backup: String,
    /// The tars in the order in which they were written: tablespaces first.
    pub tars: Vec<TarIndex>,
    /// Bytes of `backup_manifest`.
    pub manifest_bytes: u64,
    /// What the last line of `backup_manifest` says: SHA-256 of all before, in hexadecimal digits.
    pub manifest_checksum: String,
    /// Files in all tars, directories not counted.
    pub files: u64,
    /// Their bytes.
    pub file_bytes: u64,
    /// Pages whose checksums were wrong. Not 0 only when the backup was told to go on in spite of them.
    pub checksum_failures: u64,
}

/// One tar.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TarIndex {
    /// The object's name beside `backup.info`, such as `data.tar.gz`, `data_0001.tar.gz` or `16400.tar.gz`.
    pub name: String,
    /// The tablespace whose files it holds; `None` for the data directory.
    pub tablespace: Option<u32>,
    /// Bytes of the tar.
    pub plain: u64,
    /// Bytes of the object.
    pub stored: u64,
    /// Where the last deflate block of the tar ends in the object; ten bytes of end and trailer follow.
    pub stored_end: u64,
    /// CRC-32 (gzip's) of the tar.
    pub crc32: u32,
    /// Where reading can begin, in order. The first is at the tar's first byte.
    pub points: Vec<Point>,
}

/// A place at which reading can begin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Point {
    /// In the object: an offset in bytes.
    pub stored: u64,
    /// In the tar: an offset in bytes.
    pub plain: u64,
    /// `None`: a header of the tar begins here. Otherwise the middle of this file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inside: Option<Inside>,
}

/// The middle of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inside {
    /// The file's path in the tar; it is UTF-8, since a point is never put inside another file.
    pub path: String,
    /// The point is at this byte of it.
    pub offset: u64,
    /// Bytes of the whole file. After `size - offset` of them the tar is padded to a multiple of 512.
    pub size: u64,
}

impl BackupIndex {
    /// The format that this program writes.
    pub const VERSION: u32 = 1;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_json_is_what_the_comment_says() {
        let inside = Inside { path: "base/5/1259".into(), offset: 8192, size: 16384 };
        let points = vec![
            Point { stored: 10, plain: 0, inside: None },
            Point { stored: 500, plain: 9000, inside: Some(inside) },
        ];
        let tar = TarIndex {
            name: "data.tar.gz".into(),
            tablespace: None,
            plain: 20480,
            stored: 910,
            stored_end: 900,
            crc32: 7,
            points,
        };
        let index = BackupIndex {
            version: BackupIndex::VERSION,
            backup: "20261124T150000".into(),
            tars: vec![tar],
            manifest_bytes: 100,
            manifest_checksum: "00".into(),
            files: 1,
            file_bytes: 16384,
            checksum_failures: 0,
        };
        let text = serde_json::to_string(&index).unwrap();
        assert!(text.contains(r#"{"stored":10,"plain":0}"#), "{text}");
        assert!(text.contains(r#""inside":{"path":"base/5/1259","offset":8192,"size":16384}"#), "{text}");
        assert_eq!(serde_json::from_str::<BackupIndex>(&text).unwrap(), index);
    }
}
