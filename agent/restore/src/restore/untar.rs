//! Reads a tar from front to end, in pieces of any size, and says which bytes belong to which file. Writes nothing.

use std::ffi::OsStr;
use std::ops::Range;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use tar::{EntryType, Header, PaxExtensions};

const BLOCK: usize = 512;
/// A longer name or list of attributes is none that PostgreSQL or barman would write.
const NAME_MAX: u64 = 1 << 16;
/// Where a header has its checksum, which counts as spaces (POSIX, ustar).
const CHECKSUM: Range<usize> = 148..156;

/// Takes the entries of a tar in their order.
pub(super) trait Entries {
    /// A file that is being written.
    type File: Clone;
    /// Why it cannot go on.
    type Error: From<String>;

    /// A directory.
    fn directory(&mut self, path: &Path) -> Result<(), Self::Error>;

    /// A file; `None` when its bytes are not wanted.
    fn file(&mut self, path: &Path, size: u64) -> Result<Option<Self::File>, Self::Error>;

    /// A link, a device, or what else is neither.
    fn other(&mut self, path: &Path) -> Result<(), Self::Error>;
}

/// Bytes of a piece that belong to a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Part<F> {
    pub(super) file: F,
    /// Where in the file.
    pub(super) at: u64,
    /// Where in the piece.
    pub(super) range: Range<usize>,
}

/// A tar that was read up to some byte.
#[derive(Debug)]
pub(super) struct Untar<F> {
    state: State<F>,
    /// What the headers before an entry say of it.
    name: Option<Vec<u8>>,
    size: Option<u64>,
}

#[derive(Debug)]
enum State<F> {
    /// In a header, of which these bytes came.
    Header(Vec<u8>),
    /// In the bytes of an entry.
    File {
        file: Option<F>,
        at: u64,
        left: u64,
    },
    /// In the bytes of a header that is longer than a block.
    Extension {
        kind: EntryType,
        bytes: Vec<u8>,
        left: u64,
    },
    /// Between an entry and the next block.
    Padding {
        left: u64,
    },
    End,
}

impl<F: Clone> Untar<F> {
    pub(super) fn new() -> Self {
        Untar { state: State::Header(Vec::new()), name: None, size: None }
    }

    /// Goes on with the next bytes.
    pub(super) fn feed<E: Entries<File = F>>(
        &mut self,
        bytes: &[u8],
        entries: &mut E,
    ) -> Result<Vec<Part<F>>, E::Error> {
        let mut parts = Vec::new();
        let mut from = 0;
        while from < bytes.len() {
            let rest = bytes.len() - from;
            // As many bytes as this state wants and there are.
            let take = |left: u64| usize::try_from(left).unwrap_or(usize::MAX).min(rest);
            match &mut self.state {
                State::End => return Ok(parts),
                State::Header(block) => {
                    let taken = rest.min(BLOCK - block.len());
                    block.extend_from_slice(&bytes[from..from + taken]);
                    from += taken;
                    if block.len() == BLOCK {
                        let block = std::mem::take(block);
                        self.state = self.header(&block, entries)?;
                    }
                }
                State::File { file, at, left } => {
                    let taken = take(*left);
                    if let Some(file) = file {
                        parts.push(Part { file: file.clone(), at: *at, range: from..from + taken });
                    }
                    from += taken;
                    *at += taken as u64;
                    *left -= taken as u64;
                    if *left == 0 {
                        self.state = padding(*at);
                    }
                }
                State::Extension { kind, bytes: collected, left } => {
                    let taken = take(*left);
                    collected.extend_from_slice(&bytes[from..from + taken]);
                    from += taken;
                    *left -= taken as u64;
                    if *left == 0 {
                        let (kind, collected) = (*kind, std::mem::take(collected));
                        self.state = padding(collected.len() as u64);
                        self.extension(kind, &collected)?;
                    }
                }
                State::Padding { left } => {
                    let taken = take(*left);
                    from += taken;
                    *left -= taken as u64;
                    if *left == 0 {
                        self.state = State::Header(Vec::new());
                    }
                }
            }
        }
        Ok(parts)
    }

    /// Whether the mark at the end of a tar came, without which it may be cut off.
    pub(super) fn is_complete(&self) -> bool {
        matches!(self.state, State::End)
    }

