//! From when a base backup is consistent, as its WAL tells: by the transactions up to where it is. The clock of the member that
//! took it says nothing, since it may be slow or fast.

use jiff::Timestamp;

use super::planner::{Base, Planner};
use super::reach::Reach;
use super::records::instant;
use crate::error::RestoreError;

/// Segments without a transaction that are passed, before the backup and behind it.
const IDLE_MAX: u64 = 64;
/// `backup.info` has whole seconds of some programs' backups.
const BLUR: jiff::SignedDuration = jiff::SignedDuration::from_secs(1);

impl Planner<'_> {
    /// When the last transaction before its end had ended, in microseconds since 1970; `None` when the archive has none.
    pub(super) async fn consistent_at(&mut self, base: &Base<'_>) -> Result<Option<i64>, RestoreError> {
        let size = self.wal.segment_size();
        let last = self.number(base.end.get().saturating_sub(1));
        let segment = self.path.segment(last, size);
        let (found, _) = self.known(self.reader.times_around(segment, base.end).await)?.unwrap_or_default();
        if found.is_some() {
            return Ok(found.map(|times| times.last));
        }
        let mut number = last;
        while number > 0 && last - number < IDLE_MAX.max(last - base.first_wal.number(size)) {
            number -= 1;
            let segment = self.path.segment(number, size);
            if self.wal.last_without_gap(segment.timeline, number).is_none() {
                break;
            }
            let times = self.reader.times(segment, self.wal).await;
            if let Some(times) = self.known(times)?.flatten() {
                return Ok(Some(times.last));
            }
        }
        Ok(None)
    }

    /// When the first transaction behind its end had ended; `None` when none is near.
    async fn followed_at(&mut self, base: &Base<'_>, reach: &Reach) -> Result<Option<i64>, RestoreError> {
        let size = self.wal.segment_size();
        let first = self.number(base.end.get().saturating_sub(1));
        let segment = self.path.segment(first, size);
        let (_, behind) = self.known(self.reader.times_around(segment, base.end).await)?.unwrap_or_default();
        if behind.is_some() {
            return Ok(behind.map(|times| times.first));
        }
        for number in (first + 1..reach.end).take(IDLE_MAX as usize) {
            let times = self.reader.times(self.path.segment(number, size), self.wal).await;
            if let Some(times) = self.known(times)?.flatten() {
                return Ok(Some(times.first));
            }
        }
        Ok(None)
    }

    /// The newest of these backups whose every transaction had ended by the time, so that a recovery can still stop at it.
    /// `oldest_first`: in the order of their ends.
    pub(super) async fn before<'b, 'a>(
        &mut self,
        time: Timestamp,
        inclusive: bool,
        oldest_first: &'b [Base<'a>],
    ) -> Result<Option<&'b Base<'a>>, RestoreError> {
        let wanted = time.as_microsecond();
        let by_then = |last: i64| if inclusive { last <= wanted } else { last < wanted };
        // The first `low` fit, and from `high` on none does.
        let (mut low, mut high) = (0, oldest_first.len());
        while low < high {
            let middle = low + (high - low) / 2;
            let base = &oldest_first[middle];
            let fits = match self.consistent_at(base).await? {
                Some(last) => by_then(last),
                // Nothing tells when it was; but what came later is later.
                None => {
                    let reach =
                        Reach::new(self.wal, &self.path, base.first_wal.number(self.wal.segment_size()));
                    self.followed_at(base, &reach).await?.is_some_and(by_then)
                }
            };
            (low, high) = if fits { (middle + 1, high) } else { (low, middle) };
        }
        Ok(low.checked_sub(1).map(|newest| &oldest_first[newest]))
    }

    /// That the clock of the member that took the backup was not that of the server's primary, where its WAL shows it.
    pub(super) async fn skew(&mut self, base: &Base<'_>) -> Result<Option<String>, RestoreError> {
        let consistent = self.consistent_at(base).await?.and_then(instant);
        let id = &base.info.id;
        if let Some(last) = consistent.filter(|last| base.ended + BLUR < *last) {
            let by = last.duration_since(base.ended);
            return Ok(Some(format!(
                "the clock of the member that took {id} was at least {by:#} slow: the backup ended at {} by it, and holds a \
                 transaction of {last}",
                base.ended
            )));
        }
        let reach = Reach::new(self.wal, &self.path, base.first_wal.number(self.wal.segment_size()));
        let followed = self.followed_at(base, &reach).await?.and_then(instant);
        let begun = base.info.begin_time;
        Ok(begun.zip(followed).filter(|(begun, followed)| *followed + BLUR < *begun).map(|(begun, followed)| {
            let by = begun.duration_since(followed);
            format!(
                "the clock of the member that took {id} was at least {by:#} fast: the backup began at {begun} by it, and is \
                 followed by a transaction of {followed}"
            )
        }))
    }

    /// A segment that is gone or damaged tells nothing; what it means for the plan is seen where it is needed.
    fn known<T>(&self, read: Result<T, RestoreError>) -> Result<Option<T>, RestoreError> {
        match read {
            Ok(found) => Ok(Some(found)),
            Err(RestoreError::Segment { .. }) => Ok(None),
            Err(fault) => Err(fault),
        }
    }
}
