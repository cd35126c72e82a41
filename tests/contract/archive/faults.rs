//! Stores that refuse, overwrite, are down, freeze, or have a certificate authority of their own.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use bytes::Bytes;
use outrider_bed::{PROGRAM_LIMIT, finish};
use outrider_store::{Conditions, Error, Metadata, Replaced, S3Options, Secret, Stored};
use tokio::time::timeout;

use super::PATIENCE;
use super::bench::{Bench, keys, read};
use super::embedded::{Embedded, Obedience};
use super::minio::Minio;
use super::pg_wal::{PgWal, leadership, segment, shown};
use super::s3::{free_port, open, options};

const FIRST: &str = "000000010000000000000001";
const SECOND: &str = "000000010000000000000002";

/// Each call with these options must be refused, with these words.
async fn refused(options: S3Options, words: &[&str]) {
    let store = open(&options);
    let errors = [
        store.put_if_absent("k", Bytes::from_static(b"x").into(), &Metadata::new()).await.unwrap_err(),
        store.head("k").await.unwrap_err(),
        store.get("k").await.unwrap_err(),
        store.list("", None, 10).await.unwrap_err(),
        store.probe("probe").await.unwrap_err(),
    ];
    for error in errors {
        assert!(error.needs_a_person() && !error.is_silence(), "{error:?}");
        let text = error.to_string();
        assert!(words.iter().any(|word| text.contains(word)), "{text} has none of {words:?}");
        assert!(!text.contains("wrong-secret"), "{text}");
    }
}

/// Wrong credentials, on a store at this endpoint.
async fn wrong_credentials(endpoint: &str) {
    let right = options(endpoint);
    let secret = Secret::new("wrong-secret");
    refused(S3Options { secret_access_key: secret, ..right.clone() }, &["SignatureDoesNotMatch"]).await;
    let key = Secret::new("nobody");
    // MinIO's own words for a key that it does not know, and those of s3s.
    let words = ["InvalidAccessKeyId", "NotSignedUp"];
    refused(S3Options { access_key_id: key, ..right }, &words).await;
}

#[tokio::test]
async fn an_embedded_s3_refuses_wrong_credentials_clearly() {
    // Of a missing bucket s3s-fs knows nothing: it makes it with the first put.
    wrong_credentials(&Embedded::start(Obedience::Full).endpoint()).await;
}

#[tokio::test]
async fn minio_refuses_wrong_credentials_and_a_missing_bucket_clearly() {
    if let Some(minio) = Minio::start(None).await {
        wrong_credentials(&minio.endpoint()).await;
        let bucket = "no-such-bucket".to_owned();
        refused(S3Options { bucket, ..options(&minio.endpoint()) }, &["NoSuchBucket"]).await;
    }
}

#[tokio::test]
async fn a_missing_bucket_is_made_on_request_only_and_in_either_style_of_address() {
    let Some(minio) = Minio::start(None).await else { return };
    let port = minio.endpoint().rsplit_once(':').unwrap().1.to_owned();
    let path_style = options(&format!("http://127.0.0.1:{port}"));
    let host_style = S3Options { path_style: false, ..options(&minio.endpoint()) };
    for (options, bucket) in [(path_style, "new-by-path"), (host_style, "new-by-host")] {
        let missing = S3Options { bucket: bucket.to_owned(), ..options };
        let error = open(&missing).probe("probe").await.unwrap_err();
        assert!(error.to_string().contains("archive.create_bucket"), "{error}");
        let store = open(&S3Options { create_bucket: true, ..missing.clone() });
        assert_eq!(store.probe("probe").await.unwrap(), Conditions::Honoured, "{bucket}");
        assert_eq!(open(&missing).probe("probe").await.unwrap(), Conditions::Honoured, "{bucket}");
        assert_eq!(keys(&*store).await, ["probe"]);
        assert_eq!(read(&*store, "probe").await.unwrap(), b"outrider\n");
        store.delete("probe").await.unwrap();
    }
}

#[tokio::test]
async fn what_is_no_s3_store_never_says_that_an_object_is_missing() {
    // An HTTP server that knows nothing, such as a proxy in front of a store that is gone.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, axum::Router::new()).await.unwrap() });
    refused(options(&endpoint), &["404"]).await;
}

