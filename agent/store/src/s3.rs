//! An archive in an object store that speaks S3. Signs with rust-s3; sends by itself, since that crate accepts no custom
//! certificate authority and copies each body twice.

mod answer;
mod connection;
mod credentials;
mod download;
mod options;
mod probe;
mod signature;
mod trust;
mod upload;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue, IF_MATCH, IF_NONE_MATCH, RANGE};
use reqwest::{Method, Response};

use super::{
    Conditions, Download, Error, Metadata, ObjectInfo, Page, Payload, Replaced, Store, StoreTime, Stored,
    Upload, Version, check_key, check_range,
};
use connection::{Connection, Request};
use download::ResponseBody;
pub use options::{CredentialFiles, OpenError, S3Options};
use upload::S3Upload;

/// Most pages without a key that are skipped in one listing.
const EMPTY_PAGES_MAX: usize = 1000;
/// Prefix of user metadata in a request.
const METADATA: &str = "x-amz-meta-";

/// A bucket of an S3 store, or a path in it.
#[derive(Clone, Debug)]
pub struct S3Store {
    connection: Arc<Connection>,
    /// Set when the store was seen to overwrite despite the condition.
    looks_first: Arc<AtomicBool>,
    /// The same for the condition that an object is unchanged since it was seen.
    compares_first: Arc<AtomicBool>,
    create_bucket: bool,
}

impl S3Store {
    /// Prepares the store. Sends no request yet.
    ///
    /// # Errors
    /// When an option is unusable.
    pub fn open(options: &S3Options) -> Result<Self, OpenError> {
        Ok(S3Store {
            connection: Arc::new(Connection::open(options)?),
            looks_first: Arc::default(),
            compares_first: Arc::default(),
            create_bucket: options.create_bucket,
        })
    }

    fn looks_first(&self) -> bool {
        self.looks_first.load(Ordering::Relaxed)
    }

    /// Writes an object under this condition; `AlreadyThere` when it does not hold. Sent once or, where a second time does
    /// no harm, until it is answered.
    async fn write(&self, key: &str, body: Payload, headers: HeaderMap, once: bool) -> Result<Stored, Error> {
        let request = Request { body, headers, ..Request::new("write", Method::PUT, key) };
        let sent = if once {
            self.connection.send_once(&request).await
        } else {
            self.connection.send(&request).await
        };
        let response = sent?;
        match response.status().as_u16() {
            200..=299 if answer::is_of_object(response.headers()) => Ok(Stored::Created),
            200..=299 => Err(self.connection.strange("write", key, answer::NOT_S3)),
            412 => Ok(Stored::AlreadyThere),
            _ => Err(self.connection.failure("write", key, response).await),
        }
    }

    /// An object on its way, of which `length` bytes come.
    fn download(&self, key: &str, response: Response, info: ObjectInfo, length: u64) -> Download {
        let (url, limit) = (self.connection.object_url(key), self.connection.request_timeout());
        Download { info, body: Box::new(ResponseBody { response, url, limit, left: length }) }
    }

    /// `None` when the answer says that the object does not exist.
    async fn absent(&self, key: &str, response: Response) -> Result<Option<Download>, Error> {
        match self.connection.failure("read", key, response).await {
            Error::Refused { status: 404, code, .. } if code == "NoSuchKey" => Ok(None),
            error => Err(error),
        }
    }
}

#[async_trait]
impl Store for S3Store {
    fn url(&self) -> &str {
        self.connection.url()
    }

    async fn probe(&self, key: &str) -> Result<Conditions, Error> {
        check_key(key)?;
        let overwrites = probe::overwrites(self, key).await?;
        self.looks_first.store(overwrites, Ordering::Relaxed);
        let exchanges = overwrites || probe::exchanges_blindly(self, key).await?;
        self.compares_first.store(exchanges, Ordering::Relaxed);
        Ok(if overwrites { Conditions::Ignored } else { Conditions::Honoured })
    }

