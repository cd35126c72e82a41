//! Follows the rules of the cluster in the DCS: the policy at once, parameters once they are known to be good. A rule that
//! cannot be followed keeps its last good value and is reported.

use outrider_dcs::Snapshot;

use crate::config::{self, Judged};
use crate::instruments::Instruments;
use crate::state::{Background, Postgres, Rules, Settings};

/// When the document, or what is known of it, has changed.
pub(super) fn follow(
    instruments: &Instruments,
    rules: &mut Rules,
    settings: &mut Settings,
    snapshot: &Snapshot,
) {
    let Some(entry) = &snapshot.config else { return };
    if !rules.are_to_be_judged(entry.revision) {
        return;
    }
    let local = instruments.postgres.settings();
    let known = rules.known().cloned();
    let mut judged = config::judge(&entry.value, local, known.as_deref(), settings.wanted());
    if entry.value.is_object() {
        rules.follow(&entry.value, &judged.violations, &instruments.config.tags);
    }
    rules.without_refused(&mut judged);
    take(instruments, rules, settings, &mut judged);
    rules.cannot_follow(&judged.violations);
}

/// Lines at once, because each was checked; parameters when the program `postgres` accepts them.
fn take(instruments: &Instruments, rules: &mut Rules, settings: &mut Settings, judged: &mut Judged) {
    settings.set_pg_hba(&judged.pg_hba);
    let good = rules.good_parameters();
    let wanted = &judged.parameters;
    let taken = match rules.verdict_on(wanted) {
        Some(tried) => {
            judged.violations.extend(tried.violations(wanted));
            tried.taken(wanted, &good)
        }
        // What was good once stays good, also when there is nobody to ask.
        None if *wanted == good => good,
        None => {
            if !rules.are_tried_with(wanted) {
                let local = instruments.postgres.settings().clone();
                let candidate = wanted.clone();
                let trial =
                    Background::begin(
                        async move { Ok(config::try_parameters(&local, &good, &candidate).await) },
                    );
                rules.try_with(wanted.clone(), trial);
            }
            return;
        }
    };
    rules.need_no_trial();
    settings.set_parameters(taken);
}

/// What Postgres says of its files; what it accepted is kept on disk.
pub(super) fn note_files(
    instruments: &Instruments,
    rules: &mut Rules,
    settings: &Settings,
    postgres: &Postgres,
) {
    let Some(seen) = postgres.seen() else { return };
    let is_told = !settings.are_news() && rules.are_known();
    if is_told && rules.note_files(seen, settings.wanted()) {
        rules.keep(instruments.postgres.settings());
    }
}
