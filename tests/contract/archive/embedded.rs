//! An S3 server in this process, on files. Can be stopped and started, and can be made to overwrite.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{Method, StatusCode};
use axum::response::Response;
use outrider_bed::Uploads;
use s3s::auth::SimpleAuth;
use s3s::service::{S3Service, S3ServiceBuilder};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio::sync::Mutex;

use super::s3::{BUCKET, KEY, SECRET};

/// How it treats a put with `If-None-Match: *`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Obedience {
    Full,
    /// As old stores do: it does not look at the condition.
    Ignores,
    /// As honest ones do: 501.
    Declines,
    /// The same, with 400.
    DeclinesWith400,
}

pub(crate) struct Embedded {
    directory: TempDir,
    address: SocketAddr,
    obedience: Obedience,
    uploads: Uploads,
    /// A runtime of its own, so that stopping it cuts the connections too.
    runtime: Option<Runtime>,
}

#[derive(Clone)]
struct Server {
    service: S3Service,
    obedience: Obedience,
    /// s3s-fs looks and then writes, so two puts at one time could both succeed: one goes after the other here.
    writes: Arc<Mutex<()>>,
    uploads: Uploads,
}

impl Embedded {
    pub(crate) fn start(obedience: Obedience) -> Self {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join(BUCKET)).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let mut embedded =
            Embedded { directory, address, obedience, uploads: Uploads::default(), runtime: None };
        embedded.serve(listener);
        embedded
    }

    pub(crate) fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// From now on connections are refused.
    pub(crate) fn stop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }

    /// Serves again, at the same address.
    pub(crate) fn start_again(&mut self) {
        let listener = TcpListener::bind(self.address).unwrap();
        self.serve(listener);
    }

    fn serve(&mut self, listener: TcpListener) {
        let files = s3s_fs::FileSystem::new(self.directory.path()).unwrap();
        let mut builder = S3ServiceBuilder::new(files);
        if self.obedience != Obedience::Ignores {
            builder.set_auth(SimpleAuth::from_single(KEY, SECRET));
        }
        let service = builder.build();
        let server = Server {
            service,
            obedience: self.obedience,
            writes: Arc::default(),
            uploads: self.uploads.clone(),
        };
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.spawn(async move {
            listener.set_nonblocking(true).unwrap();
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            axum::serve(listener, Router::new().fallback(answer).with_state(server)).await.unwrap();
        });
        self.runtime = Some(runtime);
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        self.stop();
    }
}

async fn answer(State(server): State<Server>, mut request: Request) -> Response {
    let conditional =
        ["if-none-match", "if-match"].map(|name| request.headers().contains_key(name)).contains(&true);
    match server.obedience {
        Obedience::Full => {}
        Obedience::Ignores => {
            // The condition is part of what is signed, so the signature goes with it.
            for name in ["if-none-match", "if-match", "authorization"] {
                request.headers_mut().remove(name);
            }
        }
        Obedience::Declines | Obedience::DeclinesWith400 => {
            if conditional {
                let status = match server.obedience {
                    Obedience::DeclinesWith400 => StatusCode::BAD_REQUEST,
                    Obedience::Full | Obedience::Ignores | Obedience::Declines => StatusCode::NOT_IMPLEMENTED,
                };
                let text = "<Error><Code>NotImplemented</Code><Message>no conditions</Message></Error>";
                let response = Response::builder().status(status).body(Body::from(text));
                return response.unwrap();
            }
        }
    }
    let writes = matches!(*request.method(), Method::PUT | Method::POST | Method::DELETE);
    let _turn = if writes { Some(server.writes.lock().await) } else { None };
    server.uploads.answer(&server.service, BUCKET, request).await
}
