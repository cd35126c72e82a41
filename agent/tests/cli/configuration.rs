//! `outrider check-config`: what is accepted, and that every fault is named at once, with its key and without secrets.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use tempfile::TempDir;

use crate::program::{Run, run, run_in};

const SMALLEST: &str = "
scope: demo
name: p1
etcd3: {hosts: [\"127.0.0.1:2379\"]}
postgresql:
  data_dir: /srv/pg/data
  bin_dir: /usr/lib/postgresql/15/bin
  authentication: {superuser: {password: geheim1}, replication: {password: geheim2}}
";

/// A directory with a configuration file.
struct File {
    directory: TempDir,
    path: PathBuf,
}

impl File {
    fn new(text: &str) -> Self {
        let directory = tempfile::tempdir().expect("there is room for a directory");
        let path = directory.path().join("p1.yaml");
        fs::write(&path, text).expect("there is room for a file");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("it is ours");
        File { directory, path }
    }

    fn check(&self, environment: &[(&str, &str)]) -> Run {
        run_in(
            self.directory.path(),
            &["check-config", self.path.to_str().expect("it was made from text")],
            environment,
        )
    }
}

fn check(text: &str) -> Run {
    File::new(text).check(&[])
}

/// The faults of a configuration that must have some.
fn faults(text: &str) -> Vec<String> {
    let run = check(text);
    assert_eq!(run.code, 64, "{run:?}");
    run.err.lines().filter_map(|line| line.strip_prefix("  ")).map(str::to_owned).collect()
}

#[test]
fn the_smallest_configuration_is_enough_and_secrets_are_not_shown() {
    let run = check(SMALLEST);
    assert_eq!((run.code, run.err.lines().count()), (0, 1), "{run:?}");
    assert!(run.err.contains("the REST API on 127.0.0.1:8008 has no password"), "{}", run.err);
    for line in [
        "namespace: service",
        "state_dir: /srv/pg/data.outrider",
        "  listen: 127.0.0.1:8008",
        "  connect_address: 127.0.0.1:5432",
        "    ttl: 5",
        "    loop_wait: 1",
        "    retry_timeout: 1",
        "    synchronous_mode: true",
        "  - --encoding=UTF8",
        "  - --data-checksums",
        "  socket: /srv/pg/data.outrider/supervisor.sock",
    ] {
        assert!(run.out.lines().any(|shown| shown == line), "{line:?} in {}", run.out);
    }
    assert!(!run.out.contains("geheim"), "{}", run.out);
}

#[test]
fn all_faults_are_named_at_once() {
    let found = faults(
        "name: a b\nrestapi: {listen: 127.0.0.1}\npostgresql: {listen: \"*:5432\"}\nlog: {level: LOUD}\n\
         bootstrap: {dcs: {ttl: 10, loop_wait: 9}}\narchive: {store: \"ftp://x\"}\ntags: {failover_priority: -1}\n",
    );
    for (key, words) in [
        ("scope", "is missing"),
        ("name", "\"a b\": expected 1 to 63 letters"),
        ("etcd3.hosts", "is missing"),
        ("postgresql.data_dir", "is missing"),
        ("postgresql.connect_address", "is missing"),
        ("postgresql.authentication.superuser.password", "is missing"),
        ("postgresql.authentication.replication.password", "is missing"),
        ("log.level", "\"LOUD\": expected DEBUG, INFO, WARNING or ERROR"),
        ("bootstrap.dcs.ttl", "10: loop_wait (9) + 2 * retry_timeout (1) must not exceed ttl (10)"),
        ("archive.store", "\"ftp://x\""),
        ("tags.failover_priority", "-1: expected a whole number"),
    ] {
        let start = format!("{key}: {words}");
        assert_eq!(
            found.iter().filter(|fault| fault.starts_with(&start)).count(),
            1,
            "{start:?} in {found:#?}"
        );
    }
}

#[test]
fn an_unknown_key_comes_with_what_was_probably_meant() {
    let text = format!("{SMALLEST}  paramters: {{}}\ndata_dir: /x\nfrobnicate: 1\n");
    let found = faults(&text);
    assert!(
        found.contains(&"postgresql.paramters: is not a known key; did you mean parameters?".to_owned()),
        "{found:?}"
    );
    assert!(
        found.contains(&"data_dir: is not a known key here; it belongs under postgresql".to_owned()),
        "{found:?}"
    );
    assert!(
        found.iter().any(|fault| fault.starts_with("frobnicate: is not a known key; known here are scope")),
        "{found:?}"
    );
}

#[test]
fn patronis_keys_without_effect_are_named_once() {
    let run = check(&format!("{SMALLEST}  callbacks: {{on_start: /x}}\nwatchdog: {{mode: off}}\n"));
    assert_eq!(run.code, 0, "{run:?}");
    let warnings = [
        "outrider: warning: watchdog has no effect here",
        "outrider: warning: postgresql.callbacks has no effect here",
    ];
    let said = run.err.lines().filter(|line| !line.contains("the REST API on"));
    assert_eq!(said.collect::<Vec<_>>(), warnings);
}

#[test]
fn patronis_older_etcd_section_is_told_its_new_name() {
    let found = faults(&SMALLEST.replace("etcd3:", "etcd:"));
    assert!(
        found.iter().any(|fault| fault.starts_with("etcd: ") && fault.contains("rename it to etcd3")),
        "{found:?}"
    );
}

#[test]
fn durations_are_taken_as_people_write_them() {
    let with = |window: &str| {
        check(&format!("{SMALLEST}archive: {{store: \"file:///x\", retention: {{window: {window}}}}}\n"))
    };
    assert_eq!(with("7 days").code, 0, "{:?}", with("7 days"));
    let refused = with("7 moons");
    assert!(refused.code == 64 && refused.err.contains("7 moons"), "{refused:?}");
}

#[test]
fn where_the_usual_socket_does_not_fit_it_is_said() {
    let deep = format!("/srv/{}", "a".repeat(100));
    let found = faults(&SMALLEST.replace("/srv/pg", &deep));
    assert!(
        found.iter().any(|fault| fault.starts_with("supervisor.socket: is missing: the usual place")),
        "{found:?}"
    );
}

#[test]
fn what_would_be_wrong_to_ignore_is_refused() {
    let found = faults(&format!(
        "{SMALLEST}restapi: {{certfile: /x}}\nbootstrap: {{dcs: {{synchronous_mode: quorum}}}}\n"
    ));
    assert!(found[0].starts_with("restapi.certfile: is not supported here"), "{found:?}");
    assert!(
        found[1].starts_with("bootstrap.dcs.synchronous_mode: \"quorum\": expected true or false"),
        "{found:?}"
    );
}

#[test]
fn an_open_rest_api_needs_a_password_or_a_word_of_the_operator() {
    let with = |rest: &str| {
        format!("{SMALLEST}restapi: {{listen: 0.0.0.0:8008, connect_address: 10.0.0.1:8008{rest}}}\n")
    };
    assert!(
        faults(&with(""))[0]
            .starts_with("restapi.listen: \"0.0.0.0:8008\": everybody who reaches this address")
    );
    assert_eq!(check(&with(", allow_unauthenticated: true")).code, 0);
    let run = check(&with(", authentication: {username: admin, password: geheim3}"));
    assert_eq!(run.code, 0, "{run:?}");
    assert!(!run.out.contains("geheim"), "{}", run.out);
    assert!(
        faults(&with(", authentication: {username: admin}"))[0]
            .starts_with("restapi.authentication: expected both")
    );
}

#[test]
fn the_environment_wins_over_the_file_and_outriders_over_patronis() {
    let run = File::new(SMALLEST).check(&[
        ("PATRONI_NAME", "p2"),
        ("PATRONI_SCOPE", "other"),
        ("OUTRIDER_NAME", "p3"),
        ("PATRONI_ETCD3_HOSTS", "a:2379, b:2379"),
        ("OUTRIDER_POSTGRESQL_LISTEN", "127.0.0.1:6000"),
        ("OUTRIDER_ARCHIVE_STORE", "file:///srv/archive"),
    ]);
    assert_eq!(run.code, 0, "{run:?}");
    for line in [
        "scope: other",
        "name: p3",
        "  - a:2379",
        "  - b:2379",
        "  connect_address: 127.0.0.1:6000",
        "  store: file:///srv/archive",
    ] {
        assert!(run.out.lines().any(|shown| shown == line), "{line:?} in {}", run.out);
    }
}

#[test]
fn secrets_come_from_files_too() {
    let text = SMALLEST.replace("{password: geheim1}", "{password_file: /nonexistent/secret}");
    let file = File::new(&text);
    let run = file.check(&[]);
    assert_eq!(run.code, 64);
    assert!(
        run.err
            .contains("superuser.password_file: cannot read the secret in /nonexistent/secret: No such file"),
        "{run:?}"
    );
    let secret = file.directory.path().join("secret");
    let by_environment = [("OUTRIDER_SUPERUSER_PASSWORD_FILE", secret.to_str().unwrap())];
    fs::write(&secret, "\n").unwrap();
    assert!(file.check(&by_environment).err.contains("is empty"));
    fs::write(&secret, "geheim4\n").unwrap();
    assert_eq!(file.check(&by_environment).code, 0);
    let both = SMALLEST.replace("{password: geheim1}", "{password: geheim1, password_file: /x}");
    assert!(faults(&both)[0].contains("superuser.password: is given twice"));
    let list = SMALLEST.replace("geheim1", "[a, b]");
    assert!(faults(&list)[0].contains("expected a non-empty text"));
}

#[test]
fn a_file_that_cannot_be_read_says_why_and_tells_no_secret() {
    let run = run(&["check-config", "/nonexistent/p1.yaml"]);
    assert_eq!(run.code, 64);
    assert!(
        run.err.contains("cannot read the configuration file /nonexistent/p1.yaml")
            && run.err.contains("No such file")
    );
    let run = check("scope: demo\npassword: geheim: [\n");
    assert_eq!(run.code, 64);
    assert!(
        run.err.contains("as YAML") && run.err.contains("line 2") && !run.err.contains("geheim"),
        "{}",
        run.err
    );
    assert!(check("").err.contains("it is empty"));
    assert!(check("- a\n").err.contains("expected keys with values at the top"));
    assert!(check("scope: a\nscope: b\n").err.contains("scope"));
}

#[test]
fn the_keys_of_an_archive_in_s3_may_stand_where_amazons_tools_look() {
    let text = |keys: &str| format!("{SMALLEST}archive: {{store: \"s3://bucket/path\"{keys}}}\n");
    let keys = [
        ("AWS_ACCESS_KEY_ID", "geheim7"),
        ("AWS_SECRET_ACCESS_KEY", "geheim8"),
        ("AWS_SESSION_TOKEN", "geheim9"),
    ];
    let run = File::new(&text("")).check(&keys);
    assert!(run.code == 0 && run.out.contains("session_token: ") && !run.out.contains("geheim"), "{run:?}");
    // The file of the member says which, where it says any.
    let run = File::new(&text(", access_key_id: a, secret_access_key: b")).check(&keys);
    assert!(run.code == 0 && !run.out.contains("session_token"), "{run:?}");
    let run = File::new(&text("")).check(&keys[..1]);
    assert!(run.code == 64 && run.err.contains("archive.secret_access_key: is missing"), "{run:?}");
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("keys");
    let of = |profile: &str| format!("[{profile}]\naws_access_key_id = a\naws_secret_access_key = b\n");
    fs::write(&path, of("default") + &of("backup")).unwrap();
    let path = path.to_str().unwrap();
    let shared = [("AWS_SHARED_CREDENTIALS_FILE", path), ("AWS_PROFILE", "backup")];
    let run = File::new(&text("")).check(&shared);
    assert!(
        run.out.contains(&format!("credentials_file: {path}")) && run.out.contains("profile: backup"),
        "{run:?}"
    );
    let run = check(&text(&format!(", credentials_file: {path}")));
    assert!(run.code == 0 && run.out.contains("profile: default"), "{run:?}");
    let found = faults(&text(", access_key_id: a, secret_access_key: b, profile: backup"));
    assert!(found[0].starts_with("archive.profile: goes with credentials_file"), "{found:?}");
}

#[test]
fn a_credentials_file_that_cannot_be_used_is_told_before() {
    let file = File::new("");
    let credentials = file.directory.path().join("credentials");
    let keys = format!(
        "store: \"s3://b/p\", endpoint: \"https://127.0.0.1:1\", region: x, credentials_file: {}",
        credentials.display()
    );
    fs::write(&file.path, format!("{SMALLEST}archive: {{{keys}}}\n")).unwrap();
    for (content, words) in [
        (None, "No such file or directory"),
        (Some("[default]\naws_access_key_id = a\n"), "aws_secret_access_key"),
        (Some("[other]\naws_access_key_id = a\naws_secret_access_key = b\n"), "default"),
    ] {
        if let Some(content) = content {
            fs::write(&credentials, content).unwrap();
        }
        let run = file.check(&[]);
        assert!(
            run.code == 64 && run.err.contains("archive: ") && run.err.contains(words),
            "{words}: {run:?}"
        );
    }
    fs::write(&credentials, "[default]\naws_access_key_id = a\naws_secret_access_key = b\n").unwrap();
    let run = file.check(&[]);
    assert_eq!(run.code, 0, "{run:?}");
}

#[test]
fn an_archive_in_s3_needs_keys_and_hides_them() {
    let with = |keys: &str| {
        format!(
            "{SMALLEST}archive: {{store: \"s3://bucket/path\", endpoint: \"http://127.0.0.1:9000\"{keys}}}\n"
        )
    };
    let found = faults(&with(""));
    assert!(
        found[0].starts_with("archive.access_key_id: is missing")
            && found[1].starts_with("archive.secret_access_key: is missing")
    );
    let run = check(&with(", access_key_id: geheim5, secret_access_key: geheim6, compression_level: 6"));
    assert_eq!(run.code, 0, "{run:?}");
    assert!(run.out.contains("path_style: true") && run.out.contains("compression_level: 6"), "{}", run.out);
    assert!(!run.out.contains("geheim"), "{}", run.out);
    assert!(run.out.contains("create_bucket: false"), "a bucket is made on request only: {}", run.out);
    let run = check(&with(", access_key_id: geheim5, secret_access_key: geheim6, create_bucket: true"));
    assert!(run.out.contains("create_bucket: true"), "{}", run.out);
    assert!(
        faults(&with(", create_bucket: perhaps, access_key_id: a, secret_access_key: b"))[0]
            .starts_with("archive.create_bucket:")
    );
}

#[test]
fn each_compression_has_levels_of_its_own() {
    let with = |keys: &str| format!("{SMALLEST}archive: {{store: \"file:///archive\", {keys}}}\n");
    for (keys, level) in [
        ("fetch_ahead: 0", "compression_level: 1"),
        ("compression: gzip, compression_level: 9", "compression_level: 9"),
        ("compression: zstd", "compression_level: 1"),
        ("compression: zstd, compression_level: 19", "compression_level: 19"),
        ("compression: none", "compression: none"),
    ] {
        let run = check(&with(keys));
        assert_eq!(run.code, 0, "{run:?}");
        assert!(run.out.contains(level), "{level}: {}", run.out);
    }
    for (keys, fault) in [
        ("compression: lz4", "archive.compression: \"lz4\": expected gzip, zstd or none"),
        ("compression_level: 10", "archive.compression_level: 10: expected a whole number from 1 to 9"),
        (
            "compression: zstd, compression_level: 20",
            "archive.compression_level: 20: expected a whole number from 1 to 19",
        ),
        ("fetch_ahead: 33", "archive.fetch_ahead: 33: expected a whole number from 0 to 32"),
    ] {
        assert!(faults(&with(keys))[0].starts_with(fault), "{:?}", faults(&with(keys)));
    }
}

#[test]
fn the_interval_of_streaming_is_a_duration_or_nothing() {
    let with = |keys: &str| format!("{SMALLEST}archive: {{store: \"file:///x\"{keys}}}\n");
    for (keys, shown) in [("", "1.0"), (", stream_interval: 0", "0.0"), (", stream_interval: 250ms", "0.25")]
    {
        let run = check(&with(keys));
        assert_eq!(run.code, 0, "{run:?}");
        assert!(run.out.contains(&format!("stream_interval: {shown}")), "{}", run.out);
    }
    for bad in ["10ms", "often"] {
        let found = faults(&with(&format!(", stream_interval: {bad}")));
        assert!(
            found[0].contains("archive.stream_interval") && found[0].contains("at least 100ms"),
            "{found:?}"
        );
    }
}

#[test]
fn retention_is_a_window_or_a_count() {
    let with = |retention: &str| {
        format!("{SMALLEST}archive: {{store: \"file:///srv/archive\", retention: {{{retention}}}}}\n")
    };
    for (retention, shown) in [
        ("", ["window: 7d", "minimum: 1"]),
        ("window: 36h, minimum: 2", ["window: 36h", "minimum: 2"]),
        ("count: 3", ["window: none", "count: 3"]),
        ("count: 3, window: 14d", ["window: 14d", "count: 3"]),
    ] {
        let run = check(&with(retention));
        assert_eq!(run.code, 0, "{run:?}");
        for line in shown {
            assert!(run.out.lines().any(|found| found.trim() == line), "{line:?} in {}", run.out);
        }
    }
    let found = faults(&with("window: soon, minimum: 0, keep: 1"));
    assert_eq!(found.len(), 3, "{found:?}");
    for fault in [
        "archive.retention.window: \"soon\": expected a time such as 7d or 36h",
        "archive.retention.minimum: 0",
    ] {
        assert!(found.iter().any(|one| one.starts_with(fault)), "{fault} in {found:?}");
    }
}

#[test]
fn options_for_initdb_are_texts_or_pairs() {
    let run = check(&format!(
        "{SMALLEST}bootstrap: {{initdb: [data-checksums, {{encoding: LATIN1}}, {{wal-segsize: 64}}]}}\n"
    ));
    assert_eq!(run.code, 0, "{run:?}");
    for line in ["  - --data-checksums", "  - --encoding=LATIN1", "  - --wal-segsize=64"] {
        assert!(run.out.lines().any(|shown| shown == line), "{line:?} in {}", run.out);
    }
    assert!(
        faults(&format!("{SMALLEST}bootstrap: {{initdb: [{{pgdata: /x}}]}}\n"))[0]
            .starts_with("bootstrap.initdb:")
    );
}

#[test]
fn what_is_passed_on_is_passed_on_as_it_was_written() {
    let text = SMALLEST.replace("name: p1", "name: 007").replace("scope: demo", "scope: 1e3");
    let run = check(&format!(
        "{text}  parameters: {{log_file_mode: 0640, application_name: 1.10, jit: no}}\ntags: {{nofailover: yes, rack: 0x10}}\n\
         bootstrap: {{dcs: {{synchronous_mode: on, postgresql: {{parameters: {{unix_socket_permissions: 0700, \
         shared_preload_libraries: [plpgsql, 'auto_explain']}}}}}}, initdb: [{{locale: no}}, data-checksums]}}\n"
    ));
    assert_eq!(run.code, 0, "{run:?}");
    for words in [
        "name: \"007\"",
        "scope: \"1e3\"",
        "log_file_mode: \"0640\"",
        "application_name: \"1.10\"",
        "jit: \"no\"",
        "nofailover: true",
        "rack: \"0x10\"",
        "synchronous_mode: true",
        "unix_socket_permissions: \"0700\"",
        "- --locale=no",
    ] {
        let plain = words.replace('"', "");
        let is_there =
            run.out.lines().map(|line| line.trim().replace(['"', '\''], "")).any(|line| line == plain);
        assert!(is_there, "{words} in {}", run.out);
    }
}

#[test]
fn what_would_only_fail_later_is_told_before() {
    let wrong = SMALLEST.replace("/usr/lib/postgresql/15/bin", "/usr/bin");
    let run = check(&wrong);
    assert!(run.err.contains("warning: postgresql.bin_dir: /usr/bin has no postgres, no initdb"), "{run:?}");
    for (rest, postgres, clash) in [
        ("127.0.0.1:6000", "127.0.0.1:6000", true),
        ("127.0.0.1:6000", "\"*:6000\"\n  connect_address: 127.0.0.1:6000", true),
        ("127.0.0.1:6000", "localhost:6000", true),
        ("127.0.0.1:6000", "127.0.0.2:6000", false),
        ("127.0.0.1:6000", "127.0.0.1:6001", false),
    ] {
        let run = check(&format!("{SMALLEST}  listen: {postgres}\nrestapi: {{listen: {rest}}}\n"));
        let told = run.err.contains("restapi.listen: \"127.0.0.1:6000\": is the port of Postgres");
        assert_eq!((told, run.code == 64), (clash, clash), "{rest} {postgres}: {run:?}");
    }
    let file = File::new(&SMALLEST.replace("{password: geheim1}", "{password_file: secret}"));
    let secret = file.directory.path().join("secret");
    fs::write(&secret, "geheim4\n").unwrap();
    let text = SMALLEST.replace("{password: geheim1}", &format!("{{password_file: {}}}", secret.display()));
    fs::write(&file.path, text).unwrap();
    for (path, other) in [(&file.path, &secret), (&secret, &file.path)] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o644)).unwrap();
        fs::set_permissions(other, fs::Permissions::from_mode(0o600)).unwrap();
        let run = file.check(&[]);
        assert_eq!(run.code, 0, "{run:?}");
        let told: Vec<&str> =
            run.err.lines().filter(|line| line.contains("every user can read it")).collect();
        assert!(told.len() == 1 && told[0].contains(&path.display().to_string()), "{run:?}");
    }
}

