//! What is decided: a table of situations for each kind of job, and what holds for every view.
#![expect(clippy::unwrap_used, reason = "a test ends where it meets what it did not expect")]

#[path = "decisions/any.rs"]
mod any;
#[path = "decisions/backup.rs"]
mod backup;
#[path = "decisions/drill.rs"]
mod drill;
#[path = "decisions/properties.rs"]
mod properties;
#[path = "decisions/rollback.rs"]
mod rollback;

use std::fmt::{Debug, Write as _};

use outrider_jobs::{Leader, Member, Postgres, View};
use outrider_wal::{Lsn, TimelineId};

/// What member b sees: a leads, b and c stream and are as far as each other.
fn standby() -> View {
    let member = |name: &str| Member { name: name.into(), streams: name != "a", position: Lsn::new(100) };
    View {
        me: "b".into(),
        leader: Some(Leader { name: "a".into(), mine: false, term: 5 }),
        members: ["a", "b", "c"].map(member).into(),
        end: Lsn::new(100),
        made: true,
        postgres: Postgres::Standby,
        terminating: false,
        leaving: false,
    }
}

/// The same cluster, seen by the leader a.
fn primary() -> View {
    let leader = Leader { name: "a".into(), mine: true, term: 5 };
    View {
        me: "a".into(),
        leader: Some(leader),
        postgres: Postgres::Primary(TimelineId::new(1)),
        ..standby()
    }
}

/// A line for each situation.
fn told<Step: Debug>(situations: impl IntoIterator<Item = (&'static str, Step)>) -> String {
    let mut told = String::new();
    for (situation, step) in situations {
        writeln!(told, "{situation}: {step:?}").unwrap();
    }
    told
}
