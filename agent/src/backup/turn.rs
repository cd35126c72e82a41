//! Whose turn it is to take a base backup: the standby that is least behind, else the leader. Looks at the cluster as the
//! DCS shows it; claims nothing.

use outrider_dcs::{Member, Snapshot};
use outrider_wal::Lsn;

/// Standbys that are as much behind as this, or a whole number of times, are equally good: who is further moves all the time.
const LAG_STEP: u64 = 16 << 20;

/// Who may take a backup, the best first. Nobody without a leader: a standby's backup needs a primary to end its WAL.
pub(super) fn order(cluster: &Snapshot) -> Vec<&str> {
    let Some(leader) = &cluster.leader else { return Vec::new() };
    let end = cluster
        .member(&leader.name)
        .and_then(Member::xlog_location)
        .max(cluster.status.as_ref().map(|entry| entry.value.optime))
        .unwrap_or(Lsn::INVALID);
    let lag = |member: &Member| {
        end.get().saturating_sub(member.xlog_location().unwrap_or(Lsn::INVALID).get()) / LAG_STEP
    };
    let mut standbys: Vec<&Member> =
        cluster.members.iter().filter(|member| member.name != leader.name && is_fit(member)).collect();
    standbys.sort_by(|one, other| (lag(one), &one.name).cmp(&(lag(other), &other.name)));
    standbys.into_iter().map(|member| member.name.as_str()).chain([leader.name.as_str()]).collect()
}

/// How many are to take a backup rather than `me`; `None` when it is not to take it at all.
pub(super) fn place(cluster: &Snapshot, me: &str) -> Option<u32> {
    let place = order(cluster).iter().position(|name| *name == me)?;
    u32::try_from(place).ok()
}

fn is_fit(member: &Member) -> bool {
    let streams = member.value.get("replication_state").and_then(|state| state.as_str()) == Some("streaming");
    member.lease != 0 && member.role() == Some("replica") && member.state() == Some("running") && streams
}

#[cfg(test)]
mod tests {
    use outrider_dcs::Leader;
    use serde_json::{Value, json};

    use super::*;

    fn member(name: &str, value: Value) -> Member {
        Member { name: name.to_owned(), value: value.into(), lease: 1, created: 1, revision: 1 }
    }

    fn standby(name: &str, position: u64) -> Member {
        let value = json!({"role": "replica", "state": "running", "replication_state": "streaming", "xlog_location": position});
        member(name, value)
    }

    fn cluster(members: Vec<Member>) -> Snapshot {
        let leader = Leader { name: "p2".to_owned(), term: 1, revision: 1, lease: 1, mine: false };
        let primary = json!({"role": "primary", "state": "running", "xlog_location": 1_u64 << 30});
        let members = members.into_iter().chain([member("p2", primary)]).collect();
        Snapshot { leader: Some(leader), members, ..Snapshot::default() }
    }

    #[test]
    fn the_standby_that_is_least_behind_is_first_and_the_leader_last() {
        let seen =
            cluster(vec![standby("p3", 1 << 30), standby("p1", 900 << 20), standby("p4", (1 << 30) - 77)]);
        // p3 and p4 are as good as each other.
        assert_eq!(order(&seen), ["p3", "p4", "p1", "p2"]);
        assert_eq!((place(&seen, "p3"), place(&seen, "p2"), place(&seen, "p9")), (Some(0), Some(3), None));
    }

    #[test]
    fn who_does_not_stream_takes_none() {
        let mut gone = standby("p1", 1 << 30);
        gone.lease = 0;
        let starting = member("p3", json!({"role": "replica", "state": "starting"}));
        let behind = member(
            "p4",
            json!({"role": "replica", "state": "running", "replication_state": "in archive recovery"}),
        );
        assert_eq!(order(&cluster(vec![gone, starting, behind])), ["p2"]);
    }

    #[test]
    fn without_a_leader_nobody_takes_one() {
        let seen = Snapshot { leader: None, ..cluster(vec![standby("p1", 1 << 30)]) };
        assert!(order(&seen).is_empty());
    }
}
