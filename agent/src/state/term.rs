//! The highest term that this member ever saw, kept on its disk, so that a DCS that went back is noticed.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use outrider_ha::Term;

/// The file `term` in the state directory: one decimal number.
pub(crate) struct TermFile {
    path: PathBuf,
    term: Term,
}

/// The file cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TermError {
    /// It is there and cannot be read.
    #[error("cannot read the highest term seen from {path}")]
    Read { path: PathBuf, source: io::Error },
    /// It holds something else.
    #[error("{path} does not hold a number: it was damaged; remove it to accept the term of the DCS")]
    Damaged { path: PathBuf },
    /// It cannot be written.
    #[error("cannot write the highest term seen to {path}")]
    Write { path: PathBuf, source: io::Error },
}

impl TermFile {
    /// Reads the file; a missing one is term 0.
    pub(crate) fn open(state_directory: &Path) -> Result<Self, TermError> {
        let path = state_directory.join("term");
        let term = match fs::read_to_string(&path) {
            Ok(text) => match text.trim().parse() {
                Ok(number) => Term(number),
                Err(_) => return Err(TermError::Damaged { path }),
            },
            Err(fault) if fault.kind() == io::ErrorKind::NotFound => Term(0),
            Err(source) => return Err(TermError::Read { path, source }),
        };
        Ok(TermFile { path, term })
    }

    /// Writes a damaged file anew, with the term that is known from elsewhere.
    pub(super) fn mended(state_directory: &Path, term: Term) -> Result<Self, TermError> {
        let mut file = TermFile { path: state_directory.join("term"), term: Term(0) };
        file.saw(term).map(|()| file)
    }

    /// The highest term seen.
    pub(crate) fn highest(&self) -> Term {
        self.term
    }

    /// Remembers `term`, durably, when it is higher than every one before.
    pub(crate) fn saw(&mut self, term: Term) -> Result<(), TermError> {
        if term <= self.term {
            return Ok(());
        }
        replace(&self.path, format!("{term}\n").as_bytes(), Durable::AtOnce)
            .map_err(|source| TermError::Write { path: self.path.clone(), source })?;
        self.term = term;
        Ok(())
    }
}

/// Whether a file survives a power cut right after it was written.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Durable {
    /// Yes.
    AtOnce,
    /// The old one or the new one does.
    InTime,
}

/// Puts `content` in the place of the file.
pub(super) fn replace(path: &Path, content: &[u8], durable: Durable) -> io::Result<()> {
    let fresh = path.with_extension("new");
    let mut file = File::options().write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
    file.write_all(content)?;
    if durable == Durable::InTime {
        return fs::rename(&fresh, path);
    }
    file.sync_all()?;
    fs::rename(&fresh, path)?;
    // The rename itself is durable only when its directory is.
    match path.parent() {
        Some(directory) => File::open(directory)?.sync_all(),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_term_survives_and_never_falls() {
        let directory = tempfile::tempdir().unwrap();
        let mut file = TermFile::open(directory.path()).unwrap();
        file.saw(Term(7)).unwrap();
        file.saw(Term(3)).unwrap();
        assert_eq!(TermFile::open(directory.path()).unwrap().highest(), Term(7));
    }

    #[test]
    fn a_damaged_file_is_refused_by_name() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("term"), "seven").unwrap();
        let fault = TermFile::open(directory.path()).err().unwrap();
        assert!(fault.to_string().contains("remove it"), "{fault}");
    }
}
