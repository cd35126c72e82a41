//! No modules of one parent import each other in a circle: each level of a crate can be read from the bottom to the top.
//!
//! The rule. At every level of a crate the modules that lie beside each other (`a` and `b` of `crate`, `c` and `d` of `crate::a`)
//! are ordered: when something inside one names something inside the other, then nothing of the other leads back, directly or
//! by way of a third. A module counts with all that is below it, its tests among it. A parent uses its children, and a child may
//! use what its parent itself holds: the two are one subject in two files. What the parent only passes on (`use b::Thing`)
//! belongs to the child that it came from, so a sibling that takes it from the parent takes it from there.

mod source;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs;

use crate::{Source, hold, sources, workspace};

use source::{Crate, Path, crates};

/// One module names something of another one beside it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Arrow {
    /// `path:line` and the words there.
    place: String,
    to: String,
}

/// What the modules of one parent use of each other: the first place for each pair.
type Level = BTreeMap<String, BTreeMap<String, Arrow>>;

/// What the modules of one crate use of each other, by their parent.
fn levels(of: &Crate) -> BTreeMap<Path, Level> {
    let mut levels: BTreeMap<Path, Level> = BTreeMap::new();
    for used in of.uses() {
        let shared = used.by.iter().zip(&used.what).take_while(|(one, other)| one == other).count();
        let (Some(from), Some(to)) = (used.by.get(shared), used.what.get(shared)) else { continue };
        let arrow = Arrow { place: used.place, to: to.clone() };
        let level = levels.entry(used.by[..shared].to_vec()).or_default();
        level.entry(from.clone()).or_default().entry(to.clone()).or_insert(arrow);
    }
    levels
}

/// The circles of one crate, a line for each: its modules, and the places that tie it.
fn circles(of: &Crate) -> Vec<String> {
    let levels = levels(of);
    let lines = levels.iter().flat_map(|(parent, level)| {
        let parent = if parent.is_empty() { "crate".to_owned() } else { parent.join("::") };
        in_level(level).into_iter().map(move |line| format!("{} {parent}: {line}", of.root))
    });
    lines.collect()
}

/// The shortest circle through each module that is in none of those already told.
fn in_level(level: &Level) -> Vec<String> {
    let mut told = BTreeSet::new();
    let mut lines = Vec::new();
    for start in level.keys() {
        if told.contains(start) {
            continue;
        }
        let Some(circle) = shortest(level, start) else { continue };
        let names: Vec<&str> =
            [start.as_str()].into_iter().chain(circle.iter().map(|it| it.to.as_str())).collect();
        let places: Vec<&str> = circle.iter().map(|arrow| arrow.place.as_str()).collect();
        lines.push(format!("{}\n      {}", names.join(" -> "), places.join("\n      ")));
        told.extend(circle.into_iter().map(|arrow| arrow.to));
    }
    lines
}

/// The arrows from `start` back to it.
fn shortest(level: &Level, start: &str) -> Option<Vec<Arrow>> {
    let mut ways = VecDeque::from([(start, Vec::new())]);
    let mut seen = BTreeSet::new();
    while let Some((at, way)) = ways.pop_front() {
        for (to, arrow) in level.get(at).into_iter().flatten() {
            let way: Vec<Arrow> = way.iter().chain([arrow]).cloned().collect();
            if to == start {
                return Some(way);
            }
            if seen.insert(to) {
                ways.push_back((to, way));
            }
        }
    }
    None
}

#[test]
fn modules_do_not_import_each_other_in_a_circle() {
    let crates = crates(&sources());
    assert!(crates.len() > 10, "only {} crates found", crates.len());
    let used: usize = crates.iter().map(|of| of.uses().len()).sum();
    assert!(used > 1000, "only {used} uses found: the reading is broken");
    hold("modules beside each other are used in one direction", crates.iter().flat_map(circles).collect());
}

