//! Whose turn it is: the standby that is least behind, else the leader. Claims nothing.

use alloc::vec::Vec;
use core::iter::once;

use crate::view::{Member, View};

/// Standbys that are as much behind as this, or a whole number of times, are equally good: who is further moves all the time.
const LAG_STEP: u64 = 16 << 20;

/// Who may do work that spares the primary, the best first. Nobody without a leader.
pub(crate) fn order(view: &View) -> Vec<&str> {
    let Some(leader) = &view.leader else { return Vec::new() };
    let lag = |member: &Member| view.end.get().saturating_sub(member.position.get()) / LAG_STEP;
    let is_fit = |member: &&Member| member.name != leader.name && member.streams;
    let mut standbys: Vec<&Member> = view.members.iter().filter(is_fit).collect();
    standbys.sort_by(|one, other| (lag(one), &one.name).cmp(&(lag(other), &other.name)));
    standbys.into_iter().map(|member| member.name.as_str()).chain(once(leader.name.as_str())).collect()
}

/// How many are to do it rather than this member; `None` when it is not to do it at all.
pub(crate) fn place(view: &View) -> Option<u32> {
    let place = order(view).iter().position(|name| *name == view.me)?;
    u32::try_from(place).ok()
}

#[cfg(test)]
mod tests {
    use alloc::borrow::ToOwned as _;
    use alloc::vec;

    use outrider_wal::Lsn;

    use super::*;
    use crate::view::{Leader, Postgres};

    fn standby(name: &str, position: u64) -> Member {
        Member { name: name.to_owned(), streams: true, position: Lsn::new(position) }
    }

    fn cluster(me: &str, mut members: Vec<Member>) -> View {
        members.push(Member { streams: false, ..standby("p2", 1 << 30) });
        View {
            me: me.to_owned(),
            leader: Some(Leader { name: "p2".to_owned(), mine: false, term: 1 }),
            members,
            end: Lsn::new(1 << 30),
            made: true,
            postgres: Postgres::Standby,
            terminating: false,
            leaving: false,
        }
    }

    #[test]
    fn the_standby_that_is_least_behind_is_first_and_the_leader_last() {
        let seen = |me: &str| {
            cluster(me, vec![standby("p3", 1 << 30), standby("p1", 900 << 20), standby("p4", (1 << 30) - 77)])
        };
        // p3 and p4 are as good as each other.
        assert_eq!(order(&seen("p3")), ["p3", "p4", "p1", "p2"]);
        assert_eq!(["p3", "p2", "p9"].map(|me| place(&seen(me))), [Some(0), Some(3), None]);
    }

    #[test]
    fn who_does_not_stream_takes_none() {
        assert_eq!(order(&cluster("p2", vec![Member { streams: false, ..standby("p1", 1 << 30) }])), ["p2"]);
    }

    #[test]
    fn without_a_leader_nobody_takes_one() {
        let seen = View { leader: None, ..cluster("p1", vec![standby("p1", 1 << 30)]) };
        assert!(order(&seen).is_empty());
    }
}