    async fn put_if_absent(&self, key: &str, body: Payload, metadata: &Metadata) -> Result<Stored, Error> {
        check_key(key)?;
        let mut headers = metadata_headers(metadata)?;
        if !self.looks_first() {
            headers.extend(if_absent());
        } else if self.head(key).await?.is_some() {
            return Ok(Stored::AlreadyThere);
        }
        self.write(key, body, headers, false).await
    }

    async fn head(&self, key: &str) -> Result<Option<ObjectInfo>, Error> {
        check_key(key)?;
        let response = self.connection.send(&Request::new("look at", Method::HEAD, key)).await?;
        match response.status().as_u16() {
            200..=299 if answer::is_of_object(response.headers()) => {
                Ok(Some(answer::info(response.headers())))
            }
            200..=299 => Err(self.connection.strange("look at", key, answer::NOT_S3)),
            // The answer to HEAD has no body, and only the body tells a missing object from a missing bucket.
            400..=499 => Ok(self.get(key).await?.map(|download| download.info)),
            _ => Err(self.connection.failure("look at", key, response).await),
        }
    }

    async fn get(&self, key: &str) -> Result<Option<Download>, Error> {
        check_key(key)?;
        let response = self.connection.send(&Request::new("read", Method::GET, key)).await?;
        if response.status() != 200 {
            return self.absent(key, response).await;
        }
        if !answer::is_of_object(response.headers()) {
            return Err(self.connection.strange("read", key, answer::NOT_S3));
        }
        let length = answer::length(response.headers())
            .ok_or_else(|| self.connection.strange("read", key, "the answer does not tell its length"))?;
        let info = answer::info(response.headers());
        Ok(Some(self.download(key, response, info, length)))
    }

    async fn get_range(&self, key: &str, from: u64, to: u64) -> Result<Option<Download>, Error> {
        check_key(key)?;
        check_range(self.connection.object_url(key), from, to, None)?;
        let mut headers = HeaderMap::new();
        // No store reads larger numbers.
        let last = (to - 1).min(i64::MAX as u64 - 1);
        headers.insert(RANGE, text_value(key, &format!("bytes={from}-{last}"))?);
        let request = Request { headers, ..Request::new("read", Method::GET, key) };
        let response = self.connection.send(&request).await?;
        if !response.status().is_success() {
            return self.absent(key, response).await;
        }
        let size = match response.status().as_u16() {
            _ if !answer::is_of_object(response.headers()) => None,
            206 => answer::range(response.headers(), from, to),
            // The whole object instead of the requested part: good if the part is the whole.
            200 if from == 0 => answer::length(response.headers()).filter(|size| *size <= to),
            _ => None,
        };
        let Some(size) = size else {
            let cause = format!("the answer is not the bytes {from} to {to}");
            return Err(self.connection.strange("read", key, cause));
        };
        let info = ObjectInfo { size, ..answer::info(response.headers()) };
        Ok(Some(self.download(key, response, info, to.min(size) - from)))
    }

    async fn put(&self, key: &str, body: Payload, metadata: &Metadata) -> Result<(), Error> {
        check_key(key)?;
        // Without a condition, none can fail.
        self.write(key, body, metadata_headers(metadata)?, false).await.map(drop)
    }

    async fn replace(&self, key: &str, body: Payload, seen: Option<&Version>) -> Result<Replaced, Error> {
        check_key(key)?;
        let mut headers = HeaderMap::new();
        if self.compares_first.load(Ordering::Relaxed) {
            let found = self.head(key).await?;
            if found.as_ref().map(|found| found.version.as_ref()) != seen.map(Some) {
                return Ok(Replaced::Changed);
            }
        } else {
            headers = match seen {
                None => if_absent(),
                Some(seen) => if_match(key, seen)?,
            };
        }
        // Only once: a second attempt could find what the first has written, and take it for somebody else's.
        match self.write(key, body, headers, true).await {
            Ok(Stored::Created) => Ok(Replaced::Done),
            Ok(Stored::AlreadyThere) => Ok(Replaced::Changed),
            Err(Error::Refused { status: 404, code, .. }) if code == "NoSuchKey" => Ok(Replaced::Changed),
            Err(error) => Err(error),
        }
    }

