//! The contract of the DCS: every body runs against etcd and against memory. What only etcd can suffer is in `faults` and
//! `access`.

mod access;
mod backups;
mod bench;
mod etcd_process;
mod faults;
mod lease;
mod proxy;
mod rebuilding;
mod records;
mod rollbacks;
mod session;

use std::time::Duration;

/// How long a test waits for what must come.
const PATIENCE: Duration = Duration::from_secs(30);

/// Makes two tests of each body: one on a real etcd, one in memory.
macro_rules! on_every_store {
    ($($body:ident),+ $(,)?) => {
        mod on_etcd {
            $(#[tokio::test]
            async fn $body() {
                super::$body(&crate::dcs::bench::Bench::etcd().await).await;
            })+
        }
        mod in_memory {
            $(#[tokio::test]
            async fn $body() {
                super::$body(&crate::dcs::bench::Bench::memory()).await;
            })+
        }
    };
}
pub(crate) use on_every_store;
