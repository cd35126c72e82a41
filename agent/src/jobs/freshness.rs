//! Which reports say something to a job that writes into the DCS itself: those from its own last change on.

/// A report that was made before a job's own last change says nothing to it.
#[derive(Debug, Default)]
pub(super) struct Freshness {
    /// The revision of that change.
    known: i64,
    /// The revision of the last report.
    shown: i64,
}

impl Freshness {
    /// Whether a report of this revision says something.
    pub(super) fn is_news(&mut self, revision: i64) -> bool {
        // A store that was put back to an earlier state counts from there.
        if revision < self.shown {
            self.known = 0;
        }
        self.shown = revision;
        revision >= self.known
    }

    /// The job has changed something, or looked itself.
    pub(super) fn changed(&mut self, revision: i64) {
        self.known = revision;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_reports_from_ones_own_change_on_count_and_a_store_that_was_put_back() {
        let mut freshness = Freshness::default();
        assert!(freshness.is_news(5));
        freshness.changed(8);
        assert_eq!([6, 8, 9].map(|revision| freshness.is_news(revision)), [false, true, true]);
        freshness.changed(12);
        assert!(freshness.is_news(3));
    }
}