#[test]
fn a_name_that_makes_no_slot_of_its_own_is_refused() {
    for name in ["outrider_archive", "Outrider-Archive"] {
        let found = faults(&SMALLEST.replace("name: p1", &format!("name: {name}")));
        assert!(
            found.len() == 1 && found[0].contains("would use the replication slot outrider_archive"),
            "{found:?}"
        );
    }
    // PostgreSQL would cut it.
    let found = faults(&SMALLEST.replace("name: p1", &format!("name: {}", "x".repeat(64))));
    assert!(found.len() == 1 && found[0].contains("expected 1 to 63"), "{found:?}");
}

/// With these keys for the replication user.
fn protected(keys: &str) -> String {
    SMALLEST
        .replace("replication: {password: geheim2}", &format!("replication: {{password: geheim2, {keys}}}"))
}

#[test]
fn a_protection_of_connections_that_cannot_be_obeyed_is_refused() {
    for (keys, words) in [
        (
            "sslmode: \"yes\"",
            "sslmode: \"yes\": expected disable, allow, prefer, require, verify-ca or verify-full",
        ),
        ("sslmode: verify-full", "sslmode: \"verify-full\": needs sslrootcert"),
        ("sslmode: verify-ca", "sslmode: \"verify-ca\": needs sslrootcert"),
        (
            "sslmode: verify-full, sslrootcert: system",
            "sslrootcert: \"system\": expected an absolute path (system",
        ),
        ("sslmode: verify-ca, sslrootcert: /nowhere/ca.crt", "sslmode: cannot read /nowhere/ca.crt"),
        ("sslmode: require, sslrootcert: /etc/passwd", "it holds no PEM certificate"),
        ("sslmode: require, sslcert: /x.crt", "sslcert: goes with sslkey"),
        ("sslmode: require, sslcrl: /x.crl", "sslcrl: goes with sslrootcert"),
        ("sslpassword: x", "sslpassword: is not supported here"),
        ("gssencmode: require", "gssencmode: \"require\": expected disable or prefer"),
        ("channel_binding: always", "channel_binding: \"always\": expected disable, prefer or require"),
        (
            "sslmode: disable, channel_binding: require",
            "channel_binding: \"require\": needs an encrypted connection",
        ),
    ] {
        let found = faults(&protected(keys));
        assert!(found.iter().any(|fault| fault.contains(words)), "{keys}: {found:?}");
        assert!(
            found.iter().any(|fault| fault.starts_with("postgresql.authentication.replication.")),
            "{found:?}"
        );
    }
}

