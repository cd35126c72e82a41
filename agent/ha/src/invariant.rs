//! What no plan may ever do, whatever the view: checked in tests, in the model, and by the agent before it acts.

use outrider_wal::TimelineId;

use crate::decide::{recreate, went_back};
use crate::fuse::fuse_life;
use crate::plan::{Plan, StartAs, Step, StopMode};
use crate::view::cluster::{Cluster, Initialize, Lease, SyncState};
use crate::view::local::{Postgres, Shutdown};
use crate::view::member::Role;
use crate::view::request::RequestKind;
use crate::view::{Dcs, View};

/// A rule that a plan breaks, in words.
pub type Violation = &'static str;

/// The first rule that `plan` breaks on `view`.
///
/// # Errors
///
/// The rule. A plan that breaks one must not be carried out.
pub fn check(view: &View, plan: &Plan) -> Result<(), Violation> {
    plan.steps.iter().try_for_each(|step| check_step(view, plan, step))
}

fn check_step(view: &View, plan: &Plan, step: &Step) -> Result<(), Violation> {
    let Dcs::Seen(cluster) = &view.dcs else {
        return require(
            matches!(step, Step::Stop(_)),
            "while the DCS is silent nothing is done but stopping Postgres",
        );
    };
    takes_part(view, cluster, step)?;
    let mine = cluster.lease == Lease::Mine;
    match step {
        Step::AcquireLease { .. } => acquire_lease(view, cluster),
        Step::RecreateCluster { standbys } => recreate_cluster(view, cluster, standbys.as_deref()),
        Step::Promote => promote(view, cluster, plan),
        Step::Start(StartAs::Primary { synchronous }) => start_primary(view, plan, synchronous),
        Step::HandOverLease { to } => hand_over(view, to),
        Step::RenewLease
        | Step::ReleaseLease
        | Step::LetLeaseRunOut
        | Step::ShortenFuse { .. }
        | Step::SetTtl { .. } => on_session(view, plan, mine, step),
        Step::RecordSync { standbys, .. } => record_sync(view, standbys),
        Step::RestoreSync { before } => restore_sync(view, cluster, before),
        Step::SetSynchronous { names } => set_synchronous(view, names),
        Step::Initdb => initdb(cluster, mine),
        Step::Rollback => roll_back(view, plan),
        Step::Clone { .. } => require(
            !matches!(view.local.postgres, Postgres::Primary { .. } | Postgres::Standby { .. }),
            "a running Postgres is not cloned over",
        ),
        Step::Rewind { .. } => require(
            matches!(view.local.postgres, Postgres::Stopped { .. }),
            "only a stopped Postgres is rewound",
        ),
        Step::FinishRequest { .. }
        | Step::ClearRequest { .. }
        | Step::DateRequest { .. }
        | Step::AnnounceStop { .. } => on_request(cluster, step),
        Step::SkipTimelines { newest } => skip_timelines(view, cluster, *newest),
        Step::ClaimInitialize
        | Step::RecordInitialize { .. }
        | Step::ClearSync { .. }
        | Step::RecordHistory
        | Step::AnnounceSwitchover { .. }
        | Step::AskSwitchover
        | Step::ClearSwitchover => require(mine, "only the leader writes the cluster's keys"),
        Step::RecordRestart { member, .. } => require(
            mine || *member == view.me,
            "only the leader and the member itself say how far it is in a restart",
        ),
        Step::HastenReplay { .. } => {
            let candidate = cluster.switchover.as_ref().is_some_and(|announced| announced.to == view.me);
            require(mine || candidate, "queries are cancelled only on a member that is to be promoted")
        }
        Step::Stop(StopMode::FastAwaiting { standbys }) => {
            require(!standbys.is_empty(), "a stop waits for somebody who could take over")
        }
        Step::RelaxReplay
        | Step::PostBootstrap
        | Step::Start(StartAs::Standby { .. })
        | Step::Stop(StopMode::Fast | StopMode::Immediate)
        | Step::Follow { .. }
        | Step::CreateSlots { .. }
        | Step::Checkpoint
        | Step::ShortenStop { .. } => Ok(()),
    }
}

fn initdb(cluster: &Cluster, mine: bool) -> Result<(), Violation> {
    require(!matches!(cluster.initialize, Initialize::Done(_)), "no second cluster is made")?;
    require(mine, "only the holder of the lease makes the cluster")
}

