//! The address of an archive, `s3://bucket/path` or `file:///path`, taken apart. Opens nothing.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// Where an archive is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Location {
    /// `s3://bucket/path`.
    S3 {
        /// The bucket.
        bucket: String,
        /// Prefix of every key; may be empty; no slash at either end.
        path: String,
    },
    /// `file:///path`.
    Directory {
        /// An absolute path.
        path: PathBuf,
    },
}

/// The text is not the address of an archive.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not the address of an archive: {fault}; expected s3://bucket/path or file:///path")]
pub struct BadLocation {
    text: String,
    fault: &'static str,
}

impl FromStr for Location {
    type Err = BadLocation;

    fn from_str(text: &str) -> Result<Self, BadLocation> {
        let bad = |fault| BadLocation { text: text.to_owned(), fault };
        if let Some(rest) = text.strip_prefix("s3://") {
            let (bucket, path) = rest.split_once('/').unwrap_or((rest, ""));
            let path = path.trim_matches('/');
            let bucket_character = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
            if bucket.is_empty() || !bucket.chars().all(bucket_character) {
                return Err(bad("the bucket may have letters, digits, '-', '.' and '_' only"));
            }
            if !path.is_empty() && super::check_key(path).is_err() {
                return Err(bad("the path has empty, '.' or '..' parts"));
            }
            return Ok(Location::S3 { bucket: bucket.to_owned(), path: path.to_owned() });
        }
        let path = text.strip_prefix("file://").ok_or_else(|| bad("it is neither s3:// nor file://"))?;
        if path.len() < 2 || !path.starts_with('/') {
            return Err(bad("the path must be absolute"));
        }
        if path.split('/').any(|part| part == "..") {
            return Err(bad("the path has '..' parts"));
        }
        Ok(Location::Directory { path: PathBuf::from(path) })
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Location::S3 { bucket, path } if path.is_empty() => write!(f, "s3://{bucket}"),
            Location::S3 { bucket, path } => write!(f, "s3://{bucket}/{path}"),
            Location::Directory { path } => write!(f, "file://{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_printed() {
        for (text, printed) in [
            ("s3://postgres-backups/homepage", "s3://postgres-backups/homepage"),
            ("s3://b/a/b/", "s3://b/a/b"),
            ("s3://b", "s3://b"),
            ("s3://b/", "s3://b"),
            ("file:///srv/archive", "file:///srv/archive"),
        ] {
            assert_eq!(text.parse::<Location>().unwrap().to_string(), printed);
        }
    }

    #[test]
    fn other_addresses_are_refused() {
        for text in [
            "",
            "s3://",
            "s3:///x",
            "s3://b/../x",
            "s3://b/a//b",
            "s3://b?c",
            "file://srv/x",
            "file:///",
            "file:///a/../b",
            "/srv",
            "http://x/y",
        ] {
            assert!(text.parse::<Location>().is_err(), "{text}");
        }
    }
}