#[test]
fn a_protection_of_connections_is_in_effect_from_the_file_and_the_environment() {
    let file = File::new(&protected("sslmode: require, channel_binding: require, gssencmode: disable"));
    let run = file.check(&[("PATRONI_SUPERUSER_SSLMODE", "require")]);
    assert_eq!(run.code, 0, "{run:?}");
    assert!(!run.err.contains("has no effect"), "{run:?}");
    // The rewind user is the superuser where none is named.
    for (line, times) in
        [("sslmode: require", 3), ("channel_binding: require", 1), ("gssencmode: disable", 1)]
    {
        assert_eq!(run.out.matches(line).count(), times, "{line}: {}", run.out);
    }
    let run = check(&protected("sslmode: disable, sslrootcert: /nowhere/ca.crt"));
    assert!(run.err.contains("replication.sslrootcert has no effect while sslmode is disable"), "{run:?}");
}

#[test]
fn what_the_agent_keeps_lies_outside_the_data_directory() {
    let found =
        faults(&format!("{SMALLEST}state_dir: /srv/pg/data/state\nsupervisor: {{socket: /srv/pg/data/s}}\n"));
    assert!(
        found.len() == 2
            && found[0].starts_with("state_dir: ")
            && found[1].starts_with("supervisor.socket: ")
    );
    assert!(found.iter().all(|fault| fault.contains("lies in the data directory")), "{found:?}");
    let run = check(&format!("{SMALLEST}  parameters: {{unix_socket_directories: /srv/pg/data/run}}\n"));
    assert!(run.code == 0 && run.err.contains("the socket is in /srv/pg/data.outrider"), "{run:?}");
}

