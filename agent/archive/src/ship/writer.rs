//! Who may write WAL to an archive: an object that names the last leader, changed by compare-and-swap. It makes a
//! former primary notice; what keeps it from harm is that no put overwrites.

use bytes::Bytes;

use super::Leadership;
use crate::owner::{Judgement, Leader, Writer, foreign_content, judge, read_writer};
use crate::{Layout, clock};
use outrider_store::{self as store, Replaced, Store};

/// Times the object may change under our hands before we begin again later.
const TRIES: u32 = 3;

/// What became of a claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Claimed {
    /// The archive is ours to write to.
    Ours,
    /// It is another's, or may be; in words, with what to do.
    Others(String),
}

/// Asks for the right to write, or whether it is still ours.
pub(super) async fn claim(
    store: &dyn Store,
    layout: &Layout,
    leadership: Leadership,
    member: &str,
) -> Result<Claimed, store::Error> {
    let key = layout.writer();
    let url = format!("{}/{key}", store.url());
    let Leadership { term, system_identifier, segment_size, .. } = leadership;
    let leader = Leader { term, system_identifier, member };
    for _ in 0..TRIES {
        let version = match read_writer(store, layout).await? {
            None => match foreign_content(store, layout, system_identifier, segment_size).await? {
                Some(text) => return Ok(Claimed::Others(text)),
                None => None,
            },
            Some((text, version)) => match judge(&text, leader, &url) {
                Judgement::Ours => return Ok(Claimed::Ours),
                Judgement::Earlier => version,
                Judgement::Later(text) | Judgement::Others(text) => return Ok(Claimed::Others(text)),
            },
        };
        let claimed_at = jiff::Timestamp::try_from(clock::wall()).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
        let claim = Writer {
            term,
            system_identifier: system_identifier.to_string(),
            member: member.to_owned(),
            claimed_at: claimed_at.to_string(),
        };
        let body = serde_json::to_vec(&claim).expect("numbers and texts are JSON");
        match store.replace(&key, Bytes::from(body).into(), version.as_ref()).await? {
            Replaced::Done => return Ok(Claimed::Ours),
            // Someone was quicker, or our own answer was lost: the object tells.
            Replaced::Changed => {}
        }
    }
    let cause = format!("it changed during {TRIES} attempts to claim it");
    Err(store::Error::Unreachable { act: "claim", url, cause })
}

#[cfg(test)]
mod tests {
    use outrider_wal::{SegmentName, SegmentSize, TimelineId, WalFileName};

    use super::*;
    use crate::Compression;
    use crate::memory::MemoryStore;

    const LEADERSHIP: Leadership = Leadership {
        term: 5,
        system_identifier: 42,
        segment_size: SegmentSize::DEFAULT,
        timeline: TimelineId::FIRST,
    };

    fn layout() -> Layout {
        Layout::new("s").unwrap()
    }

    async fn claim_as(store: &MemoryStore, leadership: Leadership, member: &str) -> Claimed {
        claim(store, &layout(), leadership, member).await.unwrap()
    }

    async fn check(store: &MemoryStore, words: &[&str]) {
        let before = store.read("s/outrider/writer.json");
        match claim_as(store, LEADERSHIP, "a").await {
            Claimed::Ours => assert!(words.is_empty(), "claimed, expected {words:?}"),
            Claimed::Others(text) => {
                assert!(
                    !words.is_empty() && words.iter().all(|word| text.contains(word)),
                    "{text}: {words:?}"
                );
                assert_eq!(store.read("s/outrider/writer.json"), before);
            }
        }
    }

    #[tokio::test]
    async fn an_empty_archive_is_claimed_once() {
        let store = MemoryStore::default();
        assert_eq!(claim_as(&store, LEADERSHIP, "a").await, Claimed::Ours);
        let text = store.read("s/outrider/writer.json").unwrap();
        let claim: Writer = serde_json::from_slice(&text).unwrap();
        assert_eq!((claim.term, claim.system_identifier.as_str(), claim.member.as_str()), (5, "42", "a"));
        let before = store.requests();
        assert_eq!(claim_as(&store, LEADERSHIP, "a").await, Claimed::Ours);
        assert_eq!((store.requests() - before, store.read("s/outrider/writer.json").unwrap()), (1, text));
    }

    #[tokio::test]
    async fn who_may_write_follows_from_the_term_and_the_cluster() {
        check(&MemoryStore::claimed(4, "42", "b"), &[]).await;
        check(&MemoryStore::claimed(5, "42", "a"), &[]).await;
        check(&MemoryStore::claimed(5, "42", "b"), &["another member", "term 5"]).await;
        check(
            &MemoryStore::claimed(6, "42", "b"),
            &["a later leader", "b with term 6", "remove that object"],
        )
        .await;
        check(
            &MemoryStore::claimed(1, "43", "b"),
            &["belongs to another cluster", "43", "42", "archive.server"],
        )
        .await;
        let unreadable = MemoryStore::default();
        unreadable.add("s/outrider/writer.json", b"{");
        check(&unreadable, &["writer.json", "remove it"]).await;
    }

    #[tokio::test]
    async fn a_lower_term_is_replaced_and_its_writer_finds_out() {
        let store = MemoryStore::claimed(4, "42", "b");
        assert_eq!(claim_as(&store, LEADERSHIP, "a").await, Claimed::Ours);
        let former = Leadership { term: 4, ..LEADERSHIP };
        assert!(matches!(claim_as(&store, former, "b").await, Claimed::Others(_)));
    }

    #[tokio::test]
    async fn what_others_left_in_an_archive_that_nobody_claimed_is_looked_at() {
        let segment = SegmentName::numbered(TimelineId::FIRST, 3, SegmentSize::DEFAULT);
        let mut header = [0; 8192];
        header[0..2].copy_from_slice(&0xD110u16.to_ne_bytes());
        header[2..4].copy_from_slice(&2u16.to_ne_bytes());
        header[4..8].copy_from_slice(&1u32.to_ne_bytes());
        header[8..16].copy_from_slice(&0x0300_0000u64.to_ne_bytes());
        header[32..36].copy_from_slice(&(16u32 << 20).to_ne_bytes());
        for (system_identifier, words) in
            [(42u64, &[][..]), (43, &["another cluster", "43", "000000010000000000000003"])]
        {
            header[24..32].copy_from_slice(&system_identifier.to_ne_bytes());
            let store = MemoryStore::default();
            store.add(&layout().wal(WalFileName::Segment(segment), Compression::None), &header);
            check(&store, words).await;
        }
        for (line, words) in [
            ("systemid=42", &[][..]),
            ("systemid=43", &["another cluster", "43", "backup.info"]),
            ("x=1", &[]),
        ] {
            let store = MemoryStore::default();
            store.add("s/base/20261124T100000/backup.info", format!("version=150000\n{line}\n").as_bytes());
            check(&store, words).await;
        }
    }
}
