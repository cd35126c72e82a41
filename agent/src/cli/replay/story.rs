//! The rounds to show: what was new, what was done, and why. Repetitions are only counted. Reads no file.

use std::io::IsTerminal as _;

use comfy_table::{ContentArrangement, Table, presets};
use jiff::Timestamp;
use outrider_ha::{Plan, Reason, Step, View};
use serde_json::{Value, json};

use super::{seen, steps};
use crate::cli::format;
use crate::report::recorder::Record;

/// Width of the output when it is not a terminal.
const WIDTH: u16 = 160;

/// What has been shown so far.
pub(super) struct Story {
    all: bool,
    rows: Vec<Row>,
    last: Option<Last>,
}

/// The previous round, shown or not.
struct Last {
    view: View,
    reason: Reason,
    steps: Vec<Step>,
    failure: Option<String>,
    /// Whether the last row shows it, or the one it repeats.
    shown: bool,
}

struct Row {
    at: Timestamp,
    version: String,
    seen: Vec<String>,
    steps: Vec<String>,
    label: &'static str,
    why: String,
    failure: Option<String>,
    /// What this version would decide instead.
    now: Option<String>,
    /// How many rounds like it followed, and when the last of them was.
    again: u64,
    until: Timestamp,
}

impl Story {
    /// Nothing yet. `all`: also rounds that changed nothing.
    pub(super) fn new(all: bool) -> Self {
        Story { all, rows: Vec::new(), last: None }
    }

    /// How many rounds are shown, including those that are only counted.
    pub(super) fn told(&self) -> usize {
        self.rows.iter().map(|row| 1 + usize::try_from(row.again).unwrap_or(usize::MAX)).sum()
    }

    /// Adds the next round. `shown`: whether it was asked for.
    pub(super) fn tell(&mut self, record: &Record, now: Option<&Plan>, shown: bool) {
        let seen = seen::news(self.last.as_ref().map(|last| &last.view), &record.view);
        let plan = &record.plan;
        let same = self.last.as_ref().is_some_and(|last| {
            (&last.reason, &last.steps, &last.failure) == (&plan.reason, &plan.steps, &record.failure)
        });
        let acts = plan.steps.iter().any(|step| *step != Step::RenewLease);
        let quiet = same && seen.is_empty() && !acts && record.failure.is_none() && now.is_none();
        let repeats =
            same && seen.is_empty() && now.is_none() && self.last.as_ref().is_some_and(|last| last.shown);
        let mut is_shown = false;
        if shown && (self.all || !quiet) {
            is_shown = true;
            match self.rows.last_mut().filter(|_| repeats && !self.all) {
                Some(row) => {
                    row.again += 1;
                    row.until = record.at;
                }
                None => self.rows.push(row(record, seen, now)),
            }
        }
        self.last = Some(Last {
            view: record.view.clone(),
            reason: plan.reason.clone(),
            steps: plan.steps.clone(),
            failure: record.failure.clone(),
            shown: is_shown,
        });
    }

    /// For people.
    pub(super) fn table(&self) -> String {
        if self.rows.is_empty() {
            return "no matching rounds\n".to_owned();
        }
        let mut table = Table::new();
        table.load_style(presets::ASCII_FULL_CONDENSED).set_content_arrangement(ContentArrangement::Dynamic);
        table.set_header(["Time (UTC)", "Seen", "Done", "Why"]);
        if !std::io::stdout().is_terminal() {
            table.set_width(WIDTH);
        }
        for row in &self.rows {
            table.add_row([time(row.at), row.seen.join("\n"), row.done(), row.reason()]);
        }
        format!("{table}\n")
    }

    /// For programs.
    pub(super) fn json(&self) -> anyhow::Result<String> {
        let row = |row: &Row| {
            json!({
                "at": row.at.to_string(),
                "version": row.version,
                "seen": row.seen,
                "done": row.steps,
                "reason": row.label,
                "why": row.why,
                "failure": row.failure,
                "now_decided": row.now,
                "repeated": row.again,
                "until": row.until.to_string(),
            })
        };
        format::json(&Value::Array(self.rows.iter().map(row).collect()))
    }
}

impl Row {
    fn done(&self) -> String {
        let mut done = if self.steps.is_empty() { vec!["nothing".to_owned()] } else { self.steps.clone() };
        done.extend(self.failure.as_ref().map(|failure| format!("FAILED: {failure}")));
        if self.again > 0 {
            done.push(format!("repeated {} times until {}", self.again, time(self.until)));
        }
        done.join("\n")
    }

    fn reason(&self) -> String {
        let now = self.now.as_ref().map(|now| format!("\nthis version would decide: {now}"));
        format!("{} ({}){}", self.why, self.label, now.unwrap_or_default())
    }
}

fn row(record: &Record, seen: Vec<String>, now: Option<&Plan>) -> Row {
    let told = |plan: &Plan| format!("{} [{}]", plan.reason, steps::all(&plan.steps).join(", "));
    Row {
        at: record.at,
        version: record.version.clone(),
        seen,
        steps: steps::all(&record.plan.steps),
        label: record.plan.reason.label(),
        why: record.plan.reason.to_string(),
        failure: record.failure.clone(),
        now: now.map(told),
        again: 0,
        until: record.at,
    }
}

