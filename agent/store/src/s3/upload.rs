//! Large objects in parts (S3's multipart upload), and the removal of parts that nobody completed.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use reqwest::Method;
use tokio::sync::Mutex;

use super::connection::{Connection, Request};
use super::{S3Store, answer, if_absent};
use crate::{Error, Payload, Store as _, Stored, Upload, check_key, check_parts};

/// Time limit for completing: a store may join thousands of parts before it answers.
const COMPLETE_LIMIT: Duration = Duration::from_secs(300);
/// Most pages of a listing of uploads; each has up to 1000.
const PAGES_MAX: usize = 1000;

/// One upload in progress.
pub(super) struct S3Upload {
    store: S3Store,
    key: String,
    id: String,
    /// The ETag of each part that the store has.
    parts: Mutex<BTreeMap<u32, String>>,
}

impl S3Upload {
    pub(super) async fn begin(store: S3Store, key: &str) -> Result<Self, Error> {
        check_key(key)?;
        const ACT: &str = "begin to write";
        let connection = &store.connection;
        let request = Request { query: "uploads=".to_owned(), ..Request::new(ACT, Method::POST, key) };
        let response = connection.send(&request).await?;
        if !response.status().is_success() {
            return Err(connection.failure(ACT, key, response).await);
        }
        let text = connection.text(ACT, key, response).await?;
        let id = answer::element(&text, "UploadId").filter(|id| !id.is_empty());
        let id = id.ok_or_else(|| connection.strange(ACT, key, "the answer names no upload"))?;
        Ok(S3Upload { key: key.to_owned(), id, parts: Mutex::default(), store })
    }

    fn connection(&self) -> &Arc<Connection> {
        &self.store.connection
    }

    fn query(&self) -> String {
        format!("uploadId={}", s3::signing::uri_encode(&self.id, true))
    }

    /// Joins the parts, once. `None` when the store does not support the condition.
    async fn put_together(&self, condition: bool) -> Result<Option<Stored>, Error> {
        const ACT: &str = "complete";
        let mut text = String::from("<CompleteMultipartUpload>");
        for (number, etag) in self.parts.lock().await.iter() {
            let etag = answer::escape(etag);
            write!(text, "<Part><PartNumber>{number}</PartNumber><ETag>{etag}</ETag></Part>")
                .expect("a String takes every write");
        }
        text.push_str("</CompleteMultipartUpload>");
        let request = Request {
            query: self.query(),
            headers: if condition { if_absent() } else { Default::default() },
            body: Bytes::from(text).into(),
            limit: Some(COMPLETE_LIMIT),
            ..Request::new(ACT, Method::POST, &self.key)
        };
        let response = self.connection().send(&request).await?;
        let status = response.status().as_u16();
        if status == 412 {
            return Ok(Some(Stored::AlreadyThere));
        }
        let text = self.connection().text_within(COMPLETE_LIMIT, ACT, &self.key, response).await?;
        let failed = |status| answer::failure(ACT, self.connection().object_url(&self.key), status, &text);
        match (status, answer::element(&text, "Code")) {
            (200..=299, None) if text.contains("<CompleteMultipartUploadResult") => Ok(Some(Stored::Created)),
            (200..=299, None) => Err(self.connection().strange(ACT, &self.key, "the answer is not S3's")),
            // S3 starts its response before it is done, so the status says nothing.
            (200..=299, Some(code)) if code == "PreconditionFailed" => Ok(Some(Stored::AlreadyThere)),
            (200..=299, Some(_)) => Err(failed(500)),
            (status, code)
                if condition && answer::is_not_implemented(status, code.as_deref().unwrap_or_default()) =>
            {
                Ok(None)
            }
            // Completed by an earlier attempt whose answer was lost, or swept by somebody: the object tells.
            (404, Some(code)) if code == "NoSuchUpload" => match self.store.head(&self.key).await? {
                Some(_) => Ok(Some(Stored::AlreadyThere)),
                None => Err(failed(404)),
            },
            (status, _) => Err(failed(status)),
        }
    }