#[test]
fn a_tag_that_is_misspelt_is_named() {
    for (tag, meant) in [
        ("nofailovr", "nofailover"),
        ("no-failover", "nofailover"),
        ("failover-priority", "failover_priority"),
        ("NoSync", "nosync"),
    ] {
        let found = faults(&format!("{SMALLEST}tags: {{{tag}: 1}}\n"));
        assert_eq!(found, [format!("tags.{tag}: is not a known tag; did you mean {meant}?")]);
    }
    assert_eq!(check(&format!("{SMALLEST}tags: {{zone: a, rack: 7, datacenter: x}}\n")).code, 0);
}

/// Says first which PostgreSQL is asked: the one of the test bed where that is another.
fn with_programs(rest: &str) -> String {
    let programs = std::env::var("OUTRIDER_PG_BIN");
    SMALLEST
        .replace("/usr/lib/postgresql/15/bin", programs.as_deref().unwrap_or("/usr/lib/postgresql/15/bin"))
        + rest
}

#[test]
fn postgres_itself_is_asked_about_parameters() {
    let found = faults(&with_programs(
        "  parameters: {shared_bufers: 1GB, work_mem: 64 apples, log_timezone: Mars, jit: off, some_extension.knob: 1}\n\
         bootstrap: {dcs: {postgresql: {parameters: {max_connections: 500ABC}}}}\n",
    ));
    for words in [
        "bootstrap.dcs.postgresql.parameters.max_connections: \"500ABC\": FATAL: invalid value",
        "postgresql.parameters.log_timezone: \"Mars\": FATAL: invalid value",
        "postgresql.parameters.shared_bufers: \"1GB\": FATAL: unrecognized configuration parameter",
        "postgresql.parameters.work_mem: \"64 apples\": FATAL: invalid value",
    ] {
        assert_eq!(found.iter().filter(|fault| fault.starts_with(words)).count(), 1, "{words}: {found:#?}");
    }
    assert_eq!(found.len(), 4, "{found:#?}");
    let run = check(&with_programs("  parameters: {work_mem: 5MB, port: 1, hot_standby: on}\n"));
    assert_eq!(run.code, 0, "{run:?}");
    let warned: Vec<&str> = run.err.lines().filter(|line| line.contains("postgresql.parameters")).collect();
    let expected =
        "outrider: warning: postgresql.parameters.port has no effect here: Outrider sets it itself";
    assert_eq!(warned, [expected]);
    let run = check(&SMALLEST.replace("/usr/lib/postgresql/15/bin", "/nonexistent/bin"));
    assert!(run.err.contains("the parameters were not checked: /nonexistent/bin/postgres"), "{run:?}");
}

