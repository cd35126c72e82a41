//! How far this member follows the rules of its cluster: its policy, what it took of the parameters, what not and why, and what its
//! server knows of them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use outrider_ha::Policy;
use outrider_postgres::{Configuration, Error, KeptParameters, KnownParameters, Observation, Settings};
use serde_json::{Map, Value};
use tracing::{debug, info, warn};

use super::work::{Work, ended};
use crate::config::{self, Judged, MEMBER_SLOTS_TTL, Tried, Violation};
use crate::log::causes;

/// What is remembered of them.
pub(crate) struct Rules {
    /// Revision of the document that is followed; `None` before there was one.
    revision: Option<i64>,
    /// Something that the judgement rests on has changed.
    again: bool,
    /// The last good one.
    policy: Policy,
    member_slots_ttl: Duration,
    declared_slots: BTreeSet<String>,
    maximum_lag_on_replica: Option<u64>,
    /// What is not followed, a line each.
    not_honoured: Vec<String>,
    /// What the server knows; `None` before it ran for the first time.
    known: Option<Arc<KnownParameters>>,
    /// The postmaster that was asked, by its start.
    known_of: String,
    /// The question under way, and which postmaster is asked.
    learning: Option<(String, Work<KnownParameters>)>,
    /// The trial under way, and of which parameters.
    trying: Option<(BTreeMap<String, String>, Work<Tried>)>,
    /// What the last trial said of which parameters.
    verdict: Option<(BTreeMap<String, String>, Tried)>,
    /// Values that the server found wrong when it read them, with its words, by name.
    refused: BTreeMap<String, (String, String)>,
    /// Lines of `pg_hba.conf` that it found wrong, with its words.
    refused_hba: Option<(Vec<String>, String)>,
    /// What the server took last without a fault.
    good: Option<(BTreeMap<String, String>, Vec<String>)>,
    /// When Postgres had read its files last before it was told to read them again.
    told_at: Option<String>,
}

/// What was asked about parameters, and the answer.
pub(crate) enum Answered {
    /// The running server: what it knows.
    Knows(Result<KnownParameters, Error>),
    /// The program `postgres`: whether a server would start with them.
    Tried(Result<Tried, Error>),
}

impl Rules {
    /// Before the DCS has said any. `kept`: what was on disk.
    pub(crate) fn new(
        policy: Policy,
        kept: Option<KeptParameters>,
        maximum_lag_on_replica: Option<u64>,
    ) -> Self {
        let (known, good) = match kept {
            Some(kept) => (Some(Arc::new(kept.known)), Some((kept.parameters, kept.pg_hba))),
            None => (None, None),
        };
        Rules {
            revision: None,
            again: false,
            policy,
            // As long as Patroni's, until the DCS has said something else.
            member_slots_ttl: MEMBER_SLOTS_TTL,
            declared_slots: BTreeSet::new(),
            maximum_lag_on_replica,
            not_honoured: Vec::new(),
            known,
            known_of: String::new(),
            learning: None,
            trying: None,
            verdict: None,
            refused: BTreeMap::new(),
            refused_hba: None,
            good,
            told_at: None,
        }
    }

    /// Whether the DCS has said any.
    pub(crate) fn are_known(&self) -> bool {
        self.revision.is_some()
    }

    /// The policy of the cluster, the last good one.
    pub(crate) fn policy(&self) -> &Policy {
        &self.policy
    }

    /// How long the slots of members that are away are kept.
    pub(crate) fn member_slots_ttl(&self) -> Duration {
        self.member_slots_ttl
    }

    /// The slots that they ask for.
    pub(crate) fn declared_slots(&self) -> &BTreeSet<String> {
        &self.declared_slots
    }

    /// Most bytes that a healthy replica may have left to replay; `None` for no limit.
    pub(crate) fn maximum_lag_on_replica(&self) -> Option<u64> {
        self.maximum_lag_on_replica
    }

    /// What is not followed, a line each.
    pub(crate) fn not_honoured(&self) -> &[String] {
        &self.not_honoured
    }

    /// What the server knows of parameters; `None` before it ran for the first time.
    pub(crate) fn known(&self) -> Option<&Arc<KnownParameters>> {
        self.known.as_ref()
    }

    /// Parameters that the server took last without a fault.
    pub(crate) fn good_parameters(&self) -> BTreeMap<String, String> {
        self.good.as_ref().map(|(parameters, _)| parameters.clone()).unwrap_or_default()
    }

    /// Whether the document of this revision is to be judged, because it is new or what it is judged by is.
    pub(crate) fn are_to_be_judged(&mut self, revision: i64) -> bool {
        let is_new = self.revision.replace(revision) != Some(revision);
        let again = std::mem::take(&mut self.again);
        is_new || again
    }

    /// What the document says besides parameters, but for what it breaks a rule with.
    pub(crate) fn follow(&mut self, document: &Value, violations: &[Violation], tags: &Map<String, Value>) {
        self.policy = config::policy(document, violations, tags, &self.policy);
        self.member_slots_ttl = config::member_slots_ttl(document, violations, self.member_slots_ttl);
        if violations.iter().all(|violation| violation.key != "maximum_lag_on_replica") {
            self.maximum_lag_on_replica = config::maximum_lag_on_replica(document);
        }
        self.declared_slots = config::declared_slots(document);
    }

