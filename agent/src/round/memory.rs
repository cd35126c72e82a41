//! What the agent remembers from one round to the next. Only the round changes it; a restart forgets it, but for the term.

mod failures;
mod notes;
mod promotion;
mod rules;

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use jiff::Timestamp;
use outrider_dcs::Snapshot;
use outrider_ha::{Job, MemberName, Policy, Synchronous, Term};
use outrider_postgres::{Configuration, ControlData, Observation, Upstream};
use outrider_wal::{Lsn, TimelineHistory, TimelineId, TimelineStarts};
use tokio::time::Instant;

pub(crate) use self::failures::Failed;
use self::failures::Failures;
pub(crate) use self::promotion::Promotion;
pub(crate) use self::rules::{Learning, Rules, Trying};
use super::dcs_memory::DcsMemory;
use super::member_slots::Retained;
use super::patience::Patience;
use crate::act::{Errand, Gap, HeldLease, Proving, Published, Running};
use crate::clock;
use crate::config::MEMBER_SLOTS_TTL;
use crate::observe::addresses::Addresses;
use crate::observe::cluster::SwitchoverProgress;
use crate::observe::restart::TurnSeen;
use crate::report::{Counters, Said};

/// Unexpected exits older than this no longer count as a crash loop.
const CRASH_WINDOW: Duration = Duration::from_secs(60);
/// More of them than this are not worth remembering.
const CRASHES_MAX: usize = 16;
/// As many unexpected exits count as a crash loop (`agent/ha`).
const GIVEN_UP: u32 = 3;

/// The memory of one agent.
pub(crate) struct Memory {
    /// What was seen of the DCS, on disk.
    pub(crate) dcs: DcsMemory,
    /// From where the members connect.
    pub(crate) addresses: Addresses,
    /// This member has its entry in the DCS, and no other agent has its name.
    pub(crate) is_member: bool,
    /// The entry as it stands there.
    pub(crate) published: Option<Published>,
    /// Why the entry could not be written, as it was last logged.
    pub(crate) publishing_fault: Said,
    /// The term of the lease that this process held last.
    pub(crate) held_term: Term,
    /// The lease as it was last confirmed.
    pub(crate) lease: Option<HeldLease>,
    /// The last answer of the DCS.
    pub(crate) snapshot: Option<Snapshot>,
    /// When that was.
    pub(crate) dcs_last_seen: Option<Timestamp>,
    /// Since when the DCS has been silent; `None` while it answers.
    pub(crate) silent_since: Option<Instant>,
    /// Since when the lease has been free; `None` while it is not.
    pub(crate) free_since: Option<Instant>,
    /// The request for another leader that stands in the DCS, by its revision, and when it was first seen.
    request_seen: Option<(i64, Instant)>,
    /// The rules of the cluster, the last good ones.
    pub(crate) policy: Policy,
    /// How far they are followed, and what of them is not.
    pub(crate) rules: Rules,
    /// Why Postgres ended before it answered, in its own words; `None` since it answers.
    pub(crate) start_failure: Option<String>,
    /// How Postgres is to be configured.
    pub(crate) configuration: Configuration,
    /// The configuration has changed and a running Postgres was not told yet.
    pub(crate) configuration_changed: bool,
    /// What Postgres said in this round; `None` when it did not answer.
    pub(crate) seen: Option<Observation>,
    /// The control file, while nothing has run since it was read.
    pub(crate) control: Option<ControlData>,
    /// The identifier of the data directory.
    pub(crate) system: Option<u64>,
    /// The newest timeline that the data directory was seen on.
    pub(crate) timeline: TimelineId,
    /// The furthest position that the local Postgres was seen at since its data directory was last replaced.
    pub(crate) last_position: Lsn,
    /// The ancestors of the timeline that the data directory is on.
    pub(crate) history: TimelineHistory,
    /// When these were begun, and its own.
    pub(crate) starts: TimelineStarts,
    /// Why that cannot be told, as it was last logged.
    pub(crate) starts_fault: Said,
    /// The timeline for which `history` was read.
    pub(crate) history_of: Option<TimelineId>,
    /// When the postmaster exited unexpectedly.
    crashes: VecDeque<Instant>,
    /// The last exit that the supervisor told of, by its time; `None` before its first answer.
    last_exit: Option<u64>,
    /// The supervisor that answered last.
    supervisor_pid: Option<i32>,
    /// The supervisor did not answer the last time.
    supervisor_silent: bool,
    /// The postmaster that has answered since its start.
    pub(crate) answered_pid: Option<i32>,
    /// Why a starting Postgres takes no connections, as it was last logged.
    pub(crate) starting_fault: Said,
    /// Why the data directory is refused, as it was last logged.
    pub(crate) refused: Said,
    /// Postgres accepted writes, or was about to, in the last round.
    pub(crate) was_writable: bool,
    /// The promotion that was begun here and has not ended recovery.
    pub(crate) promotion: Promotion,
    /// Whether the last rewind failed.
    pub(crate) rewind_failed: bool,
    /// Whether the users were created, or found.
    pub(crate) users_ready: bool,
    /// Until when work that failed is not tried again.
    cooling_until: Option<Instant>,
    /// The same for work that has failed several times.
    pub(crate) failures: Failures,
    /// The supervisor was told to end.
    pub(crate) terminating: bool,
    /// Whom commits wait for, as far as this process has set it.
    pub(crate) synchronous: Synchronous,
    /// The proof, under way, that the setting is in effect.
    pub(crate) proving: Option<Proving>,
    /// What is done once Postgres accepts connections.
    pub(crate) errand: Option<Errand>,
    /// How long the slots of members that are away are kept.
    pub(crate) member_slots_ttl: Duration,
    /// The slots that the rules of the cluster ask for.
    pub(crate) declared_slots: BTreeSet<String>,
    /// Whose slots this leader keeps.
    pub(crate) retained: Retained,
    /// The announced switchover that this member takes part in.
    pub(crate) switchover: Option<SwitchoverProgress>,
    /// When Postgres was told to stop for a switchover whose end is not seen yet.
    pub(crate) write_gap_since: Option<Instant>,
    /// The present turn of a restart, and since when it has been that.
    pub(crate) restart_turn: TurnSeen,
    /// The measurement of that gap.
    pub(crate) gap: Option<Gap>,
    /// The ttl of this agent's session; `None` when it was resumed from an earlier agent, who may have lengthened it.
    pub(crate) session_ttl: Option<Duration>,
    /// When a supervisor was last started.
    pub(crate) supervisor_started: Option<Instant>,
    /// Nobody listens on the supervisor's socket.
    pub(crate) supervisor_is_gone: bool,
    /// The configuration of a Postgres that ran before this agent was read from it.
    adopted: bool,
    /// How often the same was waited for.
    pub(crate) patience: Patience,
    /// The step that failed, as it was last logged.
    pub(crate) step_fault: Said,
    /// The silence of the DCS was logged.
    silence_logged: bool,
    /// The long work under way.
    pub(crate) job: Option<Running>,
    /// Since when Postgres has not answered; `None` while it answers.
    pub(crate) silent_postgres_since: Option<Instant>,
    /// Since when this standby has had less than its primary of what it must not have less of; `None` while it has enough.
    pub(crate) short_since: Option<Instant>,
    /// Since when it has taken no new connection, though it answers.
    shut_out_since: Option<Instant>,
    /// The postmaster was seen to stand still.
    frozen: bool,
    /// Sums since the start.
    pub(crate) counters: Counters,
}