fn time(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%M:%S%.3f").to_string()
}

#[cfg(test)]
mod tests {
    use outrider_ha::{MemberName, decide};

    use super::*;

    /// A standby of `p2`, with this test's changes.
    fn record(at: &str, change: impl FnOnce(&mut Value)) -> Record {
        let mut view = json!({
            "me": "p1",
            "dcs": {"seen": {"lease": {"theirs": {"holder": "p2"}}, "term": 4, "initialize": {"done": 7},
                "sync": {"leader": "p2", "standbys": ["p1"], "revision": 5}, "last_position": "0/0", "history": {"switches": []},
                "request": null, "switchover": null}},
            "local": {"postgres": {"standby": {"timeline": 3, "position": "0/64",
                "streaming": {"upstream": "p2", "active": true}, "promoting": false}}, "system": 7, "term": 4},
            "members": [{"name": "p2", "published": {"role": "primary", "timeline": 3, "position": "0/64", "streaming": false}}],
            "policy": {"ttl": 5000, "loop_wait": 1000, "maximum_lag_on_failover": 0, "primary_start_timeout": 300_000,
                "switchover_timeout": 5000, "step_down_margin": 500, "synchronous_mode": "on", "synchronous_node_count": 1},
            "job": null,
        });
        change(&mut view);
        let view: View = serde_json::from_value(view).unwrap();
        let plan = decide(&view);
        Record { at: at.parse().unwrap(), version: "0.1.0".to_owned(), view, plan, failure: None }
    }

    fn lost(view: &mut Value) {
        view["dcs"]["seen"]["lease"] = json!({"free": {"since": 20}});
        view["local"]["postgres"]["standby"]["streaming"]["active"] = json!(false);
        view["members"][0]["published"] = Value::Null;
        view["members"][0]["answer"] = json!("no_answer");
    }

    fn told() -> Story {
        let mut story = Story::new(false);
        for (at, seconds) in [("2026-11-24T03:14:00Z", 0), ("2026-11-24T03:14:30Z", 30)] {
            let further = |view: &mut Value| {
                view["local"]["postgres"]["standby"]["position"] = json!(format!("0/{:X}", 100 + seconds))
            };
            story.tell(&record(at, further), None, true);
        }
        let mut stood = record("2026-11-24T03:15:00.020Z", lost);
        stood.failure = Some("cannot acquire leader: the DCS is unreachable".to_owned());
        story.tell(&stood, None, true);
        for at in ["2026-11-24T03:15:00.1Z", "2026-11-24T03:15:00.2Z"] {
            story.tell(&Record { at: at.parse().unwrap(), ..stood.clone() }, None, true);
        }
        story
    }

    #[test]
    fn a_dba_reads_what_was_seen_what_was_done_and_why() {
        let table = told().table();
        for words in [
            "2026-11-24 03:14:00.000",
            "p2 holds the leader lease (term 4)",
            "/sync: p1 may be promoted in place of p2",
            "Postgres: standby, timeline 3, streaming from p2",
            "nobody holds the leader lease (term 4)",
            "p2 is gone from the DCS; asked, it does not answer",
            "take the leader lease",
            "FAILED: cannot acquire leader",
            "repeated 2 times until 2026-11-24 03:15:00.200",
            "no leader; standing for election (standing)",
        ] {
            // Cells are wrapped.
            let flat: String = table
                .split_whitespace()
                .filter(|word| !word.starts_with(['|', '+']))
                .collect::<Vec<_>>()
                .join(" ");
            let wrapped = words.split(' ').all(|word| flat.contains(word));
            assert!(wrapped, "{words:?} in\n{table}");
        }
        // The second round was like the first, but for its position.
        assert!(!table.contains("03:14:30"), "{table}");
        for debug in ["Some(", "MemberName", "None", "{"] {
            assert!(!table.contains(debug), "{debug} in\n{table}");
        }
    }

    #[test]
    fn only_what_is_new_is_told_as_seen() {
        let document: Value = serde_json::from_str(&told().json().unwrap()).unwrap();
        assert_eq!(document.as_array().unwrap().len(), 2, "{document}");
        let second = &document[1];
        let seen: Vec<&str> = second["seen"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
        assert_eq!(
            seen,
            [
                "nobody holds the leader lease (term 4)",
                "Postgres: standby, timeline 3, set to stream from p2, but receives no WAL, at 0/64",
                "p2 is gone from the DCS; asked, it does not answer",
            ]
        );
        assert_eq!((&second["reason"], &second["repeated"]), (&json!("standing"), &json!(2)));
    }

    #[test]
    fn every_step_has_words_without_names_of_types() {
        let (one, two) = (MemberName::from("p1"), MemberName::from("p2"));
        assert_eq!(steps::names(&[]), "nobody");
        assert_eq!(steps::names(&[one.clone(), two.clone(), one.clone()]), "p1, p2 and p1");
        let steps = steps::all(&[
            Step::RenewLease,
            Step::HandOverLease { to: two },
            Step::SetSynchronous { names: vec![one] },
        ]);
        assert_eq!(steps, ["hand the leader lease over to p2", "let commits wait for p1"]);
        assert_eq!(steps::all(&[Step::RenewLease]), ["renew the leader lease"]);
    }
}
