//! The bytes of an object from an S3 store, never fewer nor more than promised.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use reqwest::Response;
use tokio::time::timeout;

use crate::{Body, Error, causes};

/// The body of one response.
pub(super) struct ResponseBody {
    pub(super) response: Response,
    pub(super) url: String,
    /// The longest wait for the next piece.
    pub(super) limit: Duration,
    /// Bytes still to come.
    pub(super) left: u64,
}

#[async_trait]
impl Body for ResponseBody {
    async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        let cause = match timeout(self.limit, self.response.chunk()).await {
            Ok(Ok(None)) if self.left == 0 => return Ok(None),
            Ok(Ok(None)) => format!("it ended {} bytes too early", self.left),
            Ok(Ok(Some(piece))) => match self.left.checked_sub(piece.len() as u64) {
                Some(left) => {
                    self.left = left;
                    return Ok(Some(piece));
                }
                None => "it is longer than the store said".to_owned(),
            },
            Ok(Err(error)) => causes(&error.without_url()),
            Err(_) => format!("the object stalled for {:?}", self.limit),
        };
        Err(Error::Unreachable { act: "read", url: self.url.clone(), cause })
    }
}
