//! Finds out, by writing, which conditions an S3 store honours; creates a missing bucket if that is wanted.

use bytes::Bytes;
use reqwest::Method;

use super::connection::Request;
use super::{S3Store, answer, if_absent, if_match};
use crate::{Error, Payload, Stored, Version};

/// An ETag that no content has.
const NO_ETAG: &str = "\"00000000000000000000000000000000\"";

fn mark() -> Payload {
    Bytes::from_static(b"outrider\n").into()
}

/// Whether the store overwrites an object although it was told not to.
pub(super) async fn overwrites(store: &S3Store, key: &str) -> Result<bool, Error> {
    let mut written = 0;
    let mut may_create = store.create_bucket;
    while written < 2 {
        match store.write(key, mark(), if_absent(), false).await {
            Ok(Stored::AlreadyThere) => return Ok(false),
            Ok(Stored::Created) => written += 1,
            // An honest store that does not support the condition says so.
            Err(error) if is_unknown(&error) => return Ok(true),
            Err(Error::Refused { code, .. }) if may_create && code == "NoSuchBucket" => {
                may_create = false;
                create_bucket(store).await?;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(true)
}

/// Whether the store overwrites an object that has changed since the writer saw it.
pub(super) async fn exchanges_blindly(store: &S3Store, key: &str) -> Result<bool, Error> {
    let condition = if_match(key, &Version(NO_ETAG.to_owned()))?;
    match store.write(key, mark(), condition, false).await {
        Ok(Stored::AlreadyThere) => Ok(false),
        Ok(Stored::Created) => Ok(true),
        Err(error) if is_unknown(&error) => Ok(true),
        Err(error) => Err(error),
    }
}

fn is_unknown(error: &Error) -> bool {
    matches!(error, Error::Refused { status, code, .. } if answer::is_not_implemented(*status, code))
}

async fn create_bucket(store: &S3Store) -> Result<(), Error> {
    const ACT: &str = "create the bucket of";
    let connection = &store.connection;
    let region = connection.region();
    // Amazon requires the name of each region but the first.
    let body = if region == "us-east-1" {
        String::new()
    } else {
        format!(
            "<CreateBucketConfiguration><LocationConstraint>{region}</LocationConstraint></CreateBucketConfiguration>"
        )
    };
    let request = Request { body: Bytes::from(body).into(), ..Request::new(ACT, Method::PUT, "") };
    let response = connection.send_once(&request).await?;
    if response.status().is_success() {
        return Ok(());
    }
    match connection.failure(ACT, "", response).await {
        // Another member was faster.
        Error::Busy { code, .. } if code == "BucketAlreadyOwnedByYou" => Ok(()),
        error => Err(error),
    }
}
