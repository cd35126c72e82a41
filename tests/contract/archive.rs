//! The contract of the archive: every body runs on a directory, on an S3 server in this process and on a real MinIO.
//! What only some of them can suffer is in `faults`; what needs a real PostgreSQL is in `shipping`, `fetching`,
//! `backups` and `slot`.

mod backups;
mod bench;
mod catalog;
mod embedded;
mod faults;
mod fetching;
mod full_disk;
mod interference;
mod interoperation;
mod interruptions;
mod killed;
mod manners;
mod minio;
mod objects;
mod pg_wal;
mod postgres;
mod processes;
mod reading;
mod records;
mod recovering;
mod refilling;
mod restoring;
mod s3;
mod segments;
mod shipping;
mod slot;
mod slow;
mod small_disk;
mod streaming;
mod watched;
mod writers;

use std::time::Duration;

/// How long a test waits for what must happen.
const PATIENCE: Duration = Duration::from_secs(60);

/// Makes three tests of each body.
macro_rules! on_every_store {
    ($($body:ident),+ $(,)?) => {
        mod in_a_directory {
            $(#[tokio::test]
            async fn $body() {
                super::$body(&crate::archive::bench::Bench::directory()).await;
            })+
        }
        mod on_an_embedded_s3 {
            $(#[tokio::test]
            async fn $body() {
                super::$body(&crate::archive::bench::Bench::embedded()).await;
            })+
        }
        mod on_minio {
            $(#[tokio::test]
            async fn $body() {
                if let Some(bench) = crate::archive::bench::Bench::minio().await {
                    super::$body(&bench).await;
                }
            })+
        }
    };
}
pub(crate) use on_every_store;
