//! What a member saw, in words, and what of it was new. Positions and ages change all the time and are not news by
//! themselves.

use outrider_ha::{
    Answer, Cluster, Dcs, Hold, Initialize, Lease, Member, MemberState, Policy, Postgres, Request,
    RequestKind, Role, Shutdown, SynchronousMode, Unusable, View,
};
use outrider_wal::Lsn;

use super::steps::names;

/// One thing that was seen.
struct Fact {
    /// Its name.
    about: String,
    /// The part that counts as a change.
    state: String,
    /// The same, including what changes all the time.
    words: String,
    /// Not worth mentioning in the first round that is shown.
    usual: bool,
}

impl Fact {
    fn new(about: &str, state: impl Into<String>) -> Self {
        let state = state.into();
        Fact { about: about.to_owned(), words: state.clone(), state, usual: false }
    }

    fn with(self, words: String) -> Self {
        Fact { words, ..self }
    }

    fn usual_if(self, usual: bool) -> Self {
        Fact { usual, ..self }
    }
}

/// What was new in this observation, or everything when it is the first.
pub(super) fn news(before: Option<&View>, now: &View) -> Vec<String> {
    let known = before.map(facts).unwrap_or_default();
    let mut news = Vec::new();
    for fact in facts(now) {
        let is_new = match known.iter().find(|known| known.about == fact.about) {
            Some(known) => known.state != fact.state,
            None => !fact.usual,
        };
        if is_new {
            news.push(fact.words);
        }
    }
    news
}

fn facts(view: &View) -> Vec<Fact> {
    let mut facts = Vec::new();
    match &view.dcs {
        Dcs::Silent { since } => {
            let words = format!("the DCS does not answer (for {since:.1?})");
            facts.push(Fact::new("dcs", "silent").with(words));
        }
        Dcs::Seen(cluster) => {
            facts.push(Fact::new("dcs", "the DCS answers").usual_if(true));
            of_cluster(cluster, &mut facts);
        }
    }
    of_here(view, &mut facts);
    facts.extend(view.members.iter().map(of_member));
    facts.push(Fact::new("policy", policy(&view.policy)).usual_if(true));
    facts
}

fn of_cluster(cluster: &Cluster, facts: &mut Vec<Fact>) {
    let lease = match &cluster.lease {
        Lease::Free { .. } => "nobody holds the leader lease".to_owned(),
        Lease::Mine => "this member holds the leader lease".to_owned(),
        Lease::Theirs { holder } => format!("{holder} holds the leader lease"),
    };
    facts.push(Fact::new("lease", format!("{lease} (term {})", cluster.term)));
    let blank =
        if cluster.blank { "the DCS has no key of this cluster" } else { "the DCS has keys of this cluster" };
    facts.push(Fact::new("blank", blank).usual_if(!cluster.blank));
    let store = cluster
        .store
        .map(|store| format!("the DCS has the identity {store}, generation {}", cluster.generation));
    facts.push(
        Fact::new("store", store.unwrap_or_else(|| "the DCS has no identity".to_owned())).usual_if(true),
    );
    let initialize = match cluster.initialize {
        Initialize::Absent => "no cluster was ever created".to_owned(),
        Initialize::Bootstrapping => "the cluster is being created".to_owned(),
        Initialize::Done(system) => format!("the cluster has the system identifier {system}"),
    };
    let is_done = matches!(cluster.initialize, Initialize::Done(_));
    facts.push(Fact::new("initialize", initialize).usual_if(is_done));
    let sync = match &cluster.sync {
        None => "there is no /sync: asynchronous mode".to_owned(),
        Some(sync) => {
            let leader = sync.leader.as_ref().map_or_else(|| "nobody".to_owned(), ToString::to_string);
            if sync.standbys.is_empty() {
                format!("/sync: only {leader} may be promoted")
            } else {
                format!("/sync: {} may be promoted in place of {leader}", names(&sync.standbys))
            }
        }
    };
    facts.push(Fact::new("sync", sync));
    let request = cluster.request.as_ref().map_or_else(|| "there is no request any more".to_owned(), request);
    facts.push(Fact::new("request", request).usual_if(cluster.request.is_none()));
    let switchover = match &cluster.switchover {
        None => "no switchover is announced any more".to_owned(),
        Some(under_way) => {
            let stopping =
                if under_way.stopping_for.is_zero() { "" } else { ", Postgres being stopped for it" };
            let checkpoint = if under_way.checkpointed { ", checkpoint done" } else { "" };
            format!(
                "a switchover from {} to {} is announced{checkpoint}{stopping}",
                under_way.from, under_way.to
            )
        }
    };
    facts.push(Fact::new("switchover", switchover).usual_if(cluster.switchover.is_none()));
    let swapping = match &cluster.swapping {
        None => "nobody's data is being swapped any more".to_owned(),
        Some(member) => format!("a rollback swaps the data of {member}"),
    };
    facts.push(Fact::new("swapping", swapping).usual_if(cluster.swapping.is_none()));
}

