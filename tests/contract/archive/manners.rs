//! Stores with manners of their own, played by a few lines of HTTP: pages of a listing without a key, buckets whose objects are
//! locked, keys that hold for a while only.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use bytes::Bytes;
use outrider_archive::catalog::Catalog;
use outrider_archive::{Layout, prove_by_hand};
use outrider_store::{CredentialFiles, Metadata, S3Options, Secret, Stored};

use super::bench::keys;
use super::s3::{open, options};

/// Serves with this answer; the endpoint.
async fn serve(answer: impl Fn(&Request, &[u8]) -> Response + Clone + Send + Sync + 'static) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let handle = async move |request: Request| {
        let (head, body) = request.into_parts();
        let body = axum::body::to_bytes(body, 1 << 24).await.unwrap();
        answer(&Request::from_parts(head, axum::body::Body::empty()), &body)
    };
    tokio::spawn(async move { axum::serve(listener, Router::new().fallback(handle)).await.unwrap() });
    endpoint
}

fn listing(keys: &[&str], next: Option<&str>) -> Response {
    let contents: String = keys
        .iter()
        .map(|key| format!("<Contents><Key>some/path/{key}</Key><Size>1</Size></Contents>"))
        .collect();
    let next = next.map(|token| format!("<NextContinuationToken>{token}</NextContinuationToken>"));
    let truncated = next.is_some();
    let next = next.unwrap_or_default();
    format!("<ListBucketResult><IsTruncated>{truncated}</IsTruncated>{next}{contents}</ListBucketResult>")
        .into_response()
}

#[tokio::test]
async fn a_page_without_keys_does_not_end_a_listing() {
    let endpoint = serve(|request, _| {
        let query = request.uri().query().unwrap_or_default();
        let has = |part: &str| query.split('&').any(|given| given == part);
        if has("continuation-token=t%2F1%3D") {
            listing(&[], Some("t2"))
        } else if has("continuation-token=t2") {
            listing(&["b", "c"], Some("t3"))
        } else if has("start-after=some%2Fpath%2Fc") {
            listing(&[], None)
        } else if query.contains("start-after") || query.contains("token") {
            StatusCode::BAD_REQUEST.into_response()
        } else {
            listing(&[], Some("t/1="))
        }
    })
    .await;
    assert_eq!(keys(&*open(&options(&endpoint))).await, ["b", "c"]);
}

#[tokio::test]
async fn a_listing_that_leads_nowhere_is_no_empty_archive() {
    for next in [None, Some("again")] {
        let endpoint = serve(move |_, _| match next {
            Some(token) => listing(&[], Some(token)),
            None => "<ListBucketResult><IsTruncated>true</IsTruncated></ListBucketResult>".into_response(),
        })
        .await;
        let (store, layout) = (open(&options(&endpoint)), Layout::new("homepage").unwrap());
        let fault = store.list("", None, 10).await.unwrap_err().to_string();
        assert!(fault.contains("keys"), "{fault}");
        assert!(Catalog::read(&*store, &layout).await.is_err());
        assert!(prove_by_hand(&*store, &layout, Some(1), None).await.is_err());
    }
}

/// As Amazon's S3 where objects are locked by default: nothing is taken without a sum.
#[tokio::test]
async fn a_bucket_with_object_lock_takes_objects_and_parts() {
    let taken: Arc<Mutex<BTreeMap<String, usize>>> = Arc::default();
    let seen = taken.clone();
    let endpoint = serve(move |request, body| {
        let (method, query) = (request.method().as_str(), request.uri().query().unwrap_or_default());
        let sum = base64::engine::general_purpose::STANDARD.encode(md5::compute(body).0);
        let given = request.headers().get("content-md5").and_then(|sum| sum.to_str().ok());
        let is_signed = request.headers()["authorization"].to_str().unwrap().contains("content-md5");
        match method {
            "PUT" if given != Some(sum.as_str()) || !is_signed => {
                (StatusCode::BAD_REQUEST, "<Error><Code>InvalidRequest</Code></Error>").into_response()
            }
            "PUT" => {
                seen.lock().unwrap().insert(format!("{}?{query}", request.uri().path()), body.len());
                ([("etag", "\"x\"")], "").into_response()
            }
            "POST" if query.starts_with("uploads") => "<x><UploadId>u</UploadId></x>".into_response(),
            "POST" => "<CompleteMultipartUploadResult></CompleteMultipartUploadResult>".into_response(),
            _ => (StatusCode::NOT_FOUND, "<Error><Code>NoSuchKey</Code></Error>").into_response(),
        }
    })
    .await;
    let store = open(&options(&endpoint));
    for (key, length) in [("small", 5), ("large", 300_000)] {
        let body = Bytes::from(vec![7; length]).into();
        assert_eq!(store.put_if_absent(key, body, &Metadata::new()).await.unwrap(), Stored::Created);
    }
    let upload = store.begin_upload("parts").await.unwrap();
    upload.part(1, Bytes::from(vec![8; 200_000]).into()).await.unwrap();
    assert_eq!(upload.complete().await.unwrap(), Stored::Created);
    let lengths: Vec<usize> = taken.lock().unwrap().values().copied().collect();
    assert_eq!(lengths, [300_000, 200_000, 5]);
}

#[tokio::test]
async fn keys_that_are_written_anew_are_used_from_the_next_request_on() {
    let seen: Arc<Mutex<Vec<String>>> = Arc::default();
    let noted = seen.clone();
    let endpoint = serve(move |request, _| {
        let header = |name: &str| request.headers()[name].to_str().unwrap().to_owned();
        let (signed, token) = (header("authorization"), header("x-amz-security-token"));
        assert!(signed.contains("x-amz-security-token"), "it is a part of what is signed: {signed}");
        let id = signed.split_once("Credential=").unwrap().1.split('/').next().unwrap().to_owned();
        noted.lock().unwrap().push(format!("{id} {token}"));
        listing(&[], None)
    })
    .await;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("credentials");
    let write = |number: u32| {
        let text = format!(
            "[backup]\naws_access_key_id=id{number}\naws_secret_access_key=s\naws_session_token=token{number}\n"
        );
        let new = directory.path().join("new");
        std::fs::write(&new, text).unwrap();
        std::fs::rename(new, &path).unwrap();
    };
    write(1);
    let store = open(&S3Options {
        access_key_id: Secret::new(""),
        secret_access_key: Secret::new(""),
        credential_files: CredentialFiles {
            shared: Some((path.clone(), "backup".to_owned())),
            ..CredentialFiles::default()
        },
        ..options(&endpoint)
    });
    for number in [1, 2] {
        write(number);
        store.list("", None, 1).await.unwrap();
    }
    assert_eq!(*seen.lock().unwrap(), ["id1 token1", "id2 token2"]);
}
