//! A promotion that was begun and has not ended recovery: how often that came to nothing, and whom it has struck from `/sync`.
//! Decides nothing.

use outrider_ha::SyncState;
use tokio::time::Instant;

use crate::clock;

/// As many unexpected exits count as a crash loop (`agent/ha`).
pub(super) const GIVEN_UP: u32 = 3;

/// What is known of it. Forgotten as soon as recovery is seen to have ended, by Postgres or by its control file.
#[derive(Clone, Debug, Default)]
pub(crate) struct Promotion {
    begun: Option<Instant>,
    failures: u32,
    /// `/sync` as it was, with the revision of what was written instead.
    struck: Option<SyncState>,
}

impl Promotion {
    /// Postgres was told.
    pub(crate) fn begins(&mut self) {
        self.begun = Some(clock::monotonic());
    }

    /// Postgres ended. `by_itself`: because of this, as far as can be told.
    pub(crate) fn ended(&mut self, by_itself: bool) {
        if self.begun.take().is_some() && by_itself {
            self.failures = self.failures.saturating_add(1);
        }
    }

    /// It took too long.
    pub(crate) fn gave_up(&mut self) {
        if self.begun.take().is_some() {
            self.failures = self.failures.max(GIVEN_UP);
        }
    }

    /// This member alone is recorded in `/sync` for it, where this was before; `None` when it is not for a promotion.
    pub(crate) fn strikes(&mut self, before: Option<SyncState>) {
        self.struck = before;
    }

    /// Recovery has ended, or the data is another: nothing is known of one.
    pub(crate) fn forget(&mut self) {
        *self = Promotion::default();
    }

    /// As `decide` gets it.
    pub(crate) fn view(&self) -> outrider_ha::Promotion {
        outrider_ha::Promotion {
            failures: self.failures,
            lasts: self.begun.map(|begun| begun.elapsed()).unwrap_or_default(),
            struck: self.struck.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_promotion_that_ends_by_itself_has_failed() {
        let mut promotion = Promotion::default();
        promotion.ended(true);
        assert_eq!(promotion.view().failures, 0, "none was begun");
        for by_itself in [true, false, true] {
            promotion.begins();
            promotion.ended(by_itself);
            promotion.ended(true);
        }
        assert_eq!(promotion.view().failures, 2);
        promotion.gave_up();
        assert_eq!(promotion.view().failures, 2, "none was under way");
        promotion.begins();
        promotion.gave_up();
        assert_eq!(promotion.view().failures, GIVEN_UP);
    }
}
