//! Random views: few names, positions and ages, so that they meet often. Nothing is ruled out as impossible.

use std::time::Duration;

use outrider_jobs::{Claim, Leader, Member, Postgres, View};
use outrider_wal::{Lsn, TimelineId};
use proptest::collection::vec as list;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

pub(crate) fn name() -> impl Strategy<Value = String> {
    select(vec!["a", "b", "c"]).prop_map(str::to_owned)
}

pub(crate) fn age() -> impl Strategy<Value = Duration> {
    select(vec![0, 1, 3, 6, 29, 30, 31, 60]).prop_map(Duration::from_secs)
}

pub(crate) fn timeline() -> impl Strategy<Value = TimelineId> {
    (1_u32..4).prop_map(TimelineId::new)
}

pub(crate) fn claim() -> impl Strategy<Value = Claim> {
    select(vec![Claim::Free, Claim::Mine, Claim::Others])
}

fn postgres() -> impl Strategy<Value = Postgres> {
    let quiet = select(vec![Postgres::Standby, Postgres::Standby, Postgres::Silent, Postgres::Down]);
    prop_oneof![2 => timeline().prop_map(Postgres::Primary), 3 => quiet]
}

fn member() -> impl Strategy<Value = Member> {
    let position = (0_u64..4).prop_map(|blocks| Lsn::new(blocks * (16 << 20)));
    (name(), prop::bool::weighted(0.8), position).prop_map(|(name, streams, position)| Member {
        name,
        streams,
        position,
    })
}

/// Any view of member b.
pub(crate) fn any_view() -> impl Strategy<Value = View> {
    let leader = (name(), any::<bool>(), 4_u64..6).prop_map(|(name, mine, term)| Leader { name, mine, term });
    let flags = (prop::bool::weighted(0.9), prop::bool::weighted(0.1), prop::bool::weighted(0.1));
    (option::weighted(0.9, leader), list(member(), 0..4), postgres(), flags).prop_map(
        |(leader, members, postgres, (made, terminating, leaving))| View {
            me: "b".into(),
            leader,
            members,
            end: Lsn::new(48 << 20),
            made,
            postgres,
            terminating,
            leaving,
        },
    )
}