    fn header<E: Entries<File = F>>(&mut self, block: &[u8], entries: &mut E) -> Result<State<F>, E::Error> {
        if block.iter().all(|byte| *byte == 0) {
            return Ok(State::End);
        }
        let header = Header::from_byte_slice(block);
        let sum = |from: u32, bytes: &[u8]| bytes.iter().fold(from, |sum, byte| sum + u32::from(*byte));
        let spaces = 32 * CHECKSUM.len() as u32;
        let found = sum(sum(spaces, &block[..CHECKSUM.start]), &block[CHECKSUM.end..]);
        if header.cksum().ok() != Some(found) {
            return Err("a header of the tar has a wrong checksum".to_owned().into());
        }
        let stated = header.entry_size().map_err(|fault| fault.to_string())?;
        let kind = header.entry_type();
        match kind {
            EntryType::XHeader
            | EntryType::GNULongName
            | EntryType::GNULongLink
            | EntryType::XGlobalHeader => {
                if stated > NAME_MAX {
                    return Err(format!("a header of the tar has {stated} bytes").into());
                }
                return Ok(match stated {
                    0 => State::Header(Vec::new()),
                    left => State::Extension { kind, bytes: Vec::new(), left },
                });
            }
            _ => {}
        }
        let name = self.name.take().unwrap_or_else(|| header.path_bytes().into_owned());
        let size = self.size.take().unwrap_or(stated);
        let path = inside(&name)?;
        match kind {
            EntryType::Directory => {
                if let Some(path) = path {
                    entries.directory(&path)?;
                }
                Ok(skip(size))
            }
            EntryType::Regular | EntryType::Continuous => {
                let path = path.ok_or_else(|| "a file of the tar has no name".to_owned())?;
                let file = entries.file(&path, size)?;
                Ok(if size == 0 {
                    State::Header(Vec::new())
                } else {
                    State::File { file, at: 0, left: size }
                })
            }
            EntryType::GNUSparse => Err("the tar has a sparse file, which is not read".to_owned().into()),
            // Of links and devices none has bytes, whatever the header states (POSIX, ustar).
            EntryType::Symlink | EntryType::Link | EntryType::Block | EntryType::Char | EntryType::Fifo => {
                entries.other(&path.unwrap_or_default())?;
                Ok(State::Header(Vec::new()))
            }
            _ => {
                entries.other(&path.unwrap_or_default())?;
                Ok(skip(size))
            }
        }
    }

    fn extension(&mut self, kind: EntryType, bytes: &[u8]) -> Result<(), String> {
        match kind {
            EntryType::GNULongName => {
                let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
                self.name = Some(bytes[..end].to_owned());
            }
            EntryType::XHeader => {
                for record in PaxExtensions::new(bytes) {
                    let record = record.map_err(|fault| format!("an extended header of the tar: {fault}"))?;
                    match record.key_bytes() {
                        b"path" => self.name = Some(record.value_bytes().to_owned()),
                        b"size" => {
                            let size = record.value().ok().and_then(|digits| digits.parse().ok());
                            self.size = Some(size.ok_or("an extended header of the tar has a bad size")?);
                        }
                        // Times, owners and such are not taken over.
                        _ => {}
                    }
                }
            }
            // Of links the target does not matter, and what holds for all entries is not taken over either.
            _ => {}
        }
        Ok(())
    }
}

fn padding<F>(size: u64) -> State<F> {
    match size.next_multiple_of(BLOCK as u64) - size {
        0 => State::Header(Vec::new()),
        left => State::Padding { left },
    }
}

fn skip<F>(size: u64) -> State<F> {
    if size == 0 { State::Header(Vec::new()) } else { State::File { file: None, at: 0, left: size } }
}