    async fn begin_upload(&self, key: &str) -> Result<Box<dyn Upload>, Error> {
        Ok(Box::new(S3Upload::begin(self.clone(), key).await?))
    }

    async fn sweep_uploads(&self, prefix: &str) -> Result<usize, Error> {
        upload::sweep(&self.connection, prefix).await
    }

    async fn delete(&self, key: &str) -> Result<(), Error> {
        check_key(key)?;
        let response = self.connection.send(&Request::new("delete", Method::DELETE, key)).await?;
        if response.status().is_success() {
            return Ok(());
        }
        match self.connection.failure("delete", key, response).await {
            Error::Refused { status: 404, code, .. } if code == "NoSuchKey" => Ok(()),
            error => Err(error),
        }
    }

    async fn time(&self) -> Result<Option<StoreTime>, Error> {
        let request =
            Request { query: "list-type=2&max-keys=1".to_owned(), ..Request::new("list", Method::GET, "") };
        let response = self.connection.send(&request).await?;
        if !response.status().is_success() {
            return Err(self.connection.failure("list", "", response).await);
        }
        Ok(answer::date(response.headers()).map(|time| StoreTime { time, is_elsewhere: true }))
    }

    async fn list(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Page, Error> {
        let encode = |text: &str| s3::signing::uri_encode(&self.connection.full(text), true);
        let base = format!("list-type=2&max-keys={}&prefix={}", limit.clamp(1, 1000), encode(prefix));
        let mut from = after.map(|after| format!("&start-after={}", encode(after))).unwrap_or_default();
        for _ in 0..EMPTY_PAGES_MAX {
            let query = format!("{base}{from}");
            let request = Request { query, ..Request::new("list", Method::GET, "") };
            let response = self.connection.send(&request).await?;
            if !response.status().is_success() {
                return Err(self.connection.failure("list", prefix, response).await);
            }
            let text = self.connection.text("list", prefix, response).await?;
            let page = answer::page(&text, &self.connection.full(""))
                .ok_or_else(|| self.connection.strange("list", prefix, "the answer is not a listing"))?;
            if !page.objects.is_empty() || !page.more {
                return Ok(page);
            }
            // A store may end a page before it has found a key (it skips deleted ones): the token continues.
            let token = answer::element(&text, "NextContinuationToken").filter(|token| !token.is_empty());
            let token = token.ok_or_else(|| {
                self.connection.strange(
                    "list",
                    prefix,
                    "the listing goes on, and the answer has neither keys nor a token",
                )
            })?;
            from = format!("&continuation-token={}", s3::signing::uri_encode(&token, true));
        }
        let cause = format!("{EMPTY_PAGES_MAX} pages of the listing have no keys");
        Err(self.connection.strange("list", prefix, cause))
    }
}

/// The condition that nothing is overwritten.
fn if_absent() -> HeaderMap {
    HeaderMap::from_iter([(IF_NONE_MATCH, HeaderValue::from_static("*"))])
}

/// The condition that the object is unchanged since it was seen.
fn if_match(key: &str, Version(etag): &Version) -> Result<HeaderMap, Error> {
    Ok(HeaderMap::from_iter([(IF_MATCH, text_value(key, etag)?)]))
}

fn metadata_headers(metadata: &Metadata) -> Result<HeaderMap, Error> {
    let mut headers = HeaderMap::new();
    for (name, value) in metadata {
        let header = HeaderName::try_from(format!("{METADATA}{name}"));
        let header = header.map_err(|_| Error::BadKey { key: name.clone() })?;
        headers.insert(header, text_value(name, value)?);
    }
    Ok(headers)
}

fn text_value(key: &str, text: &str) -> Result<HeaderValue, Error> {
    HeaderValue::try_from(text).map_err(|_| Error::BadKey { key: key.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::s3::options::tests::options;

    #[test]
    fn no_secret_is_printed() {
        let store = S3Store::open(&options()).unwrap();
        let printed = format!("{store:?} {:?}", options());
        assert!(!printed.contains("hush") && printed.contains("[secret]"), "{printed}");
    }
}
