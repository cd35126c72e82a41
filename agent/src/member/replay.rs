//! How far a standby has replayed and what holds it up: as its Postgres says, and as members tell each other and people.

use std::time::Duration;

use outrider_ha::{Hold, Lacking, Query, Replay};
use outrider_postgres::{Observation, Role};
use outrider_wal::Lsn;
use serde::Deserialize as _;
use serde_json::{Map, Value, json};

/// Of this standby; `None` for what is none.
pub(crate) fn of(seen: &Observation) -> Option<Replay> {
    let Role::Standby { replayed, replay_paused, lacking, apply_delay_seconds, blockers, .. } = &seen.role
    else {
        return None;
    };
    let age = |seconds: f64| Duration::try_from_secs_f64(seconds).unwrap_or_default();
    let queries: Vec<Query> =
        blockers.iter().map(|blocker| Query { pid: blocker.pid, age: age(blocker.age_seconds) }).collect();
    let lacking: Vec<Lacking> = lacking
        .iter()
        .map(|one| Lacking { name: one.name.clone(), here: one.here, primary: one.primary })
        .collect();
    let hold = match (replay_paused, queries.is_empty()) {
        (true, _) if !lacking.is_empty() => Some(Hold::Parameters { lacking }),
        (true, _) => Some(Hold::Paused),
        (false, false) => Some(Hold::Conflict { queries }),
        (false, true) => None,
    };
    Some(Replay { position: *replayed, delay: age(*apply_delay_seconds), hold })
}

/// What holds replay up, for other members and for people; `why` in words.
pub(crate) fn shown(replay: &Replay) -> Value {
    let mut shown = Map::new();
    let mut put = |key: &str, value: Value| shown.insert(key.to_owned(), value);
    if let Some(cause) = replay.cause() {
        put("why", json!(cause.to_string()));
    }
    if !replay.delay.is_zero() {
        put("delay_seconds", json!(replay.delay.as_secs_f64()));
    }
    match &replay.hold {
        None => {}
        Some(Hold::Paused) => drop(put("hold", json!("paused"))),
        Some(Hold::Parameters { lacking }) => {
            put("hold", json!("parameters"));
            put("lacking", json!(lacking));
        }
        Some(Hold::Conflict { queries }) => {
            put("hold", json!("conflict"));
            let query = |query: &Query| json!({"pid": query.pid, "seconds": query.age.as_secs()});
            put("queries", queries.iter().map(query).collect());
        }
    }
    Value::Object(shown)
}

/// The same for the DCS, with ages that double, because others would change every second.
pub(crate) fn shown_seldom(mut replay: Replay) -> Value {
    if let Some(Hold::Conflict { queries }) = &mut replay.hold {
        for query in queries {
            query.age =
                Duration::from_secs(query.age.as_secs().checked_ilog2().map_or(0, |power| 1 << power));
        }
    }
    shown(&replay)
}

/// What is under `outrider`, of a member's entry or answer, as [`shown`] writes it.
pub(crate) fn read(member: &Value, position: Lsn) -> Replay {
    let ours = member.pointer("/outrider/replay").unwrap_or(&Value::Null);
    let seconds = |value: &Value, key: &str| {
        let seconds = value.get(key).and_then(Value::as_f64).unwrap_or_default();
        Duration::try_from_secs_f64(seconds).unwrap_or_default()
    };
    let pid = |query: &Value| query.get("pid")?.as_i64()?.try_into().ok();
    let list = |key: &str| ours.get(key).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let hold = match ours.get("hold").and_then(Value::as_str) {
        Some("paused") => Some(Hold::Paused),
        Some("parameters") => {
            let lacking = list("lacking").iter().filter_map(|one| Lacking::deserialize(one).ok());
            Some(Hold::Parameters { lacking: lacking.collect() })
        }
        Some("conflict") => {
            let query = |query| Some(Query { pid: pid(query)?, age: seconds(query, "seconds") });
            Some(Hold::Conflict { queries: list("queries").iter().filter_map(query).collect() })
        }
        Some(_) | None => None,
    };
    Replay { position, delay: seconds(ours, "delay_seconds"), hold }
}
