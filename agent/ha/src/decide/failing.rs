//! Whether something fails here so often that somebody else is preferred.

use crate::view::cluster::{Cluster, SyncState};
use crate::view::{Job, View};

/// So many unexpected exits within a minute are a crash loop: a standby is preferred whatever it lacks within the
/// limits of the policy.
const CRASH_LOOP: u32 = 3;

/// Whether Postgres has ended, or could not even be started, again and again.
pub(super) fn never_comes_up(view: &View) -> bool {
    view.local.recent_crashes >= CRASH_LOOP || view.local.hopeless.contains(&Job::Start)
}

/// `/sync` as it was before this member struck all others from it, while nobody has written it since.
pub(super) fn struck<'view>(view: &'view View, cluster: &Cluster) -> Option<&'view SyncState> {
    let now = cluster.sync.as_ref()?;
    let alone = now.leader.as_ref() == Some(&view.me) && now.standbys.is_empty();
    view.local.promotion.struck.as_ref().filter(|struck| alone && struck.revision == now.revision)
}

/// Whether this member's promotion has failed so often in a row that it may never succeed.
pub(super) fn is_never_promoted(view: &View) -> bool {
    view.local.promotion.failures >= CRASH_LOOP
}