/// The path when it stays inside the directory; `None` for the directory itself.
fn inside(name: &[u8]) -> Result<Option<PathBuf>, String> {
    let leaves = || format!("the path {:?} of the tar leaves its directory", String::from_utf8_lossy(name));
    if name.first() == Some(&b'/') || name.contains(&0) {
        return Err(leaves());
    }
    let mut path = PathBuf::new();
    for part in name.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => return Err(leaves()),
            part => path.push(OsStr::from_bytes(part)),
        }
    }
    Ok(if path.as_os_str().is_empty() { None } else { Some(path) })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// Keeps the contents in memory, and the other entries by name.
    #[derive(Default)]
    struct Kept {
        files: BTreeMap<String, u64>,
        names: Vec<String>,
    }

    impl Entries for Kept {
        type File = String;
        type Error = String;

        fn directory(&mut self, path: &Path) -> Result<(), String> {
            self.names.push(format!("{}/", path.display()));
            Ok(())
        }

        fn file(&mut self, path: &Path, size: u64) -> Result<Option<String>, String> {
            self.files.insert(path.display().to_string(), size);
            Ok(Some(path.display().to_string()))
        }

        fn other(&mut self, path: &Path) -> Result<(), String> {
            self.names.push(format!("{}@", path.display()));
            Ok(())
        }
    }

    fn content(size: usize) -> Vec<u8> {
        (0..size).map(|place| (place % 251) as u8).collect()
    }

    /// A tar with what GNU tar and Python write: long names, links, directories, an empty file.
    fn sample() -> (Vec<u8>, BTreeMap<String, Vec<u8>>) {
        let mut builder = tar::Builder::new(Vec::new());
        let mut files = BTreeMap::new();
        let entry = |builder: &mut tar::Builder<Vec<u8>>, kind, path: &str, bytes: &[u8]| {
            let mut header = Header::new_gnu();
            header.set_entry_type(kind);
            header.set_size(bytes.len() as u64);
            if kind == EntryType::Symlink {
                builder.append_link(&mut header, path, "/etc/passwd").unwrap();
            } else {
                builder.append_data(&mut header, path, bytes).unwrap();
            }
        };
        let long = "base/".to_owned() + &"x".repeat(200);
        entry(&mut builder, EntryType::Directory, "base/", b"");
        for (path, size) in
            [("PG_VERSION", 3), ("base/1", 512), ("base/2", 8192 * 3 + 1), ("empty", 0), (&long, 700)]
        {
            entry(&mut builder, EntryType::Regular, path, &content(size));
            files.insert(path.to_owned(), content(size));
        }
        entry(&mut builder, EntryType::Symlink, "pg_tblspc/16400", b"");
        builder.append_pax_extensions([("path", b"pax/name".as_slice()), ("mtime", b"1.5")]).unwrap();
        entry(&mut builder, EntryType::Regular, "ignored", b"pax");
        files.insert("pax/name".to_owned(), b"pax".to_vec());
        (builder.into_inner().unwrap(), files)
    }

    /// What was kept, the contents of the files, and whether the end was reached.
    type Read = (Kept, BTreeMap<String, Vec<u8>>, bool);

    fn read(tar: &[u8], piece: usize) -> Result<Read, String> {
        let mut kept = Kept::default();
        let mut untar = Untar::new();
        let mut files = BTreeMap::<String, Vec<u8>>::new();
        for bytes in tar.chunks(piece) {
            for part in untar.feed(bytes, &mut kept)? {
                let file = files.entry(part.file).or_default();
                assert_eq!(file.len() as u64, part.at);
                file.extend_from_slice(&bytes[part.range]);
            }
        }
        files.extend(
            kept.files.iter().filter(|(_, size)| **size == 0).map(|(name, _)| (name.clone(), Vec::new())),
        );
        Ok((kept, files, untar.is_complete()))
    }

    #[test]
    fn every_file_comes_out_whatever_the_pieces_are() {
        let (tar, files) = sample();
        for piece in [1, 7, 511, 512, 513, 4096, tar.len()] {
            let (kept, found, complete) = read(&tar, piece).unwrap();
            assert_eq!(found, files, "in pieces of {piece}");
            assert_eq!(kept.names, ["base/", "pg_tblspc/16400@"]);
            assert!(complete);
        }
    }

    #[test]
    fn a_tar_that_is_cut_off_is_not_complete() {
        let (tar, _) = sample();
        let end = tar.iter().rposition(|byte| *byte != 0).unwrap() + 1;
        for length in [0, 100, 512, 5000, end] {
            assert!(!read(&tar[..length], 512).unwrap().2, "{length}");
        }
    }

    #[test]
    fn a_changed_header_is_an_error() {
        let (mut tar, _) = sample();
        tar[512] ^= 1;
        assert!(read(&tar, 512).is_err());
    }

    #[test]
    fn a_path_that_leaves_the_directory_is_an_error() {
        for name in ["/etc/passwd", "../x", "base/../../x", "base/..", "a\0b"] {
            assert!(inside(name.as_bytes()).is_err(), "{name:?}");
        }
        assert_eq!(inside(b"./base//./1").unwrap(), Some(PathBuf::from("base/1")));
        assert_eq!(inside(b"./").unwrap(), None);
    }
}
