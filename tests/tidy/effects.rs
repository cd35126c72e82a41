//! Who may change something outside of the agent: each call that does stands in the part of the program whose work it is.

use super::{Source, hold, offending_lines, sources};

const ACT: &str = "agent/src/act";
const JOBS: &str = "agent/src/jobs";
const HTTP: &str = "agent/src/http";
const RULES: &str = "agent/src/http/rules.rs";
const REBUILD: &str = "agent/src/cli/dcs.rs";

/// The methods of the DCS and of Postgres that change something, and where they may be called.
const EFFECTS: [(&str, &[&str]); 40] = [
    // Lease, session, fuse, `/sync` and a running Postgres: steps of the plan.
    ("acquire_leader", &[ACT]),
    ("acquire_leader_on_request", &[ACT]),
    ("renew_leader", &[ACT]),
    ("release_leader", &[ACT]),
    ("hand_over_leader", &[ACT]),
    ("recreate_cluster", &[ACT]),
    ("set_ttl", &[ACT]),
    ("arm_fuse", &[ACT]),
    ("write_sync", &[ACT]),
    ("clear_sync", &[ACT]),
    ("configure", &[ACT]),
    ("start_primary", &[ACT]),
    ("start_standby", &[ACT]),
    ("promote", &[ACT]),
    ("stop", &[ACT]),
    // What the leader and the member itself say.
    ("touch_member", &[ACT]),
    ("claim_initialize", &[ACT]),
    ("write_initialize", &[ACT]),
    ("write_history", &[ACT]),
    ("write_status", &[ACT]),
    ("write_intent", &[ACT]),
    ("write_intent_on_request", &[ACT]),
    ("clear_intent", &[ACT]),
    ("replace_failover", &[ACT]),
    ("answer_failover", &[ACT]),
    // Requests, and the rules of the cluster.
    ("write_failover", &[HTTP, ACT]),
    ("clear_failover", &[HTTP, ACT]),
    ("write_restart", &[HTTP, ACT]),
    ("create_config", &[RULES, ACT]),
    ("replace_config", &[RULES]),
    ("withdraw_backup", &[HTTP]),
    ("request_backup", &[HTTP, JOBS]),
    ("request_rollback", &[HTTP]),
    ("withdraw_rollback", &[HTTP]),
    // Claim, progress and outcome of long work for the cluster.
    ("claim_backup", &[JOBS]),
    ("finish_backup", &[JOBS]),
    ("claim_rollback", &[JOBS]),
    ("begin_rollback_swap", &[JOBS]),
    ("finish_rollback", &[JOBS]),
    // A person, with no agent between.
    ("rebuild_cluster", &[REBUILD]),
];

fn broken(sources: &[Source]) -> Vec<String> {
    let product = |source: &Source| source.path.starts_with("agent/src/") && !source.is_test();
    let calls = |method: &str| {
        let call = format!(".{method}(");
        offending_lines(sources, product, move |line| line.contains(&call))
    };
    let elsewhere = |(method, parts): &(&str, &[&str])| -> Vec<String> {
        let stray = |place: &String| !parts.iter().any(|part| place.starts_with(part));
        calls(method).into_iter().filter(stray).map(|place| format!("{method}: {place}")).collect()
    };
    EFFECTS.iter().flat_map(elsewhere).collect()
}

#[test]
fn each_effect_stands_in_its_own_part_of_the_program() {
    let sources = sources();
    hold("only its own part of the program does this", broken(&sources));
    let is_called = |method: &str| {
        let call = format!(".{method}(");
        sources.iter().any(|source| source.path.starts_with("agent/src/") && source.product().contains(&call))
    };
    let unknown = EFFECTS.iter().filter(|(method, _)| !is_called(method));
    hold(
        "the table names methods that are called",
        unknown.map(|(method, _)| (*method).to_owned()).collect(),
    );
}

#[test]
fn a_handler_that_takes_the_lease_is_found() {
    let text = "fn handler() {\n    dcs.acquire_leader(None);\n}\n".to_owned();
    let found = broken(&[Source { path: "agent/src/http/health.rs".to_owned(), text }]);
    assert_eq!(found, ["acquire_leader: agent/src/http/health.rs:2"]);
}
