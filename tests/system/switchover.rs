//! Planned switchovers, and those that are refused with Patroni's words.

use outrider_bed::Builder;
use serde_json::{Value, json};

use crate::story::{Story, timeline};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_switchover_moves_the_leader_and_tells_the_gap() {
    let story = Story::begin(Builder::new()).await;
    for _ in 0..3 {
        let candidate = story.cluster.wait_until_synchronous().await.unwrap().remove(0);
        let leader = story.leader().await;
        let before = timeline(leader).await;
        let answer = leader
            .post("/switchover", &json!({"leader": leader.name(), "candidate": candidate}))
            .await
            .unwrap();
        assert_eq!(answer.status, 200, "{}", answer.text);
        assert!(
            answer.text.contains(&format!("Successfully switched over to \"{candidate}\"")),
            "{}",
            answer.text
        );
        assert!(answer.write_gap.is_some_and(|gap| gap > 0.0), "{answer:?}");
        assert_eq!(timeline(story.leader().await).await, before + 1);
        story.cluster.wait_until_whole().await.unwrap();
    }
    story.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_switchover_that_cannot_be_done_is_refused_and_nothing_happens() {
    let story = Story::begin(Builder::new()).await;
    let leader = story.leader().await;
    let synchronous = story.cluster.wait_until_synchronous().await.unwrap();
    let other = story
        .cluster
        .members
        .iter()
        .find(|member| member.name() != leader.name() && !synchronous.contains(&member.name().to_owned()))
        .unwrap();
    let before = timeline(leader).await;
    let wishes: [(Value, u16, &str); 5] = [
        (json!({"leader": leader.name(), "candidate": "nobody"}), 412, "candidate does not exists"),
        (
            json!({"leader": leader.name(), "candidate": leader.name()}),
            400,
            "Switchover target and source are the same",
        ),
        (json!({"leader": other.name(), "candidate": synchronous[0]}), 412, "leader name does not match"),
        (json!({"candidate": synchronous[0]}), 400, "leader"),
        (json!({"leader": leader.name(), "scheduled_at": "soon"}), 422, "scheduled"),
    ];
    for (wish, status, words) in wishes {
        let answer = leader.post("/switchover", &wish).await.unwrap();
        assert_eq!(answer.status, status, "{wish}: {}", answer.text);
        assert!(answer.text.contains(words), "{wish}: {}", answer.text);
    }
    for body in ["", "{", "[]", "null", "\"switch over\"", "{\"leader\": 7}"] {
        let answer =
            leader.request(reqwest::Method::POST, "/switchover", Some(body.to_owned())).await.unwrap();
        assert_eq!(answer.status, 400, "{body}: {}", answer.text);
    }
    let large = "x".repeat(2 << 20);
    let answer = leader.request(reqwest::Method::POST, "/switchover", Some(large)).await.unwrap();
    assert_eq!(answer.status, 413, "{}", answer.text);
    assert_eq!(timeline(story.leader().await).await, before);
    assert!(leader.leads().await);
    story.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_candidate_that_does_not_answer_is_not_switched_over_to() {
    use outrider_bed::process::Signal;

    let story = Story::begin(Builder::new()).await;
    let leader = story.leader().await;
    let candidate = story.cluster.wait_until_synchronous().await.unwrap().remove(0);
    story.cluster.member(&candidate).signal_node(Signal::Stop);
    let answer =
        leader.post("/switchover", &json!({"leader": leader.name(), "candidate": candidate})).await.unwrap();
    assert_ne!(answer.status, 200, "{}", answer.text);
    assert!(leader.leads().await);
    // The standby that hangs is no longer waited for.
    story.writes(50).await;
    story.cluster.member(&candidate).signal_node(Signal::Continue);
    story.end().await;
}
