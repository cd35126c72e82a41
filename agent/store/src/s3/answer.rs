//! Parses the store's responses: errors, listings, headers. Only the few elements that are needed, not general XML.

use jiff::Timestamp;
use reqwest::header::{CONTENT_LENGTH, CONTENT_RANGE, DATE, ETAG, HeaderMap};

use super::METADATA;
use crate::{Error, Listed, Metadata, ObjectInfo, Page, Version};

/// The error for a response with this status and text.
pub(super) fn failure(act: &'static str, url: String, status: u16, text: &str) -> Error {
    let code = element(text, "Code").unwrap_or_default();
    let message = match element(text, "Message") {
        Some(message) => message,
        None if text.trim().is_empty() || !code.is_empty() => "without an explanation".to_owned(),
        None => format!("not the answer of an S3 store: {:?}", text.chars().take(120).collect::<String>()),
    };
    // RequestTimeout comes as 400: the body came too slowly.
    if is_passing(status) || code == "RequestTimeout" {
        Error::Busy { act, url, status, code, message }
    } else {
        Error::Refused { act, url, status, code, message }
    }
}

/// Whether a response with this status may be different in a moment. 409: another write of the same key is in progress.
pub(super) fn is_passing(status: u16) -> bool {
    matches!(status, 408 | 409 | 429 | 500 | 502..=599)
}

/// Whether a store says that it does not know what a request asks for: some say so with 400.
pub(super) fn is_not_implemented(status: u16, code: &str) -> bool {
    status == 501 || code == "NotImplemented"
}

/// What is wrong with a successful response that is not about an object.
pub(super) const NOT_S3: &str = "the answer has no ETag, so it is not the answer of an S3 store";

/// Whether a response is about an object. A web page of a proxy in between is not, and must never pass for a WAL segment,
/// nor as confirmation that one is durable.
pub(super) fn is_of_object(headers: &HeaderMap) -> bool {
    headers.contains_key(ETAG)
}

/// The length of a response's body.
pub(super) fn length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// The size of the whole object, when the answer has exactly its bytes `from..to`, or up to its end.
pub(super) fn range(headers: &HeaderMap, from: u64, to: u64) -> Option<u64> {
    let text = headers.get(CONTENT_RANGE)?.to_str().ok()?;
    let (range, size) = text.strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let (first, last): (u64, u64) = (first.parse().ok()?, last.parse().ok()?);
    let size = size.parse().ok()?;
    let end = to.min(size);
    let right = first == from && last.checked_add(1) == Some(end) && end > from;
    (right && length(headers) == Some(end - from)).then_some(size)
}

/// Size and metadata from the head of an answer.
pub(super) fn info(headers: &HeaderMap) -> ObjectInfo {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let mut metadata = Metadata::new();
    for (name, value) in headers {
        if let (Some(name), Ok(value)) = (name.as_str().strip_prefix(METADATA), value.to_str()) {
            metadata.insert(name.to_owned(), value.to_owned());
        }
    }
    let size = length(headers).unwrap_or_default();
    let version = text("etag").map(|etag| Version(etag.to_owned()));
    ObjectInfo { size, metadata, version }
}

/// When the store answered, by its own clock (RFC 9110, 6.6.1).
pub(super) fn date(headers: &HeaderMap) -> Option<Timestamp> {
    let text = headers.get(DATE)?.to_str().ok()?;
    jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(text).ok()
}

/// A page of a listing, its keys without `base`; `None` when the text is not one.
pub(super) fn page(text: &str, base: &str) -> Option<Page> {
    let truncated = element(text, "IsTruncated")?;
    let mut objects = Vec::new();
    for part in text.split("<Contents>").skip(1) {
        let key = element(part, "Key")?;
        let size = element(part, "Size")?.parse().ok()?;
        objects.push(Listed { key: key.strip_prefix(base)?.to_owned(), size });
    }
    Some(Page { objects, more: truncated == "true" })
}

/// Uploads in progress, each with its full key and its id.
pub(super) struct Uploads {
    pub(super) uploads: Vec<(String, String)>,
    /// Where the next page begins, if there is one.
    pub(super) next: Option<(String, String)>,
}

