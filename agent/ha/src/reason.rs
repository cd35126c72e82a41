//! Why a member does what it does: one list with five readers, which are the log, `GET /cluster`, a metric label, the
//! manual (these comments) and the tests, where each variant has a scenario.

mod unfit;

use core::fmt;

use outrider_wal::{Lsn, TimelineId};
use serde::{Deserialize, Serialize};

use crate::view::identity::SystemId;
use crate::view::member::MemberName;
use crate::view::watermark::Lost;

use self::unfit::{Because, Whom};
pub use self::unfit::{Lack, Unfit};

macro_rules! reasons {
    ($( $(#[$doc:meta])* $variant:ident $({ $($(#[$field_doc:meta])* $field:ident : $type:ty),* $(,)? })? => $label:literal, $format:literal $(, $word:ident = $expression:expr)*; )*) => {
        /// The reason for a plan.
        #[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum Reason {
            $( $(#[$doc])* $variant $({ $($(#[$field_doc])* $field: $type),* })?, )*
        }

        impl Reason {
            /// The labels of all reasons.
            pub const LABELS: &[&str] = &[$($label),*];

            /// Its name as a metric label, without the particulars.
            #[must_use]
            pub const fn label(&self) -> &'static str {
                match self { $( Reason::$variant $({ $($field: _),* })? => $label, )* }
            }
        }

        impl fmt::Display for Reason {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self { $( Reason::$variant $({ $($field),* })? => write!(f, $format $(, $word = $expression)*), )* }
            }
        }
    };
}

reasons! {
    /// The leader lease is renewed and Postgres serves writes.
    Leading => "leading", "the leader with the lease";
    /// Streams from the leader.
    Following => "following", "a standby, following the leader";
    /// Follows the leader and no WAL comes yet.
    WaitingToStream => "waiting_to_stream", "a standby, waiting for WAL from the leader";
    /// Long work is under way; only the lease is looked after meanwhile.
    JobUnderWay => "job_under_way", "a job is running";

    /// The DCS does not answer; the fuse still has time.
    DcsSilentKeeping => "dcs_silent_keeping", "the DCS does not answer; continuing while the fuse allows";
    /// The DCS does not answer and the fuse is about to blow: stop in good order before it does.
    DcsSilentSteppingDown => "dcs_silent_stepping_down", "the DCS does not answer; stopping before the fuse blows";
    /// The DCS does not answer; nothing is changed.
    DcsSilentWaiting => "dcs_silent_waiting", "the DCS does not answer; waiting for it";

    /// The data directory belongs to another cluster.
    ForeignSystemId {
        /// Of the data directory.
        own: SystemId,
        /// Of the cluster.
        cluster: SystemId,
    } => "foreign_system_id", "the data directory belongs to another cluster (system identifier {own}, the cluster has {cluster}); nothing is touched: point data_dir elsewhere or choose another scope";
    /// The DCS knows less than this member: it was wiped, restored from an old copy, or is another one.
    DcsWentBack {
        /// What this member has seen and the DCS does not show.
        lost: Lost,
    } => "dcs_went_back", "the DCS went back ({lost}): it was wiped, restored from an old copy, or another one is configured; taking no part until `outrider dcs rebuild` has been run on one member";
    /// The keys of the cluster are gone and this member led it last: they are written anew.
    RecreatingCluster => "recreating_cluster", "the DCS has lost the keys of this cluster; writing them anew, since this primary led it last and every member finds the same";
    /// The keys of the cluster are gone, and not every member has said that it finds the same.
    WaitingToRecreate {
        /// Who has not.
        member: MemberName,
    } => "waiting_to_recreate", "the DCS has lost the keys of this cluster; waiting for {member} to answer and to find the same before they are written anew; if the fuse runs low before, Postgres stops, and `outrider dcs rebuild` on one member brings the cluster back";
    /// The data directory is not fit to be started: wrong owner, mode or version.
    DataDirectoryRefused => "data_directory_refused", "the data directory cannot be used; the log names what is wrong with it";

    /// The lease is held under this member's name by another session.
    NameTaken => "name_taken", "another agent, or an earlier run of this one, holds the lease under this member's name; waiting for it to run out";

    /// Nobody leads, and there never was a cluster: trying to be the one that makes it.
    RacingToBootstrap => "racing_to_bootstrap", "no cluster yet; racing to create it";
    /// Making the cluster.
    Bootstrapping => "bootstrapping", "creating a new cluster";
    /// Making the cluster failed again and again: others may try, until it is tried here again.
    LeavingBootstrap => "leaving_bootstrap", "the cluster cannot be made here; leaving it to the other members until it is tried again";
    /// The data here was made to begin the cluster with, and another member has begun it.
    Superseded => "superseded", "another member has made the cluster; stopping Postgres to take its data";
    /// Another member has data, so no new cluster is made.
    WaitingForMemberWithData {
        /// The member with data.
        member: MemberName,
    } => "waiting_for_member_with_data", "{member} has data already; waiting for it to lead instead of creating a new cluster";
    /// Another member is making the cluster.
    WaitingForBootstrap => "waiting_for_bootstrap", "another member is making the cluster";
    /// The lease is mine, but the data of this cluster is elsewhere.
    NothingToLead => "nothing_to_lead", "there is no data here to lead with; releasing the lease";

    /// The leader lease is free: standing for it.
    Standing => "standing", "no leader; standing for election";
    /// The leader lease is free: starting as a standby to be able to stand.
    StartingToStand => "starting_to_stand", "no leader; starting as a standby to stand for election";
    /// Tags forbid this member to lead.
    MayNotLead => "may_not_lead", "no leader, and this member may not lead (nofailover, or failover_priority 0)";
    /// In synchronous mode: this member may lack acknowledged commits.
    NotSynchronous => "not_synchronous", "no leader, and this member is not recorded as synchronous: it may lack acknowledged commits; when whoever has them is lost for good, a failover with --accept-data-loss promotes this one";
    /// In asynchronous mode: this member lacks more than allowed.
    LagsTooMuch {
        /// Bytes behind the last position that a leader published.
        bytes: u64,
    } => "lags_too_much", "no leader, and this member is {bytes} bytes behind, more than maximum_lag_on_failover";
    /// In asynchronous mode: a rollback may have swapped the data of the leader that was lost, and this member has the old.
    SwapUnknown {
        /// Whose data it is.
        member: MemberName,
    } => "swap_unknown", "no leader, and {member} was lost while a rollback swapped its data: it knows whether the cluster is rolled back; waiting for it, or for a failover with --accept-data-loss, which takes the rollback back";
    /// This member's timeline is older than the cluster's.
    TimelineBehind {
        /// Its timeline.
        own: TimelineId,
        /// The newest one known.
        cluster: TimelineId,
    } => "timeline_behind", "no leader, and this member is on timeline {own} while the cluster was on {cluster}; when whoever has that is lost for good, a failover with --accept-data-loss promotes this one";
    /// Another member can be promoted with less loss, or comes first among equals.
    BetterCandidate {
        /// That member.
        member: MemberName,
    } => "better_candidate", "no leader; leaving the lease to {member}";
    /// A member has seen more of this cluster than the DCS shows.
    MemberKnowsMore {
        /// That member.
        member: MemberName,
        /// What it has seen.
        lost: Lost,
    } => "member_knows_more", "no leader, and {member} has seen more of this cluster than the DCS shows ({lost}): it was restored from an old copy; nobody stands until `outrider dcs rebuild` has been run on one member";
    /// A failover to another member was asked for.
    CandidateIsNamed {
        /// That member.
        member: MemberName,
    } => "candidate_is_named", "no leader; a failover to {member} was requested";
    /// A failover to this member was asked for, which lacks something, and nobody said that it may be given up.
    FailoverRefused {
        /// What it lacks.
        why: Lack,
    } => "failover_refused", "failover refused: {why}; to promote this member anyway and lose that, use \
        --accept-data-loss (\"accept_data_loss\": true)";
    /// A failover to this member was asked for, and what it lacks is given up.
    AcceptingLoss {
        /// What it lacks.
        why: Lack,
    } => "accepting_loss", "no leader; standing for election, as a failover asked for that accepts the loss of data: {why}";
    /// A failover to this member was asked for, and its tags forbid it.
    FailoverForbidden => "failover_forbidden", "failover refused: this member may not lead (nofailover, or failover_priority 0)";
    /// What was asked for was not done by its deadline.
    RequestExpired => "request_expired", "the request could not be carried out by its deadline and has expired";
    /// A request that says nothing of until when it holds gets a deadline.
    DatingRequest => "dating_request", "giving a deadline to a request that has none";
    /// A member without the lease still says that it is a primary.
    PrimaryStillRunning {
        /// That member.
        member: MemberName,
    } => "primary_still_running", "no leader, but {member} still runs as a primary; waiting for it to stop";
    /// Nobody leads, and this member cannot.
    WaitingForLeader => "waiting_for_leader", "waiting for a leader";

    /// The lease is mine: ending recovery.
    Promoting => "promoting", "holds the lease; promoting";
    /// The lease is mine: what was received is replayed before recovery can end.
    Replaying {
        /// Up to where it is replayed.
        replayed: Lsn,
        /// Up to where it is received.
        received: Lsn,
    } => "replaying", "holds the lease; promoting when what was received is replayed: at {replayed} of {received}";
    /// A running primary takes back the lease that nobody else has had since.
    ReclaimingLease => "reclaiming_lease", "reclaiming its own lease, which nobody has held since";
    /// A primary without the lease stops.
    SteppingDown => "stepping_down", "no longer the leader; stopping Postgres";
    /// Postgres is not up yet.
    StillStarting => "still_starting", "Postgres is starting";
    /// Postgres does not answer.
    Unresponsive => "unresponsive", "Postgres does not answer";
    /// Postgres does not come up and a standby could lead.
    GivingUpOnStart => "giving_up_on_start", "Postgres does not come up in time; stopping it in favour of a standby";
    /// Postgres hangs and a standby could lead.
    GivingUpOnHang => "giving_up_on_hang", "Postgres hangs; stopping it in favour of a standby";
    /// Postgres takes no new connection, and those that are open go on.
    TakesNoConnection => "takes_no_connection", "the leader with the lease, but Postgres accepts no new \
        connections; open ones go on";
    /// Postgres hangs and cannot be stopped: the lease runs out.
    LettingGo => "letting_go", "Postgres hangs and cannot be stopped; letting the lease expire in favour of a standby";
    /// There is no supervisor, and so no Postgres and no fuse: the lease runs out.
    NoSupervisor => "no_supervisor", "no supervisor answers here; letting the lease run out for another member to take";
    /// Postgres stopped unexpectedly and is started where it is.
    Reviving => "reviving", "Postgres is down; starting it here";
    /// Postgres stopped unexpectedly and a standby has all that was acknowledged.
    FailingOver {
        /// The new leader.
        to: MemberName,
    } => "failing_over", "Postgres is down; {to} has every acknowledged commit and takes over";

    /// The lease is mine and the standby that should be promoted does not come up.
    NotComingUp => "not_coming_up", "Postgres does not come up here; giving up the lease";

    /// The promotion fails again and again: nobody has written anything since, and whoever had every commit may lead again.
    NeverPromoted => "never_promoted", "the promotion fails here, again and again; whoever else has every acknowledged commit may be promoted again";

    /// The container ends: Postgres is stopped and the lease is handed to whoever has all of its WAL.
    Terminating => "terminating", "told to stop; stopping Postgres and handing over";

    /// Postgres is being stopped, and rolled back data takes the place of its own.
    RollingBack => "rolling_back", "rolling back: stopping Postgres to put the prepared data in its place";

    /// A switchover is being prepared; serving goes on.
    PreparingSwitchover {
        /// The candidate.
        to: MemberName,
    } => "preparing_switchover", "switchover to {to}: checkpoint before the stop";
    /// A switchover to a member that is not ready: waiting, writes go on.
    WaitingToSwitchOver {
        /// The candidate, when one was named.
        to: Option<MemberName>,
        /// What is wrong with it.
        why: Unfit,
    } => "waiting_to_switch_over", "switchover{whom}: waiting until it can be done, for {why}", whom = Whom(to);
    /// A switchover to a member that is not synchronous: it is made so first, writes go on.
    MakingSynchronous {
        /// The candidate.
        to: MemberName,
    } => "making_synchronous", "switchover to {to}: making it synchronous first";
    /// This member is about to take over in a switchover: queries do not hold up its replay.
    HasteningReplay => "hastening_replay", "about to take over: cancelling the queries that hold up replay";
    /// It did not come to the switchover: queries may hold up replay again.
    RelaxingReplay => "relaxing_replay", "a standby; queries may hold up replay again";
    /// Postgres is being stopped for a switchover.
    StoppingForSwitchover {
        /// The candidate.
        to: MemberName,
    } => "stopping_for_switchover", "switchover to {to}: stopping Postgres";
    /// Postgres is stopped; the candidate does not have all of its WAL yet.
    WaitingForCandidate {
        /// The candidate.
        to: MemberName,
    } => "waiting_for_candidate", "switchover to {to}: waiting until it has replayed the last of the WAL";
    /// The candidate has it all and gets the lease.
    HandingOver {
        /// The candidate.
        to: MemberName,
    } => "handing_over", "switchover to {to}: handing over the lease";
    /// The candidate did not get it all in time: Postgres is started again here.
    SwitchoverRolledBack {
        /// The candidate.
        to: MemberName,
        /// What kept it, when it says so.
        why: Option<Unfit>,
    } => "switchover_rolled_back", "switchover to {to} rolled back: it had not replayed the last of the WAL in time{cause}", cause = Because(why);
    /// The switchover that was asked for cannot be done.
    SwitchoverRefused {
        /// The candidate, when one was named.
        to: Option<MemberName>,
        /// What is wrong with it.
        why: Unfit,
    } => "switchover_refused", "switchover{whom} refused: {why}", whom = Whom(to);
    /// The request names another leader.
    NotTheLeaderNamed => "not_the_leader_named", "switchover refused: leader name does not match";
    /// The request was withdrawn.
    SwitchoverWithdrawn => "switchover_withdrawn", "the switchover was withdrawn";
    /// The request is fulfilled.
    SwitchoverDone => "switchover_done", "switched over";

    /// A restart that somebody asked for: this member's turn.
    Restarting => "restarting", "restarting Postgres, as requested";
    /// The same, and the others are not yet well enough.
    RestartWaiting => "restart_waiting", "a restart was requested; waiting until the others are up, and for a \
        primary until one can take over";

    /// A standby has less than its primary of what it must not have less of.
    Raising => "raising", "max_connections, max_worker_processes, max_wal_senders, max_prepared_transactions or \
        max_locks_per_transaction is lower than on its primary; restarting Postgres with the primary's value";
    /// The same, and it is not its turn.
    WaitingToRaise {
        /// Who is waited for.
        member: MemberName,
    } => "waiting_to_raise", "max_connections or the like is lower than on its primary; waiting to restart with \
        the primary's value until {member} is up and has it";

    /// Synchronous mode is on: `/sync` gets its leader.
    SynchronousOn => "synchronous_on", "synchronous mode: recording this member as its leader";
    /// Synchronous mode is off: `/sync` and the setting are cleared.
    SynchronousOff => "synchronous_off", "synchronous mode is off: commits wait for nobody";
    /// A synchronous standby is gone: it may no longer be promoted.
    SynchronousRelaxed => "synchronous_relaxed", "a synchronous standby is gone: it may no longer be promoted";
    /// The standbys that commits wait for change.
    SynchronousChanged => "synchronous_changed", "changing which standbys commits wait for";
    /// A standby has proven to hold every acknowledged commit.
    SynchronousGrown => "synchronous_grown", "a standby holds every acknowledged commit: it may be promoted";

    /// Starting behind the leader.
    StartingAsStandby => "starting_as_standby", "starting as a standby of the leader";
    /// A running standby has WAL that the leader never had.
    Diverged => "diverged", "its WAL diverged from the leader's; stopping to rewind";
    /// This member and the leader each have a timeline of one number that was begun by a promotion of its own.
    BegunTwice {
        /// The number.
        timeline: TimelineId,
    } => "begun_twice", "timeline {timeline} was begun twice, and this member's is not the leader's: replacing \
        its data with a copy of the leader's";
    /// Taking back what only this member wrote.
    Rewinding => "rewinding", "rewinding to where the leader's timeline began";
    /// `pg_rewind` waits for the leader's checkpoint.
    WaitingForCheckpoint => "waiting_for_checkpoint", "waiting for the leader's checkpoint before rewinding";
    /// `pg_rewind` failed: copying everything anew.
    CloningAfterFailedRewind => "cloning_after_failed_rewind", "rewinding failed; cloning anew";
    /// Copying the leader's data.
    Cloning => "cloning", "cloning the leader's data";
}
