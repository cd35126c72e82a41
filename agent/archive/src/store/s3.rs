//! An archive in an object store that speaks S3. Signs with rust-s3; sends by itself, since that crate takes no
//! certificate authority of one's own and copies each body twice.

mod answer;
mod signature;

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream;
use reqwest::header::{CONTENT_LENGTH, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Certificate, Client, Method, Response, Url};
use tokio::time::timeout;

use super::{
    Body, Conditions, Download, Error, Location, Metadata, ObjectInfo, Page, Payload, Secret, Store, Stored,
    causes, check_key,
};
use signature::Signer;

/// What a user's metadata is called in a request.
const METADATA: &str = "x-amz-meta-";
/// A host that is gone swallows the attempt instead of refusing it.
const CONNECT_LIMIT: Duration = Duration::from_secs(3);
/// An answer that is not an object is never longer: a listing of 1000 keys.
const ANSWER_MAX: usize = 4 << 20;

/// Where the store is and who asks.
#[derive(Clone, Debug)]
pub struct S3Options {
    /// The bucket; it must exist.
    pub bucket: String,
    /// What stands before every key; may be empty.
    pub path: String,
    /// `http://` or `https://` and a host; Amazon's of the region when absent.
    pub endpoint: Option<String>,
    /// The region that is signed for, such as `us-east-1`.
    pub region: String,
    /// `endpoint/bucket/key` instead of `bucket.endpoint/key`.
    pub path_style: bool,
    /// The name of the access key.
    pub access_key_id: Secret,
    /// Its secret.
    pub secret_access_key: Secret,
    /// PEM file with the certificate authority of the endpoint, trusted besides the usual ones.
    pub ca_file: Option<PathBuf>,
    /// The longest wait for one answer, the sending of a segment included; and for the next piece of a download.
    pub request_timeout: Duration,
}

/// The options make no store.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The endpoint is no URL of a host.
    #[error("{endpoint:?} is not an endpoint: expected http:// or https:// and a host")]
    Endpoint {
        /// The text.
        endpoint: String,
    },
    /// The certificate authority cannot be read.
    #[error("cannot read the certificate authority {path}")]
    ReadCertificate {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The certificate authority is not PEM.
    #[error("{path} holds no PEM certificate")]
    Certificate {
        /// The file.
        path: PathBuf,
    },
    /// The HTTP client cannot be made.
    #[error("cannot set up the HTTP client")]
    Client {
        /// What it said.
        #[source]
        source: reqwest::Error,
    },
}

/// A bucket of an S3 store, or a path in it.
#[derive(Debug)]
pub struct S3Store {
    client: Client,
    signer: Signer,
    /// Everything before the key, with a slash at its end.
    base: Url,
    path: String,
    url: String,
    request_timeout: Duration,
    /// Set when the store was seen to overwrite in spite of the condition.
    looks_first: AtomicBool,
}

impl S3Store {
    /// Prepares the store; asks nothing of it yet.
    ///
    /// # Errors
    /// When an option is unusable.
    pub fn open(options: &S3Options) -> Result<Self, OpenError> {
        let builder = Client::builder()
            .connect_timeout(CONNECT_LIMIT)
            .redirect(reqwest::redirect::Policy::none())
            .pool_idle_timeout(Duration::from_secs(30));
        let mut builder = builder;
        for certificate in certificates(options)? {
            builder = builder.add_root_certificate(certificate);
        }
        let client = builder.build().map_err(|source| OpenError::Client { source })?;
        let location = Location::S3 { bucket: options.bucket.clone(), path: options.path.clone() };
        Ok(S3Store {
            client,
            signer: Signer::new(options),
            base: base(options)?,
            path: options.path.trim_matches('/').to_owned(),
            url: location.to_string(),
            request_timeout: options.request_timeout,
            looks_first: AtomicBool::new(false),
        })
    }