#[tokio::test]
async fn a_store_that_overwrites_is_found_out_and_looked_at_before_each_put() {
    for obedience in [Obedience::Ignores, Obedience::Declines, Obedience::DeclinesWith400] {
        let embedded = Embedded::start(obedience);
        let store = open(&options(&embedded.endpoint()));
        assert_eq!(store.probe("server/outrider/probe").await.unwrap(), Conditions::Ignored, "{obedience:?}");
        let put = async |body: &'static str| {
            store
                .put_if_absent("k", Bytes::from_static(body.as_bytes()).into(), &Metadata::new())
                .await
                .unwrap()
        };
        assert_eq!(put("first").await, Stored::Created, "{obedience:?}");
        assert_eq!(put("second").await, Stored::AlreadyThere, "{obedience:?}");
        assert_eq!(read(&*store, "k").await.unwrap(), b"first");
        let seen = store.head("k").await.unwrap().unwrap().version;
        let replace = async |body: &'static str| {
            store.replace("k", Bytes::from_static(body.as_bytes()).into(), seen.as_ref()).await.unwrap()
        };
        assert_eq!(replace("third").await, Replaced::Done, "{obedience:?}");
        assert_eq!(replace("fourth").await, Replaced::Changed, "{obedience:?}");
        let upload = store.begin_upload("k").await.unwrap();
        upload.part(1, Bytes::from_static(b"fifth").into()).await.unwrap();
        assert_eq!(upload.complete().await.unwrap(), Stored::AlreadyThere, "{obedience:?}");
        assert_eq!(read(&*store, "k").await.unwrap(), b"third");

        let pg_wal = PgWal::new();
        pg_wal.add(FIRST, &segment(FIRST, 1));
        let shipper = pg_wal.shipper(store);
        let mut status = shipper.status();
        shipper.enable(leadership(1));
        let shown = shown(&mut status, "one archived", |status| status.counters.files == 1).await;
        assert_eq!(shown.conditions, Some(Conditions::Ignored));
    }
}

#[tokio::test]
async fn wal_waits_while_the_store_is_down_and_leaves_when_it_is_back() {
    let mut embedded = Embedded::start(Obedience::Full);
    let store = open(&options(&embedded.endpoint()));
    let pg_wal = PgWal::new();
    let shipper = pg_wal.shipper(store.clone());
    let mut status = shipper.status();
    shipper.enable(leadership(1));
    pg_wal.add(FIRST, &segment(FIRST, 1));
    shown(&mut status, "one archived", |status| status.counters.files == 1).await;

    embedded.stop();
    let error = store.head("k").await.unwrap_err();
    assert!(error.is_silence(), "{error:?}");
    pg_wal.add(SECOND, &segment(SECOND, 2));
    let down =
        shown(&mut status, "the store fails", |status| status.store_failing && status.waiting == 1).await;
    let failure = down.last_failure.unwrap();
    assert_eq!(failure.name.unwrap().to_string(), SECOND);
    assert!(failure.text.contains("cannot write s3://backups/some/path/homepage/wals/"), "{}", failure.text);
    assert_eq!(down.waiting_bytes, super::pg_wal::SIZE.bytes());
    assert_eq!(down.counters.files, 1);

    embedded.start_again();
    let up = shown(&mut status, "two archived", |status| status.counters.files == 2).await;
    assert!(!up.store_failing && up.waiting == 0 && up.oldest_waiting.is_none(), "{up:?}");
}

#[tokio::test]
async fn a_store_that_was_never_there_is_said_to_be_so() {
    let store = open(&options(&format!("http://127.0.0.1:{}", free_port())));
    let pg_wal = PgWal::new();
    let shipper = pg_wal.shipper(store);
    let mut status = shipper.status();
    shipper.enable(leadership(1));
    let shown = shown(&mut status, "a failure", |status| status.last_failure.is_some()).await;
    let text = shown.last_failure.unwrap().text;
    assert!(text.contains("Connection refused"), "{text}");
}