    async fn forget(&self) -> Result<(), Error> {
        remove(self.connection(), &self.key, &self.id).await
    }
}

#[async_trait]
impl Upload for S3Upload {
    async fn part(&self, number: u32, body: Payload) -> Result<(), Error> {
        const ACT: &str = "write a part of";
        let query = format!("partNumber={number}&{}", self.query());
        let request = Request { query, body, ..Request::new(ACT, Method::PUT, &self.key) };
        let response = self.connection().send(&request).await?;
        if !response.status().is_success() {
            return Err(self.connection().failure(ACT, &self.key, response).await);
        }
        let etag = response.headers().get("etag").and_then(|etag| etag.to_str().ok());
        let Some(etag) = etag else {
            return Err(self.connection().strange(ACT, &self.key, "the answer names no ETag"));
        };
        self.parts.lock().await.insert(number, etag.to_owned());
        Ok(())
    }

    async fn complete(self: Box<Self>) -> Result<Stored, Error> {
        check_parts(self.connection().object_url(&self.key), self.parts.lock().await.keys())?;
        // Checking beforehand costs little compared with the parts, and some stores support the condition only for a put.
        let stored = if self.store.head(&self.key).await?.is_some() {
            Stored::AlreadyThere
        } else {
            let condition = !self.store.looks_first();
            let stored = self.put_together(condition).await?;
            match stored {
                Some(stored) => stored,
                None => self.put_together(false).await?.unwrap_or(Stored::Created),
            }
        };
        if stored == Stored::AlreadyThere {
            self.forget().await?;
        }
        Ok(stored)
    }

    async fn abort(self: Box<Self>) -> Result<(), Error> {
        self.forget().await
    }
}

/// Discards the parts of one upload.
async fn remove(connection: &Connection, key: &str, id: &str) -> Result<(), Error> {
    const ACT: &str = "throw away the parts of";
    let query = format!("uploadId={}", s3::signing::uri_encode(id, true));
    let response = connection.send(&Request { query, ..Request::new(ACT, Method::DELETE, key) }).await?;
    if response.status().is_success() {
        return Ok(());
    }
    match connection.failure(ACT, key, response).await {
        Error::Refused { status: 404, code, .. } if code == "NoSuchUpload" => Ok(()),
        error => Err(error),
    }
}

/// Discards all uploads under `prefix`. Returns their number.
pub(super) async fn sweep(connection: &Connection, prefix: &str) -> Result<usize, Error> {
    const ACT: &str = "list uploads under";
    let (base, wanted) = (connection.full(""), connection.full(prefix));
    let (mut swept, mut markers) = (0, String::new());
    for _ in 0..PAGES_MAX {
        // Of the whole bucket, since MinIO takes the prefix for the whole key.
        let query = format!("uploads=&max-uploads=1000{markers}");
        let response = connection.send(&Request { query, ..Request::new(ACT, Method::GET, "") }).await?;
        if !response.status().is_success() {
            return Err(connection.failure(ACT, prefix, response).await);
        }
        let text = connection.text(ACT, prefix, response).await?;
        let page = answer::uploads(&text)
            .ok_or_else(|| connection.strange(ACT, prefix, "the answer is not a listing of uploads"))?;
        for (key, id) in page.uploads {
            if let Some(key) = key.strip_prefix(&base).filter(|_| key.starts_with(&wanted)) {
                remove(connection, key, &id).await?;
                swept += 1;
            }
        }
        let Some((key, id)) = page.next else { return Ok(swept) };
        let encode = |text: &str| s3::signing::uri_encode(text, true);
        markers = format!("&key-marker={}&upload-id-marker={}", encode(&key), encode(&id));
    }
    Err(connection.strange(ACT, prefix, format!("the listing has more than {PAGES_MAX} pages")))
}