/// The table in ARCHITECTURE.md: each line uses only what is below it, and every module stands there.
#[test]
fn the_map_of_the_program_is_true() {
    let text = fs::read_to_string(workspace().join("ARCHITECTURE.md")).unwrap();
    let map =
        text.split("## Inside the program").nth(1).expect("it has a map").split("\n## ").next().unwrap();
    let lines = map.lines().filter_map(|line| line.strip_prefix("| `")?.split(" |").next());
    let floors: BTreeMap<&str, usize> = lines
        .enumerate()
        .flat_map(|(at, names)| names.split(['`', ',', ' ']).map(move |name| (name, at)))
        .collect();
    let crates = crates(&sources());
    let program = crates.iter().find(|of| of.root == "agent/src/main.rs").expect("the program is a crate");
    let mut broken = Vec::new();
    for (from, arrows) in &levels(program)[&Path::new()] {
        for (to, arrow) in arrows {
            match (floors.get(from.as_str()), floors.get(to.as_str())) {
                (Some(above), Some(below)) if above < below => {}
                (Some(_), Some(_)) => broken.push(format!("{from} -> {to}: {}", arrow.place)),
                (None, _) => broken.push(format!("{from} is not in it")),
                (_, None) => broken.push(format!("{to} is not in it")),
            }
        }
    }
    hold("the map in ARCHITECTURE.md shows which module uses which", broken);
}

fn sample(files: &[(&str, &str)]) -> Vec<String> {
    let files =
        files.iter().map(|(path, text)| Source { path: (*path).to_owned(), text: (*text).to_owned() });
    let crates = crates(&files.collect::<Vec<_>>());
    assert_eq!(crates.len(), 1);
    circles(&crates[0])
}

#[test]
fn a_circle_is_found_at_each_level_and_told_with_what_ties_it() {
    let found = sample(&[
        ("x/src/lib.rs", "//! X.\nmod a;\nmod b;\nmod c;\npub use a::Thing;\n"),
        ("x/src/a.rs", "//! A.\nmod one;\nmod two;\n\npub struct Thing(crate::b::Work);\n"),
        ("x/src/b.rs", "//! B.\nuse std::{fmt, io};\n\nuse super::{\n    c,\n    Thing as Other,\n};\n"),
        ("x/src/c.rs", "//! C.\n// use crate::b;\nconst TEXT: &str = \"use crate::b;\";\n"),
        ("x/src/a/one.rs", "//! One.\nmod tests {\n    use super::super::two::*;\n}\n"),
        ("x/src/a/two.rs", "//! Two.\nfn two() {\n    super::one::one();\n}\n"),
    ]);
    assert_eq!(
        found,
        [
            "x/src/lib.rs crate: a -> b -> a\n      x/src/a.rs:5: crate::b::Work\n      x/src/b.rs:6: super::Thing",
            "x/src/lib.rs a: one -> two -> one\n      x/src/a/one.rs:3: super::super::two\n      x/src/a/two.rs:3: super::one::one",
        ]
    );
}

#[test]
fn a_longer_circle_is_told_in_its_order() {
    let found = sample(&[
        ("x/src/main.rs", "mod a;\nmod b;\nmod c;\n"),
        ("x/src/a.rs", "use crate::b;\n"),
        ("x/src/b.rs", "use crate::c::C;\n"),
        ("x/src/c.rs", "pub(in crate::c) fn f(x: &crate::a::A) {}\n"),
    ]);
    assert_eq!(found.len(), 1);
    assert!(found[0].starts_with("x/src/main.rs crate: a -> b -> c -> a\n"), "{found:?}");
}

#[test]
fn layers_and_what_a_child_takes_of_its_own_parent_are_no_circle() {
    let found = sample(&[
        ("x/src/lib.rs", "mod a;\nmod b;\npub struct Of;\npub use b::B;\n"),
        (
            "x/src/a.rs",
            "mod part;\nuse crate::{B, Of};\nuse part::Part;\nstruct Whole;\nfn f() { crate::b::f(); }\n",
        ),
        (
            "x/src/a/part.rs",
            "use super::Whole;\nuse crate::Of;\n#[cfg(test)]\nmod tests {\n    use super::*;\n}\n",
        ),
        ("x/src/b.rs", "use super::Of;\n"),
    ]);
    assert_eq!(found, [""; 0]);
}