/// A page of the uploads in progress; `None` when the text is not one.
pub(super) fn uploads(text: &str) -> Option<Uploads> {
    let truncated = element(text, "IsTruncated")?;
    let mut uploads = Vec::new();
    for part in text.split("<Upload>").skip(1) {
        uploads.push((element(part, "Key")?, element(part, "UploadId")?));
    }
    let next = if truncated == "true" {
        Some((element(text, "NextKeyMarker")?, element(text, "NextUploadIdMarker")?))
    } else {
        None
    };
    Some(Uploads { uploads, next })
}

/// The text of the first element with this name.
pub(super) fn element(text: &str, name: &str) -> Option<String> {
    let (_, rest) = text.split_once(&format!("<{name}>"))?;
    let (content, _) = rest.split_once(&format!("</{name}>"))?;
    Some(unescape(content))
}

/// Text, escaped for an element.
pub(super) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// Decodes the entities of XML.
fn unescape(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('&') {
        plain.push_str(before);
        let entity = after.split_once(';').and_then(|(name, after)| Some((character(name)?, after)));
        rest = match entity {
            Some((character, after)) => {
                plain.push(character);
                after
            }
            None => {
                plain.push('&');
                after
            }
        };
    }
    plain.push_str(rest);
    plain
}

fn character(name: &str) -> Option<char> {
    match name {
        "amp" => Some('&'),
        "lt" => Some('<'),
        "gt" => Some('>'),
        "quot" => Some('"'),
        "apos" => Some('\''),
        name => {
            let number = name.strip_prefix('#')?;
            let code = match number.strip_prefix('x') {
                Some(digits) => u32::from_str_radix(digits, 16),
                None => number.parse(),
            };
            char::from_u32(code.ok()?)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_read_from_its_answer() {
        let text =
            "<?xml version=\"1.0\"?><Error><Code>NoSuchBucket</Code><Message>a &lt;b&gt;</Message></Error>";
        let error = failure("write", "s3://b/k".into(), 404, text);
        assert!(error.needs_a_person(), "{error}");
        assert!(error.to_string().contains("404 NoSuchBucket: a <b>"), "{error}");
        let error = failure("write", "s3://b/k".into(), 503, "<html>busy</html>");
        assert!(
            matches!(error, Error::Busy { .. })
                && error.to_string().contains("not the answer of an S3 store")
        );
    }

    #[test]
    fn the_date_of_an_answer_is_read() {
        let headers = |text: &'static str| HeaderMap::from_iter([(DATE, text.parse().unwrap())]);
        let read = date(&headers("Tue, 24 Nov 2026 15:04:05 GMT"));
        assert_eq!(read, Some("2026-11-24T15:04:05Z".parse().unwrap()));
        assert_eq!((date(&headers("today")), date(&HeaderMap::new())), (None, None));
    }

    #[test]
    fn a_listing_is_read_and_its_keys_are_relative() {
        let text = "<ListBucketResult><IsTruncated>true</IsTruncated><Contents><Key>p/a&amp;b</Key><Size>7</Size>\
                    </Contents><Contents><Key>p/c&#x41;</Key><Size>0</Size></Contents></ListBucketResult>";
        let page = page(text, "p/").unwrap();
        assert!(page.more);
        let expected = [("a&b", 7), ("cA", 0)].map(|(key, size)| Listed { key: key.into(), size });
        assert_eq!(page.objects, expected);
    }

    #[test]
    fn what_is_no_listing_is_not_taken_for_an_empty_one() {
        for text in
            ["", "<html></html>", "<IsTruncated>false</IsTruncated><Contents><Key>p/a</Key></Contents>"]
        {
            assert_eq!(page(text, "p/"), None, "{text}");
        }
    }

    #[test]
    fn text_that_only_looks_like_an_entity_stays() {
        assert_eq!(unescape("a & b &nonsense; &amp;lt; &#xZZ; &"), "a & b &nonsense; &lt; &#xZZ; &");
    }
}
