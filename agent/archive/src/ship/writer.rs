//! Who may write WAL to an archive: an object that names the last leader, changed by compare-and-swap. It makes a
//! former primary notice; what keeps it from harm is that no put overwrites.

use std::cmp::Ordering;
use std::io::Read;

use bytes::Bytes;
use outrider_wal::{SegmentName, WalFileName};
use serde::{Deserialize, Serialize};

use super::Leadership;
use super::listing::Listing;
use crate::compression::{Format, reader};
use crate::content::{Expected, HEADER, check_header};
use crate::store::{self, Replaced, Store, Version};
use crate::{Compression, Fault, Layout, clock};

/// The object has about 150 bytes.
const CLAIM_MAX: usize = 64 * 1024;
/// What is read of a packed segment to see its header: more than the largest block of any format.
const BEGINNING_MAX: usize = 4 << 20;
/// Times the object may change under our hands before we begin again later.
const TRIES: u32 = 3;
/// Keys below `base/` among which a `backup.info` is looked for.
const BACKUP_KEYS: usize = 1000;

/// What the object says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Claim {
    term: u64,
    /// As text: it has more digits than a number in JSON can carry.
    system_identifier: String,
    member: String,
    claimed_at: String,
}

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
    for _ in 0..TRIES {
        let version = match read(store, &key).await? {
            None => match foreign(store, layout, leadership).await? {
                Some(text) => return Ok(Claimed::Others(text)),
                None => None,
            },
            Some((text, version)) => match judge(&text, leadership, member, &url) {
                Judgement::Ours => return Ok(Claimed::Ours),
                Judgement::Earlier => version,
                Judgement::Others(text) => return Ok(Claimed::Others(text)),
            },
        };
        let claimed_at = jiff::Timestamp::try_from(clock::now()).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
        let claim = Claim {
            term: leadership.term,
            system_identifier: leadership.system_identifier.to_string(),
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
    let cause = format!("it changed {TRIES} times while it was claimed");
    Err(store::Error::Unreachable { act: "claim", url, cause })
}

enum Judgement {
    Ours,
    Earlier,
    Others(String),
}

fn judge(text: &[u8], leadership: Leadership, member: &str, url: &str) -> Judgement {
    let claim = match serde_json::from_slice::<Claim>(text) {
        Ok(claim) => claim,
        Err(error) => {
            return Judgement::Others(format!(
                "{url} does not say who may write to this archive ({error}); remove it when this cluster alone writes here"
            ));
        }
    };
    let Claim { term, system_identifier, member: other, claimed_at } = claim;
    if system_identifier != leadership.system_identifier.to_string() {
        return Judgement::Others(belongs_to_another(
            &system_identifier,
            leadership,
            &format!("{url}, written by {other} at {claimed_at}, says so"),
        ));
    }
    let later = |why: &str| {
        Judgement::Others(format!(
            "{why}: {url} names {other} with term {term} since {claimed_at}, this is {member} with term {}; if the \
             DCS of this cluster was made anew, so that its terms began again, remove that object",
            leadership.term
        ))
    };
    match term.cmp(&leadership.term) {
        Ordering::Less => Judgement::Earlier,
        Ordering::Equal if other == member => Judgement::Ours,
        Ordering::Equal => later("another member writes to this archive with the same term"),
        Ordering::Greater => later("a later leader writes to this archive"),
    }
}

fn belongs_to_another(theirs: &str, leadership: Leadership, source: &str) -> String {
    format!(
        "this archive belongs to another cluster: its system identifier is {theirs} ({source}), this cluster's is {}; \
         nothing is written to it: set archive.server to another name, or archive.store to an empty path",
        leadership.system_identifier
    )
}

/// Says so when what lies in an archive that nobody has claimed is of another cluster.
async fn foreign(
    store: &dyn Store,
    layout: &Layout,
    leadership: Leadership,
) -> Result<Option<String>, store::Error> {
    let listing = Listing { store, layout, size: leadership.segment_size };
    let found = match listing.newest().await? {
        Some(newest) => of_segment(&listing, newest, leadership).await?,
        None => of_backup(store, layout).await?,
    };
    Ok(match found {
        Some((theirs, key)) if theirs != leadership.system_identifier.to_string() => {
            Some(belongs_to_another(&theirs, leadership, &format!("{}/{key} says so", store.url())))
        }
        Some(_) | None => None,
    })
}

/// The system identifier in the segment's header when it is not ours, and the segment's key. None also when it is gone
/// or not readable: then nothing is known against us.
async fn of_segment(
    listing: &Listing<'_>,
    segment: SegmentName,
    leadership: Leadership,
) -> Result<Option<(String, String)>, store::Error> {
    let Some(key) = listing.key_of(segment).await? else { return Ok(None) };
    let plain = listing.layout.wal(WalFileName::Segment(segment), Compression::None);
    let suffix = key.strip_prefix(&plain).unwrap_or_default();
    let known = Format::ALL.into_iter().find(|format| format.suffix() == suffix);
    let Some(format) = known else { return Ok(None) };
    let Some(mut download) = listing.store.get(&key).await? else { return Ok(None) };
    let mut packed = Vec::new();
    while packed.len() < BEGINNING_MAX
        && let Some(piece) = download.body.next().await?
    {
        packed.extend_from_slice(&piece);
    }
    let mut header = [0; HEADER];
    let read = reader(format, packed.as_slice()).and_then(|mut plain| plain.read_exact(&mut header));
    if read.is_err() {
        return Ok(None);
    }
    let system_identifier = Some(leadership.system_identifier);
    let expected = Expected { system_identifier, segment_size: leadership.segment_size };
    Ok(match check_header(WalFileName::Segment(segment), segment, &header, expected) {
        Err(Fault::SystemIdentifier { found, .. }) => Some((found.to_string(), key)),
        Err(_) | Ok(()) => None,
    })
}

/// The system identifier in the first `backup.info`, where barman writes it, and its key.
async fn of_backup(store: &dyn Store, layout: &Layout) -> Result<Option<(String, String)>, store::Error> {
    let page = store.list(&layout.backups(), None, BACKUP_KEYS).await?;
    let mut keys = page.objects.into_iter().map(|object| object.key);
    let Some(key) = keys.find(|key| key.ends_with("/backup.info")) else { return Ok(None) };
    let Some((text, _)) = read(store, &key).await? else { return Ok(None) };
    let text = String::from_utf8_lossy(&text).into_owned();
    let identifier = text.lines().find_map(|line| line.strip_prefix("systemid=")).map(str::trim);
    let known = identifier.filter(|identifier| !identifier.is_empty() && *identifier != "None");
    Ok(known.map(|identifier| (identifier.to_owned(), key)))
}

/// The object and its version; at most [`CLAIM_MAX`] bytes of it.
async fn read(store: &dyn Store, key: &str) -> Result<Option<(Vec<u8>, Option<Version>)>, store::Error> {
    let Some(mut download) = store.get(key).await? else { return Ok(None) };
    let mut text = Vec::new();
    while let Some(piece) = download.body.next().await? {
        let room = CLAIM_MAX - text.len();
        text.extend_from_slice(&piece[..piece.len().min(room)]);
        if text.len() == CLAIM_MAX {
            break;
        }
    }
    Ok(Some((text, download.info.version)))
}

#[cfg(test)]
mod tests {
    use outrider_wal::{SegmentSize, TimelineId};

    use super::*;
    use crate::ship::shelf::Shelf;

    const LEADERSHIP: Leadership = Leadership {
        term: 5,
        system_identifier: 42,
        segment_size: SegmentSize::DEFAULT,
        timeline: TimelineId::FIRST,
    };

    fn layout() -> Layout {
        Layout::new("s").unwrap()
    }

    async fn claim_as(shelf: &Shelf, leadership: Leadership, member: &str) -> Claimed {
        claim(shelf, &layout(), leadership, member).await.unwrap()
    }

    fn shelf(term: u64, system_identifier: &str, member: &str) -> Shelf {
        let shelf = Shelf::default();
        let text = format!(
            r#"{{"term":{term},"system_identifier":"{system_identifier}","member":"{member}","claimed_at":"x"}}"#
        );
        shelf.add("s/outrider/writer.json", text.as_bytes());
        shelf
    }

    async fn check(shelf: &Shelf, words: &[&str]) {
        let before = shelf.read("s/outrider/writer.json");
        match claim_as(shelf, LEADERSHIP, "a").await {
            Claimed::Ours => assert!(words.is_empty(), "claimed, expected {words:?}"),
            Claimed::Others(text) => {
                assert!(
                    !words.is_empty() && words.iter().all(|word| text.contains(word)),
                    "{text}: {words:?}"
                );
                assert_eq!(shelf.read("s/outrider/writer.json"), before);
            }
        }
    }

    #[tokio::test]
    async fn an_empty_archive_is_claimed_once() {
        let shelf = Shelf::default();
        assert_eq!(claim_as(&shelf, LEADERSHIP, "a").await, Claimed::Ours);
        let text = shelf.read("s/outrider/writer.json").unwrap();
        let claim: Claim = serde_json::from_slice(&text).unwrap();
        assert_eq!((claim.term, claim.system_identifier.as_str(), claim.member.as_str()), (5, "42", "a"));
        let before = shelf.requests();
        assert_eq!(claim_as(&shelf, LEADERSHIP, "a").await, Claimed::Ours);
        assert_eq!((shelf.requests() - before, shelf.read("s/outrider/writer.json").unwrap()), (1, text));
    }

    #[tokio::test]
    async fn who_may_write_follows_from_the_term_and_the_cluster() {
        check(&shelf(4, "42", "b"), &[]).await;
        check(&shelf(5, "42", "a"), &[]).await;
        check(&shelf(5, "42", "b"), &["another member", "term 5"]).await;
        check(&shelf(6, "42", "b"), &["a later leader", "b with term 6", "remove that object"]).await;
        check(&shelf(1, "43", "b"), &["belongs to another cluster", "43", "42", "archive.server"]).await;
        let unreadable = Shelf::default();
        unreadable.add("s/outrider/writer.json", b"{");
        check(&unreadable, &["writer.json", "remove it"]).await;
    }

    #[tokio::test]
    async fn a_lower_term_is_replaced_and_its_writer_finds_out() {
        let shelf = shelf(4, "42", "b");
        assert_eq!(claim_as(&shelf, LEADERSHIP, "a").await, Claimed::Ours);
        let former = Leadership { term: 4, ..LEADERSHIP };
        assert!(matches!(claim_as(&shelf, former, "b").await, Claimed::Others(_)));
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
            let shelf = Shelf::default();
            shelf.add(&layout().wal(WalFileName::Segment(segment), Compression::None), &header);
            check(&shelf, words).await;
        }
        for (line, words) in [
            ("systemid=42", &[][..]),
            ("systemid=43", &["another cluster", "43", "backup.info"]),
            ("x=1", &[]),
        ] {
            let shelf = Shelf::default();
            shelf.add("s/base/20261124T100000/backup.info", format!("version=150000\n{line}\n").as_bytes());
            check(&shelf, words).await;
        }
    }
}