/// Whoever takes the lease as a standby has all that was acknowledged, or somebody has given up what it lacks.
fn acquire_lease(view: &View, cluster: &Cluster) -> Result<(), Violation> {
    require(matches!(cluster.lease, Lease::Free { .. }), "only a free lease is taken")?;
    let standby = matches!(view.local.postgres, Postgres::Standby { .. });
    let accepted = accepts_loss(view, cluster);
    let covered = cluster.sync.as_ref().is_none_or(|sync| sync.covers(&view.me));
    require(
        !standby || covered || accepted,
        "whoever may lack acknowledged commits stands only when somebody has given them up",
    )?;
    let another = cluster.swapping.as_ref().is_some_and(|member| *member != view.me);
    require(
        !standby || accepted || cluster.sync.is_some() || !another,
        "nobody stands by itself whose data may be what a rollback threw away",
    )?;
    let seen = &view.local.watermark;
    require(
        seen.lost_by(&cluster.watermark_without_sync(seen)).is_none(),
        "no lease is taken from a DCS that went back",
    )?;
    require(
        went_back::knows_more(view, cluster).is_none(),
        "no lease is taken from a DCS of which a member that answers has seen more",
    )
}

/// Whoever is not of this cluster does it no harm.
fn takes_part(view: &View, cluster: &Cluster, step: &Step) -> Result<(), Violation> {
    require(
        view.local.entered || step.is_for_those_outside(),
        "whoever has not entered the cluster takes no part",
    )?;
    let foreign = matches!((cluster.initialize, view.local.system), (Initialize::Done(theirs), Some(own)) if theirs != own);
    require(
        !foreign || matches!(step, Step::Stop(_) | Step::ReleaseLease | Step::LetLeaseRunOut),
        "a data directory of another cluster is not touched",
    )
}

/// What becomes of one's own session, of the lease that hangs on it, and of the fuse. A lease is never shorter than the fuse that is armed
/// for it.
fn on_session(view: &View, plan: &Plan, mine: bool, step: &Step) -> Result<(), Violation> {
    let Step::SetTtl { ttl } = step else {
        require(
            mine,
            "only one's own lease is renewed, released or let run out, and only a leader has a fuse",
        )?;
        let renews = plan.steps.contains(&Step::RenewLease);
        require(
            !renews || !view.local.unsupervised,
            "no lease is renewed without a supervisor, who holds the fuse",
        )?;
        return require(!renews || *step != Step::LetLeaseRunOut, "a lease that runs out is not renewed");
    };
    require(
        !plan.steps.iter().any(Step::takes_lease),
        "a lease is taken with the ttl that its fuse is armed for",
    )?;
    let shorter = view.local.session_ttl.is_none_or(|session| *ttl < session);
    let fuse_first = [Step::ShortenFuse { within: fuse_life(*ttl) }, Step::SetTtl { ttl: *ttl }];
    require(
        !mine || !shorter || plan.steps.windows(2).any(|pair| *pair == fuse_first),
        "the lease is shortened right after its fuse",
    )
}

/// What answers a request, or rests on it.
fn on_request(cluster: &Cluster, step: &Step) -> Result<(), Violation> {
    let mine = cluster.lease == Lease::Mine;
    let seen = |revision: i64| cluster.request.as_ref().filter(|request| request.revision == revision);
    if let Step::FinishRequest { revision }
    | Step::ClearRequest { revision }
    | Step::DateRequest { revision } = step
    {
        require(seen(*revision).is_some(), "only the request that was seen is changed")?;
        let free = matches!(cluster.lease, Lease::Free { .. });
        return require(mine || free, "only the leader, or without one its candidate, answers a request");
    }
    if let Step::AnnounceStop { to, request } = step {
        require(mine, "only the leader writes the cluster's keys")?;
        let asked = seen(*request)
            .is_some_and(|request| request.is_due() && request.to.as_ref().is_none_or(|wanted| wanted == to));
        require(asked, "Postgres is stopped for a switchover only while it is asked for, and not too late")?;
    }
    Ok(())
}

