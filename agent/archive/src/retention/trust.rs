//! Whether the clock of this machine may decide what is old enough to go: it is compared with the store's, and with the newest
//! commit in the archive. Removes nothing.

use jiff::{SignedDuration, Timestamp};

use super::{RetentionPlan, RetentionPolicy, plan};
use crate::catalog::Catalog;
use outrider_store::{self as store, Store, StoreTime};

/// How far the clocks of two machines may be apart.
const STORE_MAX: SignedDuration = SignedDuration::from_hours(1);
/// How old the newest commit may be where no other clock than ours says the time: of a server that is used.
const COMMIT_MAX: SignedDuration = SignedDuration::from_hours(24);

/// Plans like [`plan`], and lets nothing go by a clock that is not to be trusted. `newest_commit`: when the newest transaction
/// in the WAL ended, where something tells; only awaited when something would go and the catalog does not say it.
///
/// # Errors
/// When the store does not answer.
pub async fn trusted_plan(
    store: &dyn Store,
    catalog: &Catalog,
    now: Timestamp,
    policy: &RetentionPolicy,
    newest_commit: impl Future<Output = Result<Option<Timestamp>, store::Error>>,
) -> Result<RetentionPlan, store::Error> {
    let planned = plan(catalog, now, policy);
    if planned.is_empty(catalog) {
        return Ok(planned);
    }
    let time = store.time().await?;
    let commit = match catalog.last_commit {
        Some(commit) => Some(commit),
        None => newest_commit.await?,
    };
    Ok(match doubt(now, time, commit) {
        None => planned,
        Some(why) => planned.doubted(why),
    })
}

/// Why this clock is not to be trusted, naming both; `None` when nothing speaks against it.
fn doubt(now: Timestamp, store: Option<StoreTime>, commit: Option<Timestamp>) -> Option<String> {
    let apart = |other: Timestamp| now.duration_since(other);
    let ours = format!("the clock of this machine says {now}");
    if let Some(store) = store
        && apart(store.time).abs() > STORE_MAX
    {
        return Some(format!("{ours}, that of the store {}: set the wrong one right", store.time));
    }
    let confirmed = store.is_some_and(|store| store.is_elsewhere);
    let commit = commit.filter(|commit| apart(*commit).abs() > COMMIT_MAX)?;
    // A server may rest for long; but nothing is committed in the future.
    let may_rest = confirmed && commit < now;
    (!may_rest).then(|| {
        format!(
            "{ours}, and the newest commit in the archive is of {commit}: set the clock right, or prune with --trust-clock when it \
             is right and the server rests"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn store(text: &str, is_elsewhere: bool) -> Option<StoreTime> {
        Some(StoreTime { time: at(text), is_elsewhere })
    }

    const NOW: &str = "2026-11-24T12:00:00Z";

    #[test]
    fn a_clock_that_agrees_with_the_others_is_trusted() {
        for (store, commit) in [
            (None, None),
            (None, Some("2026-11-24T11:00:00Z")),
            (store("2026-11-24T11:30:00Z", false), Some("2026-11-23T13:00:00Z")),
            (store("2026-11-24T12:30:00Z", true), None),
            // It rests, and the clock of the store shows it.
            (store(NOW, true), Some("2026-01-01T00:00:00Z")),
        ] {
            assert_eq!(doubt(at(NOW), store, commit.map(at)), None, "{store:?} {commit:?}");
        }
    }

    #[test]
    fn a_clock_that_is_far_from_them_is_not_and_both_are_named() {
        for (store, commit, named) in [
            (None, Some("2026-09-25T12:00:00Z"), "2026-09-25T12:00:00Z"),
            (None, Some("2027-01-23T12:00:00Z"), "2027-01-23T12:00:00Z"),
            (store(NOW, true), Some("2027-01-23T12:00:00Z"), "2027-01-23T12:00:00Z"),
            (store(NOW, false), Some("2026-11-01T00:00:00Z"), "2026-11-01T00:00:00Z"),
            (store("2026-11-24T10:00:00Z", false), None, "2026-11-24T10:00:00Z"),
            (store("2026-11-24T14:00:00Z", true), Some(NOW), "2026-11-24T14:00:00Z"),
        ] {
            let why = doubt(at(NOW), store, commit.map(at)).expect(named);
            assert!(why.contains(NOW) && why.contains(named), "{why}");
        }
    }
}
