//! The text of `GET /metrics`, read back.

use std::collections::BTreeMap;
use std::process::Command;

use outrider_bed::{PROGRAM_LIMIT, finish};

use super::stage::Stage;
use crate::report::sample::report;
use crate::sample;

/// The samples by name with labels. Every line is a comment or a sample, and every sample belongs to a family.
pub(super) fn samples(text: &str) -> BTreeMap<String, f64> {
    let mut family = String::new();
    let mut found = BTreeMap::new();
    for line in text.lines().filter(|line| *line != "# EOF") {
        if let Some(comment) = line.strip_prefix("# ") {
            family = comment.split(' ').nth(1).unwrap().to_owned();
            continue;
        }
        let (name, value) = line.rsplit_once(' ').unwrap();
        assert!(name.starts_with(&family), "{line} is not of {family}");
        assert!(found.insert(name.to_owned(), value.parse().unwrap()).is_none(), "{name} is there twice");
    }
    found
}

#[tokio::test]
async fn metrics_are_openmetrics_with_the_names_that_people_query() {
    let stage = Stage::new(None).await;
    assert_eq!(stage.get("/metrics").await.status().as_u16(), 503);
    let mut seen = report();
    seen.counters.rounds.insert("following", 12);
    seen.counters.round_durations[1] = 9;
    seen.counters.round_durations[8] = 3;
    stage.post(seen);
    let response = stage.open_metrics().await;
    assert!(response.headers()["content-type"].to_str().unwrap().starts_with("application/openmetrics-text"));
    let text = response.text().await.unwrap();
    assert!(text.ends_with("# EOF\n"));
    let samples = samples(&text);
    let labels = "scope=\"demo\",name=\"p1\"";
    for (name, value) in [
        (format!("patroni_primary{{{labels}}}"), 0.0),
        (format!("patroni_cluster_unlocked{{{labels}}}"), 1.0),
        (format!("patroni_postgres_state{{{labels}}}"), 5.0),
        (format!("patroni_failover_priority{{{labels}}}"), 1.0),
        (format!("cnpg_collector_up{{{labels},cluster=\"demo\"}}"), 0.0),
        (format!("cnpg_pg_database_size_bytes{{{labels},datname=\"pg\\\"1\"}}"), 8192.0),
        (format!("outrider_rounds_total{{{labels},reason=\"following\"}}"), 12.0),
        (format!("outrider_round_duration_seconds_bucket{{{labels},le=\"0.0025\"}}"), 9.0),
        (format!("outrider_round_duration_seconds_bucket{{{labels},le=\"+Inf\"}}"), 12.0),
        (format!("outrider_round_duration_seconds_count{{{labels}}}"), 12.0),
        (format!("outrider_term{{{labels}}}"), 4.0),
    ] {
        assert_eq!(samples.get(&name), Some(&value), "{name} in {text}");
    }
}

/// Patroni's own names, which its dashboards query.
const OLD_COUNTERS: [&str; 3] =
    ["patroni_xlog_location", "patroni_xlog_received_location", "patroni_xlog_replayed_location"];

/// What `promtool check metrics` demands of the text format: that it parses, and its lints.
#[tokio::test]
async fn the_older_text_format_is_what_promtool_wants() {
    let stage = Stage::new(None).await;
    let mut seen = report();
    seen.postgres = Some(sample::observation());
    seen.archive = Some(outrider_archive::Status::default());
    seen.stream = Some(outrider_archive::StreamStatus::default());
    seen.counters.rounds.insert("following", 12);
    seen.counters.dcs_errors.insert("unreachable", 2);
    seen.counters.round_durations[1] = 9;
    seen.counters.round_durations[8] = 3;
    stage.post(seen);
    let response = stage.get("/metrics").await;
    assert_eq!(response.headers()["content-type"], "text/plain; version=0.0.4; charset=utf-8");
    let text = response.text().await.unwrap();
    let (mut family, mut kind, mut families) = (String::new(), String::new(), Vec::new());
    for line in text.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, help) = help.split_once(' ').unwrap();
            assert!(help.len() > 10, "{line}");
            assert!(!families.contains(&name.to_owned()), "{name} is there twice");
            families.push(name.to_owned());
            (family, kind) = (name.to_owned(), String::new());
        } else if let Some(stated) = line.strip_prefix("# TYPE ") {
            let (name, stated) = stated.split_once(' ').unwrap();
            assert!(name == family && kind.is_empty(), "{line} after the help of {family}");
            stated.clone_into(&mut kind);
        } else {
            let name = line.split(['{', ' ']).next().unwrap();
            let of_histogram = kind == "histogram"
                && name
                    .strip_prefix(&family)
                    .is_some_and(|rest| ["_bucket", "_sum", "_count"].contains(&rest));
            assert!(name == family || of_histogram, "{line} is not of {family}, a {kind}");
            assert!(line.contains("scope=\"demo\",name=\"p1\""), "{line}");
            line.rsplit_once(' ').unwrap().1.parse::<f64>().unwrap();
            let letters = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
            assert!(name.chars().all(letters), "{name}");
        }
        let old = OLD_COUNTERS.contains(&family.as_str());
        match kind.as_str() {
            "counter" => assert!(family.ends_with("_total") || old, "{family} is a counter"),
            "gauge" | "histogram" => {
                assert!(
                    !["_total", "_count", "_sum", "_bucket"].iter().any(|end| family.ends_with(end)),
                    "{family}"
                );
                assert!(!old, "{family} is a counter in Patroni");
            }
            _ => assert!(kind.is_empty(), "{kind}"),
        }
    }
    assert!(families.len() > 60, "{families:?}");
    assert!(
        text.contains("outrider_rounds_total{scope=\"demo\",name=\"p1\",reason=\"following\"} 12\n"),
        "{text}"
    );
    assert!(
        text.contains("outrider_round_duration_seconds_bucket{scope=\"demo\",name=\"p1\",le=\"+Inf\"} 12\n"),
        "{text}"
    );
    assert!(text.contains("datname=\"pg\\\"1\""), "{text}");
    assert!(!text.contains("# EOF"));
    promtool_remarks_on_old_counters_only(&text);
}

/// Patroni's counters have no `_total`, and its dashboards query them: that is all that may be said.
fn promtool_remarks_on_old_counters_only(text: &str) {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("metrics");
    std::fs::write(&file, text).unwrap();
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", "promtool check metrics <\"$0\""]).arg(&file);
    let output = finish(&mut shell, PROGRAM_LIMIT).unwrap();
    let said =
        String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    let mut remarks: Vec<&str> = said.lines().collect();
    remarks.sort_unstable();
    let expected = OLD_COUNTERS.map(|name| format!("{name} counter metrics should have \"_total\" suffix"));
    assert_eq!(remarks, expected);
}
