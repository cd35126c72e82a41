//! A report, for the tests of all that read it.

use std::sync::Arc;
use std::time::Duration;

use outrider_dcs::Snapshot;
use outrider_ha::{Plan, Reason};

use super::Report;
use crate::state::Counters;
use crate::{clock, sample};

/// A quiet round of a standby, long after the start.
pub(crate) fn report() -> Report {
    Report {
        at: clock::wall(),
        view: sample::view(),
        plan: Plan::wait(Reason::Following),
        failure: None,
        cluster: Some(Snapshot::default()),
        dcs_last_seen: Some(clock::wall()),
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
