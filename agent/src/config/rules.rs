//! The document of the cluster's rules in the DCS: which keys and values it may have, whoever wrote it. Whether a server
//! accepts its parameters is checked elsewhere.

pub(super) mod slots;

use std::fmt;
use std::time::Duration;

use serde_json::{Map, Value};

use super::keys;
use super::section;
use super::values::{self, integer, seconds, truth};

/// Maximum for timeouts; a longer one is a mistake.
const DURATION_MAX: Duration = Duration::from_secs(24 * 3600);
/// Maximum for `member_slots_ttl`.
const SLOTS_TTL_MAX: Duration = Duration::from_secs(365 * 24 * 3600);
/// Minimum `ttl`: below it a healthy etcd's pauses would cause failovers.
const TTL_MIN: Duration = Duration::from_secs(2);

/// A rule that cannot be followed.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Violation {
    /// Its key, with the sections before it.
    pub(crate) key: String,
    /// The value; `None` when it is absent, or when the key itself is wrong.
    pub(crate) value: Option<Value>,
    /// What it must be, or why it is not followed.
    pub(crate) rule: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.value {
            Some(value) => write!(f, "{}: {value}: {}", self.key, self.rule),
            None => write!(f, "{}: {}", self.key, self.rule),
        }
    }
}

/// One of Patroni's keys that is not supported: accepted only with the value that means what happens anyway.
struct Fixed {
    key: &'static str,
    is_done: fn(&Value) -> bool,
    why: &'static str,
}

const RULES: &[Fixed] = &[
    Fixed { key: "pause", is_done: is_false, why: "pause is not supported: failovers would go on" },
    Fixed { key: "standby_cluster", is_done: is_empty, why: "standby clusters are not supported" },
    Fixed {
        key: "synchronous_mode_strict",
        is_done: is_false,
        why: "not supported: a lone primary would go on accepting writes",
    },
    Fixed {
        key: "failsafe_mode",
        is_done: is_false,
        why: "not supported: a primary without its DCS would stop",
    },
    Fixed {
        key: "check_timeline",
        is_done: is_true,
        why: "timelines are always compared before a promotion",
    },
    Fixed {
        key: "maximum_lag_on_syncnode",
        is_done: |value| integer_of(value) == Some(-1),
        why: "not supported: a synchronous standby that lags would stay one",
    },
    Fixed { key: "primary_stop_timeout", is_done: is_zero, why: "not supported" },
    Fixed { key: "primary_race_backoff", is_done: is_zero, why: "not supported" },
    Fixed { key: "max_timelines_history", is_done: is_zero, why: "not supported: the whole history is kept" },
    Fixed { key: "master_start_timeout", is_done: |_| false, why: "rename it to primary_start_timeout" },
    Fixed { key: "master_stop_timeout", is_done: is_zero, why: "not supported" },
    Fixed { key: "permanent_slots", is_done: is_empty, why: "rename it to slots" },
    Fixed { key: "permanent_replication_slots", is_done: is_empty, why: "rename it to slots" },
    Fixed { key: "ignore_slots", is_done: is_empty, why: "not supported" },
];

const POSTGRESQL: &[Fixed] = &[
    Fixed { key: "use_pg_rewind", is_done: is_true, why: "pg_rewind is always used before a clone" },
    Fixed { key: "use_slots", is_done: is_true, why: "replication slots are always used" },
    Fixed { key: "pg_ident", is_done: is_empty, why: "not supported: pg_ident.conf stays as it is" },
    Fixed {
        key: "recovery_conf",
        is_done: is_empty,
        why: "not supported: recovery is configured by Outrider",
    },
    Fixed {
        key: "remove_data_directory_on_rewind_failure",
        is_done: is_true,
        why: "a member that cannot be rewound is cloned anew",
    },
    Fixed {
        key: "remove_data_directory_on_diverged_timelines",
        is_done: is_true,
        why: "a member that has diverged is rewound, or cloned anew",
    },
];

/// Everything that cannot be followed, and why.
pub(crate) fn violations(dcs: &Value) -> Vec<Violation> {
    let Value::Object(rules) = dcs else {
        let rule = "expected a JSON object".to_owned();
        return vec![Violation { key: "config".to_owned(), value: Some(dcs.clone()), rule }];
    };
    let mut found = Vec::new();
    check_keys(rules, "", keys::RULES, RULES, &mut found);
    timing(dcs, &mut found);
    let mut wrong = |key: &str, rule: String| {
        found.push(Violation { key: key.to_owned(), value: dcs.get(key).cloned(), rule });
    };
    for (key, least) in [("maximum_lag_on_failover", 0), ("synchronous_node_count", 1)] {
        if is_given(dcs, key) && integer(dcs, key).is_none_or(|number| number < least) {
            wrong(key, format!("expected a whole number, {least} or more"));
        }
    }
    if is_given(dcs, "maximum_lag_on_replica") && values::maximum_lag_on_replica(dcs).is_none() {
        wrong("maximum_lag_on_replica", "expected bytes, such as 16777216 or 16MB".to_owned());
    }
    if is_given(dcs, "synchronous_mode") && truth(&dcs["synchronous_mode"]).is_none() {
        wrong("synchronous_mode", "expected true or false (quorum commit is not supported)".to_owned());
    }
    slots::check(dcs, &mut found);
    postgresql(dcs, &mut found);
    found
}

