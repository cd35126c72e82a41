//! What `outrider dcs rebuild` shows before it writes: which member remembers and has what, and which one would lead.

use outrider_dcs::Snapshot;
use outrider_ha::{MemberName, NotRebuilt, Rebuilding, Role};
use serde_json::{Value, json};

use super::{Heard, Said};
use crate::cli::format::{Format, Rows};

/// A table and a line for people, or the rows alone for programs.
pub(super) fn show(
    scope: &str,
    heard: &Heard,
    snapshot: &Snapshot,
    decided: &Result<Rebuilding, NotRebuilt>,
    format: Format,
) -> anyhow::Result<String> {
    let best = decided.as_ref().ok().map(|rebuilding| rebuilding.best.as_str());
    let columns = vec![
        "Member",
        "Answers",
        "Postgres",
        "TL",
        "LSN",
        "Term seen",
        "/sync seen",
        "Promotable then",
        "Leads",
    ];
    let rows = heard.iter().map(|(name, said)| row(name, said.as_ref(), best)).collect();
    let table = Rows { columns, rows }.show(format, |_, _, cell| cell)?;
    if format != Format::Table {
        return Ok(table);
    }
    let dcs = if snapshot.is_blank() {
        "the DCS has no keys of this cluster".to_owned()
    } else {
        format!("the DCS shows term {}, /sync of revision {}", snapshot.term, snapshot.sync_revision)
    };
    let mut text = format!("Cluster: {scope}; {dcs}\n{table}");
    if let Ok(rebuilding) = decided {
        text += &outlook(rebuilding);
    }
    Ok(text)
}

/// Which member would lead, and what that means.
fn outlook(rebuilding: &Rebuilding) -> String {
    let names = |members: &[MemberName]| -> String {
        members.iter().map(MemberName::as_str).collect::<Vec<_>>().join(", ")
    };
    let mut text = format!("{} leads then; ", rebuilding.best);
    match rebuilding.may_lose.as_slice() {
        [] => text += "it certainly has every acknowledged commit",
        [one] => text += &format!("MISSING, and what it alone has is lost: {one}"),
        several => text += &format!("MISSING, and what they alone have is lost: {}", names(several)),
    }
    if !rebuilding.silent.is_empty() {
        text += &format!("; did not answer, and could not have been promoted: {}", names(&rebuilding.silent));
    }
    text + "\n"
}

fn row(name: &str, said: Option<&Said>, best: Option<&str>) -> Vec<Value> {
    let leads = if best == Some(name) { json!("yes") } else { Value::Null };
    let Some(said) = said else {
        let mut row = vec![json!(name), json!("no")];
        row.resize(9, Value::Null);
        return row;
    };
    let sync = said.record.sync();
    let promotable: Vec<String> = sync.leader.into_iter().chain(sync.sync_standby).collect();
    let postgres = match (said.role, &said.system_identifier) {
        (Role::Primary, _) => "primary",
        (Role::Standby, _) => "standby",
        (Role::NotRunning, Some(_)) => "stopped",
        (Role::NotRunning, None) => "no data",
    };
    let seen = said.record.watermark;
    vec![
        json!(name),
        json!("yes"),
        json!(postgres),
        json!(said.timeline.get()),
        json!(said.position.to_string()),
        json!(seen.term.0),
        json!(seen.sync_revision),
        json!(promotable.join(", ")),
        leads,
    ]
}

#[cfg(test)]
mod tests {
    use outrider_ha::{SynchronousMode, Watermark, rebuild};
    use serde_json::from_value;

    use super::super::{Heard, witnesses};
    use super::*;

    fn heard() -> Heard {
        let said = |name: &str, role: &str, position: &str, sync_revision: u64, standby: &str| {
            from_value(json!({
                "name": name, "role": role, "system_identifier": "7", "timeline": 2, "position": position, "may_lead": true,
                "record": {"watermark": {"term": 9, "sync_revision": sync_revision},
                           "sync": {"leader": "n1", "quorum": 0, "sync_standby": standby}},
            }))
            .unwrap()
        };
        Heard::from([
            ("n1".to_owned(), None),
            ("n2".to_owned(), Some(said("n2", "standby", "0/5000000", 40, "n2"))),
            ("n3".to_owned(), Some(said("n3", "not_running", "0/4000000", 60, "n3"))),
        ])
    }

    #[test]
    fn a_person_sees_who_has_what_and_who_would_be_taken() {
        let heard = heard();
        let plan = |word| rebuild(&witnesses(&heard), &Watermark::default(), SynchronousMode::On, word);
        let refused = show("homepage", &heard, &Snapshot::default(), &plan(false), Format::Table).unwrap();
        let expected = "\
Cluster: homepage; the DCS has no keys of this cluster
+--------+---------+----------+----+-----------+-----------+------------+-----------------+-------+
| Member | Answers | Postgres | TL | LSN       | Term seen | /sync seen | Promotable then | Leads |
+=================================================================================================+
| n1     | no      |          |    |           |           |            |                 |       |
| n2     | yes     | standby  | 2  | 0/5000000 | 9         | 40         | n1, n2          |       |
| n3     | yes     | stopped  | 2  | 0/4000000 | 9         | 60         | n1, n3          |       |
+--------+---------+----------+----+-----------+-----------+------------+-----------------+-------+
";
        assert_eq!(refused, expected);
        let accepted = show("homepage", &heard, &Snapshot::default(), &plan(true), Format::Table).unwrap();
        assert!(
            accepted.ends_with("n3 leads then; MISSING, and what it alone has is lost: n1\n"),
            "{accepted}"
        );
    }
}
