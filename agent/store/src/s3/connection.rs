//! Sends signed requests to an S3 store and waits for responses, retrying where that is worthwhile. Knows no objects.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use base64::Engine as _;
use bytes::Bytes;
use futures_util::stream;
use reqwest::header::{CONTENT_LENGTH, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Client, Method, Response, Url};
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::answer;
use super::options::{OpenError, S3Options, base};
use super::signature::{Signer, UNSIGNED};
use super::trust;
use crate::clock;
use crate::{Error, Location, Payload, causes};

/// Limit for connecting: a host that is gone swallows the attempt instead of refusing it.
const CONNECT_LIMIT: Duration = Duration::from_secs(3);
/// Most idle connections kept: as many as there are requests at one time.
const IDLE_MAX: usize = 32;
/// How long an idle connection is kept. Shorter than on the servers, where it is a minute or more.
const IDLE_LIMIT: Duration = Duration::from_secs(30);
/// Longest response that is not an object: a listing of 1000 keys.
const ANSWER_MAX: usize = 4 << 20;
/// Pauses before the second and third attempts, so there are at most three.
const PAUSES: [Duration; 2] = [Duration::from_millis(100), Duration::from_millis(400)];
/// A body up to this length is hashed where the request is made; a longer one off the async threads.
const SUM_AT_ONCE: u64 = 64 * 1024;

const CONTENT_MD5: HeaderName = HeaderName::from_static("content-md5");

/// The way to one bucket.
#[derive(Debug)]
pub(super) struct Connection {
    client: Client,
    signer: Signer,
    /// Everything before the key, with a trailing slash.
    base: Url,
    path: String,
    url: String,
    region: String,
    request_timeout: Duration,
}

/// One request.
pub(super) struct Request<'a> {
    /// For messages.
    pub(super) act: &'static str,
    pub(super) method: Method,
    /// Empty for the bucket itself.
    pub(super) key: &'a str,
    /// Already encoded.
    pub(super) query: String,
    pub(super) headers: HeaderMap,
    pub(super) body: Payload,
    /// Time limit for the response; the store's `request_timeout` when absent.
    pub(super) limit: Option<Duration>,
}

impl<'a> Request<'a> {
    pub(super) fn new(act: &'static str, method: Method, key: &'a str) -> Self {
        Request {
            act,
            method,
            key,
            query: String::new(),
            headers: HeaderMap::new(),
            body: Bytes::new().into(),
            limit: None,
        }
    }
}

impl Connection {
    pub(super) fn open(options: &S3Options) -> Result<Self, OpenError> {
        let mut builder = Client::builder()
            .use_preconfigured_tls(trust::configuration(options.ca_file.as_ref())?)
            .connect_timeout(CONNECT_LIMIT)
            .redirect(reqwest::redirect::Policy::none())
            .tcp_nodelay(true)
            .pool_max_idle_per_host(IDLE_MAX)
            .pool_idle_timeout(IDLE_LIMIT);
        let base = base(options)?;
        // Names under localhost are this machine (RFC 6761, 6.3), and the C library does not know them. A port of 0 means
        // the URL's.
        if let Some(host) = base.host_str().filter(|host| host.ends_with(".localhost")) {
            builder = builder.resolve(host, SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
        }
        let client = builder.build().map_err(|source| OpenError::Client { source })?;
        let location = Location::S3 { bucket: options.bucket.clone(), path: options.path.clone() };
        Ok(Connection {
            client,
            signer: Signer::new(options)?,
            base,
            path: options.path.clone(),
            url: location.to_string(),
            region: options.region.clone(),
            request_timeout: options.request_timeout,
        })
    }

    pub(super) fn url(&self) -> &str {
        &self.url
    }

    pub(super) fn region(&self) -> &str {
        &self.region
    }

    pub(super) fn request_timeout(&self) -> Duration {
        self.request_timeout
    }

    /// The key as the store has it.
    pub(super) fn full(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}/{key}", self.path) }
    }

    /// The object for messages.
    pub(super) fn object_url(&self, key: &str) -> String {
        format!("{}/{key}", self.url)
    }

    /// Sends a request that may be carried out twice: retries at most twice, within the time of one request, when the store
    /// did not answer or cannot do it now. Returns the head of the last response, whatever it says.
    pub(super) async fn send(&self, request: &Request<'_>) -> Result<Response, Error> {
        let deadline = clock::monotonic() + self.limit(request);
        for pause in PAUSES {
            let sent = self.attempt(request, deadline).await;
            let again = match &sent {
                Ok(response) => answer::is_passing(response.status().as_u16()),
                Err(error) => error.is_silence(),
            };
            if !again || clock::monotonic() + pause >= deadline {
                return sent;
            }
            if let Ok(response) = sent {
                // Read to its end, so that the connection can be reused; another attempt follows.
                let _ = timeout_at(deadline, self.text(request.act, request.key, response)).await;
            }
            sleep(pause).await;
        }
        self.attempt(request, deadline).await
    }

