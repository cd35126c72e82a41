//! Reads the store's answers: errors, listings, headers. Only the few elements that are needed, not XML at large.

use reqwest::header::HeaderMap;

use super::METADATA;
use crate::store::{Error, Listed, Metadata, ObjectInfo, Page, Version};

/// The error that an answer with this status and text stands for.
pub(super) fn failure(act: &'static str, url: String, status: u16, text: &str) -> Error {
    let code = element(text, "Code").unwrap_or_default();
    let message = match element(text, "Message") {
        Some(message) => message,
        None if text.trim().is_empty() => "without an explanation".to_owned(),
        None => format!("not the answer of an S3 store: {:?}", text.chars().take(120).collect::<String>()),
    };
    // 409: another write of the same key is under way. 408 and RequestTimeout: the body came too slowly.
    let passing = matches!(status, 408 | 409 | 429 | 500 | 502..=599) || code == "RequestTimeout";
    if passing {
        Error::Busy { act, url, status, code, message }
    } else {
        Error::Refused { act, url, status, code, message }
    }
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
    let size = text("content-length").and_then(|length| length.parse().ok()).unwrap_or_default();
    let version = text("etag").map(|etag| Version(etag.to_owned()));
    ObjectInfo { size, metadata, version }
}

/// A page of a listing, its keys without `base`; `None` when the text is none.
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

/// The text of the first element with this name.
fn element(text: &str, name: &str) -> Option<String> {
    let (_, rest) = text.split_once(&format!("<{name}>"))?;
    let (content, _) = rest.split_once(&format!("</{name}>"))?;
    Some(unescape(content))
}

/// Replaces the entities of XML.
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
