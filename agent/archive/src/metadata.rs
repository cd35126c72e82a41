//! What lies beside an object of the WAL: the checksum of its plain bytes, and when its commits were. Only a help to readers: a
//! store may keep none of it, and other programs write none.

use outrider_store::Metadata;

pub use crate::content::CommitTimes;

/// The SHA-256 of the plain bytes, in hexadecimal digits.
const SHA256: &str = "outrider-sha256";
/// The times of the first and the last commit of a segment, in microseconds since the Unix epoch: so a restore knows by
/// them, without the bytes, which segment a time is in.
const FIRST_COMMIT: &str = "outrider-first-commit";
const LAST_COMMIT: &str = "outrider-last-commit";

/// What is put beside an object.
pub(crate) fn of(sha256: &str, commits: Option<CommitTimes>) -> Metadata {
    let mut metadata = Metadata::from([(SHA256.to_owned(), sha256.to_owned())]);
    if let Some(CommitTimes { first, last }) = commits {
        metadata.insert(FIRST_COMMIT.to_owned(), first.to_string());
        metadata.insert(LAST_COMMIT.to_owned(), last.to_string());
    }
    metadata
}

/// The SHA-256 of the plain bytes, in hexadecimal digits.
#[must_use]
pub fn sha256(metadata: &Metadata) -> Option<&str> {
    metadata.get(SHA256).map(String::as_str)
}

/// When the commits of a segment were.
#[must_use]
pub fn commit_times(metadata: &Metadata) -> Option<CommitTimes> {
    let number = |name: &str| metadata.get(name)?.parse::<i64>().ok();
    Some(CommitTimes { first: number(FIRST_COMMIT)?, last: number(LAST_COMMIT)? })
}
