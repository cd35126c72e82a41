//! Which parameters and lines of `pg_hba.conf` a member takes from the rules of its cluster. What its server would reject, or
//! what the agent sets itself, is reported and keeps its last good value.

use std::collections::BTreeMap;
use std::time::Duration;

use outrider_postgres::{
    Configuration, KnownParameters, ParameterFault, Settings, Trial, TrialOutcome, check_hba_line,
};
use serde_json::Value;
use tokio::time::timeout;

use super::keys;
use super::rules::{self, Violation};

/// Time limit for asking the program `postgres`; without an answer nothing counts as wrong.
const TRIAL_LIMIT: Duration = Duration::from_secs(10);
/// The oldest supported version.
const VERSION_LEAST: u32 = 150_000;

/// What is accepted and what is not.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Judged {
    /// By lower-case name.
    pub(crate) parameters: BTreeMap<String, String>,
    /// Lines of `pg_hba.conf`.
    pub(crate) pg_hba: Vec<String>,
    /// Everything that is not followed, of all the rules.
    pub(crate) violations: Vec<Violation>,
}

/// Checks the whole document. `known`: what the server knows; without it, names and values are accepted as they are. `last`:
/// what this member had before.
pub(crate) fn judge(
    dcs: &Value,
    settings: &Settings,
    known: Option<&KnownParameters>,
    last: &Configuration,
) -> Judged {
    let mut violations = rules::violations(dcs);
    let parameters = match dcs.pointer("/postgresql/parameters") {
        None | Some(Value::Null) if section_is_readable(dcs) => BTreeMap::new(),
        Some(Value::Object(wanted)) => {
            let mut taken = BTreeMap::new();
            for (name, value) in wanted.iter().filter(|(_, value)| !value.is_null()) {
                let small = name.to_ascii_lowercase();
                let good = match rules::parameter(name, value) {
                    // Already among the violations.
                    Err(_) => None,
                    Ok(text) => match fault(settings, known, &small, &text) {
                        None => Some(text),
                        Some(rule) => {
                            let key = format!("postgresql.parameters.{name}");
                            violations.push(Violation { key, value: Some(value.clone()), rule });
                            None
                        }
                    },
                };
                if let Some(value) = good.or_else(|| last.parameters.get(&small).cloned()) {
                    taken.insert(small, value);
                }
            }
            taken
        }
        None | Some(_) => last.parameters.clone(),
    };
    let pg_hba = pg_hba(dcs, known, last, &mut violations);
    Judged { parameters, pg_hba, violations }
}

fn section_is_readable(dcs: &Value) -> bool {
    dcs.get("postgresql").is_none_or(|section| section.is_object() || section.is_null()) && dcs.is_object()
}

fn pg_hba(
    dcs: &Value,
    known: Option<&KnownParameters>,
    last: &Configuration,
    violations: &mut Vec<Violation>,
) -> Vec<String> {
    let version = known.map_or(VERSION_LEAST, KnownParameters::version_number);
    let wanted = match dcs.pointer("/postgresql/pg_hba") {
        None | Some(Value::Null) if section_is_readable(dcs) => return Vec::new(),
        Some(Value::Array(wanted)) => wanted,
        None | Some(_) => return last.pg_hba.clone(),
    };
    let mut is_good = true;
    let mut lines = Vec::new();
    for line in wanted {
        let Some(text) = line.as_str() else {
            is_good = false;
            continue;
        };
        if let Err(rule) = check_hba_line(text, version) {
            is_good = false;
            let key = "postgresql.pg_hba".to_owned();
            violations.push(Violation { key, value: Some(line.clone()), rule });
        }
        lines.push(text.to_owned());
    }
    // Leaving out one line could let in somebody it was meant to keep out.
    if is_good { lines } else { last.pg_hba.clone() }
}

/// Why a parameter is rejected.
pub(super) fn fault(
    settings: &Settings,
    known: Option<&KnownParameters>,
    name: &str,
    value: &str,
) -> Option<String> {
    if settings.overrules(name, value) {
        return Some("is not honoured: Outrider sets it itself".to_owned());
    }
    if matches!(name, "max_wal_senders" | "max_replication_slots") && value.trim() == "0" {
        return Some("must be 1 or more, or no standby could stream".to_owned());
    }
    if name == "wal_level" && value.eq_ignore_ascii_case("minimal") {
        return Some("must be replica or logical, or no standby could stream".to_owned());
    }
    let known = known?;
    match known.check(name, value) {
        Ok(()) => None,
        Err(ParameterFault::Refused(why)) => Some(why),
        Err(ParameterFault::Unknown) => {
            let meant = keys::nearest(name, known.names());
            let meant = meant.map(|near| format!("; did you mean {near}?")).unwrap_or_default();
            Some(format!("PostgreSQL {} has no such parameter{meant}", known.version()))
        }
    }
}

/// What the program `postgres` objects to, in its own words, by parameter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tried(BTreeMap<String, String>);

impl Tried {
    /// As violations of the rules.
    pub(crate) fn violations(&self, wanted: &BTreeMap<String, String>) -> Vec<Violation> {
        let one = |(name, why): (&String, &String)| Violation {
            key: format!("postgresql.parameters.{name}"),
            value: wanted.get(name).map(|value| Value::from(value.as_str())),
            rule: why.clone(),
        };
        self.0.iter().map(one).collect()
    }

