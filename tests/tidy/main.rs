//! The rules of the house that can be checked by reading the sources. Not a linter: clippy and rustfmt do that work.
#![expect(clippy::unwrap_used, reason = "a test ends where it meets what it did not expect")]

mod circles;
mod effects;

use std::fs;
use std::path::{Path, PathBuf};

/// Lines that a file of the product may have, with its units.
const LINES_MAX: usize = 400;
/// File names that say nothing.
const DRAWERS: [&str; 8] =
    ["utils.rs", "util.rs", "common.rs", "helpers.rs", "helper.rs", "misc.rs", "manager.rs", "mod.rs"];

struct Source {
    /// Relative to the workspace, with forward slashes.
    path: String,
    text: String,
}

impl Source {
    /// The lines before the unit tests.
    fn product(&self) -> &str {
        self.text.split("\n#[cfg(test)]").next().unwrap_or_default()
    }

    /// `sample.rs` is what the tests of several modules begin with.
    fn is_test(&self) -> bool {
        self.path.starts_with("tests/")
            || self.path.contains("/tests/")
            || ["/tests.rs", "/sample.rs"].iter().any(|name| self.path.ends_with(name))
    }
}

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ lies in the workspace").to_path_buf()
}

fn sources() -> Vec<Source> {
    let root = workspace();
    let mut found = Vec::new();
    for top in ["agent", "tests", "benches"] {
        collect(&root, &root.join(top), &mut found);
    }
    assert!(found.len() > 50, "only {} sources found: the walk is broken", found.len());
    found
}

fn collect(root: &Path, directory: &Path, found: &mut Vec<Source>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            if path.file_name().is_none_or(|name| name != "target") {
                collect(root, &path, found);
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            let path = path.strip_prefix(root).unwrap().to_string_lossy().replace('\\', "/");
            found.push(Source { path, text });
        }
    }
}

/// Fails with every place at which the rule is broken.
fn hold(rule: &str, broken: Vec<String>) {
    assert!(broken.is_empty(), "{rule}:\n  {}", broken.join("\n  "));
}

/// `path:line` of every line of the product for which `offends` holds; comments are left out.
fn offending_lines(
    sources: &[Source],
    wanted: impl Fn(&Source) -> bool,
    offends: impl Fn(&str) -> bool,
) -> Vec<String> {
    let mut broken = Vec::new();
    for source in sources.iter().filter(|source| wanted(source)) {
        for (number, line) in source.product().lines().enumerate() {
            if !line.trim_start().starts_with("//") && offends(line) {
                broken.push(format!("{}:{}", source.path, number + 1));
            }
        }
    }
    broken
}

#[test]
fn the_first_line_of_every_file_says_what_it_holds() {
    let broken =
        sources().into_iter().filter(|source| !source.text.starts_with("//! ")).map(|source| source.path);
    hold("the first line is a `//!` sentence", broken.collect());
}

#[test]
fn no_file_is_a_drawer() {
    let is_drawer = |source: &Source| DRAWERS.iter().any(|name| source.path.ends_with(&format!("/{name}")));
    hold(
        "the name of a file is its subject",
        sources().into_iter().filter(is_drawer).map(|s| s.path).collect(),
    );
}

#[test]
fn no_file_is_longer_than_a_reader_holds() {
    let long = sources().into_iter().filter(|source| !source.is_test()).filter_map(|source| {
        let lines = source.text.lines().count();
        (lines > LINES_MAX).then(|| format!("{} has {lines}", source.path))
    });
    hold(&format!("at most {LINES_MAX} lines; units may lie in a tests.rs"), long.collect());
}

#[test]
fn the_product_has_no_loose_ends() {
    let loose = ["todo!(", "unimplemented!(", "dbg!(", ".unwrap()", "#[ignore", "TODO", "FIXME", "#[allow("];
    let broken = offending_lines(
        &sources(),
        |source| !source.is_test(),
        |line| loose.iter().any(|end| line.contains(end)),
    );
    hold("no unwrap, todo, ignored test or blanket allow", broken);
}

