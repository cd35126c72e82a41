//! What is told of the shipping and streaming of WAL, as JSON and as metrics.

use std::time::{Duration, UNIX_EPOCH};

use outrider_archive::{Archived, Status, StreamStatus};
use outrider_wal::{Lsn, SegmentName, SegmentSize, TimelineId, WalFileName};
use serde_json::{Value, json};

use super::metrics::samples;
use super::stage::Stage;
use crate::report::Report;
use crate::report::sample::report;

fn segment(number: u64) -> SegmentName {
    SegmentName::numbered(TimelineId::new(2), number, SegmentSize::DEFAULT)
}

/// A leader whose store is down for 40 s.
fn waiting() -> Report {
    let at = UNIX_EPOCH + Duration::from_secs(1_800_000_000);
    let status = Status {
        term: Some(4),
        claimed: true,
        waiting: 3,
        waiting_bytes: 48 << 20,
        oldest_waiting: Some(Duration::from_secs(40)),
        free_bytes: Some(1 << 30),
        full_in: Some(Duration::from_secs(900)),
        last_archived: Some(Archived { name: WalFileName::Segment(segment(4)), at }),
        archived_to: Some((TimelineId::new(2), Lsn::new(5 << 24))),
        store_failing: true,
        gaps: vec![(segment(1), segment(2))],
        ..Status::default()
    };
    let mut stream = StreamStatus::default();
    stream.term = Some(4);
    stream.segment = Some(segment(8));
    stream.streamed_to = Some(Lsn::new((5 << 24) + 1000));
    stream.flushed = Some(Lsn::new((8 << 24) + 3000));
    stream.last_streamed = Some(at);
    stream.counters.chunks = 7;
    let kept_for_gap = Some(Lsn::new(1 << 24));
    Report { archive: Some(status), stream: Some(stream), kept_for_gap, ..report() }
}

#[tokio::test]
async fn the_archive_is_shown_with_what_waits_and_how_far_it_is_streamed() {
    let stage = Stage::new(None).await;
    stage.post(waiting());
    let shown: Value = serde_json::from_str(&stage.get("/archive").await.text().await.unwrap()).unwrap();
    let shipping = &shown["shipping"];
    for (key, value) in [
        ("writer_term", json!(4)),
        ("archived_to", json!({"timeline": 2, "lsn": "0/5000000"})),
        ("waiting_bytes", json!(48 << 20)),
        ("oldest_waiting_seconds", json!(40.0)),
        ("free_bytes", json!(1 << 30)),
        ("full_in_seconds", json!(900)),
        ("gaps", json!(["000000020000000000000001 to 000000020000000000000002"])),
        ("last_archived_at", json!("2027-01-15T08:00:00Z")),
    ] {
        assert_eq!(shipping[key], value, "{key} in {shown}");
    }
    assert_eq!(shown["kept_for_gap"], "0/1000000", "{shown}");
    let streaming = &shown["streaming"];
    for (key, value) in [
        ("enabled", json!(true)),
        ("segment", json!("000000020000000000000008")),
        ("streamed_to", json!("0/50003E8")),
        ("behind_bytes", json!((3 << 24) + 2000)),
        ("chunks", json!(7)),
        ("last_streamed_at", json!("2027-01-15T08:00:00Z")),
    ] {
        assert_eq!(streaming[key], value, "{key} in {shown}");
    }
}

#[tokio::test]
async fn a_member_that_ships_nothing_says_so_and_claims_nothing() {
    let stage = Stage::new(None).await;
    let mut idle = waiting();
    idle.archive = Some(Status { claimed: false, term: None, ..Status::default() });
    idle.stream = None;
    stage.post(idle);
    let shown: Value = serde_json::from_str(&stage.get("/archive").await.text().await.unwrap()).unwrap();
    assert_eq!((&shown["shipping"]["enabled"], &shown["streaming"]), (&json!(false), &Value::Null));
    assert_eq!(shown["shipping"]["writer_term"], Value::Null);
    let text = stage.get("/metrics").await.text().await.unwrap();
    assert!(
        !text.contains("outrider_archive_free_bytes"),
        "nobody has looked, and 0 would be an alarm: {text}"
    );
}

#[tokio::test]
async fn the_same_is_in_the_metrics() {
    let stage = Stage::new(None).await;
    stage.post(waiting());
    let text = stage.get("/metrics").await.text().await.unwrap();
    let samples = samples(&text);
    for (name, value) in [
        ("outrider_archive_writer_term", 4.0),
        ("outrider_archive_writer_conflict", 0.0),
        ("outrider_archive_waiting_bytes", f64::from(48 << 20)),
        ("outrider_archive_oldest_waiting_seconds", 40.0),
        ("outrider_archive_free_bytes", f64::from(1 << 30)),
        ("outrider_archive_full_seconds", 900.0),
        ("outrider_archive_wal_gaps", 1.0),
        ("outrider_archive_kept_for_gap", 1.0),
        ("outrider_archive_archived_lsn_bytes", f64::from(5 << 24)),
        ("outrider_archive_stream_behind_bytes", f64::from((3 << 24) + 2000)),
        ("outrider_archive_last_streamed_timestamp_seconds", 1_800_000_000.0),
        ("outrider_archive_stream_chunks_total", 7.0),
        ("outrider_drill_running", 0.0),
    ] {
        let name = format!("{name}{{scope=\"demo\",name=\"p1\"}}");
        assert_eq!(samples.get(&name), Some(&value), "{name} in {text}");
    }
}
