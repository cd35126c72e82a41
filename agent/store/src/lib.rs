//! What the archive needs of an object store: put once, look, get, list. Knows nothing of WAL.

#![forbid(unsafe_code)]

mod backoff;
mod directory;
mod location;
mod payload;
mod read;
mod s3;
mod secret;

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;

pub use backoff::{Backoff, random};
pub use directory::DirectoryStore;
pub use location::{BadLocation, Location};
pub use payload::{Payload, PayloadWriter};
pub use read::{ObjectReader, ObjectSender, each_object, read_on_a_thread, read_small};
pub use s3::{CredentialFiles, OpenError, S3Options, S3Store};
pub use secret::{Secret, SecretError};

/// Names and values kept beside an object. A store may keep none.
pub type Metadata = BTreeMap<String, String>;

/// The result of a put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stored {
    /// The object is there and durable, and this call made it.
    Created,
    /// An object with this key already existed and was not touched. The caller compares the contents.
    AlreadyThere,
}

/// Whether the store keeps the promise that a put never overwrites.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Conditions {
    /// It refuses the second of two puts.
    Honoured,
    /// It overwrites: the store checks before each put instead, which does not stop two writers at the same time.
    Ignored,
}

/// What a store reports about an object without its bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ObjectInfo {
    /// Bytes as stored, so after compression.
    pub size: u64,
    /// As given with the put; empty when the store keeps none.
    pub metadata: Metadata,
    /// Changes with each change of the object; to be passed back to [`Store::replace`].
    pub version: Option<Version>,
}

/// One state of an object, as the store names it: its ETag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version(pub String);

/// The result of a replacement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Replaced {
    /// The object has the new content, durably.
    Done,
    /// The object had changed since the caller saw it, and was not touched.
    Changed,
}

/// A large object being uploaded in parts. Dropped without [`Upload::complete`] it never becomes an object; its parts may
/// stay behind until [`Store::sweep_uploads`].
#[async_trait]
pub trait Upload: Send + Sync {
    /// Sends one part. Numbers count from 1 without a gap; parts may be sent at the same time and in any order. Each
    /// but the last has at least [`PART_MIN`] bytes. Sending a number again replaces it.
    async fn part(&self, number: u32, body: Payload) -> Result<(), Error>;

    /// Makes the object from the parts sent, durably, unless there is one with that key; then the parts are discarded. At
    /// least one part must have been sent. `AlreadyThere` may also mean one's own object, when an answer was lost.
    async fn complete(self: Box<Self>) -> Result<Stored, Error>;

    /// Discards the parts.
    async fn abort(self: Box<Self>) -> Result<(), Error>;
}

/// The smallest part of an upload but the last (S3's own limit).
pub const PART_MIN: usize = 5 << 20;

/// One object of a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its key, relative to the store.
    pub key: String,
    /// Bytes as stored.
    pub size: u64,
}

/// A bounded part of a listing, in the order of the keys' bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// The objects, at most as many as asked for.
    pub objects: Vec<Listed>,
    /// Whether there are more: ask again with the last key of this page as `after`.
    pub more: bool,
}

/// The time according to a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoreTime {
    /// The time.
    pub time: Timestamp,
    /// Whether it certainly comes from another machine's clock.
    pub is_elsewhere: bool,
}

/// An object being downloaded.
pub struct Download {
    /// Its properties.
    pub info: ObjectInfo,
    /// Its bytes, in order.
    pub body: Box<dyn Body>,
}

impl fmt::Debug for Download {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Download").field("info", &self.info).finish_non_exhaustive()
    }
}

/// The bytes of an object, piece by piece, so that no object must fit into memory.
#[async_trait]
pub trait Body: Send {
    /// The next piece, never empty; `None` after the last.
    ///
    /// # Errors
    /// [`Error::Unreachable`] when the rest does not come in time.
    async fn next(&mut self) -> Result<Option<Bytes>, Error>;
}

/// A place that keeps objects by key. Keys are relative to the store and use `/` between their parts.
///
/// Every call ends by itself: each request to the store has a deadline.
#[async_trait]
pub trait Store: Send + Sync + fmt::Debug {
    /// Where it is, for messages, such as `s3://bucket/path`. Holds no secret.
    fn url(&self) -> &str;

    /// Finds out, by writing to `key`, whether a put overwrites, and that the store is writable. The object stays there and
    /// is small.
    async fn probe(&self, key: &str) -> Result<Conditions, Error>;

    /// Writes an object unless one with that key is there. After `Created` it is durable. After
    /// [`Error::Unreachable`] it may be there or not: putting it again is safe and tells.
    async fn put_if_absent(&self, key: &str, body: Payload, metadata: &Metadata) -> Result<Stored, Error>;

    /// Properties of an object; `None` only when the store says that it does not exist.
    async fn head(&self, key: &str) -> Result<Option<ObjectInfo>, Error>;

    /// Starts to read an object; `None` only when the store says that it does not exist.
    async fn get(&self, key: &str) -> Result<Option<Download>, Error>;

    /// Starts to read the bytes `from..to` of an object; `None` only when the store says that it does not exist. The end
    /// may lie beyond the object's; the start must lie within it. [`Download::info`] is of the whole object.
    async fn get_range(&self, key: &str, from: u64, to: u64) -> Result<Option<Download>, Error>;

    /// Writes an object over an existing one. Only for our own objects under `outrider/`, and for marks that a person
    /// changes: WAL and backups use [`Store::put_if_absent`].
    async fn put(&self, key: &str, body: Payload, metadata: &Metadata) -> Result<(), Error>;

    /// Writes an object if it is still as it was `seen`, `None` for absent. A store without such a condition checks first,
    /// which does not stop two writers at the same time ([`Conditions::Ignored`]).
    async fn replace(&self, key: &str, body: Payload, seen: Option<&Version>) -> Result<Replaced, Error>;

