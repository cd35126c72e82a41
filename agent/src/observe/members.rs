//! Reads the other members' states from the JSON they publish in the DCS and from their `GET /patroni`. Both are in
//! Patroni's format, so Patroni members are understood too.

use outrider_dcs::Snapshot;
use outrider_ha::{Answer, Hold, Member, MemberName, MemberState, Role, SystemId, Tags, Watermark};
use outrider_wal::{Lsn, TimelineId};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::limits::{self, Limits};
use crate::config;
use crate::member::replay;
use crate::state::DcsRecord;

/// All members but `me`, by name ascending, none of them asked yet.
pub(super) fn others(snapshot: &Snapshot, me: &MemberName) -> Vec<Member> {
    let leader = limits::of_leader(snapshot);
    let mut members: Vec<Member> = snapshot
        .members
        .iter()
        .filter(|member| member.name != me.as_str())
        .map(|member| Member {
            name: MemberName::from(member.name.as_str()),
            tags: tags(member.value.get("tags").unwrap_or(&Value::Null)),
            published: Some(published(&member.value, &leader)),
            answer: Answer::NotAsked,
        })
        .collect();
    members.sort_by(|one, other| one.name.cmp(&other.name));
    members
}

/// Adds the members that were in the DCS before its keys were lost.
pub(super) fn add_remembered(members: &mut Vec<Member>, record: &DcsRecord, me: &MemberName) {
    for name in record.members.keys().map(|name| MemberName::from(name.as_str())) {
        if name != *me && members.iter().all(|member| member.name != name) {
            let tags = Tags::default();
            members.push(Member { name, tags, published: None, answer: Answer::NotAsked });
        }
    }
    members.sort_by(|one, other| one.name.cmp(&other.name));
}

/// What those said that were asked.
pub(super) fn take_in(members: &mut [Member], answers: Vec<(MemberName, Option<Value>)>) {
    for (name, status) in answers {
        if let Some(member) = members.iter_mut().find(|member| member.name == name) {
            let state = status.as_ref().and_then(answered);
            member.answer = state.map_or(Answer::NoAnswer, Answer::Answered);
        }
    }
}

/// Patroni's tags; booleans override priorities.
pub(crate) fn tags(tags: &Value) -> Tags {
    tags.as_object().map(config::policy_tags).unwrap_or_default()
}

/// The state in a member's key in the DCS. `leader`: the leader's values of the parameters that a standby must not have
/// less of.
fn published(member: &Value, leader: &Limits) -> MemberState {
    let replay = member.get("replay_lsn").map(|_| replay::read(member, lsn(member, "replay_lsn")));
    let lacks = replay.as_ref().is_some_and(|replay| matches!(replay.hold, Some(Hold::Parameters { .. })));
    MemberState {
        role: role(member),
        timeline: timeline(member),
        position: lsn(member, "xlog_location"),
        streaming: text(member, "replication_state") == Some("streaming"),
        awaiting_checkpoint: member.get("checkpoint_after_promote") == Some(&Value::Bool(false)),
        lineage: ours(member, "timelines").unwrap_or_default(),
        system: member.pointer("/outrider/system_identifier").and_then(Value::as_str).and_then(system),
        watermark: Watermark::default(),
        finds_blank: None,
        short: lacks || limits::are_short(&limits::published(member), leader),
        replay,
    }
}

/// The state in the answer to `GET /patroni`; `None` when it is not one. Without positions its Postgres did not answer.
pub(crate) fn answered(status: &Value) -> Option<MemberState> {
    text(status, "state")?;
    let xlog = status.get("xlog").or_else(|| status.get("wal"));
    let position = |key| xlog.map_or(Lsn::INVALID, |xlog| lsn(xlog, key));
    Some(MemberState {
        role: if xlog.is_some() { role(status) } else { Role::NotRunning },
        timeline: timeline(status),
        position: position("location").max(position("received_location")).max(position("replayed_location")),
        streaming: text(status, "replication_state") == Some("streaming"),
        awaiting_checkpoint: false,
        lineage: ours(status, "timelines").unwrap_or_default(),
        system: text(status, "database_system_identifier").and_then(system),
        watermark: ours(status, "watermark").unwrap_or_default(),
        finds_blank: ours(status, "finds_blank"),
        replay: xlog.filter(|xlog| xlog.get("replayed_location").is_some()).map(|xlog| {
            let mut replay = replay::read(status, lsn(xlog, "replayed_location"));
            // Patroni's members say no more than this.
            if xlog.get("paused") == Some(&Value::Bool(true)) {
                replay.hold = Some(Hold::Paused);
            }
            replay
        }),
        short: false,
    })
}

