//! Book of the multipart uploads under way at an embedded S3 server: s3s-fs does not list them. Keeps no bytes.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::body::Body;
use axum::extract::Request;
use axum::http::{Method, StatusCode};
use axum::response::Response;
use s3s::service::S3Service;

/// The answer to the beginning of an upload is a few hundred bytes.
const ANSWER_MAX: usize = 1 << 20;

/// The uploads, each with its key. Clones share the book.
#[derive(Clone, Debug, Default)]
pub struct Uploads(Arc<Mutex<BTreeMap<String, String>>>);

impl Uploads {
    /// Lets the service answer, and notes which uploads begin and end. A listing of them is answered from the book.
    pub async fn answer(&self, service: &S3Service, bucket: &str, request: Request) -> Response {
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let query = request.uri().query().unwrap_or_default().to_owned();
        if method == Method::GET && query.starts_with("uploads=") {
            return Response::new(Body::from(self.listing()));
        }
        let response = match service.call(request.map(s3s::Body::http_body_unsync)).await {
            Ok(response) => response.map(Body::new),
            Err(fault) => return failure(&format!("{fault:?}")),
        };
        if !response.status().is_success() {
            return response;
        }
        if let Some(id) = query.strip_prefix("uploadId=") {
            // Completed or aborted.
            self.book().remove(id);
        }
        if method != Method::POST || !query.starts_with("uploads") {
            return response;
        }
        let (head, body) = response.into_parts();
        let Ok(body) = axum::body::to_bytes(body, ANSWER_MAX).await else {
            return failure("the answer to the beginning of an upload broke off");
        };
        let text = String::from_utf8_lossy(&body);
        let id = text.split_once("<UploadId>").and_then(|(_, rest)| rest.split('<').next());
        if let (Some(id), Some(key)) = (id, path.strip_prefix(&format!("/{bucket}/"))) {
            self.book().insert(id.to_owned(), key.to_owned());
        }
        Response::from_parts(head, Body::from(body))
    }

    /// The keys of the uploads that have begun and not ended.
    pub fn keys(&self) -> Vec<String> {
        self.book().values().cloned().collect()
    }

    /// What lies below `from` was uploaded below `to`.
    pub(super) fn rename(&self, from: &str, to: &str) {
        for key in self.book().values_mut() {
            if let Some(rest) = key.strip_prefix(from) {
                *key = format!("{to}{rest}");
            }
        }
    }

    fn listing(&self) -> String {
        let mut text = String::from("<ListMultipartUploadsResult><IsTruncated>false</IsTruncated>");
        for (id, key) in self.book().iter() {
            text.push_str(&format!("<Upload><Key>{key}</Key><UploadId>{id}</UploadId></Upload>"));
        }
        text + "</ListMultipartUploadsResult>"
    }

    fn book(&self) -> MutexGuard<'_, BTreeMap<String, String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn failure(fault: &str) -> Response {
    let mut response = Response::new(Body::from(fault.to_owned()));
    *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
    response
}
