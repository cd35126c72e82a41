//! The rules of the cluster in the DCS key `config`: what they mean, and which values they may have. Patroni's keys.

use std::collections::BTreeMap;
use std::time::Duration;

use outrider_ha::{Policy, SynchronousMode, Tags};
use serde_json::{Map, Value};
use tracing::warn;

use super::Config;
use super::section;

/// A primary that cannot renew stops itself when its fuse has this much left: the kill budget of the supervisor.
const STEP_DOWN_MARGIN: Duration = Duration::from_millis(500);
/// Longer than this no timeout is meant to be.
const DURATION_MAX: Duration = Duration::from_secs(24 * 3600);
/// Below this a healthy etcd's pauses would cost failovers.
const TTL_MIN: Duration = Duration::from_secs(2);

/// A value of the rules that cannot be.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Violation {
    /// Its key.
    pub(crate) key: &'static str,
    /// The value; `None` when it is absent.
    pub(crate) value: Option<Value>,
    /// What it must be.
    pub(crate) rule: String,
}

/// The rules in `dcs` with this member's tags. What is absent has its default; what cannot be keeps its `last` value.
pub(crate) fn policy(dcs: &Value, tags: &Map<String, Value>, last: &Policy) -> Policy {
    let wrong = violations(dcs);
    for violation in &wrong {
        warn!(
            key = violation.key,
            value = violation.value.as_ref().map(ToString::to_string),
            rule = violation.rule,
            "cannot follow this rule of the cluster; keeping the last good one"
        );
    }
    let is_good = |key: &str| wrong.iter().all(|violation| violation.key != key);
    // The three belong together: one of them that cannot be makes the others mean something else.
    let timing = ["ttl", "loop_wait", "retry_timeout"].iter().all(|key| is_good(key));
    let time = |key: &str, usual: u64, last: Duration| {
        let good = if matches!(key, "ttl" | "loop_wait") { timing } else { is_good(key) };
        if good { seconds(dcs, key).unwrap_or(Duration::from_secs(usual)) } else { last }
    };
    let count = |key: &str, usual: u64, last: u64| {
        if is_good(key) { integer(dcs, key).unwrap_or(usual) } else { last }
    };
    let nodes = count("synchronous_node_count", 1, u64::from(last.synchronous_node_count));
    Policy {
        ttl: time("ttl", 5, last.ttl),
        loop_wait: time("loop_wait", 1, last.loop_wait),
        maximum_lag_on_failover: count("maximum_lag_on_failover", 0, last.maximum_lag_on_failover),
        primary_start_timeout: time("primary_start_timeout", 300, last.primary_start_timeout),
        switchover_timeout: time("switchover_timeout", 5, last.switchover_timeout),
        step_down_margin: STEP_DOWN_MARGIN,
        synchronous_mode: if is_good("synchronous_mode") {
            synchronous_mode(dcs)
        } else {
            last.synchronous_mode
        },
        synchronous_node_count: u32::try_from(nodes).unwrap_or(u32::MAX),
        tags: policy_tags(tags),
    }
}

/// The rules before the DCS was read: those of the file, with the defaults beneath.
pub(crate) fn first_policy(config: &Config) -> Policy {
    let defaults = Policy {
        ttl: Duration::from_secs(5),
        loop_wait: Duration::from_secs(1),
        maximum_lag_on_failover: 0,
        primary_start_timeout: Duration::from_secs(300),
        switchover_timeout: Duration::from_secs(5),
        step_down_margin: STEP_DOWN_MARGIN,
        synchronous_mode: SynchronousMode::On,
        synchronous_node_count: 1,
        tags: Tags::default(),
    };
    policy(&config.bootstrap_dcs, &config.tags, &defaults)
}

/// The parameters and the lines of `pg_hba.conf` that all members share.
pub(crate) fn parameters(dcs: &Value) -> (BTreeMap<String, String>, Vec<String>) {
    let parameters = dcs.pointer("/postgresql/parameters").and_then(Value::as_object);
    let lines = dcs.pointer("/postgresql/pg_hba").and_then(Value::as_array);
    (
        parameters.into_iter().flatten().filter_map(parameter).collect(),
        lines.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect(),
    )
}

