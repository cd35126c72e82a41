//! Asking for a base backup, watching it and taking it back, with members that are played here.

use outrider_dcs::{BackupClaim, BackupOutcome, Dcs};
use serde_json::{Value, json};

use super::stage::Stage;
use crate::sample::member;

/// `p1` leads.
async fn led() -> Stage {
    let stage = Stage::new(None).await;
    stage.dcs.touch_member(&json!({"role": "primary", "state": "running"})).await.unwrap();
    stage.dcs.acquire_leader(None).await.unwrap();
    stage
}

/// Takes up what is asked for, as soon as it is; its id and revision.
async fn taken_up(dcs: &dyn Dcs) -> (String, i64) {
    let mut changes = dcs.watch();
    loop {
        changes.mark_unchanged();
        if let Some(asked) = dcs.read().await.unwrap().backup_request {
            let id = asked.value.id.clone();
            let claim = BackupClaim {
                request: id.clone(),
                member: dcs.name().to_owned(),
                phase: "copying".to_owned(),
                ..BackupClaim::default()
            };
            let revision = dcs.claim_backup(&claim, &asked.value, asked.revision).await.unwrap();
            return (id, revision);
        }
        changes.changed().await.unwrap();
    }
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

#[tokio::test]
async fn a_request_is_written_for_others_to_take_and_a_second_is_told_what_runs() {
    let stage = led().await;
    let (code, words) = stage.ask("POST", "/backup", "", None).await;
    assert_eq!(code, 202, "{words}");
    let asked = stage.dcs.read().await.unwrap().backup_request.unwrap().value;
    assert_eq!(json(&words), json!({"id": asked.id}));
    assert_eq!((asked.by.as_str(), asked.attempts), ("p1", 0));
    let (code, words) = stage.ask("POST", "/backup", "", None).await;
    assert_eq!((code, json(&words)["request"]["id"].as_str()), (409, Some(asked.id.as_str())));
    taken_up(&*stage.dcs).await;
    let (code, words) = stage.ask("POST", "/backup", "", None).await;
    let running = json(&words)["running"].clone();
    assert_eq!(
        (code, running["member"].as_str(), running["phase"].as_str()),
        (409, Some("p1"), Some("copying"))
    );
}

#[tokio::test]
async fn who_waits_is_told_the_outcome() {
    let stage = led().await;
    let second = member(&stage.cluster, "p2");
    second.touch_member(&json!({"role": "replica", "state": "running"})).await.unwrap();
    for (error, expected) in [(None, 200), (Some("the store is full"), 500)] {
        let took = async {
            let (id, revision) = taken_up(&*second).await;
            let outcome = BackupOutcome {
                request: id,
                member: "p2".to_owned(),
                error: error.map(str::to_owned),
                ..BackupOutcome::default()
            };
            second.finish_backup(&outcome, revision).await.unwrap();
        };
        let ((code, words), ()) = tokio::join!(stage.ask("POST", "/backup?wait=true", "", None), took);
        assert_eq!((code, json(&words)["member"].as_str()), (expected, Some("p2")), "{words}");
        let seen = json(&stage.get("/backup").await.text().await.unwrap());
        assert_eq!((&seen["request"], &seen["running"]), (&Value::Null, &Value::Null));
        assert_eq!(seen["last"]["error"].as_str(), error);
    }
}

#[tokio::test]
async fn a_backup_is_taken_back_and_who_waits_is_told() {
    let stage = led().await;
    assert_eq!(stage.ask("DELETE", "/backup", "", None).await.0, 404);
    let taken_back = async {
        let mut changes = stage.dcs.watch();
        while stage.dcs.read().await.unwrap().backup_request.is_none() {
            changes.changed().await.unwrap();
        }
        stage.ask("DELETE", "/backup", "", None).await
    };
    let ((code, words), (deleted, _)) =
        tokio::join!(stage.ask("POST", "/backup?wait=true", "", None), taken_back);
    assert_eq!((code, deleted), (409, 200), "{words}");
    assert_eq!(stage.dcs.read().await.unwrap().backup_request, None);
}

#[tokio::test]
async fn without_a_leader_or_the_password_no_backup_is_asked_for() {
    let stage = Stage::new(Some("geheim")).await;
    assert_eq!(stage.ask("POST", "/backup", "", None).await.0, 401);
    assert_eq!(stage.ask("DELETE", "/backup", "", None).await.0, 401);
    assert_eq!(stage.ask("POST", "/backup", "", Some("geheim")).await.0, 503);
    assert_eq!(stage.get("/backup").await.status().as_u16(), 200);
    assert_eq!(stage.dcs.read().await.unwrap().backup_request, None);
}

#[tokio::test]
async fn the_archive_is_shown_with_what_it_can_restore() {
    let stage = led().await;
    let folder = stage.archive.path().join("demo/base/20260101T000000");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("data.tar.gz"), "half").unwrap();
    let response = stage.get("/backups").await;
    assert_eq!(response.status().as_u16(), 200);
    let shown = json(&response.text().await.unwrap());
    assert_eq!(
        (shown["backups"][0]["id"].as_str(), shown["backups"][0]["state"].as_str()),
        (Some("20260101T000000"), Some("unfinished"))
    );
    assert_eq!((&shown["window"], &shown["wal"]["segments"]), (&Value::Null, &json!(0)));
    let shown = json(&stage.get("/archive").await.text().await.unwrap());
    assert_eq!(
        (&shown["window"], &shown["fault"], &shown["last_verified"]),
        (&Value::Null, &Value::Null, &Value::Null)
    );
    assert!(shown["archive"].as_str().unwrap().starts_with("file://"), "{shown}");
}