fn request(request: &Request) -> String {
    let kind = match request.kind {
        RequestKind::Switchover => "switchover",
        RequestKind::Failover => "failover",
    };
    let whom = |word: &str, member: &Option<outrider_ha::MemberName>| {
        member.as_ref().map(|member| format!(" {word} {member}")).unwrap_or_default()
    };
    let (from, to) = (whom("from", &request.from), whom("to", &request.to));
    let due = if request.due_in.is_zero() { "" } else { ", for later" };
    let loss = if request.accept_data_loss { ", and what that loses is given up" } else { "" };
    let void = if request.is_void() { ", and has expired" } else { "" };
    format!("a {kind}{from}{to} is requested{due}{loss}{void}")
}

fn of_here(view: &View, facts: &mut Vec<Fact>) {
    let local = &view.local;
    facts.push(of_postgres(&local.postgres));
    let fuse = if local.fuse.is_some() { "the fuse is armed" } else { "no fuse is armed" };
    let words = local.fuse.map_or_else(|| fuse.to_owned(), |left| format!("{fuse} ({left:.1?} left)"));
    facts.push(Fact::new("fuse", fuse).with(words).usual_if(local.fuse.is_none()));
    if let Postgres::Primary { walsenders, synchronous, .. } = &local.postgres {
        let streaming: Vec<String> = walsenders
            .iter()
            .map(|sender| {
                let how = if sender.streaming { "" } else { " (catching up)" };
                let sync = if sender.sync { " (synchronous)" } else { "" };
                format!("{}{how}{sync}", sender.name)
            })
            .collect();
        let streaming = if streaming.is_empty() { "nobody".to_owned() } else { streaming.join(", ") };
        facts.push(Fact::new("walsenders", format!("connected standbys: {streaming}")));
        let proof = if synchronous.since.is_some() || synchronous.names.is_empty() {
            ""
        } else {
            " (not proven yet)"
        };
        let waits = format!("commits wait for {}{proof}", names(&synchronous.names));
        facts.push(Fact::new("waits", waits));
    }
    let job = view.job.map_or_else(|| "no a job is running".to_owned(), |job| format!("under way: {job}"));
    facts.push(Fact::new("job", job).usual_if(view.job.is_none()));
    let crashes = match local.recent_crashes {
        0 => "no unexpected exit of Postgres within a minute".to_owned(),
        1 => "Postgres ended unexpectedly".to_owned(),
        several => format!("Postgres ended unexpectedly {several} times within a minute"),
    };
    facts.push(Fact::new("crashes", crashes).usual_if(local.recent_crashes == 0));
    let mut flag = |about: &str, is: bool, yes: &str, no: &str| {
        facts.push(Fact::new(about, if is { yes } else { no }).usual_if(!is));
    };
    flag("cooling", local.cooling_down, "the last long work failed a moment ago", "it may be tried again");
    flag("rewind", local.rewind_failed, "pg_rewind failed", "pg_rewind may be tried again");
    flag(
        "checkpoint",
        local.awaiting_checkpoint,
        "the checkpoint after the promotion is due",
        "the checkpoint is done",
    );
    flag(
        "frozen",
        local.frozen.is_some(),
        "the postmaster is stopped by a signal (SIGSTOP)",
        "the postmaster has resumed",
    );
    flag(
        "shut out",
        local.shut_out.is_some(),
        "Postgres accepts no new connections, though it answers",
        "Postgres takes new connections",
    );
    flag("end", local.terminating, "this member was told to end", "this member is no longer to end");
    flag(
        "rollback",
        local.rollback_prepared,
        "rolled back data is prepared",
        "no rolled back data is prepared",
    );
}

