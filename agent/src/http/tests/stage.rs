//! What the tests of the REST API stand on: a member's visitors, a report, and a served API.

use std::sync::Arc;
use std::time::Duration;

use outrider_dcs::{Dcs, Identity, MemoryCluster, Snapshot};
use outrider_ha::{Plan, Reason, View, Watermark};
use outrider_postgres::{Observation, Observer, Role, Supervisor};
use outrider_store::DirectoryStore;
use outrider_wal::{Lsn, TimelineId};
use reqwest::{Client, Response};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::backup::Shelf;
use crate::config::{self, Config, Environment};
use crate::http::{self, Looks, Visitors};
use crate::report::{Counters, Report};
use crate::round::Alarm;

/// A member whose API is served until this is dropped.
pub(super) struct Stage {
    pub(super) cluster: MemoryCluster,
    pub(super) dcs: Arc<dyn Dcs>,
    pub(super) board: watch::Sender<Option<Arc<Report>>>,
    pub(super) url: String,
    /// Its archive.
    pub(super) archive: tempfile::TempDir,
    pub(super) visitors: Visitors,
    client: Client,
    server: JoinHandle<()>,
    _alarm: Alarm,
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
        let config = Arc::new(config(password));
        let cluster = MemoryCluster::new();
        let dcs = member(&cluster, "p1");
        let (board, seen) = watch::channel(None);
        let supervisor = Supervisor::new("/nonexistent/supervisor.sock".into());
        let alarm = Alarm::new(dcs.watch(), supervisor.news()).unwrap();
        let looks = Looks::new(Observer::new(Arc::new(config.postgres.clone())));
        let archive = tempfile::tempdir().unwrap();
        let store = Arc::new(DirectoryStore::new(archive.path().to_owned()));
        let layout = config.archive.as_ref().unwrap().layout.clone();
        let shelf = Some(Shelf::new(store, layout));
        let (waker, dcs_of_visitors) = (alarm.waker(), dcs.clone());
        let (watermark, names) = (Watermark::default(), http::names(&config));
        let visitors =
            Visitors { board: seen, waker, dcs: dcs_of_visitors, looks, watermark, shelf, names, config };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let server = tokio::spawn(http::serve(visitors.clone(), listener));
        let client = Client::builder().no_proxy().timeout(Duration::from_secs(15)).build().unwrap();
        Stage { cluster, dcs, board, url, archive, visitors, client, server, _alarm: alarm }
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
        self.post(Report { known: serde_json::from_value(known).unwrap(), ..report() });
    }

    /// Puts a report on the board.
    pub(super) fn post(&self, report: Report) {
        self.board.send_replace(Some(Arc::new(report)));
    }
}

/// A member of the cluster in memory.
pub(crate) fn member(cluster: &MemoryCluster, name: &str) -> Arc<dyn Dcs> {
    let identity = Identity {
        name: name.to_owned(),
        base_path: "/service/demo/".to_owned(),
        ttl: Duration::from_secs(30),
        session_file: None,
        boottime_ns: crate::clock::boottime_ns,
    };
    cluster.member(&identity).unwrap()
}

/// The configuration of `p1`.
pub(crate) fn config(password: Option<&str>) -> Config {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("p1.yaml");
    let authentication = match password {
        Some(password) => format!(", authentication: {{username: admin, password: {password}}}"),
        None => String::new(),
    };
    let text = format!(
        "scope: demo\nname: p1\netcd3: {{hosts: \"127.0.0.1:1\"}}\nrestapi: {{listen: 127.0.0.1:8008{authentication}}}\n\
         postgresql:\n  data_dir: /nonexistent/data\n  bin_dir: /nonexistent/bin\n\
         \x20 authentication: {{superuser: {{password: s}}, replication: {{password: r}}}}\n\
         supervisor: {{socket: /nonexistent/supervisor.sock}}\ntags: {{zone: a}}\n\
         archive: {{store: \"file:///nonexistent/archive\"}}\n"
    );
    std::fs::write(&file, text).unwrap();
    config::load(&file, &Environment::new()).unwrap().config
}

/// A quiet round of a standby, long after the start.
pub(crate) fn report() -> Report {
    Report {
        at: crate::clock::wall(),
        view: view(),
        plan: Plan::wait(Reason::Following),
        failure: None,
        cluster: Some(Snapshot::default()),
        dcs_last_seen: Some(crate::clock::wall()),
        dcs_record: Arc::default(),
        lease_until_boottime_ns: None,
        postgres: None,
        state: "running",
        failing: None,
        next_round: Duration::from_secs(1),
        archive: None,
        stream: None,
        kept_for_gap: None,
        troubles: Vec::new(),
        maximum_lag_on_replica: None,
        configuration: outrider_postgres::Configuration::default(),
        known: None,
        database_sizes: [("pg\"1".to_owned(), 8192)].into(),
        counters: Counters::default(),
    }
}

/// A standby that has replayed all.
pub(crate) fn observation() -> Observation {
    Observation {
        system_identifier: 7,
        server_version: 150_000,
        postmaster_start_time: String::new(),
        timeline: TimelineId::new(1),
        checkpoint_timeline: TimelineId::new(1),
        role: Role::Standby {
            received: Lsn::new(100),
            replayed: Lsn::new(100),
            latest_end: Lsn::INVALID,
            replayed_timestamp: None,
            replay_lag_seconds: 0.0,
            replay_paused: false,
            lacking: Vec::new(),
            streaming: true,
            upstream: None,
            archive_recovery: false,
            apply_delay_seconds: 0.0,
            blockers: Vec::new(),
        },
        walsenders: Vec::new(),
        slots: Vec::new(),
        synchronous_standby_names: String::new(),
        pending_restart: Vec::new(),
        limits: [].into(),
        file_faults: Vec::new(),
        loaded: String::new(),
        connections: 1,
        shut_out: None,
        wal_segment_size: 16 << 20,
    }
}

fn view() -> View {
    let view: Value = json!({
        "me": "p1",
        "dcs": {"silent": {"since": 0}},
        "local": {
            "postgres": {"standby": {"timeline": TimelineId::new(2), "position": Lsn::new(100),
                         "streaming": {"upstream": null, "active": true}, "promoting": false}},
            "system": 7, "watermark": {"term": 4},
        },
        "members": [],
        "policy": {"ttl": 5000, "loop_wait": 1000, "maximum_lag_on_failover": 0, "primary_start_timeout": 300_000,
                   "switchover_timeout": 5000, "step_down_margin": 500, "synchronous_mode": "on", "synchronous_node_count": 1},
        "job": null,
    });
    serde_json::from_value(view).unwrap()
}
