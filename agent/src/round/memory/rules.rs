//! How far this member follows the rules of its cluster: what it took of them, what not and why, and what its server knows.

use std::collections::BTreeMap;
use std::sync::Arc;

use outrider_postgres::{Configuration, KeptParameters, KnownParameters, Observation};
use tokio::task::JoinHandle;

use crate::config::Tried;

/// The memory of the rules.
#[derive(Default)]
pub(crate) struct Rules {
    /// Revision of the document that is followed; `None` before there was one.
    pub(crate) revision: Option<i64>,
    /// Something that the judgement rests on has changed.
    pub(crate) again: bool,
    /// How many bytes a standby may have still to replay and count as a healthy replica; `None` for any number.
    pub(crate) maximum_lag_on_replica: Option<u64>,
    /// What is not followed, a line each.
    pub(crate) not_honoured: Vec<String>,
    /// What the server knows; `None` before it ran for the first time.
    pub(crate) known: Option<Arc<KnownParameters>>,
    /// The postmaster that was asked, by its start.
    pub(crate) known_of: String,
    /// The question under way.
    pub(crate) learning: Option<Learning>,
    /// The trial under way.
    pub(crate) trying: Option<Trying>,
    /// What the last trial said of which parameters.
    pub(crate) verdict: Option<(BTreeMap<String, String>, Tried)>,
    /// Values that the server found wrong when it read them, with its words, by name.
    pub(crate) refused: BTreeMap<String, (String, String)>,
    /// Lines of `pg_hba.conf` that it found wrong, with its words.
    pub(crate) refused_hba: Option<(Vec<String>, String)>,
    /// What the server took last without a fault.
    pub(crate) good: Option<(BTreeMap<String, String>, Vec<String>)>,
    /// When Postgres had read its files last before it was told to read them again.
    pub(crate) told_at: Option<String>,
}

/// The running server is asked what it knows.
pub(crate) struct Learning {
    /// The postmaster that is asked, by its start.
    pub(crate) of: String,
    /// The answer.
    pub(crate) task: JoinHandle<Result<KnownParameters, outrider_postgres::Error>>,
}

/// The program `postgres` is asked whether a server would start with these parameters.
pub(crate) struct Trying {
    /// Which.
    pub(crate) wanted: BTreeMap<String, String>,
    /// The answer.
    pub(crate) task: JoinHandle<Result<Tried, outrider_postgres::Error>>,
}

impl Drop for Learning {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Drop for Trying {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Rules {
    /// With what is on disk.
    pub(crate) fn of(kept: Option<KeptParameters>) -> Self {
        let Some(kept) = kept else { return Rules::default() };
        Rules {
            known: Some(Arc::new(kept.known)),
            good: Some((kept.parameters, kept.pg_hba)),
            ..Rules::default()
        }
    }

    /// Whether a start has to wait for the trial: nothing good is known to start with instead.
    pub(crate) fn keeps_from_starting(&self) -> bool {
        self.trying.is_some() && self.good.is_none()
    }

    /// What the server made of the files that it has read: values that it found wrong are not given to it again, and when it
    /// found none all are good. Whether `good` has changed.
    pub(crate) fn note_files(&mut self, seen: &Observation, configuration: &Configuration) -> bool {
        if self.told_at.as_ref() == Some(&seen.loaded) {
            return false;
        }
        let mut is_good = true;
        for fault in &seen.file_faults {
            if fault.file == "pg_hba.conf" && !configuration.pg_hba.is_empty() {
                is_good = false;
                let good = self.good.as_ref().map(|(_, lines)| lines);
                if good != Some(&configuration.pg_hba) && self.refused_hba.is_none() {
                    self.refused_hba = Some((configuration.pg_hba.clone(), fault.to_string()));
                    self.again = true;
                }
            }
            let Some(name) = &fault.name else { continue };
            if let Some(value) =
                configuration.parameters.get(name).filter(|value| fault.value.as_ref() == Some(*value))
            {
                is_good = false;
                let words = (value.clone(), fault.error.clone());
                self.again |= self.refused.insert(name.clone(), words.clone()) != Some(words);
            }
        }
        let taken = (configuration.parameters.clone(), configuration.pg_hba.clone());
        if !is_good || self.good.as_ref() == Some(&taken) {
            return false;
        }
        self.good = Some(taken);
        true
    }
}

#[cfg(test)]
mod tests {
    use outrider_postgres::FileFault;

    use super::*;
    use crate::http::tests::stage::observation;

    fn configuration(work_mem: &str) -> Configuration {
        let parameters = BTreeMap::from([("work_mem".to_owned(), work_mem.to_owned())]);
        Configuration { parameters, ..Configuration::default() }
    }

    fn fault(value: &str) -> FileFault {
        FileFault {
            name: Some("work_mem".to_owned()),
            value: Some(value.to_owned()),
            file: "postgresql.conf".to_owned(),
            line: 7,
            error: "setting could not be applied".to_owned(),
        }
    }

    #[test]
    fn what_the_server_found_wrong_is_remembered_and_what_it_took_is_good() {
        let mut rules = Rules::default();
        let mut seen = observation();
        seen.loaded = "one".to_owned();
        assert!(rules.note_files(&seen, &configuration("4MB")));
        let good = rules.good.clone();
        // Told, and not yet read.
        rules.told_at = Some("one".to_owned());
        assert!(!rules.note_files(&seen, &configuration("8MB")));
        assert_eq!(rules.good, good);
        seen.loaded = "two".to_owned();
        seen.file_faults = vec![fault("8MB")];
        assert!(!rules.note_files(&seen, &configuration("8MB")));
        assert!(rules.again && rules.refused["work_mem"].0 == "8MB");
        assert_eq!(rules.good, good);
        // Somebody else's value is not the cluster's.
        let mut rules = Rules::default();
        assert!(rules.note_files(&seen, &configuration("4MB")));
    }
}
