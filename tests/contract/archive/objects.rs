//! What every store promises: written once, read back whole, listed in order.

use bytes::Bytes;
use outrider_store::{Conditions, Download, Error, Metadata, PART_MIN, Payload, Replaced, Stored, Version};

use super::bench::{Bench, bytes_of, keys, read};

super::on_every_store!(
    of_many_writers_at_one_time_one_wins,
    a_second_put_changes_nothing,
    what_was_put_is_read_back,
    a_missing_object_is_none,
    a_listing_is_complete_in_order_and_in_pages,
    a_key_cannot_leave_the_store,
    a_probe_finds_that_nothing_is_overwritten,
    a_range_is_read_and_ends_with_the_object,
    a_range_outside_of_the_object_is_refused,
    a_put_writes_over_what_is_there,
    only_the_version_that_was_seen_is_replaced,
    of_many_replacements_at_one_time_one_wins,
    a_deleted_object_is_gone_and_may_be_deleted_again,
    parts_sent_at_one_time_make_one_object_in_their_order,
    an_upload_never_overwrites,
    an_upload_with_a_gap_makes_no_object,
    an_aborted_upload_leaves_nothing,
    a_sweep_takes_the_uploads_under_its_prefix_only,
);

async fn of_many_writers_at_one_time_one_wins(bench: &Bench) {
    let writers: Vec<_> = (0..8u8)
        .map(|writer| {
            // Each with connections of its own, as two members would.
            let store = bench.store();
            tokio::spawn(async move {
                let body = Bytes::from(vec![writer; 200_000]);
                (writer, store.put_if_absent("server/wals/race", body.into(), &Metadata::new()).await)
            })
        })
        .collect();
    let mut winners = Vec::new();
    for writer in writers {
        match writer.await.unwrap() {
            (writer, Ok(Stored::Created)) => winners.push(writer),
            (_, Ok(Stored::AlreadyThere)) => {}
            // Some stores answer one of two with "a conflicting write is under way".
            (_, Err(Error::Busy { status: 409, .. })) => {}
            (writer, Err(error)) => panic!("writer {writer}: {error}"),
        }
    }
    assert_eq!(winners.len(), 1, "{winners:?}");
    assert_eq!(read(&*bench.store(), "server/wals/race").await.unwrap(), vec![winners[0]; 200_000]);
}

async fn a_second_put_changes_nothing(bench: &Bench) {
    let store = bench.store();
    let first = Metadata::from([("outrider-sha256".to_owned(), "first".to_owned())]);
    let second = Metadata::from([("outrider-sha256".to_owned(), "second".to_owned())]);
    assert_eq!(
        store.put_if_absent("a/b", Bytes::from_static(b"first").into(), &first).await.unwrap(),
        Stored::Created
    );
    for body in ["first", "second"] {
        let again =
            store.put_if_absent("a/b", Bytes::from_static(body.as_bytes()).into(), &second).await.unwrap();
        assert_eq!(again, Stored::AlreadyThere);
    }
    assert_eq!(read(&*store, "a/b").await.unwrap(), b"first");
    let info = store.head("a/b").await.unwrap().unwrap();
    assert_eq!(info.metadata, if bench.keeps_metadata() { first } else { Metadata::new() });
}

async fn what_was_put_is_read_back(bench: &Bench) {
    let store = bench.store();
    // Larger than a segment that does not shrink, and not a multiple of any block.
    let large = varied(17_200_001);
    for (key, body) in
        [("empty", Vec::new()), ("small & odd +name=1 %41", b"x".to_vec()), ("deep/er/large", large)]
    {
        let put = store.put_if_absent(key, Bytes::from(body.clone()).into(), &Metadata::new()).await.unwrap();
        assert_eq!(put, Stored::Created, "{key}");
        assert_eq!(store.head(key).await.unwrap().unwrap().size, body.len() as u64, "{key}");
        assert!(read(&*store, key).await.unwrap() == body, "{key}");
    }
}

async fn a_missing_object_is_none(bench: &Bench) {
    let store = bench.store();
    for _ in 0..2 {
        assert_eq!(store.head("server/wals/00000002.history.gz").await.unwrap(), None);
        assert!(store.get("server/wals/00000002.history.gz").await.unwrap().is_none());
        // The second time the place exists, so that not the whole server is missing.
        store.put_if_absent("server/wals/other", Bytes::new().into(), &Metadata::new()).await.unwrap();
    }
}

