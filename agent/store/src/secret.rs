//! A secret that no log, error or debug print shows. Does not keep it from a core dump.

use std::fmt;
use std::path::{Path, PathBuf};

/// A password or key. Prints as `[secret]`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Keeps `text`.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Secret(text.into())
    }

    /// Reads a file whose whole content, without surrounding white space, is the secret.
    ///
    /// # Errors
    /// When it cannot be read or is empty.
    pub fn from_file(path: &Path) -> Result<Self, SecretError> {
        let read = std::fs::read_to_string(path);
        let text = read.map_err(|source| SecretError::Read { path: path.to_owned(), source })?;
        let text = text.trim();
        if text.is_empty() {
            Err(SecretError::Empty { path: path.to_owned() })
        } else {
            Ok(Secret::new(text))
        }
    }

    /// The secret itself.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

/// A file that does not hold a secret.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// It cannot be read.
    #[error("cannot read the secret in {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's error.
        #[source]
        source: std::io::Error,
    },
    /// It is empty.
    #[error("the secret file {path} is empty")]
    Empty {
        /// The file.
        path: PathBuf,
    },
}
