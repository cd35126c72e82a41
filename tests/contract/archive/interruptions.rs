//! Requests and answers that are cut, lost, late or not S3's: no half object, no short read, no false word.

use std::time::Duration;

use bytes::Bytes;
use outrider_store::{Error, Metadata, Payload, Replaced, S3Options, Store, Stored};

use super::bench::{Bench, bytes_of, read};
use super::interference::{Fault, Interference};
use super::s3::{open, options};

/// More than any connection holds on the way.
const LONG: usize = 8 << 20;
const OFTEN: u32 = 100;

/// Runs a body on each S3 store of this machine: given are one behind interference and the same without.
async fn on_each_s3(body: impl AsyncFn(&Interference, &dyn Store)) {
    for bench in [Some(Bench::embedded()), Bench::minio().await].into_iter().flatten() {
        let endpoint = bench.endpoint();
        let port = endpoint.rsplit_once(':').unwrap().1.parse().unwrap();
        body(&Interference::to(port).await, &*bench.store()).await;
    }
}

fn long() -> Payload {
    Bytes::from(vec![7; LONG]).into()
}

fn short() -> Payload {
    Bytes::from_static(b"short").into()
}

async fn put(store: &dyn Store, key: &str, body: Payload) -> Result<Stored, Error> {
    store.put_if_absent(key, body, &Metadata::new()).await
}

#[tokio::test]
async fn a_put_whose_answers_are_lost_is_unknown_and_the_next_one_tells() {
    on_each_s3(async |between, direct| {
        let store = open(&options(&between.endpoint()));
        between.on_next(OFTEN, Fault::LoseAnswer).await;
        let error = put(&*store, "k", short()).await.unwrap_err();
        assert!(error.is_silence(), "{error}");
        between.on_next(0, Fault::None).await;
        assert_eq!(put(&*store, "k", short()).await.unwrap(), Stored::AlreadyThere);
        assert_eq!(read(direct, "k").await.unwrap(), b"short");
        // One lost answer is settled by the store itself; the caller then compares the contents.
        between.lose_answer_to("PUT ");
        assert_eq!(put(&*store, "other", short()).await.unwrap(), Stored::AlreadyThere);
        assert!(between.has_lost());
        assert_eq!(read(direct, "other").await.unwrap(), b"short");
    })
    .await;
}

#[tokio::test]
async fn a_body_cut_on_its_way_up_is_sent_again_and_never_half_an_object() {
    on_each_s3(async |between, direct| {
        let store = open(&options(&between.endpoint()));
        between.on_next(OFTEN, Fault::CutRequest(LONG / 2)).await;
        let error = put(&*store, "k", long()).await.unwrap_err();
        assert!(error.is_silence(), "{error}");
        assert_eq!(between.met(), 3, "three tries and no more");
        assert_eq!(direct.head("k").await.unwrap(), None);
        between.on_next(1, Fault::CutRequest(LONG / 2)).await;
        assert_eq!(put(&*store, "k", long()).await.unwrap(), Stored::Created);
        assert_eq!(between.met(), 1);
        assert_eq!(direct.head("k").await.unwrap().unwrap().size, LONG as u64);
    })
    .await;
}

#[tokio::test]
async fn a_body_cut_on_its_way_down_is_an_error_and_never_a_short_object() {
    on_each_s3(async |between, direct| {
        put(direct, "k", long()).await.unwrap();
        for range in [None, Some((0, LONG as u64)), Some((17, 6 << 20))] {
            let store = open(&options(&between.endpoint()));
            between.on_next(1, Fault::CutAnswer(LONG / 2)).await;
            let get = match range {
                None => store.get("k").await,
                Some((from, to)) => store.get_range("k", from, to).await,
            };
            let mut body = get.unwrap().unwrap().body;
            let error = loop {
                match body.next().await {
                    Ok(Some(_)) => {}
                    Ok(None) => panic!("{range:?}: half an object ended as if it were whole"),
                    Err(error) => break error,
                }
            };
            assert!(error.is_silence(), "{error}");
            assert_eq!(between.met(), 1);
        }
    })
    .await;
}