async fn a_listing_is_complete_in_order_and_in_pages(bench: &Bench) {
    let store = bench.store();
    assert!(store.list("", None, 10).await.unwrap().objects.is_empty());
    let mut expected: Vec<String> =
        (0..17).map(|number| format!("server/wals/{:02}/{number}", number % 3)).collect();
    expected.extend([
        "server/wals/00.history".to_owned(),
        "server2/x".to_owned(),
        "server/base/b".to_owned(),
    ]);
    expected.sort();
    for key in &expected {
        store.put_if_absent(key, Bytes::from_static(b"123").into(), &Metadata::new()).await.unwrap();
    }
    assert_eq!(keys(&*store).await, expected);

    let page = store.list("server/wals/0", Some("server/wals/00/3"), 2).await.unwrap();
    let found: Vec<(&str, u64)> =
        page.objects.iter().map(|object| (object.key.as_str(), object.size)).collect();
    assert_eq!(found, [("server/wals/00/6", 3), ("server/wals/00/9", 3)]);
    assert!(page.more);
    assert!(!store.list("server2/", None, 2).await.unwrap().more);
}

async fn a_key_cannot_leave_the_store(bench: &Bench) {
    let store = bench.store();
    for key in ["../outside", "/etc/passwd", "a/../../outside", ""] {
        let put = store.put_if_absent(key, Bytes::from_static(b"x").into(), &Metadata::new()).await;
        assert!(matches!(put, Err(Error::BadKey { .. })), "{key}: {put:?}");
        assert!(matches!(store.get(key).await, Err(Error::BadKey { .. })), "{key}");
        assert!(matches!(store.head(key).await, Err(Error::BadKey { .. })), "{key}");
    }
}

async fn a_probe_finds_that_nothing_is_overwritten(bench: &Bench) {
    // Twice: the second agent finds the object of the first.
    for _ in 0..2 {
        assert_eq!(bench.store().probe("server/outrider/probe").await.unwrap(), Conditions::Honoured);
    }
}

/// Bytes of which no two pieces are alike.
fn varied(length: usize) -> Vec<u8> {
    (0..length as u32 / 4 + 1)
        .flat_map(|number| number.wrapping_mul(2_654_435_761).to_le_bytes())
        .take(length)
        .collect()
}

fn text(text: &'static str) -> Payload {
    Bytes::from_static(text.as_bytes()).into()
}

async fn a_range_is_read_and_ends_with_the_object(bench: &Bench) {
    let store = bench.store();
    assert!(store.get_range("a/b", 0, 1).await.unwrap().is_none());
    let whole = varied(1_000_003);
    store.put_if_absent("a/b", Bytes::from(whole.clone()).into(), &Metadata::new()).await.unwrap();
    let end = whole.len() as u64;
    for (from, to) in [(0, 1), (0, end), (0, end + 9), (7, 900_001), (end - 1, end), (500_000, u64::MAX)] {
        let Download { info, body } = store.get_range("a/b", from, to).await.unwrap().unwrap();
        assert_eq!(info.size, end, "the size is the whole object's");
        let expected = &whole[from as usize..to.min(end) as usize];
        assert!(bytes_of(body).await == expected, "{from} to {to}");
    }
}

async fn a_range_outside_of_the_object_is_refused(bench: &Bench) {
    let store = bench.store();
    store.put_if_absent("a", text("0123456789"), &Metadata::new()).await.unwrap();
    store.put_if_absent("empty", text(""), &Metadata::new()).await.unwrap();
    for (key, from, to) in [("a", 10, 20), ("a", 11, 12), ("a", 3, 3), ("a", 4, 3), ("empty", 0, 1)] {
        let refused = store.get_range(key, from, to).await;
        let Err(Error::Refused { status: 416, code, .. }) = refused else {
            panic!("{key} {from} {to}: {refused:?}")
        };
        assert_eq!(code, "InvalidRange");
    }
}