    /// The key as the store has it.
    fn full(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}/{key}", self.path) }
    }

    fn object_url(&self, key: &str) -> String {
        format!("{}/{key}", self.url)
    }

    /// Sends one request and waits for the head of its answer.
    async fn send(&self, request: Request<'_>) -> Result<Response, Error> {
        let unreachable =
            |cause| Error::Unreachable { act: request.act, url: self.object_url(request.key), cause };
        let mut url = self.base.clone();
        if !request.key.is_empty() {
            let path = format!("{}{}", url.path(), s3::signing::uri_encode(&self.full(request.key), false));
            url.set_path(&path);
        }
        if !request.query.is_empty() {
            url.set_query(Some(&request.query));
        }
        let signed = self.signer.sign(&request.method, &url, request.headers, request.body.sha256());
        let mut headers = signed.map_err(|error| unreachable(causes(&error)))?;
        // A body in pieces does not tell its length by itself, and S3 takes none without.
        headers.insert(CONTENT_LENGTH, HeaderValue::from(request.body.length()));
        let pieces = request.body.into_pieces().into_iter().map(Ok::<Bytes, std::io::Error>);
        let body = reqwest::Body::wrap_stream(stream::iter(pieces));
        let request_builder = self.client.request(request.method.clone(), url).headers(headers);
        let sent =
            if request.method == Method::PUT { request_builder.body(body) } else { request_builder }.send();
        match timeout(self.request_timeout, sent).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(error)) => Err(unreachable(causes(&error.without_url()))),
            Err(_) => Err(unreachable(format!("no answer within {:?}", self.request_timeout))),
        }
    }

    /// Reads an answer that is not an object.
    async fn text(&self, act: &'static str, key: &str, response: Response) -> Result<String, Error> {
        let unreachable = |cause| Error::Unreachable { act, url: self.object_url(key), cause };
        let mut response = response;
        let read = async {
            let mut bytes = Vec::new();
            while let Some(piece) = response.chunk().await.map_err(|error| causes(&error.without_url()))? {
                bytes.extend_from_slice(&piece);
                if bytes.len() > ANSWER_MAX {
                    return Err(format!("its answer is longer than {ANSWER_MAX} bytes"));
                }
            }
            Ok(String::from_utf8_lossy(&bytes).into_owned())
        };
        match timeout(self.request_timeout, read).await {
            Ok(text) => text.map_err(unreachable),
            Err(_) => Err(unreachable(format!("the answer broke off for {:?}", self.request_timeout))),
        }
    }

    /// Makes an error of an answer that is none of those the caller expects.
    async fn failure(&self, act: &'static str, key: &str, response: Response) -> Error {
        let status = response.status().as_u16();
        match self.text(act, key, response).await {
            Ok(text) => answer::failure(act, self.object_url(key), status, &text),
            Err(error) => error,
        }
    }

    async fn send_object(
        &self,
        key: &str,
        body: Payload,
        metadata: &Metadata,
        condition: bool,
    ) -> Result<Stored, Error> {
        let mut headers = HeaderMap::new();
        if condition {
            headers.insert("if-none-match", HeaderValue::from_static("*"));
        }
        for (name, value) in metadata {
            let pair = (HeaderName::try_from(format!("{METADATA}{name}")), HeaderValue::try_from(value));
            let (Ok(name), Ok(value)) = pair else { return Err(Error::BadKey { key: name.clone() }) };
            headers.insert(name, value);
        }
        let request = Request { body, headers, ..Request::new("write", Method::PUT, key) };
        let response = self.send(request).await?;
        match response.status().as_u16() {
            200..=299 => Ok(Stored::Created),
            412 => Ok(Stored::AlreadyThere),
            _ => Err(self.failure("write", key, response).await),
        }
    }
}

#[async_trait]
impl Store for S3Store {
    fn url(&self) -> &str {
        &self.url
    }

