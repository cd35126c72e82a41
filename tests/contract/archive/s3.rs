//! What the S3 servers of these tests have in common: a bucket, its keys, and the way to it.

use std::sync::Arc;
use std::time::Duration;

use outrider_store::{S3Options, S3Store, Secret, Store};

pub(crate) const BUCKET: &str = "backups";
pub(crate) const KEY: &str = "outrider-test";
pub(crate) const SECRET: &str = "outrider-secret";

pub(crate) fn open(options: &S3Options) -> Arc<dyn Store> {
    Arc::new(S3Store::open(options).unwrap())
}

/// The right options for a store at this endpoint.
pub(crate) fn options(endpoint: &str) -> S3Options {
    S3Options {
        bucket: BUCKET.to_owned(),
        create_bucket: false,
        path: "some/path".to_owned(),
        endpoint: Some(endpoint.to_owned()),
        region: "us-east-1".to_owned(),
        path_style: true,
        access_key_id: Secret::new(KEY),
        secret_access_key: Secret::new(SECRET),
        session_token: None,
        credential_files: Default::default(),
        ca_file: None,
        request_timeout: Duration::from_secs(20),
    }
}

/// A port that was free a moment ago.
pub(crate) fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}