async fn a_put_writes_over_what_is_there(bench: &Bench) {
    let store = bench.store();
    let metadata = Metadata::from([("outrider-sha256".to_owned(), "first".to_owned())]);
    for body in ["first, and longer", "second"] {
        store.put("server/outrider/mark", text(body), &metadata).await.unwrap();
        assert_eq!(read(&*store, "server/outrider/mark").await.unwrap(), body.as_bytes());
    }
    assert_eq!(keys(&*store).await, ["server/outrider/mark"]);
    let info = store.head("server/outrider/mark").await.unwrap().unwrap();
    assert_eq!(info.metadata, if bench.keeps_metadata() { metadata } else { Metadata::new() });
}

async fn only_the_version_that_was_seen_is_replaced(bench: &Bench) {
    let store = bench.store();
    let key = "server/outrider/epoch";
    let foreign = Version("\"00000000000000000000000000000000\"".to_owned());
    assert_eq!(store.replace(key, text("1"), Some(&foreign)).await.unwrap(), Replaced::Changed);
    assert_eq!(store.head(key).await.unwrap(), None);
    assert_eq!(store.replace(key, text("1"), None).await.unwrap(), Replaced::Done);
    assert_eq!(store.replace(key, text("2"), None).await.unwrap(), Replaced::Changed);
    let first = store.head(key).await.unwrap().unwrap().version.unwrap();
    let got = store.get(key).await.unwrap().unwrap();
    assert_eq!(got.info.version.as_ref(), Some(&first), "a look and a read tell the same version");
    assert_eq!(store.replace(key, text("3"), Some(&first)).await.unwrap(), Replaced::Done);
    assert_eq!(store.replace(key, text("4"), Some(&first)).await.unwrap(), Replaced::Changed);
    assert_eq!(read(&*store, key).await.unwrap(), b"3");
    store.delete(key).await.unwrap();
    assert_eq!(store.replace(key, text("5"), Some(&first)).await.unwrap(), Replaced::Changed);
    assert_eq!(store.head(key).await.unwrap(), None);
    assert_eq!(store.replace(key, text("6"), None).await.unwrap(), Replaced::Done);
}

async fn of_many_replacements_at_one_time_one_wins(bench: &Bench) {
    let key = "server/outrider/epoch";
    let store = bench.store();
    store.put(key, text("none"), &Metadata::new()).await.unwrap();
    for _ in 0..5 {
        let seen = store.head(key).await.unwrap().unwrap().version.unwrap();
        let before = read(&*store, key).await.unwrap();
        let writers: Vec<_> = (0..6u8)
            .map(|writer| {
                let (store, seen) = (bench.store(), seen.clone());
                // Each round has contents of its own: the ETag of S3 is that of the content.
                let body = [&before[..], &[b'0' + writer]].concat();
                tokio::spawn(async move {
                    let replaced = store.replace(key, Bytes::from(body.clone()).into(), Some(&seen)).await;
                    (body, replaced)
                })
            })
            .collect();
        let mut winners = Vec::new();
        for writer in writers {
            match writer.await.unwrap() {
                (body, Ok(Replaced::Done)) => winners.push(body),
                (_, Ok(Replaced::Changed) | Err(Error::Busy { status: 409, .. })) => {}
                (_, Err(error)) => panic!("{error}"),
            }
        }
        assert_eq!(winners.len(), 1, "{winners:?}");
        assert_eq!(read(&*store, key).await.unwrap(), winners[0]);
    }
}

async fn a_deleted_object_is_gone_and_may_be_deleted_again(bench: &Bench) {
    let store = bench.store();
    store.delete("server/wals/never").await.unwrap();
    for key in ["server/wals/a", "server/wals/b"] {
        store.put_if_absent(key, text("x"), &Metadata::new()).await.unwrap();
    }
    for _ in 0..2 {
        store.delete("server/wals/a").await.unwrap();
        assert_eq!(store.head("server/wals/a").await.unwrap(), None);
        assert_eq!(keys(&*store).await, ["server/wals/b"]);
    }
    assert_eq!(
        store.put_if_absent("server/wals/a", text("y"), &Metadata::new()).await.unwrap(),
        Stored::Created
    );
    assert_eq!(read(&*store, "server/wals/a").await.unwrap(), b"y");
}

