//! What a report says to a decision about a job. Concludes nothing.

use outrider_dcs::{Member, Snapshot};
use outrider_ha::Postgres as State;
use outrider_jobs::{Claim, Leader, Postgres, View};
use outrider_wal::Lsn;

use crate::report::Report;

/// The view of the member `me`. `leaving`: its agent ends.
pub(super) fn view(report: &Report, cluster: &Snapshot, me: &str, leaving: bool) -> View {
    let leader = cluster.leader.as_ref();
    let of_leader = leader.and_then(|leader| cluster.member(&leader.name)?.xlog_location());
    let of_status = cluster.status.as_ref().map(|entry| entry.value.optime);
    View {
        me: me.to_owned(),
        leader: leader.map(|leader| Leader {
            name: leader.name.clone(),
            mine: leader.mine,
            term: leader.term,
        }),
        members: cluster.members.iter().map(member).collect(),
        end: of_leader.max(of_status).unwrap_or(Lsn::INVALID),
        made: cluster.initialize.as_ref().is_some_and(|entry| !entry.value.is_empty()),
        postgres: postgres(report),
        terminating: report.view.local.terminating,
        leaving,
    }
}

/// Whose a claim is: `mine`, where there is one.
pub(super) fn claim(mine: Option<bool>) -> Claim {
    match mine {
        None => Claim::Free,
        Some(true) => Claim::Mine,
        Some(false) => Claim::Others,
    }
}

fn member(member: &Member) -> outrider_jobs::Member {
    let replicates =
        member.value.get("replication_state").and_then(|state| state.as_str()) == Some("streaming");
    let is_there = member.lease != 0 && member.state() == Some("running");
    outrider_jobs::Member {
        name: member.name.clone(),
        streams: is_there && member.role() == Some("replica") && replicates,
        position: member.xlog_location().unwrap_or(Lsn::INVALID),
    }
}

fn postgres(report: &Report) -> Postgres {
    match (&report.postgres, &report.view.local.postgres) {
        (Some(seen), _) if seen.is_primary() => Postgres::Primary(seen.timeline),
        (Some(_), _) => Postgres::Standby,
        (None, State::Unresponsive { .. }) => Postgres::Silent,
        (
            None,
            State::Primary { .. }
            | State::Standby { .. }
            | State::Starting { .. }
            | State::Stopped { .. }
            | State::Empty
            | State::Unusable(_),
        ) => Postgres::Down,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::sample::entry;

    #[test]
    fn only_a_standby_that_is_there_and_streams_counts_as_one() {
        let seen = |value: Value, lease| member(&Member { lease, ..entry("p1", value) });
        let streaming = json!({"role": "replica", "state": "running", "replication_state": "streaming", "xlog_location": 77});
        let good = seen(streaming.clone(), 1);
        assert_eq!((good.streams, good.position), (true, Lsn::new(77)));
        assert!(!seen(streaming, 0).streams);
        assert!(!seen(json!({"role": "replica", "state": "starting"}), 1).streams);
        let from_archive =
            json!({"role": "replica", "state": "running", "replication_state": "in archive recovery"});
        assert!(!seen(from_archive, 1).streams);
        assert!(!seen(json!({"role": "primary", "state": "running"}), 1).streams);
    }
}