/// What only Outrider's members publish.
fn ours<T: DeserializeOwned>(member: &Value, key: &str) -> Option<T> {
    T::deserialize(member.get("outrider")?.get(key)?).ok()
}

fn role(member: &Value) -> Role {
    let runs = matches!(text(member, "state"), Some("running" | "streaming" | "in archive recovery"));
    match text(member, "role") {
        Some("primary" | "master") if runs => Role::Primary,
        Some("replica" | "standby_leader") if runs => Role::Standby,
        Some(_) | None => Role::NotRunning,
    }
}

fn timeline(member: &Value) -> TimelineId {
    let number = member.get("timeline").and_then(Value::as_u64).unwrap_or_default();
    TimelineId::new(u32::try_from(number).unwrap_or_default())
}

fn lsn(value: &Value, key: &str) -> Lsn {
    value.get(key).and_then(Value::as_u64).map_or(Lsn::INVALID, Lsn::new)
}

fn text<'value>(value: &'value Value, key: &str) -> Option<&'value str> {
    value.get(key)?.as_str()
}

fn system(text: &str) -> Option<SystemId> {
    text.parse().ok().map(SystemId)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use outrider_ha::{Lacking, Query, Replay};
    use serde_json::json;

    use super::*;
    use crate::member::replay::{shown, shown_seldom};

    #[test]
    fn a_standby_that_answers_is_read() {
        let state = answered(&json!({
            "state": "running", "role": "replica", "timeline": 3, "replication_state": "streaming",
            "xlog": {"received_location": 100, "replayed_location": 90}, "database_system_identifier": "7"
        }))
        .unwrap();
        assert_eq!((state.role, state.position, state.streaming), (Role::Standby, Lsn::new(100), true));
        assert_eq!((state.timeline, state.system), (TimelineId::new(3), Some(SystemId(7))));
    }

    #[test]
    fn what_holds_replay_up_is_read_as_it_is_shown() {
        let queries = vec![Query { pid: 7, age: Duration::from_secs(90) }];
        let hold = Some(Hold::Conflict { queries });
        let replay = Replay { position: Lsn::new(90), delay: Duration::from_secs(3), hold };
        let state = answered(&json!({
            "state": "running", "role": "replica", "xlog": {"received_location": 100, "replayed_location": 90},
            "outrider": {"replay": shown(&replay)}
        }));
        assert_eq!(state.unwrap().replay, Some(replay.clone()));
        let mut member = json!({"state": "running", "role": "replica", "replay_lsn": 90});
        assert_eq!(published(&member, &Limits::new()).replay.unwrap().hold, None);
        member["outrider"] = json!({"replay": shown_seldom(replay.clone())});
        let hold = Some(Hold::Conflict { queries: vec![Query { pid: 7, age: Duration::from_secs(64) }] });
        assert_eq!(published(&member, &Limits::new()).replay, Some(Replay { hold, ..replay.clone() }));
        let lacking = vec![Lacking { name: "max_connections".to_owned(), here: 40, primary: 60 }];
        let replay = Replay { hold: Some(Hold::Parameters { lacking }), ..replay };
        member["outrider"] = json!({"replay": shown(&replay)});
        assert_eq!(published(&member, &Limits::new()).replay, Some(replay));
        let patronis = json!({"state": "running", "xlog": {"replayed_location": 90, "paused": true}});
        assert_eq!(answered(&patronis).unwrap().replay.unwrap().hold, Some(Hold::Paused));
    }

    #[test]
    fn a_member_whose_postgres_does_not_answer_is_neither_primary_nor_standby() {
        let state = answered(&json!({"state": "starting", "role": "primary"})).unwrap();
        assert_eq!(state.role, Role::NotRunning);
        assert_eq!(answered(&json!({})), None);
    }

    #[test]
    fn the_booleans_win_over_the_priorities() {
        assert!(!tags(&json!({"nofailover": true, "failover_priority": 5})).may_lead());
        assert!(!tags(&json!({"failover_priority": 0})).may_lead());
        assert!(tags(&Value::Null).may_lead());
        assert!(tags(&json!({"sync_priority": 0})).nosync);
    }
}
