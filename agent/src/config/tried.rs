//! Checks the parameters of a member's file with PostgreSQL's own program before anything is started with them.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use outrider_postgres::{Configuration, Supervisor, Trial, TrialOutcome};

use super::{Archive, Config, Origin, judge, rules, taken_slot};

/// Time limit for asking the DCS who the members are.
const DCS_LIMIT: Duration = Duration::from_millis(500);

/// What the program objects to.
#[derive(Debug, Default)]
pub(crate) struct FileTrial {
    /// Parameters that no server of this version accepts.
    pub(crate) faults: Vec<String>,
    /// Why a server would not start with the current parameters.
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
    readable_by_others(config, &mut found);
    found.faults.extend(unusable_archive(config));
    Trial::sweep();
    let trial = Trial::of(settings);
    let wanted = Configuration { parameters: bootstrap.clone(), ..Configuration::default() };
    let (foreign, taken, started) =
        tokio::join!(foreign_supervisor(config), slot_of_another(config), trial.start(&wanted));
    found.faults.extend(foreign.into_iter().chain(taken));
    let words = match started {
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

/// What keeps the archive from being opened: files with keys or certificates that cannot be read or are incomplete.
fn unusable_archive(config: &Config) -> Vec<String> {
    let own = config.archive.as_ref().map(|archive| ("archive", archive));
    let origin = match &config.origin {
        Origin::Archive(origin) if origin.foreign => Some(("bootstrap.archive", &origin.archive)),
        Origin::Archive(_) | Origin::Initdb => None,
    };
    let fault =
        |(section, archive): (&str, &Archive)| Some(format!("{section}: {:#}", archive.open_store().err()?));
    own.into_iter().chain(origin).filter_map(fault).collect()
}

/// Whether another member of the cluster has this one's slot name, if the DCS answers at once; the agent checks in every round.
async fn slot_of_another(config: &Config) -> Option<String> {
    let dcs = config.open_dcs(DCS_LIMIT).ok()?;
    taken_slot(&config.name, &dcs.read().await.ok()?)
}

/// Files with passwords that every user of the machine can read.
fn readable_by_others(config: &Config, found: &mut FileTrial) {
    for path in &config.secret_files {
        let mode = std::fs::metadata(path).map(|metadata| metadata.permissions().mode());
        if mode.is_ok_and(|mode| mode & 0o004 != 0) {
            let path = path.display();
            found
                .warnings
                .push(format!("{path} has passwords in it and every user can read it: chmod o= {path}"));
        }
    }
}

/// Whether the supervisor that listens guards other data. One that does not answer is ignored.
async fn foreign_supervisor(config: &Config) -> Option<String> {
    if !config.supervisor.socket.exists() {
        return None;
    }
    let status = Supervisor::new(config.supervisor.socket.clone()).status().await.ok()?;
    foreign(config, &status.data_directory)
}

/// Why the supervisor of this data directory is not ours.
pub(crate) fn foreign(config: &Config, guarded: &str) -> Option<String> {
    let own = &config.postgres.data_directory;
    let same = Path::new(guarded) == own
        || std::fs::canonicalize(guarded)
            .ok()
            .zip(std::fs::canonicalize(own).ok())
            .is_some_and(|(a, b)| a == b);
    (!same).then(|| {
        format!(
            "supervisor.socket: {:?}: the supervisor there guards {guarded}, not {}: it is another member's",
            config.supervisor.socket,
            own.display()
        )
    })
}

/// Parameters that the agent overrides.
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
