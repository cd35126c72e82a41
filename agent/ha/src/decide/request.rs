//! What somebody asks for, as it concerns this member. Does not grant it.

use core::time::Duration;

use crate::plan::{Plan, Step};
use crate::reason::Reason;
use crate::view::View;
use crate::view::cluster::Cluster;
use crate::view::member::MemberName;
use crate::view::request::{Request, RequestKind};

/// A failover request that is due and not void.
pub(super) fn failover_request(cluster: &Cluster) -> Option<&Request> {
    cluster.request.as_ref().filter(|request| {
        request.is_due()
            && match request.kind {
                RequestKind::Failover => true,
                RequestKind::Switchover => false,
            }
    })
}

/// The failover that is asked for to this member.
pub(super) fn asked_for<'view>(view: &View, cluster: &'view Cluster) -> Option<&'view Request> {
    failover_request(cluster).filter(|request| request.to.as_ref() == Some(&view.me))
}

/// The member that a switchover names, which commits wait for until it has taken over.
pub(super) fn to_be_made_synchronous<'view>(
    view: &View,
    cluster: &'view Cluster,
) -> Option<&'view MemberName> {
    let request = cluster.request.as_ref().filter(|request| request.is_due())?;
    let from_me = request.from.as_ref().is_none_or(|from| *from == view.me);
    let asked = match request.kind {
        RequestKind::Switchover => request.to.as_ref(),
        RequestKind::Failover => None,
    };
    asked.filter(|to| from_me && cluster.sync.is_some() && **to != view.me)
}

/// A request that Patroni's command line wrote says nothing of until when it holds.
pub(super) fn date(request: &Request) -> Plan {
    let date = Step::DateRequest { revision: request.revision };
    Plan::step(Reason::DatingRequest, date).and_look_again_in(Duration::ZERO)
}
