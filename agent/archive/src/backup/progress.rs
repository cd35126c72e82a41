//! How far a base backup is. Decides nothing.

use std::time::Duration;

use tokio::time::Instant;

/// What it is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Phase {
    /// Whether the store can be written, and what the backup will be called.
    #[default]
    Checking,
    /// The server's checkpoint.
    Starting,
    /// The files.
    Copying,
    /// The end of the tars.
    Finishing,
    /// Until the WAL that it needs is in the archive.
    WaitingForWal,
    /// It can be restored.
    Done,
}

/// How far it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BackupProgress {
    /// What it is doing.
    pub phase: Phase,
    /// Bytes of files that were read and compressed.
    pub done: u64,
    /// Bytes of all files when the copy began: an estimate, since the server goes on.
    pub total: u64,
    /// Bytes given to the store, after compression.
    pub stored: u64,
    /// Bytes of files in a second, since the copy began.
    pub rate: u64,
    /// Until the copy is done, at this rate; `None` before there is one.
    pub left: Option<Duration>,
}

impl BackupProgress {
    /// Of 100, at most 99 before the last file.
    #[must_use]
    pub fn percent(&self) -> u8 {
        if matches!(self.phase, Phase::Finishing | Phase::WaitingForWal | Phase::Done) {
            return 100;
        }
        let percent = u128::from(self.done) * 100 / u128::from(self.total.max(1));
        u8::try_from(percent.min(99)).unwrap_or(99)
    }

    /// After `elapsed` of copying.
    pub(crate) fn measure(&mut self, begun: Instant) {
        let seconds = begun.elapsed().as_secs_f64().max(0.001);
        let rate = self.done as f64 / seconds;
        self.rate = rate as u64;
        let left = self.total.saturating_sub(self.done) as f64;
        self.left = (rate > 0.0).then(|| Duration::try_from_secs_f64(left / rate).unwrap_or(Duration::MAX));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_is_not_whole_before_its_end() {
        let progress =
            |phase, done, total| BackupProgress { phase, done, total, ..BackupProgress::default() }.percent();
        assert_eq!(progress(Phase::Checking, 0, 0), 0);
        assert_eq!(progress(Phase::Copying, 50, 200), 25);
        // The server wrote more than there was.
        assert_eq!(progress(Phase::Copying, 300, 200), 99);
        assert_eq!(progress(Phase::Finishing, 300, 200), 100);
    }
}