    /// Takes out what the server found wrong when it read it.
    pub(crate) fn without_refused(&mut self, judged: &mut Judged) {
        let good = self.good.clone().unwrap_or_default();
        let wanted = judged.parameters.clone();
        self.refused.retain(|name, (value, _)| wanted.get(name) == Some(value));
        for (name, (value, words)) in &self.refused {
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
        match &self.refused_hba {
            Some((lines, words)) if *lines == judged.pg_hba => {
                let rule = words.clone();
                judged.violations.push(Violation { key: "postgresql.pg_hba".to_owned(), value: None, rule });
                judged.pg_hba = good.1;
            }
            Some(_) | None => self.refused_hba = None,
        }
    }

    /// A line in the log for each that is new and cannot be followed, and one when all is well again.
    pub(crate) fn cannot_follow(&mut self, violations: &[Violation]) {
        let lines: Vec<String> = violations.iter().map(ToString::to_string).collect();
        for line in lines.iter().filter(|line| !self.not_honoured.contains(line)) {
            warn!("cannot follow this rule of the cluster; keeping the last good value: {line}");
        }
        if lines.is_empty() && !self.not_honoured.is_empty() && self.trying.is_none() {
            info!("all rules of the cluster are followed again");
        }
        self.not_honoured = lines;
    }

    /// What the last trial said of these parameters.
    pub(crate) fn verdict_on(&self, wanted: &BTreeMap<String, String>) -> Option<&Tried> {
        self.verdict.as_ref().filter(|(of, _)| of == wanted).map(|(_, tried)| tried)
    }

    /// Whether these are being tried.
    pub(crate) fn are_tried_with(&self, wanted: &BTreeMap<String, String>) -> bool {
        self.trying.as_ref().is_some_and(|(of, _)| of == wanted)
    }

    /// These are being tried, and no others any more.
    pub(crate) fn try_with(&mut self, wanted: BTreeMap<String, String>, trial: Work<Tried>) {
        self.trying = Some((wanted, trial));
    }

    /// Nothing needs to be tried.
    pub(crate) fn need_no_trial(&mut self) {
        self.trying = None;
    }

    /// Whether a start has to wait for the trial: nothing good is known to start with instead.
    pub(crate) fn keep_from_starting(&self) -> bool {
        self.trying.is_some() && self.good.is_none()
    }

    /// Whether the server that was started then has not been asked what it knows.
    pub(crate) fn must_ask(&self, started: &str) -> bool {
        self.learning.is_none() && self.known_of != started
    }

    /// It is being asked.
    pub(crate) fn ask(&mut self, started: &str, question: Work<KnownParameters>) {
        self.learning = Some((started.to_owned(), question));
    }

    /// Waits for an answer; for ever when nothing is asked.
    pub(crate) async fn answered(&mut self) -> Answered {
        tokio::select! {
            known = ended(self.learning.as_mut().map(|(_, question)| question)) => Answered::Knows(known),
            tried = ended(self.trying.as_mut().map(|(_, trial)| trial)) => Answered::Tried(tried),
        }
    }

    /// Takes the answer in. Whether more is known than before.
    pub(crate) fn learn(&mut self, answer: Answered) -> bool {
        match answer {
            Answered::Knows(Ok(known)) => {
                let Some((started, _)) = self.learning.take() else { return false };
                self.known_of = started;
                let is_news = self.known.as_deref() != Some(&known);
                if is_news {
                    self.known = Some(Arc::new(known));
                    self.again = true;
                }
                is_news
            }
            // It is asked again in the next round.
            Answered::Knows(Err(fault)) => {
                self.learning = None;
                debug!(fault = %causes(&fault), "Postgres does not list its parameters");
                false
            }
            Answered::Tried(outcome) => {
                let Some((wanted, _)) = self.trying.take() else { return false };
                // What broke off found nothing against them.
                self.verdict = Some((wanted, outcome.unwrap_or_default()));
                self.again = true;
                false
            }
        }
    }

    /// Postgres, which has read its files at `loaded` last, is told to read them again; `None` when it is started.
    pub(crate) fn were_given(&mut self, loaded: Option<&str>) {
        self.told_at = loaded.map(str::to_owned);
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

    /// Saves what is good, once the server has said what it knows.
    pub(crate) fn keep(&self, settings: &Settings) {
        let (Some((parameters, pg_hba)), Some(known)) = (&self.good, &self.known) else { return };
        let kept = KeptParameters {
            parameters: parameters.clone(),
            pg_hba: pg_hba.clone(),
            known: known.as_ref().clone(),
        };
        if let Err(fault) = kept.write(settings) {
            warn!(fault = %causes(&fault), "cannot save the parameters that Postgres accepted");
        }
    }
}

#[cfg(test)]
mod tests {
    use outrider_postgres::FileFault;

    use super::*;
    use crate::config::first_policy;
    use crate::config::sample::config;
    use crate::sample::observation;

    fn configuration(work_mem: &str) -> Configuration {
        let parameters = BTreeMap::from([("work_mem".to_owned(), work_mem.to_owned())]);
        Configuration { parameters, ..Configuration::default() }
    }

    fn first() -> Rules {
        Rules::new(first_policy(&config(None)), None, None)
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
        let mut rules = first();
        let mut seen = observation();
        seen.loaded = "one".to_owned();
        assert!(rules.note_files(&seen, &configuration("4MB")));
        let good = rules.good.clone();
        // Told, and not yet read.
        rules.were_given(Some("one"));
        assert!(!rules.note_files(&seen, &configuration("8MB")));
        assert_eq!(rules.good, good);
        seen.loaded = "two".to_owned();
        seen.file_faults = vec![fault("8MB")];
        assert!(!rules.note_files(&seen, &configuration("8MB")));
        assert!(rules.again && rules.refused["work_mem"].0 == "8MB");
        assert_eq!(rules.good, good);
        // Somebody else's value is not the cluster's.
        let mut rules = first();
        assert!(rules.note_files(&seen, &configuration("4MB")));
    }
}
