//! The rules of the cluster in the DCS key `config`: what they mean for decisions. Which values they may have is in `rules`.

use std::time::Duration;

use outrider_ha::{KILL_BUDGET, Policy, SynchronousMode, Tags};
use serde_json::{Map, Value};

use super::Config;
use super::rules::Violation;
use super::section;
use super::values::{integer, seconds, truth};

/// The rules in `dcs` with this member's tags. What is absent has its default; what is `wrong` keeps its `last` value.
pub(crate) fn policy(dcs: &Value, wrong: &[Violation], tags: &Map<String, Value>, last: &Policy) -> Policy {
    let is_good = |key: &str| wrong.iter().all(|violation| violation.key != key);
    // These three depend on each other: if one is wrong, the others mean something else.
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
        step_down_margin: KILL_BUDGET,
        synchronous_mode: if is_good("synchronous_mode") {
            synchronous_mode(dcs)
        } else {
            last.synchronous_mode
        },
        synchronous_node_count: u32::try_from(nodes).unwrap_or(u32::MAX),
        tags: policy_tags(tags),
    }
}

/// Default `member_slots_ttl`, as in Patroni.
pub(crate) const MEMBER_SLOTS_TTL: Duration = Duration::from_secs(30 * 60);

/// How long the slots of absent members are kept; `last` when the value in `dcs` is `wrong`.
pub(crate) fn member_slots_ttl(dcs: &Value, wrong: &[Violation], last: Duration) -> Duration {
    if wrong.iter().any(|violation| violation.key == "member_slots_ttl") {
        return last;
    }
    seconds(dcs, "member_slots_ttl").unwrap_or(MEMBER_SLOTS_TTL)
}

/// The rules before the DCS was read: those of the file, over the defaults.
pub(crate) fn first_policy(config: &Config) -> Policy {
    let defaults = Policy {
        ttl: Duration::from_secs(5),
        loop_wait: Duration::from_secs(1),
        maximum_lag_on_failover: 0,
        primary_start_timeout: Duration::from_secs(300),
        switchover_timeout: Duration::from_secs(5),
        step_down_margin: KILL_BUDGET,
        synchronous_mode: SynchronousMode::On,
        synchronous_node_count: 1,
        tags: Tags::default(),
    };
    policy(&config.bootstrap_dcs, &[], &config.tags, &defaults)
}

fn synchronous_mode(dcs: &Value) -> SynchronousMode {
    match dcs.get("synchronous_mode").and_then(truth) {
        // A failover may lose commits only if somebody says so.
        Some(true) | None => SynchronousMode::On,
        Some(false) => SynchronousMode::Off,
    }
}

/// Patroni's tags; a boolean overrides its priority.
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::config::rules;
    use crate::config::sample;

    #[test]
    fn commits_wait_unless_somebody_says_that_they_do_not() {
        let last = first_policy(&sample::config(None));
        let mode = |dcs: &Value| policy(dcs, &rules::violations(dcs), &Map::new(), &last).synchronous_mode;
        for dcs in [
            json!({}),
            json!({"synchronous_mode": null}),
            json!({"ttl": 9}),
            json!({"synchronous_mode": "on"}),
        ] {
            assert_eq!(mode(&dcs), SynchronousMode::On, "{dcs}");
        }
        assert_eq!(last.synchronous_mode, SynchronousMode::On);
        for dcs in [json!({"synchronous_mode": false}), json!({"synchronous_mode": "off"})] {
            assert_eq!(mode(&dcs), SynchronousMode::Off, "{dcs}");
        }
    }
}