#[test]
fn the_rules_of_the_cluster_are_checked_as_those_in_the_dcs_are() {
    let found = faults(&format!(
        "{SMALLEST}  parameters: {{work_mem: [1MB]}}\n  pg_hba: [\"hots all all all md5\"]\n\
         bootstrap: {{dcs: {{loop_wiat: 1, pause: true, slots: {{a: {{type: logical}}}}, postgresql: {{parameters: x, use_slots: false}}}}}}\n"
    ));
    for words in [
        "bootstrap.dcs.loop_wiat: is not a known key; did you mean loop_wait?",
        "bootstrap.dcs.pause: true: is not honoured",
        "bootstrap.dcs.slots.a:",
        "bootstrap.dcs.postgresql.parameters: \"x\": expected a section",
        "bootstrap.dcs.postgresql.use_slots: false: is not honoured",
        "postgresql.parameters.work_mem: \"[...]\": expected one value",
        "postgresql.pg_hba: \"hots all all all md5\": \"hots\" is no kind of connection",
    ] {
        assert!(found.iter().any(|fault| fault.starts_with(words)), "{words}: {found:#?}");
    }
}

/// The smallest configuration with an archive, and these keys in it.
fn with_archive(keys: &str, rest: &str) -> String {
    format!("{SMALLEST}archive: {{store: \"file:///srv/archive\"{keys}}}\n{rest}")
}