#[tokio::test]
async fn a_store_that_is_overloaded_is_asked_three_times_and_then_said_to_be_busy() {
    on_each_s3(async |between, direct| {
        put(direct, "there", short()).await.unwrap();
        let store = open(&options(&between.endpoint()));
        between.on_next(2, Fault::SlowDown).await;
        assert_eq!(put(&*store, "k", short()).await.unwrap(), Stored::Created);
        assert_eq!(between.met(), 2);
        for call in 0..4 {
            // A new client each time, so that no connection is open already.
            let store = open(&options(&between.endpoint()));
            between.on_next(OFTEN, Fault::SlowDown).await;
            let error = match call {
                0 => put(&*store, "never", short()).await.unwrap_err(),
                1 => store.head("there").await.unwrap_err(),
                2 => store.get("there").await.unwrap_err(),
                _ => store.list("", None, 10).await.unwrap_err(),
            };
            assert!(matches!(error, Error::Busy { status: 503, .. }), "{error:?}");
            assert!(!error.is_silence() && !error.needs_a_person());
            assert_eq!(between.met(), 3);
        }
        assert_eq!(direct.head("never").await.unwrap(), None);
    })
    .await;
}

#[tokio::test]
async fn a_replacement_is_asked_for_once_so_that_nobody_takes_his_own_for_a_foreign_one() {
    on_each_s3(async |between, direct| {
        direct.put("k", short(), &Metadata::new()).await.unwrap();
        let seen = direct.head("k").await.unwrap().unwrap().version.unwrap();
        let store = open(&options(&between.endpoint()));
        between.on_next(OFTEN, Fault::LoseAnswer).await;
        let error = store.replace("k", long(), Some(&seen)).await.unwrap_err();
        assert!(error.is_silence(), "{error}");
        assert_eq!(between.met(), 1);
        // Unknown to the caller, who looks: it is his.
        assert_eq!(direct.head("k").await.unwrap().unwrap().size, LONG as u64);
        between.on_next(0, Fault::None).await;
        assert_eq!(store.replace("k", short(), Some(&seen)).await.unwrap(), Replaced::Changed);
    })
    .await;
}

#[tokio::test]
async fn a_completion_whose_answer_was_lost_is_found_to_have_happened() {
    on_each_s3(async |between, direct| {
        let store = open(&options(&between.endpoint()));
        let upload = store.begin_upload("k").await.unwrap();
        upload.part(1, short()).await.unwrap();
        between.lose_answer_to("POST ");
        let completed = upload.complete().await;
        assert!(between.has_lost());
        // s3s forgets an upload with its first completion and then calls it someone else's.
        assert!(
            matches!(completed, Ok(Stored::AlreadyThere) | Err(Error::Refused { status: 403, .. })),
            "{completed:?}"
        );
        assert_eq!(read(direct, "k").await.unwrap(), b"short");
    })
    .await;
}

#[tokio::test]
async fn an_answer_that_does_not_come_costs_the_deadline() {
    on_each_s3(async |between, direct| {
        put(direct, "k", short()).await.unwrap();
        let request_timeout = Duration::from_millis(500);
        let store = open(&S3Options { request_timeout, ..options(&between.endpoint()) });
        between.on_next(OFTEN, Fault::HoldAnswer).await;
        let error = store.get("k").await.unwrap_err();
        assert!(error.is_silence() && error.to_string().contains("no answer within 500ms"), "{error}");
    })
    .await;
}

#[tokio::test]
async fn a_web_page_is_neither_an_object_nor_the_word_that_one_is_durable() {
    on_each_s3(async |between, direct| {
        put(direct, "there", short()).await.unwrap();
        for status in [200, 206, 403, 404, 502] {
            let store = open(&options(&between.endpoint()));
            between.on_next(OFTEN, Fault::Page(status)).await;
            let errors = [
                put(&*store, "k", short()).await.unwrap_err(),
                store.put("k", short(), &Metadata::new()).await.unwrap_err(),
                store.head("there").await.unwrap_err(),
                store.get("there").await.unwrap_err(),
                store.get_range("there", 0, 5).await.unwrap_err(),
                store.list("", None, 10).await.unwrap_err(),
                store.begin_upload("k").await.err().unwrap(),
            ];
            for error in errors {
                assert!(error.to_string().contains("answer"), "{status}: {error}");
            }
        }
        assert_eq!(direct.head("k").await.unwrap(), None);
        let download = direct.get("there").await.unwrap().unwrap();
        assert_eq!(bytes_of(download.body).await, b"short");
    })
    .await;
}
