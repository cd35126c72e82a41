//! The parameters of a member's file, asked of PostgreSQL's own program before anything is started with them.

use std::collections::BTreeMap;

use outrider_postgres::{Configuration, Trial, TrialOutcome};

use super::{Config, judge, rules};

/// What the program has against them.
#[derive(Debug, Default)]
pub(crate) struct FileTrial {
    /// Parameters that no server of this version takes.
    pub(crate) faults: Vec<String>,
    /// A server would not start with what is there now.
    pub(crate) start: Option<String>,
    /// The program could not be asked, or a parameter has no effect.
    pub(crate) warnings: Vec<String>,
}

/// Asks it.
pub(crate) async fn try_file(config: &Config) -> FileTrial {
    let settings = &config.postgres;
    let bootstrap = judge::judge(&config.bootstrap_dcs, settings, None, &Configuration::default()).parameters;
    let mut found = FileTrial::default();
    overruled(config, &mut found);
    let trial = Trial::of(settings);
    let wanted = Configuration { parameters: bootstrap.clone(), ..Configuration::default() };
    let words = match trial.start(&wanted).await {
        TrialOutcome::Passed => return found,
        TrialOutcome::NotTried(why) => {
            found.warnings.push(format!("the parameters were not checked: {why}"));
            return found;
        }
        TrialOutcome::Refused(words) => words,
    };
    let sections = [
        ("bootstrap.dcs.postgresql.parameters", &bootstrap),
        ("postgresql.parameters", &settings.parameters),
    ];
    for (section, parameters) in sections {
        for (name, value) in parameters.iter().filter(|(name, value)| !settings.overrules(name, value)) {
            if let TrialOutcome::Refused(why) = trial.parameter(name, value).await {
                found.faults.push(format!("{section}.{name}: {value:?}: {why}"));
            }
        }
    }
    if found.faults.is_empty() {
        found.start = Some(words);
    }
    found
}

/// Parameters that the agent sets otherwise.
fn overruled(config: &Config, found: &mut FileTrial) {
    let shared = config.bootstrap_dcs.pointer("/postgresql/parameters").and_then(|value| value.as_object());
    let shared: BTreeMap<String, String> = shared
        .into_iter()
        .flatten()
        .filter_map(|(name, value)| Some((name.clone(), rules::parameter(name, value).ok()?)))
        .collect();
    let sections = [
        ("bootstrap.dcs.postgresql.parameters", &shared),
        ("postgresql.parameters", &config.postgres.parameters),
    ];
    for (section, parameters) in sections {
        for (name, _) in parameters.iter().filter(|(name, value)| config.postgres.overrules(name, value)) {
            found.warnings.push(format!("{section}.{name} has no effect here: Outrider sets it itself"));
        }
    }
}
