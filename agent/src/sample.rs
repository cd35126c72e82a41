//! What tests begin with: what Postgres says, what a member sees, and its DCS.

use std::sync::Arc;
use std::time::Duration;

use outrider_dcs::{Dcs, Identity, Member, MemoryCluster};
use outrider_ha::View;
use outrider_postgres::{Observation, Role};
use outrider_wal::{Lsn, TimelineId};
use serde_json::{Value, json};

use crate::clock;

/// A member of the cluster in memory.
pub(crate) fn member(cluster: &MemoryCluster, name: &str) -> Arc<dyn Dcs> {
    let identity = Identity {
        name: name.to_owned(),
        base_path: "/service/demo/".to_owned(),
        ttl: Duration::from_secs(30),
        session_file: None,
        boottime_ns: clock::boottime_ns,
    };
    cluster.member(&identity).unwrap()
}

/// What a member has in the DCS.
pub(crate) fn entry(name: &str, value: Value) -> Member {
    Member { name: name.to_owned(), value: value.into(), lease: 1, created: 1, revision: 1 }
}

/// A standby that has replayed all.
pub(crate) fn observation() -> Observation {
    Observation {
        system_identifier: 7,
        server_version: 150_000,
        postmaster_start_time: String::new(),
        timeline: TimelineId::new(1),
        checkpoint_timeline: TimelineId::new(1),
        role: standby(100, 100),
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

/// One that streams, and waits for nothing.
pub(crate) fn standby(received: u64, replayed: u64) -> Role {
    Role::Standby {
        received: Lsn::new(received),
        replayed: Lsn::new(replayed),
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
    }
}

/// As such a standby sees it.
pub(crate) fn view() -> View {
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