    /// Begins a large object.
    async fn begin_upload(&self, key: &str) -> Result<Box<dyn Upload>, Error>;

    /// Discards the parts of uploads under `prefix` that were never completed. Returns the number of uploads.
    async fn sweep_uploads(&self, prefix: &str) -> Result<usize, Error>;

    /// Removes an object. Also succeeds when there is none.
    async fn delete(&self, key: &str) -> Result<(), Error>;

    /// The store's time; `None` when it does not say.
    async fn time(&self) -> Result<Option<StoreTime>, Error> {
        Ok(None)
    }

    /// The keys that start with `prefix` and come after `after`, in order; at most `limit` (1 to 1000).
    async fn list(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Page, Error>;
}

/// Why a store did not do what was asked. Each variant is something the caller handles differently.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No answer, or not in time: try again later. A put may have happened.
    #[error("cannot {act} {url}: {cause}")]
    Unreachable {
        /// What was tried.
        act: &'static str,
        /// On which object.
        url: String,
        /// The whole chain of causes, in words.
        cause: String,
    },
    /// The store answered that it cannot do it right now: try again later.
    #[error("cannot {act} {url}: the store answered {status} {code}: {message}")]
    Busy {
        /// What was tried.
        act: &'static str,
        /// On which object.
        url: String,
        /// The HTTP status.
        status: u16,
        /// The store's own word, such as `SlowDown`.
        code: String,
        /// The store's explanation.
        message: String,
    },
    /// The store refuses, and trying again helps only after a person has changed something.
    #[error("cannot {act} {url}: refused with {status} {code}: {message}{}", advice(code))]
    Refused {
        /// What was tried.
        act: &'static str,
        /// On which object.
        url: String,
        /// The HTTP status.
        status: u16,
        /// The store's own word, such as `NoSuchBucket`.
        code: String,
        /// The store's explanation.
        message: String,
    },
    /// The file system of a directory store failed.
    #[error("cannot {act} {path}")]
    Directory {
        /// What was tried.
        act: &'static str,
        /// On which file.
        path: PathBuf,
        /// The system's error.
        #[source]
        source: std::io::Error,
    },
    /// A key that could leave the store, or that it cannot keep.
    #[error(
        "{key:?} is not a key: it must be relative, without empty, `.` or `..` parts and control characters"
    )]
    BadKey {
        /// The key.
        key: String,
    },
}

impl Error {
    /// Whether the store gave no answer, so that asking again at once would only wait again.
    #[must_use]
    pub fn is_silence(&self) -> bool {
        matches!(self, Error::Unreachable { .. })
    }

    /// Whether trying again helps only after a person has changed something.
    #[must_use]
    pub fn needs_a_person(&self) -> bool {
        matches!(self, Error::Refused { .. } | Error::BadKey { .. })
    }
}

/// Advice on refusals that people run into.
fn advice(code: &str) -> &'static str {
    match code {
        "NoSuchBucket" => "; create the bucket, set archive.create_bucket, or correct archive.store",
        "InvalidAccessKeyId" => "; check archive.access_key_id",
        "SignatureDoesNotMatch" => "; check archive.secret_access_key",
        "AccessDenied" => "; check the rights of the access key (it needs to get, put, list and delete)",
        "RequestTimeTooSkewed" => "; check the clock of this machine",
        _ => "",
    }
}

/// Refuses keys that mean something else to one of the stores.
fn check_key(key: &str) -> Result<(), Error> {
    let good =
        |part: &str| !part.is_empty() && part != "." && part != ".." && !part.chars().any(char::is_control);
    if key.len() <= 900 && key.split('/').all(good) {
        Ok(())
    } else {
        Err(Error::BadKey { key: key.to_owned() })
    }
}

/// Refuses a range without a byte, as S3 does; `size` of the object where it is known.
fn check_range(url: String, from: u64, to: u64, size: Option<u64>) -> Result<(), Error> {
    if from < to && size.is_none_or(|size| from < size) {
        return Ok(());
    }
    let message = format!("the bytes {from} to {to} are not in the object");
    Err(Error::Refused { act: "read", url, status: 416, code: "InvalidRange".to_owned(), message })
}

/// Refuses to join parts with a gap, or no parts at all.
fn check_parts<'a>(url: String, numbers: impl Iterator<Item = &'a u32>) -> Result<(), Error> {
    let (mut parts, mut whole) = (0, true);
    for number in numbers {
        parts += 1;
        whole &= *number == parts;
    }
    if parts > 0 && whole {
        return Ok(());
    }
    let message = format!("the {parts} parts sent are not numbered from 1 without a gap");
    Err(Error::Refused { act: "complete", url, status: 400, code: "InvalidPart".to_owned(), message })
}

/// The chain of causes in one line: most clients print only the outermost.
#[must_use]
pub fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        next = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_could_leave_the_store_is_refused() {
        for key in ["", "/etc/passwd", "../x", "a/../b", "a//b", "a/./b", "a/", "a\0b", "a\nb"] {
            assert!(matches!(check_key(key), Err(Error::BadKey { .. })), "{key:?}");
        }
        for key in ["a", "server/wals/00000002.history.gz", "a b/c", "..a/b.."] {
            assert!(check_key(key).is_ok(), "{key:?}");
        }
    }

    #[test]
    fn a_refusal_tells_what_to_do() {
        let refused = Error::Refused {
            act: "put",
            url: "s3://b/k".into(),
            status: 404,
            code: "NoSuchBucket".into(),
            message: "gone".into(),
        };
        assert!(refused.to_string().ends_with("or correct archive.store"), "{refused}");
    }
}