#[tokio::test]
async fn a_frozen_store_costs_its_deadline_and_no_more() {
    let Some(minio) = Minio::start(None).await else { return };
    let store = open(&S3Options { request_timeout: Duration::from_secs(1), ..options(&minio.endpoint()) });
    let body = Bytes::from(vec![1; 8 << 20]);
    assert_eq!(
        store.put_if_absent("a", body.clone().into(), &Metadata::new()).await.unwrap(),
        Stored::Created
    );
    let mut download = store.get("a").await.unwrap().unwrap();
    assert!(download.body.next().await.unwrap().is_some());

    minio.freeze();
    let errors: [Error; 5] = timeout(PATIENCE, async {
        [
            store.put_if_absent("b", body.into(), &Metadata::new()).await.unwrap_err(),
            store.head("a").await.unwrap_err(),
            store.get("a").await.unwrap_err(),
            store.list("", None, 10).await.unwrap_err(),
            // What was in the buffers comes, then nothing.
            loop {
                match download.body.next().await {
                    Ok(Some(_)) => {}
                    Ok(None) => panic!("a frozen store sent 8 MiB"),
                    Err(error) => break error,
                }
            },
        ]
    })
    .await
    .expect("every request has a deadline");
    for error in errors {
        assert!(error.is_silence(), "{error:?}");
    }

    minio.thaw();
    // The put that got no answer may have happened; the same again is safe and tells.
    super::bench::wait_until("the store answers again", async || store.head("a").await.is_ok()).await;
    store.put_if_absent("b", Bytes::from_static(b"x").into(), &Metadata::new()).await.unwrap();
    assert_eq!(keys(&*store).await, ["a", "b"]);
}

#[tokio::test]
async fn a_store_with_an_authority_of_its_own_is_trusted_when_named() {
    let certificates = tempfile::tempdir().unwrap();
    if !make_certificates(certificates.path()) {
        println!("skipped: no openssl");
        return;
    }
    let Some(minio) = Minio::start(Some(certificates.path())).await else { return };
    let ca_file = Some(certificates.path().join("CAs/ca.crt"));
    let store = open(&S3Options { ca_file, ..options(&minio.endpoint()) });
    assert_eq!(store.probe("probe").await.unwrap(), Conditions::Honoured);
    // Bodies are not signed here; TLS keeps them whole.
    let body = Bytes::from(vec![9; 3 << 20]);
    let put = store.put_if_absent("k", body.clone().into(), &Metadata::new()).await;
    assert_eq!(put.unwrap(), Stored::Created);
    assert!(read(&*store, "k").await.unwrap() == body);
    let stranger = open(&options(&minio.endpoint()));
    let error = stranger.head("probe").await.unwrap_err();
    assert!(error.is_silence() && error.to_string().contains("certificate"), "{error}");
}

#[tokio::test]
async fn a_directory_that_cannot_be_written_is_named() {
    let directory = tempfile::tempdir().unwrap();
    // A file where the store needs a directory stops root too, whom modes do not.
    std::fs::write(directory.path().join("archive"), "").unwrap();
    let store = outrider_store::DirectoryStore::new(directory.path().join("archive"));
    let put =
        outrider_store::Store::put_if_absent(&store, "a/b", Bytes::new().into(), &Metadata::new()).await;
    let error = put.unwrap_err();
    assert!(matches!(error, Error::Directory { .. }) && error.to_string().contains("archive"), "{error}");
}

#[tokio::test]
async fn no_temporary_file_of_a_directory_is_left_or_listed() {
    let bench = Bench::directory();
    let store = bench.store();
    for _ in 0..2 {
        store.put_if_absent("a", Bytes::from_static(b"x").into(), &Metadata::new()).await.unwrap();
    }
    let root = store.url().strip_prefix("file://").unwrap().to_owned();
    assert_eq!(super::bench::names(Path::new(&root)), ["a"]);
    std::fs::write(Path::new(&root).join(".outrider-0123.tmp"), "half").unwrap();
    assert_eq!(keys(&*store).await, ["a"]);
}

/// An authority and a certificate of it for `localhost`, laid out as MinIO wants them.
fn make_certificates(directory: &Path) -> bool {
    std::fs::create_dir(directory.join("CAs")).unwrap();
    let script = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=test-ca -keyout ca.key -out CAs/ca.crt \
                    -addext basicConstraints=critical,CA:TRUE && \
                  openssl req -newkey rsa:2048 -nodes -subj /CN=localhost -keyout private.key -out server.csr && \
                  printf 'subjectAltName=DNS:localhost\\n' > ext && \
                  openssl x509 -req -in server.csr -CA CAs/ca.crt -CAkey ca.key -CAcreateserial -days 2 \
                    -extfile ext -out public.crt";
    let mut openssl = Command::new("sh");
    let made = finish(openssl.args(["-c", script]).current_dir(directory), PROGRAM_LIMIT).unwrap();
    made.status.success()
}