    async fn probe(&self, key: &str) -> Result<Conditions, Error> {
        check_key(key)?;
        let body = Payload::from(Bytes::from_static(b"outrider\n"));
        for _ in 0..2 {
            match self.send_object(key, body.clone(), &Metadata::new(), true).await {
                Ok(Stored::AlreadyThere) => {
                    self.looks_first.store(false, Ordering::Relaxed);
                    return Ok(Conditions::Honoured);
                }
                Ok(Stored::Created) => {}
                // An honest store that does not know the condition says so.
                Err(Error::Refused { status: 501, .. }) => break,
                Err(error) => return Err(error),
            }
        }
        self.looks_first.store(true, Ordering::Relaxed);
        Ok(Conditions::Ignored)
    }

    async fn put_if_absent(&self, key: &str, body: Payload, metadata: &Metadata) -> Result<Stored, Error> {
        check_key(key)?;
        let looks_first = self.looks_first.load(Ordering::Relaxed);
        if looks_first && self.head(key).await?.is_some() {
            return Ok(Stored::AlreadyThere);
        }
        self.send_object(key, body, metadata, !looks_first).await
    }

    async fn head(&self, key: &str) -> Result<Option<ObjectInfo>, Error> {
        check_key(key)?;
        let response = self.send(Request::new("look at", Method::HEAD, key)).await?;
        match response.status().as_u16() {
            200..=299 => Ok(Some(answer::info(response.headers()))),
            // The answer to HEAD has no text, and only the text tells a missing object from a missing bucket.
            400..=499 => Ok(self.get(key).await?.map(|download| download.info)),
            _ => Err(self.failure("look at", key, response).await),
        }
    }

    async fn get(&self, key: &str) -> Result<Option<Download>, Error> {
        check_key(key)?;
        let response = self.send(Request::new("read", Method::GET, key)).await?;
        if response.status().is_success() {
            let info = answer::info(response.headers());
            let (url, limit) = (self.object_url(key), self.request_timeout);
            return Ok(Some(Download { info, body: Box::new(ResponseBody { response, url, limit }) }));
        }
        match self.failure("read", key, response).await {
            Error::Refused { status: 404, code, .. } if code == "NoSuchKey" => Ok(None),
            error => Err(error),
        }
    }

    async fn get_range(&self, key: &str, _from: u64, _to: u64) -> Result<Option<Download>, Error> {
        Err(Error::BadKey { key: key.to_owned() })
    }

    async fn put(&self, key: &str, _body: Payload, _metadata: &Metadata) -> Result<(), Error> {
        Err(Error::BadKey { key: key.to_owned() })
    }

    async fn replace(
        &self,
        key: &str,
        _body: Payload,
        _seen: Option<&super::Version>,
    ) -> Result<super::Replaced, Error> {
        Err(Error::BadKey { key: key.to_owned() })
    }

    async fn begin_upload(&self, key: &str) -> Result<Box<dyn super::Upload>, Error> {
        Err(Error::BadKey { key: key.to_owned() })
    }

    async fn sweep_uploads(&self, prefix: &str) -> Result<usize, Error> {
        Err(Error::BadKey { key: prefix.to_owned() })
    }

    async fn delete(&self, key: &str) -> Result<(), Error> {
        Err(Error::BadKey { key: key.to_owned() })
    }

    async fn list(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Page, Error> {
        let encode = |text: &str| s3::signing::uri_encode(&self.full(text), true);
        let mut query = format!("list-type=2&max-keys={}&prefix={}", limit.clamp(1, 1000), encode(prefix));
        if let Some(after) = after {
            query.push_str(&format!("&start-after={}", encode(after)));
        }
        let response = self.send(Request { query, ..Request::new("list", Method::GET, "") }).await?;
        if !response.status().is_success() {
            return Err(self.failure("list", prefix, response).await);
        }
        let text = self.text("list", prefix, response).await?;
        answer::page(&text, &self.full("")).ok_or_else(|| Error::Unreachable {
            act: "list",
            url: self.object_url(prefix),
            cause: "the answer is not a listing".to_owned(),
        })
    }
}

struct Request<'a> {
    act: &'static str,
    method: Method,
    /// Empty for the bucket itself.
    key: &'a str,
    query: String,
    headers: HeaderMap,
    body: Payload,
}