    /// `wanted` without the rejected parameters, which are as in `good`.
    pub(crate) fn taken(
        &self,
        wanted: &BTreeMap<String, String>,
        good: &BTreeMap<String, String>,
    ) -> BTreeMap<String, String> {
        let mut taken = wanted.clone();
        for name in self.0.keys() {
            taken.remove(name);
            if let Some(value) = good.get(name) {
                taken.insert(name.clone(), value.clone());
            }
        }
        taken
    }
}

/// Asks the program whether a server would start with `wanted`. Values that differ from `good` are tried one after the other,
/// so that a wrong one does not take the others with it.
pub(crate) async fn try_parameters(
    settings: &Settings,
    good: &BTreeMap<String, String>,
    wanted: &BTreeMap<String, String>,
) -> Tried {
    let trial = Trial::of(settings);
    let trying = async {
        let mut refused = BTreeMap::new();
        if refusal(&trial, wanted).await.is_none() {
            return Tried::default();
        }
        let is_changed = |name: &String, value: &String| good.get(name) != Some(value);
        // First the unchanged ones: if these are rejected, the change is not to blame.
        let mut taken = wanted.clone();
        taken.retain(|name, value| !is_changed(name, value));
        if refusal(&trial, &taken).await.is_some() {
            for (name, value) in wanted.iter().filter(|(name, value)| is_changed(name, value)) {
                if let TrialOutcome::Refused(why) = trial.parameter(name, value).await {
                    refused.insert(name.clone(), why);
                }
            }
            return Tried(refused);
        }
        let mut left: Vec<&String> = wanted.keys().filter(|name| !taken.contains_key(*name)).collect();
        // A value may be valid only together with one that is tried after it.
        loop {
            let before = left.len();
            refused.clear();
            for name in std::mem::take(&mut left) {
                let mut more = taken.clone();
                more.extend(wanted.get(name).map(|value| (name.clone(), value.clone())));
                match refusal(&trial, &more).await {
                    None => taken = more,
                    Some(why) => {
                        refused.insert(name.clone(), why);
                        left.push(name);
                    }
                }
            }
            if left.is_empty() || left.len() == before {
                return Tried(refused);
            }
        }
    };
    timeout(TRIAL_LIMIT, trying).await.unwrap_or_default()
}

async fn refusal(trial: &Trial<'_>, parameters: &BTreeMap<String, String>) -> Option<String> {
    let wanted = Configuration { parameters: parameters.clone(), ..Configuration::default() };
    match trial.start(&wanted).await {
        TrialOutcome::Refused(words) => Some(words),
        TrialOutcome::Passed | TrialOutcome::NotTried(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::config::sample;

    fn last() -> Configuration {
        Configuration {
            parameters: BTreeMap::from([("work_mem".to_owned(), "4MB".to_owned())]),
            pg_hba: vec!["local all all trust".to_owned()],
            ..Configuration::default()
        }
    }

    fn judged(dcs: &Value) -> Judged {
        judge(dcs, &sample::config(None).postgres, None, &last())
    }

    #[test]
    fn what_cannot_be_read_keeps_its_last_good_value_and_the_rest_counts() {
        let seen =
            judged(&json!({"postgresql": {"parameters": {"work_mem": ["x"], "jit": false, "Port": 1}}}));
        assert_eq!(
            seen.parameters,
            BTreeMap::from([("work_mem".to_owned(), "4MB".to_owned()), ("jit".to_owned(), "off".to_owned())])
        );
        let keys: Vec<&str> = seen.violations.iter().map(|violation| violation.key.as_str()).collect();
        assert_eq!(keys, ["postgresql.parameters.work_mem", "postgresql.parameters.Port"]);
        for broken in
            [json!({"postgresql": {"parameters": "x", "pg_hba": "y"}}), json!({"postgresql": 1}), json!(1)]
        {
            let seen = judged(&broken);
            assert_eq!((seen.parameters, seen.pg_hba), (last().parameters, last().pg_hba), "{broken}");
            assert!(!seen.violations.is_empty());
        }
        let seen = judged(&json!({}));
        assert_eq!(seen, Judged::default());
    }

    #[test]
    fn one_line_that_postgres_could_not_read_keeps_all_of_them_out() {
        let seen =
            judged(&json!({"postgresql": {"pg_hba": ["host all all all md5", "hots all all all reject"]}}));
        assert_eq!(seen.pg_hba, last().pg_hba);
        assert_eq!(seen.violations.len(), 1);
    }

    #[test]
    fn what_was_refused_is_as_it_was() {
        let wanted = BTreeMap::from([
            ("work_mem".to_owned(), "x".to_owned()),
            ("jit".to_owned(), "off".to_owned()),
            ("new".to_owned(), "y".to_owned()),
        ]);
        let why = "FATAL: no".to_owned();
        let tried = Tried(BTreeMap::from([("work_mem".to_owned(), why.clone()), ("new".to_owned(), why)]));
        let taken = tried.taken(&wanted, &last().parameters);
        assert_eq!(
            taken,
            BTreeMap::from([("work_mem".to_owned(), "4MB".to_owned()), ("jit".to_owned(), "off".to_owned())])
        );
        let words = tried.violations(&wanted)[1].to_string();
        assert_eq!(words, "postgresql.parameters.work_mem: \"x\": FATAL: no");
    }
}
