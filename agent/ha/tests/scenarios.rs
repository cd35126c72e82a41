//! One situation a file: what a member sees, and the plan that it must make of it. Holds no expectation of its own.
//!
//! A file in `scenarios/` is a title (`# in words`), YAML with the changes to a named base view, a line `---`, and the
//! plan. `UPDATE_EXPECT=1 cargo test -p outrider-ha` writes the plans anew; read the diff before you believe it.
#![expect(clippy::unwrap_used, reason = "a test ends where it meets what it did not expect")]

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;

use outrider_ha::{Dcs, Lease, Plan, Postgres, Reason, View, decide, invariant};
use serde_json::{Map, Value};

#[path = "scenarios/bases.rs"]
mod bases;

struct Scenario {
    name: String,
    path: PathBuf,
    situation: String,
    expected: String,
    view: View,
}

fn scenarios() -> Vec<Scenario> {
    let directory = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios");
    let mut paths: Vec<PathBuf> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "txt"))
        .collect();
    paths.sort();
    paths.into_iter().map(read).collect()
}

fn read(path: PathBuf) -> Scenario {
    let name = path.file_stem().unwrap().to_string_lossy().into_owned();
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.starts_with("# "), "{name}: the first line is a title, `# ...`");
    let (situation, expected) = text.split_once("---\n").unwrap_or_else(|| panic!("{name}: no line `---`"));
    let mut changes: Map<String, Value> =
        serde_saphyr::from_str(situation).unwrap_or_else(|fault| panic!("{name}: {fault}"));
    let base = changes.remove("base").unwrap_or_else(|| panic!("{name}: no base"));
    let mut view = serde_json::to_value(bases::named(base.as_str().unwrap_or_default())).unwrap();
    merge(&mut view, Value::Object(changes));
    let view = serde_json::from_value(view).unwrap_or_else(|fault| panic!("{name}: no view: {fault}"));
    let (situation, expected) = (situation.to_owned(), expected.to_owned());
    Scenario { name, path, situation, expected, view }
}

/// A merge of objects, in which null takes away. A list of things with names is changed like an object of them; the
/// only field of an enum gives way to another one.
fn merge(base: &mut Value, change: Value) {
    match (base, change) {
        (Value::Object(base), Value::Object(change)) => {
            let is_variant = base.len() == 1 && change.len() == 1;
            if is_variant && base.keys().next() != change.keys().next() {
                base.clear();
            }
            for (key, change) in change {
                if change.is_null() {
                    base.remove(&key);
                } else {
                    merge(base.entry(key).or_insert(Value::Null), change);
                }
            }
        }
        (Value::Array(base), Value::Object(change)) => merge_named(base, change),
        (base, change) => *base = change,
    }
}

fn merge_named(base: &mut Vec<Value>, change: Map<String, Value>) {
    for (name, change) in change {
        let place = base.iter().position(|one| one["name"] == name.as_str());
        match (place, change) {
            (Some(place), Value::Null) => drop(base.remove(place)),
            (None, Value::Null) => panic!("there is no {name} to take away"),
            (Some(place), change) => merge(&mut base[place], change),
            (None, mut change) => {
                change["name"] = name.into();
                base.push(change);
            }
        }
    }
    base.sort_by_key(|one| one["name"].as_str().map(str::to_owned));
}

/// The plan as a person reads it: the reason, then a step a line.
fn in_words(plan: &Plan) -> String {
    let mut words = format!("{}: {}\n", plan.reason.label(), plan.reason);
    for step in &plan.steps {
        let (step, details) = match serde_json::to_value(step).unwrap() {
            Value::Object(step) => step.into_iter().next().map(|(name, fields)| (name, format!(" {fields}"))),
            name => name.as_str().map(|name| (name.to_owned(), String::new())),
        }
        .unwrap();
        writeln!(words, "- {step}{details}").unwrap();
    }
    if let Some(delay) = plan.look_again {
        writeln!(words, "look again in {} ms", delay.as_millis()).unwrap();
    }
    words
}

#[test]
fn every_situation_gives_the_plan_in_its_file() {
    let update = std::env::var_os("UPDATE_EXPECT").is_some_and(|value| value == "1");
    let mut wrong = String::new();
    for scenario in scenarios() {
        let plan = in_words(&decide(&scenario.view));
        if plan == scenario.expected {
            continue;
        }
        if update {
            fs::write(&scenario.path, format!("{}---\n{plan}", scenario.situation)).unwrap();
            continue;
        }
        let Scenario { name, expected, .. } = scenario;
        writeln!(wrong, "\n{name}\n  expected:\n{expected}\n  is:\n{plan}").unwrap();
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn no_plan_of_a_situation_breaks_a_rule() {
    for scenario in scenarios() {
        let checked = invariant::check(&scenario.view, &decide(&scenario.view));
        assert_eq!(checked, Ok(()), "{}", scenario.name);
    }
}

#[test]
fn a_recorded_view_gives_the_same_plan_again() {
    for scenario in scenarios() {
        let recorded = serde_json::to_string(&scenario.view).unwrap();
        let view: View = serde_json::from_str(&recorded).unwrap();
        assert_eq!(view, scenario.view, "{}", scenario.name);
        let plan = decide(&view);
        assert_eq!(plan, decide(&scenario.view), "{}", scenario.name);
        let recorded = serde_json::to_string(&plan).unwrap();
        assert_eq!(serde_json::from_str::<Plan>(&recorded).unwrap(), plan, "{}", scenario.name);
    }
}

#[test]
fn every_reason_has_a_situation() {
    let reached: BTreeSet<&str> =
        scenarios().iter().map(|scenario| decide(&scenario.view).reason.label()).collect();
    let missing: Vec<&&str> = Reason::LABELS.iter().filter(|label| !reached.contains(**label)).collect();
    assert!(missing.is_empty(), "no situation leads to {missing:?}");
}

#[test]
fn every_cell_of_the_grid_has_a_situation() {
    let reached: BTreeSet<(&str, &str)> =
        scenarios().iter().map(|scenario| (row(&scenario.view), column(&scenario.view))).collect();
    let rows = ["silent", "free", "mine", "theirs", "under my name"];
    let columns = ["primary", "standby", "starting", "unresponsive", "stopped", "empty", "unusable"];
    let mut missing = Vec::new();
    for row in rows {
        missing.extend(columns.iter().map(|column| (row, *column)).filter(|cell| !reached.contains(cell)));
    }
    assert!(missing.is_empty(), "no situation in {missing:?}");
}

fn row(view: &View) -> &'static str {
    match &view.dcs {
        Dcs::Silent { .. } => "silent",
        Dcs::Seen(cluster) => match &cluster.lease {
            Lease::Free { .. } => "free",
            Lease::Mine => "mine",
            Lease::Theirs { holder } if *holder == view.me => "under my name",
            Lease::Theirs { .. } => "theirs",
        },
    }
}

fn column(view: &View) -> &'static str {
    match view.local.postgres {
        Postgres::Primary { .. } => "primary",
        Postgres::Standby { .. } => "standby",
        Postgres::Starting { .. } => "starting",
        Postgres::Unresponsive { .. } => "unresponsive",
        Postgres::Stopped { .. } => "stopped",
        Postgres::Empty => "empty",
        Postgres::Unusable(_) => "unusable",
    }
}
