//! Where the timelines of the local data came from, and when each began: from its files, and from the leader whose WAL it is.
//! Compares nothing.

use outrider_ha::{Dcs, Initialize, Lease, Postgres, Role, Streaming, View};
use outrider_wal::TimelineStarts;
use tracing::warn;

use super::cluster;
use crate::instruments::Instruments;
use crate::log::causes;
use crate::state::{self, Data};

/// Reads the timeline's history when it has changed, and when it began as soon as its first record is there.
pub(super) fn remember(
    instruments: &Instruments,
    postgres: &Postgres,
    data: &mut Data,
    cluster: &state::Cluster,
) {
    let Some(timeline) = postgres.timeline() else { return };
    if data.history_of() != Some(timeline) {
        match instruments.postgres.history(timeline) {
            Ok(history) => data.came_from(history, timeline),
            Err(fault) => warn!(%timeline, %fault, "cannot read where this timeline came from"),
        }
    }
    // This is written to the data directory, so not to another cluster's, nor before there is a cluster.
    if !data.starts().lists(timeline) && is_of(cluster, data) {
        let starts = match data.history_of() {
            Some(of) if of == timeline => instruments.postgres.timeline_starts(timeline, data.history()),
            // What came with the data, until the history is known too.
            Some(_) | None => instruments.postgres.kept_timeline_starts().map(Option::unwrap_or_default),
        };
        match starts {
            Ok(starts) => data.began(starts),
            Err(fault) => data.began_unknown(timeline, &fault),
        }
    }
}

/// Whether the data belongs to the cluster in the DCS, as last seen.
fn is_of(cluster: &state::Cluster, data: &Data) -> bool {
    let Some(snapshot) = cluster.snapshot() else { return false };
    matches!(cluster::initialize(snapshot), Initialize::Done(system) if data.system() == Some(system.0))
}

/// A standby that streams from the leader has the leader's timelines. For those it passed through faster than anybody looked, as
/// when it recovers from an archive, the leader says when they began.
pub(super) fn take_over(instruments: &Instruments, data: &mut Data, view: &mut View) {
    let Some(missing) = missing(view) else { return };
    for timeline in missing.timelines() {
        view.local.starts.set(timeline, missing.start(timeline));
    }
    data.began(view.local.starts.clone());
    if let Err(fault) = instruments.postgres.keep_timeline_starts(data.starts()) {
        warn!(fault = %causes(&fault), "cannot save when the timelines of this data began");
    }
}

/// What the leader knows of this standby's timelines and the standby does not; `None` when that is nothing.
fn missing(view: &View) -> Option<TimelineStarts> {
    let Dcs::Seen(cluster) = &view.dcs else { return None };
    let Lease::Theirs { holder } = &cluster.lease else { return None };
    let Postgres::Standby { timeline, streaming: Streaming { upstream, active: true }, .. } =
        &view.local.postgres
    else {
        return None;
    };
    let leader = view.member(holder)?.published.as_ref()?;
    let streams_from_it =
        upstream.as_ref() == Some(holder) && leader.role == Role::Primary && leader.timeline == *timeline;
    let mut missing = TimelineStarts::default();
    for own in
        view.local.lineage().timelines().filter(|own| streams_from_it && !view.local.starts.lists(*own))
    {
        if let Some(start) = leader.lineage.start(own) {
            missing.set(own, Some(start));
        }
    }
    (missing != TimelineStarts::default()).then_some(missing)
}

#[cfg(test)]
mod tests {
    use outrider_wal::TimelineId;
    use serde_json::json;

    use super::*;
    use crate::sample;

    fn starts(of: &[(u32, i64)]) -> TimelineStarts {
        let mut starts = TimelineStarts::default();
        of.iter().for_each(|(timeline, start)| starts.set(TimelineId::new(*timeline), Some(*start)));
        starts
    }

    /// A standby on timeline 3 that knows when 1 and 3 began, and a leader on `timeline` that knows all.
    fn standby(active: bool, timeline: u32) -> View {
        let mut view = sample::view();
        view.local.history = "1\t0/1\tx\n2\t0/2\tx\n".parse().unwrap();
        view.local.starts = starts(&[(1, 10), (3, 30)]);
        let mut view = serde_json::to_value(view).unwrap();
        view["dcs"] = json!({"seen": {
            "lease": {"theirs": {"holder": "p2"}}, "term": 1, "initialize": "absent", "sync": null, "last_position": "0/0",
            "history": {"switches": []}, "request": null, "switchover": null,
        }});
        view["local"]["postgres"] = json!({"standby": {
            "timeline": 3, "position": "0/0", "streaming": {"upstream": "p2", "active": active}, "promoting": false,
        }});
        view["members"] = json!([{"name": "p2", "published": {
            "role": "primary", "timeline": timeline, "position": "0/0", "streaming": false,
            "lineage": {"1": 10, "2": 20, "3": 31},
        }}]);
        serde_json::from_value(view).unwrap()
    }

    #[test]
    fn only_a_standby_that_streams_on_the_leaders_timeline_takes_over_what_it_does_not_know() {
        assert_eq!(missing(&standby(true, 3)), Some(starts(&[(2, 20)])));
        assert_eq!(missing(&standby(false, 3)), None);
        assert_eq!(missing(&standby(true, 4)), None);
    }
}