fn of_postgres(postgres: &Postgres) -> Fact {
    let fact = |state: String| Fact::new("postgres", state);
    match postgres {
        Postgres::Empty => fact("Postgres: no data directory".to_owned()),
        Postgres::Unusable(why) => {
            fact(format!("Postgres: the data directory cannot be used, {}", unusable(*why)))
        }
        Postgres::Stopped { timeline, end, shutdown } => {
            let how = match shutdown {
                Shutdown::CleanPrimary => "a primary that shut down cleanly",
                Shutdown::CrashedPrimary => "a primary that crashed",
                Shutdown::Standby => "a standby",
            };
            let state = format!("Postgres: stopped, {how}, timeline {timeline}");
            let words = format!("{state}, at {end}");
            fact(state).with(words)
        }
        Postgres::Starting { writable, since } => {
            let state = format!("Postgres: starting as {}", kind(*writable));
            let words = format!("{state} (for {since:.1?})");
            fact(state).with(words)
        }
        Postgres::Unresponsive { writable, since } => {
            let state = format!("Postgres: does not answer, a {}", kind(*writable));
            let words = format!("{state} (for {since:.1?})");
            fact(state).with(words)
        }
        Postgres::Primary { timeline, position, .. } => {
            let state = format!("Postgres: primary, timeline {timeline}");
            let words = format!("{state}, at {position}");
            fact(state).with(words)
        }
        Postgres::Standby { timeline, position, streaming, promoting, replay } => {
            let upstream =
                streaming.upstream.as_ref().map_or_else(|| "nobody".to_owned(), ToString::to_string);
            let streams = match (promoting, streaming.active) {
                (true, _) => "being promoted".to_owned(),
                (false, true) => format!("streaming from {upstream}"),
                (false, false) => format!("set to stream from {upstream}, but receives no WAL"),
            };
            let held = match replay.as_ref().and_then(|replay| replay.hold.as_ref()) {
                None => "",
                Some(Hold::Paused) => ", replay paused",
                Some(Hold::Parameters { .. }) => {
                    ", replay waiting for a restart with the primary's parameters"
                }
                Some(Hold::Conflict { .. }) => ", replay held up by queries",
            };
            let state = format!("Postgres: standby, timeline {timeline}, {streams}{held}");
            let replayed = replay.as_ref().filter(|replay| replay.position < *position);
            let replayed = replayed.map(|replay| format!(", replayed to {}", replay.position));
            let words = format!("{state}, at {position}{}", replayed.unwrap_or_default());
            fact(state).with(words)
        }
    }
}

fn kind(writable: bool) -> &'static str {
    if writable { "primary" } else { "standby" }
}

fn unusable(why: Unusable) -> &'static str {
    match why {
        Unusable::HalfInitialized => "initdb did not finish",
        Unusable::HalfCloned => "a clone did not finish",
        Unusable::HalfRewound => "pg_rewind did not finish",
        Unusable::Refused => "wrong owner, mode or version",
    }
}

fn of_member(member: &Member) -> Fact {
    let name = &member.name;
    let published = match &member.published {
        None => "is gone from the DCS".to_owned(),
        Some(state) => state_of(state),
    };
    let answer = match &member.answer {
        // Whether a member was asked is no news about it.
        Answer::NotAsked => String::new(),
        Answer::NoAnswer => "; asked, it does not answer".to_owned(),
        Answer::Answered(state) if member.published.as_ref().map(state_of) == Some(state_of(state)) => {
            String::new()
        }
        Answer::Answered(state) => format!("; asked, it {}", state_of(state)),
    };
    let may_lead = if member.tags.may_lead() { "" } else { " (may not lead)" };
    let state = format!("{name} {published}{may_lead}{answer}");
    let known = member.answered().or(member.published.as_ref()).filter(|state| state.position > Lsn::INVALID);
    let at = known.map(|state| format!(", at {}", state.position));
    let words = format!("{state}{}", at.unwrap_or_default());
    Fact::new(&format!("member {name}"), state).with(words)
}

fn state_of(state: &MemberState) -> String {
    let timeline = state.timeline;
    match state.role {
        Role::Primary if state.awaiting_checkpoint => {
            format!("is a primary, timeline {timeline}, its checkpoint due")
        }
        Role::Primary => format!("is a primary, timeline {timeline}"),
        Role::Standby if state.streaming => format!("is a standby, timeline {timeline}, streaming"),
        Role::Standby => format!("is a standby, timeline {timeline}, not streaming"),
        Role::NotRunning => "runs no Postgres".to_owned(),
    }
}

fn policy(policy: &Policy) -> String {
    let synchronous = match policy.synchronous_mode {
        SynchronousMode::Off => "off".to_owned(),
        SynchronousMode::On => format!("on, {} standbys", policy.synchronous_node_count),
    };
    format!(
        "rules: ttl {:?}, loop_wait {:?}, synchronous mode {synchronous}, maximum_lag_on_failover {} bytes, this member {}",
        policy.ttl,
        policy.loop_wait,
        policy.maximum_lag_on_failover,
        if policy.tags.may_lead() { "may lead" } else { "may not lead" }
    )
}
