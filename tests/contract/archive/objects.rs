//! What every store promises: written once, read back whole, listed in order.

use bytes::Bytes;
use outrider_archive::store::{Conditions, Error, Metadata, Stored};

use super::bench::{Bench, keys, read};

super::on_every_store!(
    of_many_writers_at_one_time_one_wins,
    a_second_put_changes_nothing,
    what_was_put_is_read_back,
    a_missing_object_is_none,
    a_listing_is_complete_in_order_and_in_pages,
    a_key_cannot_leave_the_store,
    a_probe_finds_that_nothing_is_overwritten,
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
    let large: Vec<u8> =
        (0..4_300_001u32).flat_map(|number| number.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
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