    /// Sends a request once, for what must not be carried out twice.
    pub(super) async fn send_once(&self, request: &Request<'_>) -> Result<Response, Error> {
        self.attempt(request, clock::monotonic() + self.limit(request)).await
    }

    fn limit(&self, request: &Request<'_>) -> Duration {
        request.limit.unwrap_or(self.request_timeout)
    }

    async fn attempt(&self, request: &Request<'_>, deadline: Instant) -> Result<Response, Error> {
        let unreachable =
            |cause| Error::Unreachable { act: request.act, url: self.object_url(request.key), cause };
        let sent = async {
            let mut url = self.base.clone();
            if !request.key.is_empty() {
                let path =
                    format!("{}{}", url.path(), s3::signing::uri_encode(&self.full(request.key), false));
                url.set_path(&path);
            }
            if !request.query.is_empty() {
                url.set_query(Some(&request.query));
            }
            let mut headers = request.headers.clone();
            let sum = self.sums(&request.method, &request.body, &mut headers).await?;
            let signed = self.signer.sign(&request.method, &url, headers, &sum);
            let mut headers = signed.map_err(|error| causes(&error))?;
            // A body in pieces has no known length, and S3 requires one.
            headers.insert(CONTENT_LENGTH, HeaderValue::from(request.body.length()));
            let mut builder = self.client.request(request.method.clone(), url).headers(headers);
            if request.body.length() > 0 {
                let pieces = request.body.clone().into_pieces().into_iter().map(Ok::<Bytes, std::io::Error>);
                builder = builder.body(reqwest::Body::wrap_stream(stream::iter(pieces)));
            }
            builder.send().await.map_err(|error| causes(&error.without_url()))
        };
        match timeout_at(deadline, sent).await {
            Ok(sent) => sent.map_err(unreachable),
            Err(_) => Err(unreachable(format!("no answer within {:?}", self.limit(request)))),
        }
    }

    /// The checksum of the body that is signed. TLS protects the body by itself; without TLS the signed checksum does. A put
    /// has another one besides: a bucket with locked objects requires it (S3, Object Lock considerations).
    async fn sums(&self, method: &Method, body: &Payload, headers: &mut HeaderMap) -> Result<String, String> {
        let (signed, put) = (self.base.scheme() != "https", *method == Method::PUT && body.length() > 0);
        if body.length() > SUM_AT_ONCE && (signed || put) {
            let summed = body.clone();
            let task = tokio::task::spawn_blocking(move || {
                (signed.then(|| summed.sha256().to_owned()), put.then(|| summed.md5()))
            });
            let (sha256, md5) = task.await.map_err(|error| causes(&error))?;
            body.note_sums(sha256, md5);
        }
        if put {
            let text = base64::engine::general_purpose::STANDARD.encode(body.md5());
            headers.insert(CONTENT_MD5, HeaderValue::try_from(text).map_err(|error| error.to_string())?);
        }
        Ok(if signed { body.sha256().to_owned() } else { UNSIGNED.to_owned() })
    }

    /// Reads a response that is not an object.
    pub(super) async fn text(
        &self,
        act: &'static str,
        key: &str,
        response: Response,
    ) -> Result<String, Error> {
        self.text_within(self.request_timeout, act, key, response).await
    }

    /// The same, with a different limit.
    pub(super) async fn text_within(
        &self,
        limit: Duration,
        act: &'static str,
        key: &str,
        mut response: Response,
    ) -> Result<String, Error> {
        let unreachable = |cause| Error::Unreachable { act, url: self.object_url(key), cause };
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
        match timeout(limit, read).await {
            Ok(text) => text.map_err(unreachable),
            Err(_) => Err(unreachable(format!("the answer stalled for {limit:?}"))),
        }
    }

    /// Turns a response that the caller does not expect into an error.
    pub(super) async fn failure(&self, act: &'static str, key: &str, response: Response) -> Error {
        let status = response.status().as_u16();
        match self.text(act, key, response).await {
            Ok(text) => answer::failure(act, self.object_url(key), status, &text),
            Err(error) => error,
        }
    }

    /// A successful response that is not from S3.
    pub(super) fn strange(&self, act: &'static str, key: &str, cause: impl Into<String>) -> Error {
        Error::Unreachable { act, url: self.object_url(key), cause: cause.into() }
    }
}