fn check_keys(
    section: &Map<String, Value>,
    path: &str,
    name: &str,
    fixed: &[Fixed],
    found: &mut Vec<Violation>,
) {
    for (key, value) in section.iter().filter(|(_, value)| !value.is_null()) {
        let full = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        match fixed.iter().find(|fixed| fixed.key == key) {
            Some(fixed) if (fixed.is_done)(value) => {}
            Some(fixed) => {
                let rule = format!("is not honoured: {}", fixed.why);
                found.push(Violation { key: full, value: Some(value.clone()), rule });
            }
            None => {
                if let Some(rule) = keys::unknown_in(name, key) {
                    found.push(Violation { key: full, value: None, rule });
                }
            }
        }
    }
}

fn timing(dcs: &Value, found: &mut Vec<Violation>) {
    let mut wrong = |key: &str, rule: String| {
        found.push(Violation { key: key.to_owned(), value: dcs.get(key).cloned(), rule });
    };
    for key in ["ttl", "loop_wait", "retry_timeout", "primary_start_timeout", "switchover_timeout"] {
        let at_least = if key == "primary_start_timeout" { Duration::ZERO } else { Duration::from_millis(1) };
        let fits = seconds(dcs, key).is_some_and(|time| (at_least..=DURATION_MAX).contains(&time));
        if is_given(dcs, key) && !fits {
            wrong(key, "expected a number of seconds, at most a day".to_owned());
        }
    }
    let slots_ttl = seconds(dcs, "member_slots_ttl").is_some_and(|time| time <= SLOTS_TTL_MAX);
    if is_given(dcs, "member_slots_ttl") && !slots_ttl {
        wrong(
            "member_slots_ttl",
            "expected a number of seconds, at most a year; 0 to keep no slot of a member that is away"
                .to_owned(),
        );
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
}

fn postgresql(dcs: &Value, found: &mut Vec<Violation>) {
    let mut wrong = |key: String, value: &Value, rule: &str| {
        found.push(Violation { key, value: Some(value.clone()), rule: rule.to_owned() });
    };
    let section = match dcs.get("postgresql") {
        None | Some(Value::Null) => return,
        Some(Value::Object(section)) => section,
        Some(other) => {
            return wrong("postgresql".to_owned(), other, "expected a section with parameters and pg_hba");
        }
    };
    match section.get("parameters") {
        None | Some(Value::Null) => {}
        Some(Value::Object(parameters)) => {
            for (name, value) in parameters.iter().filter(|(_, value)| !value.is_null()) {
                if let Err(rule) = parameter(name, value) {
                    wrong(format!("postgresql.parameters.{name}"), value, &rule);
                }
            }
        }
        Some(other) => wrong(
            "postgresql.parameters".to_owned(),
            other,
            "expected a section of parameters with their values",
        ),
    }
    match section.get("pg_hba") {
        None | Some(Value::Null) => {}
        Some(Value::Array(lines)) => {
            for line in lines.iter().filter(|line| !line.is_string()) {
                wrong("postgresql.pg_hba".to_owned(), line, "expected lines of pg_hba.conf as texts");
            }
        }
        Some(other) => {
            wrong("postgresql.pg_hba".to_owned(), other, "expected a list of lines of pg_hba.conf");
        }
    }
    check_keys(section, "postgresql", keys::RULES_POSTGRESQL, POSTGRESQL, found);
}

/// Parameters that take several values, separated by commas.
const LISTS: &[&str] = &[
    "createrole_self_grant",
    "datestyle",
    "debug_io_direct",
    "listen_addresses",
    "local_preload_libraries",
    "log_connections",
    "log_destination",
    "oauth_validator_libraries",
    "restrict_nonsystem_relation_kind",
    "search_path",
    "session_preload_libraries",
    "shared_preload_libraries",
    "synchronized_standby_slots",
    "temp_tablespaces",
    "unix_socket_directories",
    "wal_consistency_checking",
];

/// A value as Postgres reads it: a boolean is `on` or `off`, a list is joined where Postgres takes one.
///
/// # Errors
/// When Postgres cannot read it.
pub(crate) fn parameter(name: &str, value: &Value) -> Result<String, String> {
    match value {
        Value::Bool(true) => Ok("on".to_owned()),
        Value::Bool(false) => Ok("off".to_owned()),
        Value::Array(items) if LISTS.contains(&name.to_ascii_lowercase().as_str()) => {
            let items: Option<Vec<String>> = items.iter().map(section::scalar).collect();
            items.map(|items| items.join(", ")).ok_or_else(|| "expected a list of texts".to_owned())
        }
        Value::Array(_) => Err("expected one value; this parameter takes no list".to_owned()),
        other => section::scalar(other).ok_or_else(|| "expected a text, a number or a boolean".to_owned()),
    }
}

fn is_given(dcs: &Value, key: &str) -> bool {
    dcs.get(key).is_some_and(|value| !value.is_null())
}

fn is_true(value: &Value) -> bool {
    truth(value) == Some(true)
}

fn is_false(value: &Value) -> bool {
    truth(value) == Some(false)
}

fn is_zero(value: &Value) -> bool {
    integer_of(value) == Some(0)
}

fn integer_of(value: &Value) -> Option<i64> {
    section::scalar(value)?.parse().ok()
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Array(items) => items.is_empty(),
        Value::Object(map) => map.is_empty(),
        Value::String(text) => text.is_empty(),
        Value::Null => true,
        Value::Bool(_) | Value::Number(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn keys(dcs: &Value) -> Vec<String> {
        violations(dcs).into_iter().map(|violation| violation.key).collect()
    }

    #[test]
    fn a_document_as_patroni_writes_it_is_taken() {
        let document = json!({
            "ttl": 30, "loop_wait": 10, "retry_timeout": 10, "maximum_lag_on_failover": 1_048_576,
            "maximum_lag_on_replica": "16MB",
            "synchronous_mode": true, "member_slots_ttl": "30min", "pause": false, "failsafe_mode": false, "slots": {"mine": {"type": "physical"}, "other": {}}, "standby_cluster": null,
            "postgresql": {"use_pg_rewind": true, "use_slots": true, "pg_hba": ["local all all trust"],
                "parameters": {"max_connections": 100, "jit": false, "shared_preload_libraries": ["a", "b"], "gone": null}},
        });
        assert_eq!(violations(&document), []);
        assert_eq!(violations(&json!({})), []);
    }

    #[test]
    fn a_list_is_joined_where_postgres_takes_one() {
        assert_eq!(parameter("Shared_Preload_Libraries", &json!(["a", "b"])), Ok("a, b".to_owned()));
        assert!(parameter("work_mem", &json!(["1MB"])).is_err());
        assert!(parameter("search_path", &json!([["x"]])).is_err());
        assert_eq!(parameter("jit", &json!(false)), Ok("off".to_owned()));
        assert_eq!(parameter("port", &json!(5432)), Ok("5432".to_owned()));
    }

    #[test]
    fn what_would_be_ignored_is_named() {
        for (document, key) in [
            (json!({"loop_wiat": 1}), "loop_wiat"),
            (json!({"pause": true}), "pause"),
            (json!({"synchronous_mode_strict": "on"}), "synchronous_mode_strict"),
            (json!({"failsafe_mode": true}), "failsafe_mode"),
            (json!({"standby_cluster": {"host": "x"}}), "standby_cluster"),
            (json!({"slots": {"mine": {"type": "logical", "database": "x", "plugin": "y"}}}), "slots.mine"),
            (json!({"slots": {"Mine": {"type": "physical"}}}), "slots.Mine"),
            (json!({"slots": {"outrider_archive": null}}), "slots.outrider_archive"),
            (json!({"slots": ["mine"]}), "slots"),
            (json!({"permanent_slots": {"mine": {}}}), "permanent_slots"),
            (json!({"master_start_timeout": 300}), "master_start_timeout"),
            (json!({"postgresql": {"use_slots": false}}), "postgresql.use_slots"),
            (json!({"postgresql": {"paramters": {}}}), "postgresql.paramters"),
            (json!({"postgresql": "x"}), "postgresql"),
            (json!({"postgresql": {"parameters": "x"}}), "postgresql.parameters"),
            (json!({"postgresql": {"parameters": ["x"]}}), "postgresql.parameters"),
            (json!({"postgresql": {"parameters": {"work_mem": ["1MB"]}}}), "postgresql.parameters.work_mem"),
            (json!({"postgresql": {"parameters": {"work_mem": {"a": 1}}}}), "postgresql.parameters.work_mem"),
            (json!({"postgresql": {"pg_hba": "y"}}), "postgresql.pg_hba"),
            (json!({"postgresql": {"pg_hba": [1]}}), "postgresql.pg_hba"),
            (json!({"ttl": "soon"}), "ttl"),
            (json!({"member_slots_ttl": "long"}), "member_slots_ttl"),
            (json!({"member_slots_ttl": -1}), "member_slots_ttl"),
            (json!({"maximum_lag_on_replica": "16mb"}), "maximum_lag_on_replica"),
            (json!({"maximum_lag_on_replica": -1}), "maximum_lag_on_replica"),
            (json!({"maximum_lag_on_replica": true}), "maximum_lag_on_replica"),
            (json!({"maximum_lag_on_replicas": 1}), "maximum_lag_on_replicas"),
            (json!([]), "config"),
        ] {
            assert_eq!(keys(&document), [key], "{document}");
        }
        let words = violations(&json!({"loop_wiat": 1}))[0].to_string();
        assert!(words.contains("did you mean loop_wait?"), "{words}");
    }
}