impl Memory {
    /// Of an agent that has seen nothing yet.
    pub(crate) fn new(
        dcs: DcsMemory,
        policy: Policy,
        addresses: Addresses,
        rules: Rules,
        configuration: Configuration,
    ) -> Self {
        Memory {
            session_ttl: None,
            dcs,
            addresses,
            is_member: false,
            published: None,
            publishing_fault: Said::default(),
            held_term: Term(0),
            lease: None,
            snapshot: None,
            dcs_last_seen: None,
            silent_since: Some(clock::monotonic()),
            free_since: None,
            request_seen: None,
            policy,
            rules,
            start_failure: None,
            configuration,
            // A Postgres that ran before this agent may have been given that of an older file.
            configuration_changed: true,
            seen: None,
            control: None,
            system: None,
            timeline: TimelineId::new(0),
            last_position: Lsn::INVALID,
            history: TimelineHistory::default(),
            starts: TimelineStarts::default(),
            starts_fault: Said::default(),
            history_of: None,
            crashes: VecDeque::new(),
            last_exit: None,
            supervisor_pid: None,
            supervisor_silent: false,
            answered_pid: None,
            starting_fault: Said::default(),
            refused: Said::default(),
            was_writable: false,
            promotion: Promotion::default(),
            rewind_failed: false,
            users_ready: false,
            cooling_until: None,
            failures: Failures::default(),
            terminating: false,
            synchronous: Synchronous::default(),
            proving: None,
            errand: None,
            // As long as Patroni's, until the DCS has said something else.
            member_slots_ttl: MEMBER_SLOTS_TTL,
            declared_slots: BTreeSet::new(),
            retained: Retained::default(),
            switchover: None,
            write_gap_since: None,
            restart_turn: TurnSeen::default(),
            gap: None,
            supervisor_started: None,
            supervisor_is_gone: false,
            adopted: false,
            patience: Patience::default(),
            step_fault: Said::default(),
            silence_logged: false,
            job: None,
            silent_postgres_since: None,
            short_since: None,
            shut_out_since: None,
            frozen: false,
            counters: Counters::default(),
        }
    }