impl<'a> Request<'a> {
    fn new(act: &'static str, method: Method, key: &'a str) -> Self {
        Request {
            act,
            method,
            key,
            query: String::new(),
            headers: HeaderMap::new(),
            body: Bytes::new().into(),
        }
    }
}

struct ResponseBody {
    response: Response,
    url: String,
    limit: Duration,
}

#[async_trait]
impl Body for ResponseBody {
    async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        let cause = match timeout(self.limit, self.response.chunk()).await {
            Ok(Ok(piece)) => return Ok(piece),
            Ok(Err(error)) => causes(&error.without_url()),
            Err(_) => format!("the object broke off for {:?}", self.limit),
        };
        Err(Error::Unreachable { act: "read", url: self.url.clone(), cause })
    }
}

fn certificates(options: &S3Options) -> Result<Vec<Certificate>, OpenError> {
    let Some(path) = &options.ca_file else { return Ok(Vec::new()) };
    let pem =
        std::fs::read(path).map_err(|source| OpenError::ReadCertificate { path: path.clone(), source })?;
    match Certificate::from_pem_bundle(&pem) {
        Ok(found) if !found.is_empty() => Ok(found),
        Ok(_) | Err(_) => Err(OpenError::Certificate { path: path.clone() }),
    }
}

/// `endpoint/bucket/`, or `bucket.endpoint/`.
fn base(options: &S3Options) -> Result<Url, OpenError> {
    let amazon = || format!("https://s3.{}.amazonaws.com", options.region);
    let endpoint = options.endpoint.clone().unwrap_or_else(amazon);
    let bad = || OpenError::Endpoint { endpoint: endpoint.clone() };
    let mut url = Url::parse(&endpoint).map_err(|_| bad())?;
    let host = url.host_str().ok_or_else(bad)?.to_owned();
    if !matches!(url.scheme(), "http" | "https") || url.query().is_some() || !url.username().is_empty() {
        return Err(bad());
    }
    let path = url.path().trim_end_matches('/').to_owned();
    if options.path_style {
        url.set_path(&format!("{path}/{}/", options.bucket));
    } else {
        url.set_path(&format!("{path}/"));
        url.set_host(Some(&format!("{}.{host}", options.bucket))).map_err(|_| bad())?;
    }
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options() -> S3Options {
        S3Options {
            bucket: "bucket".into(),
            path: "homepage".into(),
            endpoint: None,
            region: "eu-west-1".into(),
            path_style: false,
            access_key_id: Secret::new("key"),
            secret_access_key: Secret::new("hush"),
            ca_file: None,
            request_timeout: Duration::from_secs(1),
        }
    }

    #[test]
    fn the_bucket_stands_in_the_host_or_in_the_path() {
        assert_eq!(base(&options()).unwrap().as_str(), "https://bucket.s3.eu-west-1.amazonaws.com/");
        let own = S3Options { endpoint: Some("http://127.0.0.1:9000".into()), path_style: true, ..options() };
        assert_eq!(base(&own).unwrap().as_str(), "http://127.0.0.1:9000/bucket/");
        let below = S3Options { endpoint: Some("https://host/s3/".into()), path_style: true, ..options() };
        assert_eq!(base(&below).unwrap().as_str(), "https://host/s3/bucket/");
    }

    #[test]
    fn an_endpoint_that_is_no_host_is_refused() {
        for endpoint in ["", "127.0.0.1:9000", "ftp://host", "http://", "http://user@host", "http://host/?x"]
        {
            let options = S3Options { endpoint: Some(endpoint.into()), ..options() };
            assert!(base(&options).is_err(), "{endpoint}");
        }
    }

    #[test]
    fn no_secret_is_printed() {
        let store = S3Store::open(&options()).unwrap();
        let printed = format!("{store:?} {:?}", options());
        assert!(!printed.contains("hush") && printed.contains("[secret]"), "{printed}");
    }
}
