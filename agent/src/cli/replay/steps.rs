//! The steps of a plan in words, for people who read what an agent did.

use outrider_ha::{MemberName, StartAs, Step, StopMode};

/// Each step; the renewal of the lease only when it is the only one, because every round of a leader has it.
pub(super) fn all(steps: &[Step]) -> Vec<String> {
    let notable: Vec<String> = steps.iter().filter(|step| **step != Step::RenewLease).map(words).collect();
    if notable.is_empty() { steps.iter().map(words).collect() } else { notable }
}

fn words(step: &Step) -> String {
    match step {
        Step::AcquireLease { .. } => "take the leader lease".to_owned(),
        Step::RenewLease => "renew the leader lease".to_owned(),
        Step::ReleaseLease => "give up the leader lease".to_owned(),
        Step::LetLeaseRunOut => "let the leader lease run out".to_owned(),
        Step::ShortenFuse { within } => format!("let the fuse blow within {within:?}"),
        Step::SetTtl { ttl } => format!("set the ttl of the session to {ttl:?}"),
        Step::HandOverLease { to } => format!("hand the leader lease over to {to}"),
        Step::ClaimInitialize => "record that the cluster is being created".to_owned(),
        Step::RecordInitialize { system } => format!("record the system identifier {system}"),
        Step::RecordSync { standbys, .. } if standbys.is_empty() => {
            "record that nobody else may be promoted".to_owned()
        }
        Step::RecordSync { standbys, .. } => format!("record that {} may be promoted", names(standbys)),
        Step::RestoreSync { before } => {
            let all: Vec<MemberName> = before.leader.iter().chain(&before.standbys).cloned().collect();
            format!("record that {} may be promoted, as before", names(&all))
        }
        Step::ClearSync { .. } => "remove the record of who may be promoted".to_owned(),
        Step::RecordHistory => "record where the timeline began".to_owned(),
        Step::FinishRequest { .. } => "remove the request, which is done".to_owned(),
        Step::ClearRequest { .. } => "remove the request".to_owned(),
        Step::DateRequest { .. } => "write the deadline of the request".to_owned(),
        Step::AnnounceStop { to, .. } => format!("announce the stop of Postgres for {to}"),
        Step::AskSwitchover => "request a switchover, since Postgres has to restart".to_owned(),
        Step::RecordRestart { member, .. } => format!("record the progress of {member}'s restart"),
        Step::HastenReplay { resume: true } => "resume replay, and cancel what holds it up".to_owned(),
        Step::HastenReplay { resume: false } => "cancel what holds replay up".to_owned(),
        Step::RelaxReplay => "let queries hold up replay as the settings say".to_owned(),
        Step::RecreateCluster { .. } => {
            "rewrite the keys of the cluster and take the leader lease".to_owned()
        }
        Step::SkipTimelines { newest } => format!("promote to a timeline above {newest}"),
        Step::AnnounceSwitchover { to } => format!("announce the switchover to {to}"),
        Step::ClearSwitchover => "withdraw the announced switchover".to_owned(),
        Step::Initdb => "create a new data directory (initdb)".to_owned(),
        Step::PostBootstrap => "create the users".to_owned(),
        Step::Start(StartAs::Primary { synchronous }) if synchronous.is_empty() => {
            "start Postgres as primary".to_owned()
        }
        Step::Start(StartAs::Primary { synchronous }) => {
            format!("start Postgres as primary, its commits waiting for {}", names(synchronous))
        }
        Step::Start(StartAs::Standby { upstream: Some(upstream) }) => {
            format!("start Postgres as a standby of {upstream}")
        }
        Step::Start(StartAs::Standby { upstream: None }) => {
            "start Postgres as a standby of nobody".to_owned()
        }
        Step::Stop(StopMode::Fast) => "stop Postgres".to_owned(),
        Step::Stop(StopMode::FastAwaiting { standbys }) => {
            format!("stop Postgres, cutting off standbys that hold that up but for {}", names(standbys))
        }
        Step::Stop(StopMode::Immediate) => "stop Postgres at once, as in a crash".to_owned(),
        Step::Promote => "promote Postgres".to_owned(),
        Step::Follow { upstream } => format!("follow {upstream}"),
        Step::SetSynchronous { names: set } if set.is_empty() => "let commits wait for nobody".to_owned(),
        Step::SetSynchronous { names: set } => format!("let commits wait for {}", names(set)),
        Step::CreateSlots { names: set } => format!("create replication slots for {}", names(set)),
        Step::Rollback => "stop Postgres and swap in the rolled back data".to_owned(),
        Step::Checkpoint => "CHECKPOINT".to_owned(),
        Step::ShortenStop { .. } => {
            "fill the WAL segment and CHECKPOINT, so that the stop is short".to_owned()
        }
        Step::Clone { from } => format!("clone the data of {from}"),
        Step::Rewind { from } => format!("rewind to {from}"),
    }
}

/// `a, b and c`.
pub(super) fn names(names: &[MemberName]) -> String {
    match names {
        [] => "nobody".to_owned(),
        [one] => one.to_string(),
        [first @ .., last] => {
            let first: Vec<&str> = first.iter().map(MemberName::as_str).collect();
            format!("{} and {last}", first.join(", "))
        }
    }
}