async fn parts_sent_at_one_time_make_one_object_in_their_order(bench: &Bench) {
    let store = bench.store();
    let whole = varied(2 * PART_MIN + 1_000_001);
    let parts: Vec<Bytes> = whole.chunks(PART_MIN).map(|part| Bytes::from(part.to_vec())).collect();
    let upload = store.begin_upload("server/base/1/data.tar.gz").await.unwrap();
    // The second is sent twice; what counts is the last.
    upload.part(2, text("no part")).await.unwrap();
    let (third, first, second) = tokio::join!(
        upload.part(3, parts[2].clone().into()),
        upload.part(1, parts[0].clone().into()),
        upload.part(2, parts[1].clone().into()),
    );
    third.and(first).and(second).unwrap();
    assert!(keys(&*store).await.is_empty(), "an upload is no object before it is complete");
    assert_eq!(store.head("server/base/1/data.tar.gz").await.unwrap(), None);
    assert_eq!(upload.complete().await.unwrap(), Stored::Created);
    assert!(read(&*store, "server/base/1/data.tar.gz").await.unwrap() == whole);
    assert_eq!(keys(&*store).await, ["server/base/1/data.tar.gz"]);
    assert_eq!(store.sweep_uploads("").await.unwrap(), 0);

    let upload = store.begin_upload("server/base/1/small").await.unwrap();
    upload.part(1, text("small")).await.unwrap();
    assert_eq!(upload.complete().await.unwrap(), Stored::Created);
    assert_eq!(read(&*store, "server/base/1/small").await.unwrap(), b"small");
}

async fn an_upload_never_overwrites(bench: &Bench) {
    let store = bench.store();
    // Two that began before there was an object, and one after.
    let first = store.begin_upload("k").await.unwrap();
    let second = store.begin_upload("k").await.unwrap();
    first.part(1, text("first")).await.unwrap();
    second.part(1, text("second")).await.unwrap();
    assert_eq!(first.complete().await.unwrap(), Stored::Created);
    assert_eq!(second.complete().await.unwrap(), Stored::AlreadyThere);
    let third = store.begin_upload("k").await.unwrap();
    third.part(1, text("third")).await.unwrap();
    assert_eq!(third.complete().await.unwrap(), Stored::AlreadyThere);
    assert_eq!(read(&*store, "k").await.unwrap(), b"first");
    assert_eq!(store.sweep_uploads("").await.unwrap(), 0, "who came too late has taken its parts away");
}

async fn an_upload_with_a_gap_makes_no_object(bench: &Bench) {
    let store = bench.store();
    let none = store.begin_upload("k").await.unwrap();
    assert!(matches!(none.complete().await, Err(Error::Refused { .. })));
    let gap = store.begin_upload("k").await.unwrap();
    for number in [1, 3] {
        gap.part(number, Bytes::from(varied(PART_MIN)).into()).await.unwrap();
    }
    assert!(matches!(gap.complete().await, Err(Error::Refused { .. })));
    assert_eq!(store.head("k").await.unwrap(), None);
}

async fn an_aborted_upload_leaves_nothing(bench: &Bench) {
    let store = bench.store();
    let upload = store.begin_upload("a/k").await.unwrap();
    upload.part(1, text("x")).await.unwrap();
    upload.abort().await.unwrap();
    assert!(keys(&*store).await.is_empty());
    assert_eq!(store.sweep_uploads("").await.unwrap(), 0);
}

async fn a_sweep_takes_the_uploads_under_its_prefix_only(bench: &Bench) {
    let store = bench.store();
    let mut uploads = Vec::new();
    for key in ["server/base/1/data.tar", "server/base/1/16384.tar", "server/base/2/data.tar"] {
        let upload = store.begin_upload(key).await.unwrap();
        upload.part(1, Bytes::from(varied(PART_MIN)).into()).await.unwrap();
        upload.part(2, text("end")).await.unwrap();
        uploads.push(upload);
    }
    assert_eq!(store.sweep_uploads("other/").await.unwrap(), 0);
    assert_eq!(store.sweep_uploads("server/base/1/").await.unwrap(), 2);
    assert_eq!(store.sweep_uploads("server/base/1/").await.unwrap(), 0);
    // What was swept can no longer become an object; the other is untouched.
    let kept = uploads.pop().unwrap();
    for swept in uploads {
        swept.complete().await.unwrap_err();
    }
    assert_eq!(kept.complete().await.unwrap(), Stored::Created);
    assert_eq!(keys(&*store).await, ["server/base/2/data.tar"]);
}
