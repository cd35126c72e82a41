//! Follows the rules of the cluster in the DCS: the policy at once, parameters once they are known to be good. A rule that
//! cannot be followed keeps its last good value and is reported.

use outrider_dcs::Snapshot;
use outrider_postgres::KeptParameters;
use tracing::{info, warn};

use crate::config::{self, Judged, Violation};
use crate::report::causes;
use crate::round::{Instruments, Memory, Trying};

/// When the document, or what is known of it, has changed.
pub(super) fn follow(instruments: &Instruments, memory: &mut Memory, snapshot: &Snapshot) {
    let Some(entry) = &snapshot.config else { return };
    let is_new = memory.rules.revision != Some(entry.revision);
    if !is_new && !memory.rules.again {
        return;
    }
    memory.rules.revision = Some(entry.revision);
    memory.rules.again = false;
    let settings = instruments.postgres.settings();
    let known = memory.rules.known.clone();
    let mut judged = config::judge(&entry.value, settings, known.as_deref(), &memory.configuration);
    if entry.value.is_object() {
        let tags = &instruments.config.tags;
        memory.policy = config::policy(&entry.value, &judged.violations, tags, &memory.policy);
        memory.member_slots_ttl =
            config::member_slots_ttl(&entry.value, &judged.violations, memory.member_slots_ttl);
        if judged.violations.iter().all(|violation| violation.key != "maximum_lag_on_replica") {
            memory.rules.maximum_lag_on_replica = config::maximum_lag_on_replica(&entry.value);
        }
        memory.declared_slots = config::declared_slots(&entry.value);
    }
    without_refused(&mut judged, memory);
    take(instruments, memory, &mut judged);
    tell(memory, &judged.violations);
}

/// What the server found wrong when it read it.
fn without_refused(judged: &mut Judged, memory: &mut Memory) {
    let good = memory.rules.good.clone().unwrap_or_default();
    let wanted = judged.parameters.clone();
    memory.rules.refused.retain(|name, (value, _)| wanted.get(name) == Some(value));
    for (name, (value, words)) in &memory.rules.refused {
        judged.parameters.remove(name);
        if let Some(good) = good.0.get(name).filter(|good| *good != value) {
            judged.parameters.insert(name.clone(), good.clone());
        }
        judged.violations.push(Violation {
            key: format!("postgresql.parameters.{name}"),
            value: Some(value.as_str().into()),
            rule: words.clone(),
        });
    }
    match &memory.rules.refused_hba {
        Some((lines, words)) if *lines == judged.pg_hba => {
            let rule = words.clone();
            judged.violations.push(Violation { key: "postgresql.pg_hba".to_owned(), value: None, rule });
            judged.pg_hba = good.1;
        }
        Some(_) | None => memory.rules.refused_hba = None,
    }
}

/// Lines at once, because each was checked; parameters when the program `postgres` accepts them.
fn take(instruments: &Instruments, memory: &mut Memory, judged: &mut Judged) {
    if judged.pg_hba != memory.configuration.pg_hba {
        memory.configuration.pg_hba.clone_from(&judged.pg_hba);
        memory.configuration_changed = true;
    }
    let good = memory.rules.good.as_ref().map(|(parameters, _)| parameters.clone()).unwrap_or_default();
    let wanted = &judged.parameters;
    let taken = match &memory.rules.verdict {
        Some((of, tried)) if of == wanted => {
            judged.violations.extend(tried.violations(wanted));
            tried.taken(wanted, &good)
        }
        // What was good once stays good, also when there is nobody to ask.
        _ if *wanted == good => wanted.clone(),
        _ => {
            if memory.rules.trying.as_ref().is_none_or(|trying| trying.wanted != *wanted) {
                let settings = instruments.postgres.settings().clone();
                let candidate = wanted.clone();
                let task =
                    tokio::spawn(
                        async move { Ok(config::try_parameters(&settings, &good, &candidate).await) },
                    );
                memory.rules.trying = Some(Trying { wanted: wanted.clone(), task });
            }
            return;
        }
    };
    memory.rules.trying = None;
    if taken != memory.configuration.parameters {
        memory.configuration.parameters = taken;
        memory.configuration_changed = true;
    }
}

/// Logs each new one, and once when all is well again.
fn tell(memory: &mut Memory, violations: &[Violation]) {
    let lines: Vec<String> = violations.iter().map(ToString::to_string).collect();
    for line in lines.iter().filter(|line| !memory.rules.not_honoured.contains(line)) {
        warn!("cannot follow this rule of the cluster; keeping the last good value: {line}");
    }
    if lines.is_empty() && !memory.rules.not_honoured.is_empty() && memory.rules.trying.is_none() {
        info!("all rules of the cluster are followed again");
    }
    memory.rules.not_honoured = lines;
}

/// What Postgres says of its files; what it accepted is kept on disk.
pub(super) fn note_files(instruments: &Instruments, memory: &mut Memory) {
    let Some(seen) = &memory.seen else { return };
    let told = memory.configuration_changed || memory.rules.revision.is_none();
    if told || !memory.rules.note_files(seen, &memory.configuration) {
        return;
    }
    keep(instruments, memory);
}

/// Saves what is good, once the server has said what it knows.
pub(crate) fn keep(instruments: &Instruments, memory: &mut Memory) {
    let (Some((parameters, pg_hba)), Some(known)) = (&memory.rules.good, &memory.rules.known) else { return };
    let kept = KeptParameters {
        parameters: parameters.clone(),
        pg_hba: pg_hba.clone(),
        known: known.as_ref().clone(),
    };
    if let Err(fault) = kept.write(instruments.postgres.settings()) {
        warn!(fault = %causes(&fault), "cannot keep the parameters that Postgres has taken");
    }
}
