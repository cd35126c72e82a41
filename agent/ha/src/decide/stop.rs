//! Which standbys the fast stop of a primary waits for. By itself it waits until every standby that is connected has the last of the
//! WAL, and one that hangs would hold it up: only those count that could take over.

use alloc::vec::Vec;

use crate::plan::{Plan, Step, StopMode};
use crate::view::local::{Postgres, Synchronous, WalSender};
use crate::view::member::MemberName;
use crate::view::{Dcs, View};

/// Names them in the plan.
pub(super) fn wait_for_successors(view: &View, plan: &mut Plan) {
    let Postgres::Primary { walsenders, synchronous, .. } = &view.local.postgres else { return };
    for step in plan.steps.iter_mut().filter(|step| **step == Step::Stop(StopMode::Fast)) {
        let standbys = successors(view, walsenders, synchronous);
        if !standbys.is_empty() {
            *step = Step::Stop(StopMode::FastAwaiting { standbys });
        }
    }
}

/// The candidate of a switchover, else the synchronous ones, else the furthest.
fn successors(view: &View, walsenders: &[WalSender], synchronous: &Synchronous) -> Vec<MemberName> {
    let announced = match &view.dcs {
        Dcs::Seen(cluster) => cluster.switchover.as_ref().filter(|announced| announced.from == view.me),
        Dcs::Silent { .. } => None,
    };
    match announced {
        Some(announced) => Vec::from([announced.to.clone()]),
        None if !synchronous.names.is_empty() => synchronous.names.clone(),
        None => walsenders
            .iter()
            .max_by_key(|sender| sender.flushed)
            .map(|furthest| furthest.name.clone())
            .into_iter()
            .collect(),
    }
}
