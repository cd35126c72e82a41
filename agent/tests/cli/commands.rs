//! Usage, `wal-push` and `wal-fetch` without an agent, and `replay`.

use std::fs;

use crate::program::{run, run_in};

/// A round as a standby recorded it, with what it decided.
const ROUND: &str = r#"{"at":"2026-11-24T11:18:19Z","version":"0.1.0","view":{"me":"p1","dcs":{"silent":{"since":100}},
"local":{"postgres":"empty","system":null,"term":4},"members":[],"policy":{"ttl":5000,"loop_wait":1000,
"maximum_lag_on_failover":0,"primary_start_timeout":300000,"switchover_timeout":5000,"step_down_margin":500,
"synchronous_mode":"on","synchronous_node_count":1},"job":null},
"plan":{"reason":"dcs_silent_waiting","steps":[],"look_again":null}}"#;

#[test]
fn help_is_no_error_and_wrong_usage_is_64() {
    let help = run(&["--help"]);
    assert_eq!(help.code, 0);
    for command in [
        "agent",
        "supervise",
        "list",
        "switchover",
        "failover",
        "history",
        "show-config",
        "check-config",
        "wal-push",
        "wal-fetch",
        "replay",
        "version",
    ] {
        assert!(
            help.out.lines().any(|line| line.trim_start().starts_with(command)),
            "{command} in {}",
            help.out
        );
    }
    for wrong in
        [vec![], vec!["frobnicate"], vec!["wal-fetch", "x"], vec!["list", "--format", "xml"], vec!["list"]]
    {
        let run = run(&wrong);
        assert_eq!((run.code, run.out.as_str()), (64, ""), "{wrong:?}");
        assert!(!run.err.is_empty(), "{wrong:?}");
    }
    let asked = run(&["help"]);
    assert_eq!((asked.code, asked.out.contains("switchover")), (0, true), "{asked:?}");
    assert!(run(&["help", "replay"]).out.contains("--around"));
    assert_eq!(run(&["version"]).out, format!("outrider {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn the_handover_must_fit_into_the_grace_period() {
    let times = ["--handover-timeout", "30s", "--grace-period", "10s"];
    let run =
        run(&[&["supervise", "--data-dir", "/nonexistent/data", "--bin-dir", "/x"], &times[..]].concat());
    assert_eq!(run.code, 64);
    assert!(run.err.contains("--handover-timeout must be shorter than --grace-period"), "{}", run.err);
}

#[test]
fn without_an_agent_nothing_is_archived() {
    let run = run(&["wal-push", "--socket", "/nonexistent/archive.sock", "pg_wal/000000010000000000000001"]);
    assert_eq!(run.code, 1);
    assert!(run.err.contains("no answer from the agent at /nonexistent/archive.sock"), "{}", run.err);
}

#[test]
fn a_standby_goes_on_without_an_agent_and_a_recovery_stops() {
    let directory = tempfile::tempdir().unwrap();
    let arguments =
        ["wal-fetch", "--socket", "/nonexistent/archive.sock", "00000002.history", "pg_wal/RECOVERYHISTORY"];
    // Neither file: a standby that is being promoted, which must not be stopped either.
    assert_eq!(run_in(directory.path(), &arguments, &[]).code, 1);
    fs::write(directory.path().join("recovery.signal"), "").unwrap();
    assert_eq!(run_in(directory.path(), &arguments, &[]).code, 254);
    // Mistyped, it must not be taken for "no such file" either.
    assert_eq!(run_in(directory.path(), &["wal-fetch", "--sock", "x"], &[]).code, 254);
}

#[test]
fn a_recovery_without_an_agent_asks_the_archive_itself_when_it_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let here = directory.path();
    let member = format!(
        "scope: demo\nname: p1\netcd3: {{hosts: [\"127.0.0.1:2379\"]}}\narchive: {{store: \"file://{}/archive\"}}\n\
         postgresql:\n  data_dir: {0}/data\n  bin_dir: /usr/lib/postgresql/15/bin\n  \
         authentication: {{superuser: {{password: x}}, replication: {{password: x}}}}\n",
        here.display()
    );
    fs::write(here.join("member.yml"), member).unwrap();
    fs::write(here.join("bad.yml"), "scope: [\n").unwrap();
    let wals = here.join("archive/demo/wals");
    fs::create_dir_all(&wals).unwrap();
    let history = "1\t0/300148\tno recovery target specified\n";
    fs::write(wals.join("00000002.history"), history).unwrap();
    fs::write(wals.join("00000004.history.gz"), "no gzip").unwrap();
    let fetch = |config: &str, name: &str| {
        let run = run_in(here, &["wal-fetch", "--config", config, name, "target"], &[]);
        (run.code, run.err)
    };
    fs::write(here.join("recovery.signal"), "").unwrap();
    assert_eq!(fetch("member.yml", "00000002.history"), (0, String::new()));
    assert_eq!(fs::read_to_string(here.join("target")).unwrap(), history);
    assert_eq!(fetch("member.yml", "00000003.history"), (1, String::new()));
    for (config, name, words) in [
        ("member.yml", "00000004.history", "is damaged"),
        ("member.yml", "postgresql.conf", "is not the name of a WAL file"),
        ("bad.yml", "00000002.history", "bad.yml"),
        ("none.yml", "00000002.history", "none.yml"),
    ] {
        let (code, text) = fetch(config, name);
        assert_eq!(code, 254, "{config} {name}: {text}");
        assert!(text.contains(words), "{text}");
    }
    fs::remove_file(here.join("recovery.signal")).unwrap();
    assert_eq!(fetch("member.yml", "00000004.history").0, 1, "a standby goes on");
}

#[test]
fn a_recorded_round_is_decided_as_it_was_and_a_changed_one_is_shown() {
    let directory = tempfile::tempdir().unwrap();
    let line = ROUND.replace('\n', "");
    let file = directory.path().join("rounds.jsonl");
    let replay = |text: String| {
        fs::write(&file, text).unwrap();
        run_in(directory.path(), &["replay", "rounds.jsonl"], &[])
    };
    let same = replay(format!("{line}\n{line}\n"));
    assert_eq!(same.code, 0, "{same:?}");
    // The second is as the first, so there is nothing to tell of it.
    let summary = "rounds.jsonl: 2 rounds, 1 shown; this version (";
    assert!(
        same.out.contains(summary) && same.out.contains("decides every one of them as recorded"),
        "{}",
        same.out
    );
    let other = replay(format!("{line}\n{}\n", line.replace("dcs_silent_waiting", "leading")));
    assert_eq!(other.code, 1);
    for words in [
        "rounds.jsonl line 2: at 2026-11-24T11:18:19Z version 0.1.0 decided: the leader with the lease []",
        "this version decides: the DCS does not answer; waiting for it []",
        "1 of them are not decided as recorded",
    ] {
        assert!(other.out.contains(words), "{words} in {}", other.out);
    }
    assert!(replay("{\"at\": 1}\n".to_owned()).out.contains("line 1: not a recorded round"));
    let absent = run_in(directory.path(), &["replay", "absent.jsonl"], &[]);
    assert_eq!(absent.code, 1);
    assert!(absent.err.contains("cannot read the recorded rounds in absent.jsonl"), "{}", absent.err);
}

#[test]
fn the_rounds_of_a_night_are_read_by_time_and_by_reason() {
    let directory = tempfile::tempdir().unwrap();
    let line = ROUND.replace('\n', "");
    let at = |time: &str| line.replace("2026-11-24T11:18:19Z", time);
    let failed = at("2026-11-24T03:14:10Z").replace("\"plan\"", "\"failure\":\"the disk is full\",\"plan\"");
    // What was put aside comes first.
    fs::write(directory.path().join("rounds.jsonl.1"), at("2026-11-24T01:00:00Z") + "\n").unwrap();
    let newer = format!("{}\n{failed}\n{}\n", at("2026-11-24T03:14:00Z"), at("2026-11-24T09:00:00Z"));
    fs::write(directory.path().join("rounds.jsonl"), newer).unwrap();
    let replay =
        |options: &[&str]| run_in(directory.path(), &[&["replay", "rounds.jsonl"], options].concat(), &[]);
    let all = replay(&["--all"]).out;
    for words in [
        "2026-11-24 01:00:00.000",
        "Postgres: no data directory",
        "waiting for it",
        "FAILED: the disk is full",
    ] {
        assert!(all.contains(words), "{words} in {all}");
    }
    let around = replay(&["--around", "2026-11-24T04:14:30+01:00", "--within", "30 seconds", "--json"]);
    let rounds: serde_json::Value = serde_json::from_str(&around.out).unwrap();
    let times: Vec<&str> =
        rounds.as_array().unwrap().iter().filter_map(|round| round["at"].as_str()).collect();
    assert_eq!(times, ["2026-11-24T03:14:10Z"], "{}", around.out);
    assert_eq!(
        (&rounds[0]["reason"], &rounds[0]["failure"]),
        (&"dcs_silent_waiting".into(), &"the disk is full".into())
    );
    assert!(replay(&["--reason", "promoting"]).out.starts_with("no matching rounds\n"));
    assert!(replay(&["--reason", "dcs_silent_waiting"]).out.contains("01:00:00.000"));
    let unknown = replay(&["--reason", "boredom"]);
    assert!(unknown.code == 64 && unknown.err.contains("no round has the reason boredom"), "{unknown:?}");
    let bad = replay(&["--around", "at night"]);
    assert!(bad.code == 64 && bad.err.contains("is not a time"), "{bad:?}");
}
