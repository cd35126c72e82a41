//! Signs a request to S3 (AWS Signature Version 4, header form). Sends nothing.

use reqwest::header::{AUTHORIZATION, HOST, HeaderMap, HeaderValue};
use reqwest::{Method, Url};
use s3::Region;
use s3::error::S3Error;
use s3::signing::{self, HmacSha256};
use sha2::digest::Mac as _;

use super::credentials::Credentials;
use super::{OpenError, S3Options};
use crate::payload::hexadecimal;

/// Replaces the checksum of a body that is not signed.
pub(super) const UNSIGNED: &str = "UNSIGNED-PAYLOAD";

/// Who signs, for which region.
#[derive(Debug)]
pub(super) struct Signer {
    region: Region,
    credentials: Credentials,
}

impl Signer {
    pub(super) fn new(options: &S3Options) -> Result<Self, OpenError> {
        Ok(Signer {
            // The endpoint is not part of the signature; the region is.
            region: Region::Custom { region: options.region.clone(), endpoint: String::new() },
            credentials: Credentials::open(options)?,
        })
    }

    /// Adds the headers by which the store knows who asks, and that nothing was changed on the way.
    pub(super) fn sign(
        &self,
        method: &Method,
        url: &Url,
        mut headers: HeaderMap,
        body_hash: &str,
    ) -> Result<HeaderMap, S3Error> {
        let now = s3::utils::now_utc();
        let date = format!(
            "{:04}{:02}{:02}T{:02}{:02}{:02}Z",
            now.year(),
            u8::from(now.month()),
            now.day(),
            now.hour(),
            now.minute(),
            now.second()
        );
        let keys = self.credentials.current();
        if let Some(token) = &keys.session_token {
            let mut token = HeaderValue::try_from(token.expose())?;
            token.set_sensitive(true);
            headers.insert("x-amz-security-token", token);
        }
        let host = url.host_str().unwrap_or_default();
        let host = url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
        headers.insert(HOST, HeaderValue::try_from(host)?);
        headers.insert("x-amz-date", HeaderValue::try_from(date)?);
        headers.insert("x-amz-content-sha256", HeaderValue::try_from(body_hash)?);

        let canonical = signing::canonical_request(method.as_str(), url, &headers, body_hash)?;
        let text = signing::string_to_sign(&now, &self.region, &canonical)?;
        let key = signing::signing_key(&now, keys.secret_access_key.expose(), &self.region, "s3")?;
        let mut mac = HmacSha256::new_from_slice(&key)?;
        mac.update(text.as_bytes());
        let signature = hexadecimal(&mac.finalize().into_bytes());
        let names = signing::signed_header_string(&headers);
        let access = keys.access_key_id.expose();
        let authorization = signing::authorization_header(access, &now, &self.region, &names, &signature)?;
        let mut authorization = HeaderValue::try_from(authorization)?;
        authorization.set_sensitive(true);
        headers.insert(AUTHORIZATION, authorization);
        Ok(headers)
    }
}