#[test]
fn backups_are_due_four_times_a_day_unless_something_else_is_said() {
    let run = check(&with_archive("", ""));
    assert_eq!(run.code, 0, "{run:?}");
    assert!(
        run.out.contains("  schedule: 0 */6 * * *\n") || run.out.contains("\"0 */6 * * *\""),
        "{}",
        run.out
    );
    assert!(run.out.contains("method: initdb"), "{}", run.out);
    let run = check(&with_archive(", schedule: \"TZ=UTC 0 3 * * *\", backup_rate: 50MB", ""));
    assert!(run.out.contains("TZ=UTC 0 3 * * *") && run.out.contains("backup_rate: 52428800"), "{}", run.out);
    assert!(check(&with_archive(", schedule: off", "")).out.contains("schedule: never"));
    let found = faults(&with_archive(", schedule: \"at night\", backup_rate: fast", ""));
    assert!(
        found.iter().any(|fault| fault.contains("archive.schedule") && fault.contains("cron")),
        "{found:?}"
    );
    assert!(found.iter().any(|fault| fault.contains("archive.backup_rate")), "{found:?}");
}

#[test]
fn a_backup_is_restored_for_proof_only_when_that_is_said() {
    let run = check(&with_archive("", ""));
    assert!(run.code == 0 && run.out.contains("  drill: never\n"), "{run:?}");
    let run = check(&with_archive(", drill: \"TZ=UTC 0 3 1 * *\", drill_directory: /srv/drill", ""));
    assert!(
        run.out.contains("TZ=UTC 0 3 1 * *") && run.out.contains("drill_directory: /srv/drill"),
        "{}",
        run.out
    );
    let found = faults(&with_archive(", drill: weekly", ""));
    assert!(found[0].contains("archive.drill") && found[0].contains("cron"), "{found:?}");
}