#[test]
fn no_test_sleeps_or_is_ignored() {
    let is_test = |source: &Source| source.is_test() && !source.path.starts_with("tests/tidy/");
    let broken = offending_lines(&sources(), is_test, |line| line.contains("#[ignore"));
    hold("no test is ignored", broken);
    // The bed's and the contract suite's waits poll inside a loop with a deadline; nothing else sleeps.
    let sleeps = |line: &str| line.contains("sleep(");
    let in_tests = |source: &Source| source.path.starts_with("tests/system/");
    hold(
        "a system test waits for a condition, it does not sleep",
        offending_lines(&sources(), in_tests, sleeps),
    );
}

#[test]
fn only_the_round_and_the_replay_decide() {
    let wanted = |source: &Source| source.path.starts_with("agent/src/");
    let allowed = ["agent/src/round.rs", "agent/src/cli/replay.rs"];
    let calls = offending_lines(&sources(), wanted, |line| line.contains("decide(&"));
    let broken =
        calls.iter().filter(|place| !allowed.iter().any(|path| place.starts_with(path))).cloned().collect();
    hold("only round.rs and replay call decide", broken);
    assert!(
        calls.iter().any(|place| place.starts_with("agent/src/round.rs")),
        "the round does not decide: {calls:?}"
    );
}

#[test]
fn only_the_clock_reads_the_time() {
    let wanted = |source: &Source| {
        // The supervisor has the calls to the kernel in one file, the reading of the time among them.
        source.path.starts_with("agent/")
            && !source.is_test()
            && !source.path.ends_with("/src/clock.rs")
            && source.path != "agent/supervisor/src/system.rs"
    };
    // Tokio's `Instant`, too; without a bracket, since it may be handed on as a function.
    let reads = ["Instant::now", "SystemTime::now", "Timestamp::now", "Zoned::now", "clock_gettime"];
    let broken = offending_lines(&sources(), wanted, |line| reads.iter().any(|read| line.contains(read)));
    hold("only the clock.rs of a crate reads the time", broken);
}

#[test]
fn the_vocabulary_is_no_std_and_depends_on_nothing() {
    let pure =
        [("wal", &["serde"][..]), ("ha", &["outrider-wal", "serde"][..]), ("jobs", &["outrider-wal"][..])];
    for (package, allowed) in pure {
        let library = fs::read_to_string(workspace().join(format!("agent/{package}/src/lib.rs"))).unwrap();
        assert!(library.contains("#![no_std]"), "agent/{package} is no_std");
        hold(
            &format!("agent/{package} depends on {allowed:?} only"),
            dependencies(package, |name| !allowed.contains(&name)),
        );
    }
}

#[test]
fn the_nouns_do_not_use_each_other_or_a_verb() {
    for (package, rests_on) in [
        ("supervisor", &[][..]),
        ("store", &[]),
        ("dcs", &[]),
        ("postgres", &["outrider-supervisor"]),
        ("archive", &["outrider-store"]),
        ("restore", &["outrider-archive", "outrider-store"]),
    ] {
        let foreign =
            |name: &str| name.starts_with("outrider") && name != "outrider-wal" && !rests_on.contains(&name);
        hold(&format!("agent/{package} uses the vocabulary only"), dependencies(package, foreign));
    }
}

#[test]
fn every_queue_has_a_bound() {
    let unbounded = ["unbounded_channel", "mpsc::channel()"];
    let broken =
        offending_lines(&sources(), |_| true, |line| unbounded.iter().any(|queue| line.contains(queue)));
    let here = |place: &String| !place.starts_with("tests/tidy/");
    hold("no unbounded channel", broken.into_iter().filter(here).collect());
}

/// The dependencies of a crate of the agent for which `offends` holds; development dependencies are left out.
fn dependencies(package: &str, offends: impl Fn(&str) -> bool) -> Vec<String> {
    let manifest = fs::read_to_string(workspace().join(format!("agent/{package}/Cargo.toml"))).unwrap();
    let section = manifest.split("\n[dependencies]\n").nth(1).expect("every crate has dependencies");
    let section = section.split("\n[").next().unwrap_or_default();
    let names = section.lines().filter_map(|line| line.split_once('=')).map(|(name, _)| name.trim());
    names.filter(|name| offends(name)).map(str::to_owned).collect()
}
