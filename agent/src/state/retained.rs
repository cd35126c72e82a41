//! For which members that are away this leader keeps a replication slot, and since when.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;
use tracing::info;

/// Whose slots a leader keeps, each with when it was needed last.
#[derive(Debug, Default)]
pub(crate) struct Retained {
    names: BTreeMap<String, Instant>,
    leads: bool,
}

impl Retained {
    /// The slots, for the key `status` too, from which the next leader knows them.
    pub(crate) fn slots(&self) -> BTreeSet<String> {
        self.names.keys().cloned().collect()
    }

    /// Another one leads.
    pub(crate) fn forget(&mut self) {
        *self = Retained::default();
    }

    /// This member leads. `needed`: now. `before`: kept by the leaders before this one, and by this member; asked once.
    pub(crate) fn follow(
        &mut self,
        needed: &BTreeSet<String>,
        before: impl FnOnce() -> BTreeSet<String>,
        ttl: Duration,
        now: Instant,
    ) {
        if !self.leads {
            self.leads = true;
            self.names.extend(before().into_iter().map(|name| (name, now)));
        }
        self.names.extend(needed.iter().map(|name| (name.clone(), now)));
        self.names.retain(|name, needed_at| {
            let kept = needed.contains(name) || now.saturating_duration_since(*needed_at) < ttl;
            if !kept {
                info!(
                    slot = name,
                    ?ttl,
                    "its member has been away for as long as member_slots_ttl: the slot is no longer kept"
                );
            }
            kept
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    fn names(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn a_slot_is_kept_for_its_time_after_its_member_went() {
        let (ttl, now) = (Duration::from_secs(1800), clock::monotonic());
        let once = || panic!("it is asked once");
        let mut retained = Retained::default();
        retained.follow(&names(&["p2"]), || names(&["p3"]), ttl, now);
        assert_eq!(retained.slots(), names(&["p2", "p3"]));
        retained.follow(&names(&["p2"]), once, ttl, now + ttl / 2);
        assert_eq!(retained.slots(), names(&["p2", "p3"]));
        retained.follow(&names(&[]), once, ttl, now + ttl);
        assert_eq!(retained.slots(), names(&["p2"]));
        retained.follow(&names(&["p4"]), once, Duration::ZERO, now + ttl);
        assert_eq!(retained.slots(), names(&["p4"]));
    }
}