#[test]
fn a_cluster_can_begin_with_an_archive_at_one_target() {
    let origin =
        "bootstrap: {method: archive, archive: {server: other, target_time: \"2026-01-01T00:00:00Z\"}}\n";
    let run = check(&with_archive("", origin));
    assert_eq!(run.code, 0, "{run:?}");
    for shown in ["method: archive", "server: other", "the time 2026-01-01T00:00:00Z"] {
        assert!(run.out.contains(shown), "{shown} in {}", run.out);
    }
    let found = faults(&format!("{SMALLEST}bootstrap: {{method: archive}}\n"));
    assert!(
        found.iter().any(|fault| fault.contains("bootstrap.method") && fault.contains("archive.store")),
        "{found:?}"
    );
    let twice = "bootstrap: {method: archive, archive: {target_lsn: 0/1, target_xid: 7}}\n";
    let found = faults(&with_archive("", twice));
    assert!(found.iter().any(|fault| fault.contains("keep one")), "{found:?}");
    let found = faults(&with_archive(
        "",
        "bootstrap: {method: archive, archive: {target_time: \"2026-01-01 00:00\"}}\n",
    ));
    assert!(found.iter().any(|fault| fault.contains("zone")), "{found:?}");
    let found = faults(&with_archive("", "bootstrap: {method: wal_e}\n"));
    assert!(found.iter().any(|fault| fault.contains("bootstrap.method")), "{found:?}");
}