/// Somebody has given the timelines up to `newest` up, by a request or because nobody led on them.
fn skip_timelines(view: &View, cluster: &Cluster, newest: TimelineId) -> Result<(), Violation> {
    let given_up = cluster.sync.as_ref().is_some_and(|sync| sync.given_up >= newest);
    let said_so = given_up || accepts_loss(view, cluster);
    require(cluster.lease == Lease::Mine && said_so, "a timeline is given up only when somebody said so")
}

/// Whether a failover to this member was asked for that is due, not void, and gives up what it lacks.
fn accepts_loss(view: &View, cluster: &Cluster) -> bool {
    cluster.request.as_ref().is_some_and(|request| {
        request.kind == RequestKind::Failover
            && request.is_due()
            && request.accept_data_loss
            && request.to.as_ref() == Some(&view.me)
    })
}

/// Only a running standby that holds the lease is promoted.
fn promote(view: &View, cluster: &Cluster, plan: &Plan) -> Result<(), Violation> {
    require(cluster.lease == Lease::Mine, "only the holder of the lease is promoted")?;
    require(matches!(view.local.postgres, Postgres::Standby { .. }), "only a running standby is promoted")?;
    require(plan.steps.first() == Some(&Step::RenewLease), "the lease is confirmed before a promotion")
}

/// The keys of a cluster are written anew only by the primary that led it last, where all of them are gone, and while no member
/// is unheard that could be electing elsewhere.
fn recreate_cluster(
    view: &View,
    cluster: &Cluster,
    standbys: Option<&[crate::MemberName]>,
) -> Result<(), Violation> {
    require(cluster.blank, "keys are written anew only where all of them are gone")?;
    let Postgres::Primary { synchronous, .. } = &view.local.postgres else {
        return Err("only a primary writes its keys anew");
    };
    let covered = |name| view.local.recorded.contains(name) && synchronous.names.contains(name);
    require(
        standbys.unwrap_or_default().iter().all(covered),
        "keys that are written anew name only who was recorded, and whom commits have waited for since",
    )?;
    require(
        view.local.fuse.is_some_and(|left| !left.is_zero()),
        "keys are written anew only while the fuse lives",
    )?;
    require(view.local.held_term == view.local.watermark.term, "only who led last writes the keys anew")?;
    require(
        recreate::dissenter(view, cluster).is_none(),
        "keys are written anew only when every member finds the same",
    )
}

/// A writable start needs a lease that was just confirmed, and commits that wait for everybody who may be promoted.
fn start_primary(view: &View, plan: &Plan, synchronous: &[crate::MemberName]) -> Result<(), Violation> {
    let Dcs::Seen(cluster) = &view.dcs else { return Err("unreachable: the caller has seen the DCS") };
    require(cluster.lease == Lease::Mine, "Postgres is started writable only by the holder of the lease")?;
    require(plan.steps.contains(&Step::RenewLease), "the lease is confirmed before a writable start")?;
    let recorded = cluster.sync.as_ref().filter(|sync| sync.leader.as_ref() == Some(&view.me));
    require(
        recorded.is_none_or(|sync| sync.standbys.iter().all(|name| synchronous.contains(name))),
        "commits wait for every recorded standby from the first one on",
    )
}

/// Data is rolled back only by the leader whose lease was just confirmed, while nobody else may be promoted.
fn roll_back(view: &View, plan: &Plan) -> Result<(), Violation> {
    let Dcs::Seen(cluster) = &view.dcs else { return Err("unreachable: the caller has seen the DCS") };
    require(cluster.lease == Lease::Mine, "only the holder of the lease rolls its data back")?;
    require(plan.steps.first() == Some(&Step::RenewLease), "the lease is confirmed before a rollback")?;
    require(
        matches!(view.local.postgres, Postgres::Primary { .. }),
        "only a running primary is rolled back",
    )?;
    let alone = cluster
        .sync
        .as_ref()
        .is_none_or(|sync| sync.leader.as_ref() == Some(&view.me) && sync.standbys.is_empty());
    require(alone, "nobody else may be promoted when data is rolled back")
}

/// Whoever is recorded as promotable is waited for.
fn set_synchronous(view: &View, names: &[crate::MemberName]) -> Result<(), Violation> {
    let Dcs::Seen(cluster) = &view.dcs else { return Err("unreachable: the caller has seen the DCS") };
    let recorded = cluster.sync.as_ref().filter(|sync| sync.leader.as_ref() == Some(&view.me));
    require(
        recorded.is_none_or(|sync| sync.standbys.iter().all(|name| names.contains(name))),
        "commits go on waiting for every recorded standby",
    )
}

