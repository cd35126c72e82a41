//! What the tests of the REST API stand on: a member's state, a report, and a served API.

use std::sync::Arc;
use std::time::Duration;

use outrider_dcs::{Dcs, MemoryCluster};
use outrider_ha::Watermark;
use outrider_postgres::Observer;
use outrider_store::DirectoryStore;
use reqwest::{Client, Response};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::backup::CatalogCache;
use crate::config;
use crate::http::{self, Api, SharedObserver};
use crate::report::{self, Report};
use crate::sample::member;
use crate::wake::{Wakes, waker};

/// A member whose API is served until this is dropped.
pub(super) struct Stage {
    pub(super) cluster: MemoryCluster,
    pub(super) dcs: Arc<dyn Dcs>,
    pub(super) reports: watch::Sender<Option<Arc<Report>>>,
    pub(super) url: String,
    /// Its archive.
    pub(super) archive: tempfile::TempDir,
    pub(super) api: Api,
    client: Client,
    server: JoinHandle<()>,
    _wakes: Wakes,
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Stage {
    /// The member `p1` with this password for `admin`, if any.
    pub(super) async fn new(password: Option<&str>) -> Self {
        // Another test may have installed it.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let config = Arc::new(config::sample::config(password));
        let cluster = MemoryCluster::new();
        let dcs = member(&cluster, "p1");
        let (reports, seen) = watch::channel(None);
        let (waker, wakes) = waker();
        let observer = SharedObserver::new(Observer::new(Arc::new(config.postgres.clone())));
        let archive = tempfile::tempdir().unwrap();
        let store = Arc::new(DirectoryStore::new(archive.path().to_owned()));
        let layout = config.archive.as_ref().unwrap().layout.clone();
        let catalog = Some(CatalogCache::new(store, layout));
        let dcs_of_api = dcs.clone();
        let (watermark, names) = (Watermark::default(), http::names(&config));
        let api = Api { reports: seen, waker, dcs: dcs_of_api, observer, watermark, catalog, names, config };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let server = tokio::spawn(http::serve(api.clone(), listener));
        let client = Client::builder().no_proxy().timeout(Duration::from_secs(15)).build().unwrap();
        Stage { cluster, dcs, reports, url, archive, api, client, server, _wakes: wakes }
    }

    /// `GET`.
    pub(super) async fn get(&self, path: &str) -> Response {
        self.client.get(format!("{}{path}", self.url)).send().await.unwrap()
    }

    /// `GET /metrics` as OpenMetrics.
    pub(super) async fn open_metrics(&self) -> Response {
        let request = self.client.get(format!("{}/metrics", self.url));
        request
            .header("accept", "application/openmetrics-text;version=1.0.0,text/plain;q=0.5")
            .send()
            .await
            .unwrap()
    }

    /// Any method with a body, as `admin` when there is a password.
    pub(super) async fn ask(
        &self,
        method: &str,
        path: &str,
        body: impl Into<String>,
        password: Option<&str>,
    ) -> (u16, String) {
        let method = method.parse().unwrap();
        let mut request = self.client.request(method, format!("{}{path}", self.url)).body(body.into());
        if let Some(password) = password {
            request = request.basic_auth("admin", Some(password));
        }
        let response = request.send().await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    }

    /// Its Postgres has said what it knows of three parameters.
    pub(super) fn knows_parameters(&self) {
        let parameter = |vartype: &str, unit: Value| json!({"context": "user", "vartype": vartype, "unit": unit, "min": null, "max": null, "values": []});
        let parameters = json!({
            "work_mem": parameter("integer", json!("kB")),
            "jit": parameter("bool", Value::Null),
            "session_preload_libraries": parameter("string", Value::Null),
        });
        let known = json!({"version_number": 150_000, "version": "15.0", "parameters": parameters});
        self.post(Report { known: serde_json::from_value(known).unwrap(), ..report::sample::report() });
    }

    /// Publishes a report.
    pub(super) fn post(&self, report: Report) {
        self.reports.send_replace(Some(Arc::new(report)));
    }
}
