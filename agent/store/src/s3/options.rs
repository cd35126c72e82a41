//! What is needed to reach an S3 store: address, keys, certificate authority. Sends no request.

use std::path::PathBuf;
use std::time::Duration;

use reqwest::Url;

use crate::Secret;

/// Where the store is and who asks.
#[derive(Clone, Debug)]
pub struct S3Options {
    /// The bucket.
    pub bucket: String,
    /// Whether a probe creates a missing bucket. Otherwise it must exist.
    pub create_bucket: bool,
    /// Prefix of every key; may be empty.
    pub path: String,
    /// `http://` or `https://` and a host; Amazon's of the region when absent.
    pub endpoint: Option<String>,
    /// The region in the signature, such as `us-east-1`.
    pub region: String,
    /// `endpoint/bucket/key` instead of `bucket.endpoint/key`.
    pub path_style: bool,
    /// The name of the access key.
    pub access_key_id: Secret,
    /// Its secret.
    pub secret_access_key: Secret,
    /// The token of temporary keys.
    pub session_token: Option<Secret>,
    /// Files with these instead; checked for changes with each request.
    pub credential_files: CredentialFiles,
    /// PEM file with the certificate authority of the endpoint, trusted besides the usual ones.
    pub ca_file: Option<PathBuf>,
    /// Time limit for one response, including sending a segment; and for the next piece of a download.
    pub request_timeout: Duration,
}

/// Files with keys that may change. Absent ones are as configured.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CredentialFiles {
    /// The whole file is the name of the access key.
    pub access_key_id: Option<PathBuf>,
    /// The whole file is its secret.
    pub secret_access_key: Option<PathBuf>,
    /// The whole file is the token.
    pub session_token: Option<PathBuf>,
    /// The shared credentials file of Amazon's tools, and the profile in it.
    pub shared: Option<(PathBuf, String)>,
}

impl CredentialFiles {
    /// All of them.
    pub(super) fn paths(&self) -> impl Iterator<Item = &PathBuf> {
        let shared = self.shared.as_ref().map(|(path, _)| path);
        [self.access_key_id.as_ref(), self.secret_access_key.as_ref(), self.session_token.as_ref(), shared]
            .into_iter()
            .flatten()
    }
}

/// The options make no store.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The endpoint is not the URL of a host.
    #[error("{endpoint:?} is not an endpoint: expected http:// or https:// and a host")]
    Endpoint {
        /// The text.
        endpoint: String,
    },
    /// The files with keys cannot be read.
    #[error("cannot read the keys of the store: {cause}")]
    Credentials {
        /// Why not.
        cause: String,
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
    /// TLS cannot be set up.
    #[error("cannot set up TLS")]
    Tls {
        /// What it said.
        #[source]
        source: rustls::Error,
    },
    /// The HTTP client cannot be made.
    #[error("cannot set up the HTTP client")]
    Client {
        /// What it said.
        #[source]
        source: reqwest::Error,
    },
}

/// `endpoint/bucket/`, or `bucket.endpoint/`.
pub(super) fn base(options: &S3Options) -> Result<Url, OpenError> {
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
pub(super) mod tests {
    use super::*;

    pub(in crate::s3) fn options() -> S3Options {
        S3Options {
            bucket: "bucket".into(),
            create_bucket: false,
            path: "homepage".into(),
            endpoint: None,
            region: "eu-west-1".into(),
            path_style: false,
            access_key_id: Secret::new("key"),
            secret_access_key: Secret::new("hush"),
            session_token: None,
            credential_files: CredentialFiles::default(),
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
}