/// The lease is handed on only by one whose Postgres is down, to one that was recorded as synchronous or has it all.
fn hand_over(view: &View, to: &crate::MemberName) -> Result<(), Violation> {
    let Dcs::Seen(cluster) = &view.dcs else { return Err("unreachable: the caller has seen the DCS") };
    require(cluster.lease == Lease::Mine, "only one's own lease is handed on")?;
    let Postgres::Stopped { timeline, end, shutdown } = &view.local.postgres else {
        return Err("the lease is handed on only when Postgres is stopped");
    };
    let Some(state) = view.member(to).and_then(crate::Member::answered) else {
        return Err("the lease is handed only to a member that answers");
    };
    require(state.role == Role::Standby, "the lease is handed only to a standby")?;
    let planned =
        cluster.switchover.as_ref().is_some_and(|announced| announced.from == view.me && announced.to == *to);
    let replayed = state.replay.as_ref().is_some_and(|replay| replay.position >= *end);
    require(
        !planned || *shutdown != Shutdown::CleanPrimary || replayed,
        "a switchover hands the lease only to a member that has replayed the end of the WAL",
    )?;
    let recorded =
        cluster.sync.as_ref().is_some_and(|sync| sync.leader.as_ref() == Some(&view.me) && sync.covers(to));
    let has_all =
        *shutdown == Shutdown::CleanPrimary && state.timeline == *timeline && state.position >= *end;
    // Nothing was written here that they lack.
    let unused = *shutdown == Shutdown::Standby && cluster.sync.as_ref().is_some_and(|sync| sync.covers(to));
    let asynchronous = cluster.sync.is_none();
    require(
        recorded || has_all || unused || asynchronous,
        "the lease is handed only to a member with every acknowledged commit",
    )
}

/// A standby is recorded as promotable only when commits wait for it and it has proven to hold what came before.
fn record_sync(view: &View, standbys: &[crate::MemberName]) -> Result<(), Violation> {
    let Dcs::Seen(cluster) = &view.dcs else { return Err("unreachable: the caller has seen the DCS") };
    require(cluster.lease == Lease::Mine, "only the leader records who is synchronous")?;
    let recorded = cluster.sync.as_ref().filter(|sync| sync.leader.as_ref() == Some(&view.me));
    for name in standbys {
        if recorded.is_some_and(|sync| sync.standbys.contains(name)) {
            continue;
        }
        let Postgres::Primary { walsenders, synchronous, .. } = &view.local.postgres else {
            return Err("a standby is recorded only by a running primary");
        };
        let since = synchronous.since.ok_or("a standby is recorded only when the setting is proven")?;
        require(synchronous.names.contains(name), "a standby is recorded only when commits wait for it")?;
        require(
            walsenders.iter().any(|sender| sender.name == *name && sender.sync && sender.flushed >= since),
            "a standby is recorded only when it holds what was acknowledged before",
        )?;
    }
    Ok(())
}

/// Whoever was struck from `/sync` is put back only while nothing can have been acknowledged since: recovery never ended, Postgres
/// does not run, and nobody has written `/sync` meanwhile.
fn restore_sync(view: &View, cluster: &Cluster, before: &SyncState) -> Result<(), Violation> {
    require(cluster.lease == Lease::Mine, "only the leader records who is synchronous")?;
    require(
        matches!(view.local.postgres, Postgres::Stopped { shutdown: Shutdown::Standby, .. }),
        "/sync is put back only by a standby that does not run",
    )?;
    let struck = view.local.promotion.struck.as_ref().is_some_and(|struck| {
        (&struck.leader, &struck.standbys, struck.revision)
            == (&before.leader, &before.standbys, before.revision)
    });
    let alone = cluster.sync.as_ref().is_some_and(|sync| {
        sync.leader.as_ref() == Some(&view.me) && sync.standbys.is_empty() && sync.revision == before.revision
    });
    require(struck && alone, "only what this member struck from /sync is put back, and only once")
}

fn require(holds: bool, rule: Violation) -> Result<(), Violation> {
    if holds { Ok(()) } else { Err(rule) }
}