/// A parameter as Postgres reads it: a boolean is `on` or `off`. `null` takes it away.
pub(super) fn parameter((name, value): (&String, &Value)) -> Option<(String, String)> {
    let text = match value {
        Value::Bool(true) => "on".to_owned(),
        Value::Bool(false) => "off".to_owned(),
        other => section::scalar(other)?,
    };
    Some((name.clone(), text))
}

/// Every value that cannot be, and why.
pub(crate) fn violations(dcs: &Value) -> Vec<Violation> {
    if !dcs.is_object() {
        return vec![Violation {
            key: "config",
            value: Some(dcs.clone()),
            rule: "expected a JSON object".to_owned(),
        }];
    }
    let mut found = Vec::new();
    let mut wrong = |key: &'static str, rule: String| {
        found.push(Violation { key, value: dcs.get(key).cloned(), rule });
    };
    for key in ["ttl", "loop_wait", "retry_timeout", "primary_start_timeout", "switchover_timeout"] {
        let at_least = if key == "primary_start_timeout" { Duration::ZERO } else { Duration::from_millis(1) };
        let fits = seconds(dcs, key).is_some_and(|time| (at_least..=DURATION_MAX).contains(&time));
        if is_given(dcs, key) && !fits {
            wrong(key, "expected a number of seconds, at most a day".to_owned());
        }
    }
    let timing = |key, usual| seconds(dcs, key).unwrap_or(Duration::from_secs(usual));
    let (ttl, loop_wait, retry) = (timing("ttl", 5), timing("loop_wait", 1), timing("retry_timeout", 1));
    if ttl < TTL_MIN {
        wrong("ttl", "must be 2 seconds or more".to_owned());
    } else if loop_wait.saturating_add(retry.saturating_mul(2)) > ttl {
        let (loop_wait, retry, ttl) = (loop_wait.as_secs_f64(), retry.as_secs_f64(), ttl.as_secs_f64());
        wrong(
            "ttl",
            format!("loop_wait ({loop_wait}) + 2 * retry_timeout ({retry}) must not exceed ttl ({ttl})"),
        );
    }
    for (key, least) in [("maximum_lag_on_failover", 0), ("synchronous_node_count", 1)] {
        if is_given(dcs, key) && integer(dcs, key).is_none_or(|number| number < least) {
            wrong(key, format!("expected a whole number, {least} or more"));
        }
    }
    if is_given(dcs, "synchronous_mode") && truth(&dcs["synchronous_mode"]).is_none() {
        wrong("synchronous_mode", "expected true or false (quorum commit is not supported)".to_owned());
    }
    found
}

/// A time in the rules.
pub(super) fn seconds(dcs: &Value, key: &str) -> Option<Duration> {
    section::scalar(dcs.get(key)?).and_then(|text| section::duration(&text))
}

fn integer(dcs: &Value, key: &str) -> Option<u64> {
    section::scalar(dcs.get(key)?)?.parse().ok()
}

fn is_given(dcs: &Value, key: &str) -> bool {
    dcs.get(key).is_some_and(|value| !value.is_null())
}

fn truth(value: &Value) -> Option<bool> {
    section::boolean(&section::scalar(value)?)
}

fn synchronous_mode(dcs: &Value) -> SynchronousMode {
    match dcs.get("synchronous_mode").and_then(truth) {
        Some(true) => SynchronousMode::On,
        Some(false) | None => SynchronousMode::Off,
    }
}

/// Patroni's tags; a boolean wins over its priority.
pub(crate) fn policy_tags(tags: &Map<String, Value>) -> Tags {
    let is_set = |name: &str| tags.get(name).and_then(truth) == Some(true);
    let priority =
        |name: &str| tags.get(name).and_then(section::scalar).and_then(|text| text.parse::<u32>().ok());
    Tags {
        nofailover: is_set("nofailover"),
        nosync: is_set("nosync") || priority("sync_priority") == Some(0),
        failover_priority: priority("failover_priority").unwrap_or(1),
    }
}