    /// How long the DCS has been silent.
    pub(crate) fn silent_for(&self) -> Duration {
        age(self.silent_since)
    }

    /// How long the lease has been free.
    pub(crate) fn free_for(&self) -> Duration {
        age(self.free_since)
    }

    /// How long Postgres has taken no new connection, though it answers; `None` while it takes some, or does not answer.
    pub(crate) fn shut_out_for(&self) -> Option<Duration> {
        self.shut_out_since.map(|since| age(Some(since)))
    }

    /// Notes which request for another leader stands in the DCS.
    pub(crate) fn sees_request(&mut self, revision: Option<i64>) {
        if self.request_seen.map(|(seen, _)| seen) != revision {
            self.request_seen = revision.map(|revision| (revision, clock::monotonic()));
        }
    }

    /// How long it has been seen.
    pub(crate) fn request_seen_for(&self, revision: i64) -> Duration {
        age(self.request_seen.filter(|(seen, _)| *seen == revision).map(|(_, since)| since))
    }

    /// The kind of the long work under way.
    pub(crate) fn job_kind(&self) -> Option<Job> {
        self.job.as_ref().map(Running::kind)
    }

    /// The newest timeline that the data directory is known to be on.
    pub(crate) fn timeline_seen(&mut self, timeline: TimelineId) -> TimelineId {
        self.timeline = self.timeline.max(timeline);
        self.timeline
    }

    /// This Postgres had to be given up: it counts as a crash loop, and so does its promotion.
    pub(crate) fn gave_up(&mut self) {
        self.crashes.extend([clock::monotonic(); GIVEN_UP as usize]);
        self.promotion.gave_up();
    }

    /// Unexpected exits within the last minute.
    pub(crate) fn recent_crashes(&mut self) -> u32 {
        let now = clock::monotonic();
        self.crashes.retain(|at| now.saturating_duration_since(*at) < CRASH_WINDOW);
        u32::try_from(self.crashes.len()).unwrap_or(u32::MAX)
    }

    /// Work failed: nothing is begun before the next `loop_wait` is over, and the same the later the more often it fails.
    pub(crate) fn failed(&mut self, job: Job, fault: &str) {
        let now = clock::monotonic();
        self.cooling_until = Some(now + self.policy.loop_wait);
        self.failures.note(job, fault, self.policy.loop_wait, now);
    }

    /// Whether work that failed has to wait.
    pub(crate) fn is_cooling_down(&self) -> bool {
        self.cooling_until.is_some_and(|until| clock::monotonic() < until)
    }

    /// The data directory was replaced: nothing that was known of the old one holds.
    pub(crate) fn forget_data(&mut self) {
        self.control = None;
        self.system = None;
        self.timeline = TimelineId::new(0);
        self.last_position = Lsn::INVALID;
        self.history = TimelineHistory::default();
        self.starts = TimelineStarts::default();
        self.history_of = None;
        self.promotion = Promotion::default();
        self.rewind_failed = false;
    }

    /// Nothing is known of whom commits wait for.
    pub(crate) fn forget_synchronous(&mut self) {
        self.synchronous = Synchronous::default();
        self.proving = None;
    }

    /// Commits wait for these standbys as soon as Postgres has read it; that nobody is waited for needs no proof.
    pub(crate) fn commits_wait_for(&mut self, names: &[MemberName]) {
        let since = names.is_empty().then_some(Lsn::INVALID);
        self.synchronous = Synchronous { names: names.to_vec(), since };
        self.proving = None;
    }

    /// This member takes part in an announced switchover.
    pub(crate) fn begin_switchover(&mut self, id: String) {
        self.switchover = Some(SwitchoverProgress { id, checkpointed: false, stopping_since: None });
    }

    /// Time left on the fuse, as it was last armed.
    pub(crate) fn fuse_left(&self) -> Option<Duration> {
        let left = clock::until_boottime(self.lease?.fuse.deadline_ns());
        (!left.is_zero()).then_some(left)
    }

    /// Where a member's Postgres listens, as it publishes it.
    pub(crate) fn upstream(&self, name: &MemberName) -> Option<Upstream> {
        let url = self.snapshot.as_ref()?.member(name.as_str())?.conn_url()?;
        Upstream::from_url(url)
    }
}

fn age(since: Option<Instant>) -> Duration {
    since.map(|since| clock::monotonic().saturating_duration_since(since)).unwrap_or_default()
}
