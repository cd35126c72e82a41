//! The text of `GET /metrics`, read back.

use std::collections::BTreeMap;

use super::stage::{Stage, report};

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
    let response = stage.get("/metrics").await;
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
