//! Timelines on disk: when each began, and history files for numbers that a promotion must not reuse because their WAL was
//! abandoned.

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt;
use std::path::Path;

use outrider_wal::{Lsn, SegmentName, SegmentSize, TimelineHistory, TimelineId, TimelineStarts, WalFileName};

use crate::error::Error;
use crate::file;
use crate::instrument::Postgres;

/// In the data directory, so that it goes with every copy of the data: `pg_basebackup`, `pg_rewind` or a backup.
const STARTS: &str = "outrider.timelines";
/// Bytes that hold the first page of a segment, whatever the page size.
const PAGE_MAX: usize = 64 << 10;
/// PostgreSQL reads a history file without an entry as a timeline that comes from nowhere: a running standby does not switch to it
/// ("is not a child of database system timeline"), and a promotion takes the number after it. Standbys of the new primary ask for
/// every number up to its own, and get this.
const NOWHERE: &str = "# This timeline was abandoned by a failover that accepted data loss.\n";
const NEVER: &str = "# This server was never on this timeline.\n";
/// Most skipped numbers: no cluster is promoted this often while one of its members is away.
const SKIPPED_MAX: usize = 1024;

impl Postgres {
    /// Makes sure that the next promotion of this standby, which is on `own`, takes a number above `newest`.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn skip_timelines(&self, own: TimelineId, newest: TimelineId) -> Result<(), Error> {
        let directory = self.settings.data_directory.join("pg_wal");
        for number in (own.get().saturating_add(1)..=newest.get()).take(SKIPPED_MAX) {
            let path = directory.join(TimelineId::new(number).history_file_name());
            if !path.exists() {
                file::replace(&path, NOWHERE, 0o600)?;
            }
        }
        Ok(())
    }

    /// Makes sure that there is a history file of every timeline up to `own`, whose history this is. A standby asks its primary
    /// for each one after its own, and waits forever for a missing one: a skipped number has none, and a member made as a copy
    /// has only that of its first timeline.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn complete_histories(&self, own: TimelineId, history: &TimelineHistory) -> Result<(), Error> {
        let directory = self.settings.data_directory.join("pg_wal");
        for number in (TimelineId::FIRST.get() + 1..own.get()).rev().take(SKIPPED_MAX) {
            let timeline = TimelineId::new(number);
            let path = directory.join(timeline.history_file_name());
            if path.exists() {
                continue;
            }
            let text = match history.left_at(timeline) {
                Some(_) => history.text_until(timeline),
                None => NEVER.to_owned(),
            };
            file::replace(&path, &text, 0o600)?;
        }
        Ok(())
    }

    /// Removes what was prepared for a promotion above abandoned timelines that did not happen: a server on `own` that starts
    /// follows the newest timeline it finds a history of, and would wait forever for one that comes from nowhere.
    pub(crate) fn forget_skipped(&self, own: TimelineId) -> Result<(), Error> {
        let directory = self.settings.data_directory.join("pg_wal");
        let path = |number: u32| directory.join(TimelineId::new(number).history_file_name());
        let first = own.get().saturating_add(1);
        let end = (first..=u32::MAX).find(|number| !path(*number).exists()).unwrap_or(u32::MAX);
        for number in (first..end).rev() {
            match file::read_if_there(&path(number))? {
                Some(text) if text == NOWHERE || text == NEVER => file::remove(&path(number))?,
                Some(_) | None => break,
            }
        }
        Ok(())
    }

    /// When the timelines of this data began: `timeline`, which it is on, and those of `history` that led there. What the WAL says
    /// is kept in the data directory, since WAL is removed. Data examined for the first time may have lost it already: `None`. A
    /// timeline that is not listed came later, unseen.
    ///
    /// # Errors
    /// When a file can be neither read nor written.
    pub fn timeline_starts(
        &self,
        timeline: TimelineId,
        history: &TimelineHistory,
    ) -> Result<TimelineStarts, Error> {
        let pg_wal = self.settings.data_directory.join("pg_wal");
        let kept = self.kept_timeline_starts()?;
        let mut starts = TimelineStarts::default();
        let mut switch = None;
        for number in history.switches().iter().map(|switch| switch.timeline).chain([timeline]) {
            match &kept {
                Some(kept) if kept.lists(number) => starts.set(number, kept.start(number)),
                Some(_) | None => {
                    let found = match switch {
                        // The first has no beginning but initdb.
                        None => Some(None),
                        Some(at) => start_in(&pg_wal, number, at)
                            .map_err(|source| Error::Read { path: pg_wal.clone(), source })?
                            .map(Some),
                    };
                    if let Some(start) = found.or(kept.is_none().then_some(None)) {
                        starts.set(number, start);
                    }
                }
            }
            switch = history.left_at(number);
        }
        if kept.as_ref() != Some(&starts) {
            self.keep_timeline_starts(&starts)?;
        }
        Ok(starts)
    }

    /// What is kept of them in the data directory; `None` before the first time.
    ///
    /// # Errors
    /// When the file exists and cannot be read.
    pub fn kept_timeline_starts(&self) -> Result<Option<TimelineStarts>, Error> {
        let path = self.settings.data_directory.join(STARTS);
        let Some(text) = file::read_if_there(&path)? else { return Ok(None) };
        serde_json::from_str(&text)
            .map(Some)
            .map_err(|fault| Error::Read { path, source: io::Error::new(ErrorKind::InvalidData, fault) })
    }

    /// Keeps them in the data directory.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn keep_timeline_starts(&self, starts: &TimelineStarts) -> Result<(), Error> {
        let path = self.settings.data_directory.join(STARTS);
        let text = serde_json::to_string(starts)
            .map_err(|fault| Error::Write { path: path.clone(), source: io::Error::other(fault) })?;
        file::replace(&path, &(text + "\n"), 0o600)
    }
}

