//! What people write into the configuration of a cluster: what waits for a restart is named, what is wrong is refused where it
//! is written or kept from Postgres, and a Postgres that does not start says why.

use outrider_bed::{Builder, Cluster, Member, wait_until};
use serde_json::{Value, json};

use crate::story::{LIMIT, logs};

pub(crate) async fn patch(member: &Member, change: &Value) -> (u16, String) {
    send(member, reqwest::Method::PATCH, change).await
}

/// By the machine's own socket, as who may change everything.
async fn send(member: &Member, method: reqwest::Method, rules: &Value) -> (u16, String) {
    let socket = member.state_directory().join("restapi.sock");
    let client = reqwest::Client::builder().no_proxy().unix_socket(socket).build().unwrap();
    let answer = client.request(method, "http://localhost/config").json(rules).send().await.unwrap();
    (answer.status().as_u16(), answer.text().await.unwrap())
}

/// Waits until the entry of every member, as any member shows it, is like this.
async fn every_entry(cluster: &Cluster, what: &str, is: impl Fn(&Value) -> bool) {
    let all = async || {
        let text = cluster.members[0].get("/cluster").await.ok()?.text;
        let shown: Value = serde_json::from_str(&text).ok()?;
        let rows = shown["members"].as_array()?;
        (rows.len() == cluster.members.len() && rows.iter().all(&is)).then_some(())
    };
    let outcome = wait_until(format!("every member shows {what}"), LIMIT, all).await;
    assert!(outcome.is_ok(), "{outcome:?}: {}", logs(cluster));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_for_a_restart_is_named_with_both_values_at_every_member() {
    let cluster = Builder::new().members(2).start().await.unwrap();
    cluster.wait_until_whole().await.unwrap();
    let change = json!({"postgresql": {"parameters": {"wal_buffers": "2MB", "max_worker_processes": 11, "work_mem": "5MB"}}});
    let (code, text) = patch(&cluster.members[0], &change).await;
    assert_eq!(code, 200, "{text}");
    let wanted = json!({
        "max_worker_processes": {"old_value": "8", "new_value": "11"},
        "wal_buffers": {"old_value": "512kB", "new_value": "2MB"},
    });
    every_entry(&cluster, "what waits for a restart", |row| row["pending_restart_reason"] == wanted).await;
    // The same member as before: another may have seen the entries a round earlier.
    let listed = cluster.members[0].outrider(&["list"]).unwrap();
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    assert_eq!(listed.matches("max_worker_processes: 8->11").count(), 2, "{listed}");
    for member in &cluster.members {
        assert_eq!(member.patroni().await.unwrap()["pending_restart_reason"], wanted);
    }
    let (code, _) = patch(&cluster.members[0], &json!({"postgresql": {"parameters": null}})).await;
    assert_eq!(code, 200);
    every_entry(&cluster, "that nothing waits any more", |row| row.get("pending_restart").is_none()).await;
}

/// What runs at a member, of one parameter.
async fn shown(cluster: &Cluster, member: usize, name: &str) -> String {
    let endpoint = &cluster.endpoints()[member];
    endpoint.connect().await.unwrap().text(&format!("SELECT current_setting('{name}')")).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_no_server_would_take_is_refused_over_http_and_nothing_is_changed() {
    let cluster = Builder::new().members(1).start().await.unwrap();
    let member = &cluster.members[0];
    let there = async || cluster.etcd.get("/service/bed/config").await.ok()?;
    let before = Some(wait_until("the cluster has rules", LIMIT, there).await.unwrap());
    for (parameters, words) in [
        (json!({"shared_bufers": "1GB"}), "did you mean shared_buffers?"),
        (json!({"work_mem": "8MB", "max_connections": "500ABC"}), "no unit"),
        (json!({"work_mem": "64 apples"}), "kB, MB, GB, TB"),
        (json!({"autovacuum_vacuum_scale_factor": 101}), "outside the range"),
        (json!({"wal_level": "replicas"}), "minimal, replica, logical"),
        (json!({"wal_level": "minimal"}), "no standby could stream"),
        (json!({"jit": "perhaps"}), "boolean"),
        (json!({"log_timezone": "Mars/Phobos"}), "invalid value for parameter"),
        (json!({"log_destination": "sdterr"}), "Unrecognized key word"),
        (json!({"shared_preload_libraries": "no_such_library"}), "could not access file"),
        (json!({"superuser_reserved_connections": 40}), "must be less than max_connections"),
        (json!({"huge_page_size": ["1MB"]}), "takes no list"),
        (json!({"restart_after_crash": true}), "Outrider sets it itself"),
        (json!("x"), "expected a section"),
    ] {
        let (code, text) = patch(member, &json!({"postgresql": {"parameters": parameters}})).await;
        assert_eq!(code, 400, "{parameters}: {text}");
        assert!(text.contains(words), "{parameters}: {text}");
    }
    for (rules, words) in [
        (json!({"postgresql": {"pg_hba": "y"}}), "expected a list"),
        (json!({"postgresql": {"pg_hba": ["hots all all all md5"]}}), "no kind of connection"),
        (json!({"loop_wiat": 1}), "did you mean loop_wait?"),
        (json!({"pause": true}), "pause is not supported"),
    ] {
        let (code, text) = patch(member, &rules).await;
        assert!(code == 400 && text.contains(words), "{rules}: {code} {text}");
        let (code, text) = send(member, reqwest::Method::PUT, &rules).await;
        assert!(code == 400 && text.contains(words), "{rules}: {code} {text}");
    }
    assert_eq!(cluster.etcd.get("/service/bed/config").await.unwrap(), before);
    let good = json!({"postgresql": {"parameters": {"Work_Mem": "0x1800", "some_extension.knob": "x", "jit": "fal"}}});
    assert_eq!(patch(member, &good).await.0, 200);
    let applied = async || (shown(&cluster, 0, "work_mem").await == "6MB").then_some(());
    wait_until("the good values count", LIMIT, applied).await.unwrap();
}

/// The list, `/patroni`, the metrics and the log of a member have what it does not follow.
async fn are_told_everywhere(cluster: &Cluster, names: &[&str]) {
    let member = &cluster.members[0];
    let listed = String::from_utf8_lossy(&member.outrider(&["list"]).unwrap().stdout).into_owned();
    let (patroni, metrics) = (member.patroni().await.unwrap(), member.get("/metrics").await.unwrap().text);
    let metrics: String =
        metrics.lines().filter(|line| line.starts_with("outrider_config_not_honoured{")).collect();
    let patroni = patroni["outrider"]["not_honoured"].to_string();
    for name in names {
        assert!(listed.contains(name), "list misses {name}: {listed}");
        assert!(patroni.contains(name), "/patroni misses {name}: {patroni}");
        assert!(metrics.contains(name), "the metrics miss {name}: {metrics}");
        assert!(member.log().contains(name), "the log misses {name}: {}", logs(cluster));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_typing_error_straight_in_etcd_takes_no_member_down_and_is_shown_everywhere() {
    let cluster = Builder::new().members(2).start().await.unwrap();
    cluster.wait_until_whole().await.unwrap();
    let good = json!({"postgresql": {"parameters": {"work_mem": "5MB", "log_timezone": "Europe/Paris"}}});
    assert_eq!(patch(&cluster.members[0], &good).await.0, 200);
    let applied = async || {
        let standby = shown(&cluster, 1, "work_mem").await == "5MB";
        (standby && shown(&cluster, 0, "work_mem").await == "5MB").then_some(())
    };
    wait_until("the good values count", LIMIT, applied).await.unwrap();
    let text = cluster.etcd.get("/service/bed/config").await.unwrap().unwrap();
    let rules: Value = serde_json::from_str(&text).unwrap();
    let mut typed = rules.clone();
    outrider_bed::lay_over(
        &mut typed,
        &json!({"loop_wiat": 2, "pause": true, "postgresql": {"pg_hba": ["hots all all all md5"], "parameters": {
            "max_locks_per_transaction": "500ABC", "work_mem": "64 apples", "log_timezone": "Mars", "shared_bufers": "1GB",
            "shared_preload_libraries": "no_such_library", "maintenance_work_mem": "70MB"}}}),
    );
    cluster.etcd.put("/service/bed/config", &typed.to_string()).await.unwrap();
    let names = [
        "loop_wiat",
        "pause",
        "postgresql.pg_hba",
        "max_locks_per_transaction",
        "work_mem",
        "log_timezone",
        "shared_bufers",
        "no_such_library",
    ];
    let all_named = |row: &Value| {
        let lines = row["outrider"]["not_honoured"].to_string();
        names.iter().all(|name| lines.contains(name)) && !lines.contains("maintenance_work_mem")
    };
    every_entry(&cluster, "what it does not follow", all_named).await;
    are_told_everywhere(&cluster, &names).await;
    let applied = async || {
        let standby = shown(&cluster, 1, "maintenance_work_mem").await == "70MB";
        (standby && shown(&cluster, 0, "maintenance_work_mem").await == "70MB").then_some(())
    };
    wait_until("the value beside the wrong ones counts", LIMIT, applied).await.unwrap();

    // Every server is started anew, one after the other, with all of it still in etcd.
    cluster.wait_until_synchronous().await.unwrap();
    let standby = cluster.standbys().await.unwrap()[0];
    standby.kill_node();
    standby.start().unwrap();
    cluster.wait_until_whole().await.unwrap_or_else(|fault| panic!("{fault}: {}", logs(&cluster)));
    let candidate = cluster.wait_until_synchronous().await.unwrap().remove(0);
    let leader = cluster.wait_for_leader().await.unwrap();
    let wish = json!({"leader": leader.name(), "candidate": candidate});
    let answer = leader.post("/switchover", &wish).await.unwrap();
    assert_eq!(answer.status, 200, "{}: {}", answer.text, logs(&cluster));
    cluster.wait_until_whole().await.unwrap_or_else(|fault| panic!("{fault}: {}", logs(&cluster)));
    for member in 0..2 {
        assert_eq!(shown(&cluster, member, "work_mem").await, "5MB");
        assert_eq!(shown(&cluster, member, "log_timezone").await, "Europe/Paris");
    }
    cluster.etcd.put("/service/bed/config", &rules.to_string()).await.unwrap();
    every_entry(&cluster, "that all is followed", |row| row["outrider"].get("not_honoured").is_none()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_error_in_the_files_is_shown_and_forbids_a_switchover() {
    let cluster = Builder::new().members(2).start().await.unwrap();
    cluster.wait_until_whole().await.unwrap();
    let candidate = cluster.wait_until_synchronous().await.unwrap().remove(0);
    let leader = cluster.wait_for_leader().await.unwrap();
    let base = leader.data_directory().join("postgresql.base.conf");
    let before = std::fs::read_to_string(&base).unwrap();
    let reload = async |text: &str| {
        std::fs::write(&base, text).unwrap();
        let endpoint = cluster.endpoints().into_iter().find(|one| one.name == leader.name()).unwrap();
        endpoint.connect().await.unwrap().text("SELECT pg_reload_conf()::text").await.unwrap();
    };
    reload(&format!("{before}\nmax_files_per_process = many\n")).await;
    let told = async || {
        let listed = leader.outrider(&["list"]).ok()?;
        let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
        listed.contains("max_files_per_process = \"many\"").then_some(())
    };
    wait_until("the list shows the line", LIMIT, told).await.unwrap();
    let wish = json!({"leader": leader.name(), "candidate": candidate});
    let answer = leader.post("/switchover", &wish).await.unwrap();
    assert!(answer.status != 200 && answer.text.contains("would not start again"), "{answer:?}");
    reload(&before).await;
    let accepted = async || {
        let answer = leader.post("/switchover", &wish).await.ok()?;
        (answer.status == 200).then_some(())
    };
    wait_until("a switchover is done once the file is mended", LIMIT, accepted).await.unwrap();
    cluster.wait_until_whole().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_cluster_begins_with_the_parameters_of_its_file() {
    let parameters =
        json!({"max_worker_processes": 13, "wal_buffers": "2MB", "work_mem": "7MB", "log_file_mode": "0640"});
    let cluster = Builder::new()
        .members(2)
        .dcs(json!({"postgresql": {"parameters": parameters}}))
        .start()
        .await
        .unwrap();
    cluster.wait_until_whole().await.unwrap();
    let expected = [
        ("max_worker_processes", "13"),
        ("wal_buffers", "2MB"),
        ("work_mem", "7MB"),
        ("log_file_mode", "0640"),
    ];
    for (name, value) in expected {
        for member in 0..2 {
            assert_eq!(shown(&cluster, member, name).await, value, "{name}: {}", logs(&cluster));
        }
    }
    every_entry(&cluster, "that nothing waits", |row| row.get("pending_restart").is_none()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_archive_can_be_added_to_a_cluster_that_runs() {
    let cluster = Builder::new().members(2).start().await.unwrap();
    cluster.wait_until_whole().await.unwrap();
    let archive = cluster.guard.directory().join("added");
    cluster.guard.account().make_directory(&archive).unwrap();
    let settings =
        json!({"archive": {"store": format!("file://{}", archive.display()), "schedule": "never"}});
    for (at, member) in cluster.members.iter().enumerate() {
        assert_eq!(shown(&cluster, at, "archive_mode").await, "on");
        member.change_configuration(&settings).unwrap();
        member.end_agent(outrider_bed::process::Signal::Terminate).unwrap();
        member.start().unwrap();
    }
    let command = async || {
        let first = shown(&cluster, 0, "archive_command").await.contains("wal-push");
        (first && shown(&cluster, 1, "archive_command").await.contains("wal-push")).then_some(())
    };
    wait_until("both have the command", LIMIT, command).await.unwrap();
    every_entry(&cluster, "that nothing waits for a restart", |row| {
        row.get("pending_restart").is_none() && row["outrider"].get("archive_waiting").is_some()
    })
    .await;
    let taken = cluster.members[0].post("/backup?wait=true", &json!({})).await.unwrap();
    assert_eq!(taken.status, 200, "{}: {}", taken.text, logs(&cluster));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_whose_wal_would_never_come_says_so_at_once() {
    let cluster =
        Builder::new().members(1).archive(outrider_bed::Archive::Directory).prepare().await.unwrap();
    let member = &cluster.members[0];
    let text = std::fs::read_to_string(member.configuration()).unwrap();
    let mut with: Value = serde_json::from_str(&text).unwrap();
    with["archive"]["schedule"] = json!("never");
    let mut without = with.clone();
    without.as_object_mut().unwrap().remove("archive");
    member.write_configuration(&without).unwrap();
    member.start().unwrap();
    cluster.wait_for_leader().await.unwrap();
    // As somebody may have it who had a server before.
    let base = member.data_directory().join("postgresql.base.conf");
    let before = std::fs::read_to_string(&base).unwrap();
    std::fs::write(&base, format!("{before}\narchive_mode = off\n")).unwrap();
    member.kill_node();
    member.start().unwrap();
    cluster.wait_for_leader().await.unwrap();
    assert_eq!(shown(&cluster, 0, "archive_mode").await, "off");
    member.write_configuration(&with).unwrap();
    member.end_agent(outrider_bed::process::Signal::Terminate).unwrap();
    member.start().unwrap();
    let waits = json!({"old_value": "off", "new_value": "on"});
    every_entry(&cluster, "that archive_mode waits", |row| {
        row["pending_restart_reason"]["archive_mode"] == waits
    })
    .await;
    let listed = String::from_utf8_lossy(&member.outrider(&["list"]).unwrap().stdout).into_owned();
    assert!(listed.contains("off until a restart"), "{listed}");
    let taken = member.post("/backup?wait=true", &json!({})).await.unwrap();
    assert!(taken.status != 200 && taken.text.contains("archive_mode of member1 is off"), "{taken:?}");
}
