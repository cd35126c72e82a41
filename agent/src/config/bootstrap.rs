//! `bootstrap.dcs`: the rules that a new cluster starts with. An existing cluster keeps those in its DCS.

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::error::Findings;
use super::rules;
use super::section::Section;
use super::values;

/// Contents of a new cluster's `/config`, and the retry timeout in it.
pub(super) fn read(root: &Section<'_>, findings: &mut Findings) -> (Value, Duration) {
    let bootstrap = root.section("bootstrap", findings);
    let section = bootstrap.section("dcs", findings);
    let mut rules = defaults();
    for (key, value) in section.entries() {
        // However it is written here, the DCS holds a boolean, as with Patroni.
        let truth = values::truth(value).filter(|_| key == "synchronous_mode").map(Value::Bool);
        rules.insert(key.clone(), truth.unwrap_or_else(|| value.clone()));
    }
    let rules = Value::Object(rules);
    for violation in rules::violations(&rules) {
        let key = section.name(&violation.key);
        match &violation.value {
            Some(value) => findings.wrong(key, value, violation.rule.clone()),
            None => findings.missing(key, violation.rule.clone()),
        }
    }
    let retry_timeout = values::seconds(&rules, "retry_timeout").unwrap_or(Duration::from_secs(1));
    (rules, retry_timeout)
}

/// Options for `initdb`, from `bootstrap.initdb`: texts, or one key with its value.
pub(super) fn initdb(root: &Section<'_>, findings: &mut Findings) -> Vec<String> {
    let bootstrap = root.section("bootstrap", findings);
    let items = match bootstrap.get("initdb") {
        None => return vec!["--encoding=UTF8".to_owned(), "--data-checksums".to_owned()],
        Some(Value::Array(items)) => items.clone(),
        Some(other) => vec![other.clone()],
    };
    let mut options = Vec::new();
    for item in &items {
        match option(item) {
            Some(option) => options.push(option),
            None => findings.wrong(
                bootstrap.name("initdb"),
                item,
                "expected a list of option names and {name: value} pairs; the data directory, the superuser and \
                 passwords are given elsewhere",
            ),
        }
    }
    options
}

fn option(item: &Value) -> Option<String> {
    // Options that the agent passes itself.
    const OURS: &[&str] = &["pgdata", "D", "username", "U", "pwfile", "pwprompt", "W"];
    let (name, value) = match item {
        Value::String(name) => (name.as_str(), None),
        Value::Object(pair) if pair.len() == 1 => {
            let (name, value) = pair.iter().next()?;
            (name.as_str(), Some(super::section::scalar(value)?))
        }
        Value::Object(_) | Value::Array(_) | Value::Null | Value::Bool(_) | Value::Number(_) => return None,
    };
    let name = name.trim_start_matches('-');
    let bare = name.split('=').next().unwrap_or(name);
    if bare.is_empty() || OURS.contains(&bare) {
        return None;
    }
    Some(value.map_or_else(|| format!("--{name}"), |value| format!("--{name}={value}")))
}

fn defaults() -> Map<String, Value> {
    let rules = json!({
        "ttl": 5,
        "loop_wait": 1,
        "retry_timeout": 1,
        "maximum_lag_on_failover": 0,
        "synchronous_mode": true,
    });
    rules.as_object().cloned().unwrap_or_default()
}