/// When `timeline` began at `switch`, from the WAL itself; `None` when that is gone.
fn start_in(pg_wal: &Path, timeline: TimelineId, switch: Lsn) -> io::Result<Option<i64>> {
    for entry in fs::read_dir(pg_wal)? {
        let entry = entry?;
        let name = entry.file_name().to_str().and_then(|name| name.parse().ok());
        let Some(WalFileName::Segment(name)) = name else { continue };
        if name.timeline != timeline {
            continue;
        }
        let Some(size) = SegmentSize::new(entry.metadata()?.len()) else { continue };
        if name != SegmentName::holding(timeline, switch, size) {
            continue;
        }
        let file = File::open(entry.path())?;
        let head = read_at(&file, 0)?;
        let place = (switch.get() - name.start(size).get()) as usize;
        let base = place - place % PAGE_MAX;
        let mut bytes = read_at(&file, base)?;
        bytes.extend(read_at(&file, base + PAGE_MAX)?);
        return Ok(outrider_wal::timeline_start(&head, (base, &bytes), switch, timeline));
    }
    Ok(None)
}

/// Reads as much as there is.
fn read_at(file: &File, at: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; PAGE_MAX];
    let mut filled = 0;
    while filled < bytes.len() {
        match file.read_at(&mut bytes[filled..], (at + filled) as u64)? {
            0 => break,
            count => filled += count,
        }
    }
    bytes.truncate(filled);
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::settings::tests::settings;

    #[test]
    fn a_primary_has_a_history_file_of_every_timeline_up_to_its_own() {
        let directory = tempfile::tempdir().unwrap();
        let postgres = Postgres::new(Arc::new(settings(directory.path())));
        let pg_wal = postgres.settings.data_directory.join("pg_wal");
        fs::create_dir_all(&pg_wal).unwrap();
        let history: TimelineHistory =
            "1\t0/3000148\tx y\n3\t0/50000A0\tz\n4\t0/60000A0\tz\n".parse().unwrap();
        fs::write(pg_wal.join("00000004.history"), "as it was").unwrap();
        postgres.complete_histories(TimelineId::new(5), &history).unwrap();
        let text = |number: u32| fs::read_to_string(pg_wal.join(format!("{number:08X}.history"))).ok();
        assert_eq!(text(1), None);
        assert_eq!(text(2).unwrap().parse::<TimelineHistory>().unwrap(), TimelineHistory::default());
        assert_eq!(text(3).as_deref(), Some("1\t0/3000148\tx y\n"));
        assert_eq!(text(4).as_deref(), Some("as it was"));
        assert_eq!(text(5), None);
    }

    #[test]
    fn a_promotion_that_was_prepared_and_not_come_to_leaves_nothing_for_the_next_start() {
        let directory = tempfile::tempdir().unwrap();
        let postgres = Postgres::new(Arc::new(settings(directory.path())));
        let pg_wal = postgres.settings.data_directory.join("pg_wal");
        fs::create_dir_all(&pg_wal).unwrap();
        let there = || -> Vec<u32> {
            (1..9).filter(|number| pg_wal.join(format!("{number:08X}.history")).exists()).collect()
        };
        postgres.skip_timelines(TimelineId::new(1), TimelineId::new(4)).unwrap();
        assert_eq!(there(), [2, 3, 4]);
        postgres.forget_skipped(TimelineId::new(1)).unwrap();
        assert_eq!(there(), [0; 0]);
        // A primary that was promoted above them still needs everything.
        postgres.skip_timelines(TimelineId::new(1), TimelineId::new(3)).unwrap();
        fs::write(pg_wal.join("00000004.history"), "1\t0/3000148\tx\n").unwrap();
        postgres.forget_skipped(TimelineId::new(1)).unwrap();
        assert_eq!(there(), [2, 3, 4]);
    }
}
