//! Whose archive it is, and the proof that it is one's own, without which no backup is taken, swept, marked or removed. Claims
//! no archive: whoever ships WAL does (`ship/writer.rs`).

use std::cmp::Ordering;
use std::io::Read;

use outrider_wal::{SegmentName, SegmentSize, WalFileName};
use serde::{Deserialize, Serialize};

use crate::compression::{Format, reader};
use crate::content::{Expected, HEADER, check_header, system_identifier};
use crate::listing::Listing;
use crate::{Compression, Layout};
use outrider_store::{self as store, Store, Version};

/// The object has about 150 bytes.
const WRITER_MAX: usize = 64 * 1024;
/// What is read of a packed segment to see its header: more than the largest block of any format.
const BEGINNING_MAX: usize = 4 << 20;
/// Keys below `base/` among which a `backup.info` is looked for.
const BACKUP_KEYS: usize = 1000;

/// What `outrider/writer.json` says: the last leader that claimed the archive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Writer {
    pub(crate) term: u64,
    /// As text: it has more digits than a number in JSON can carry.
    pub(crate) system_identifier: String,
    pub(crate) member: String,
    pub(crate) claimed_at: String,
}

/// The leader of a cluster, whose archive it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leader<'a> {
    /// Of its server.
    pub system_identifier: u64,
    /// Of its lease.
    pub term: u64,
    /// Its name.
    pub member: &'a str,
}

/// The proof that an archive is one's own to change. It is only made by looking.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owned {
    system_identifier: Option<u64>,
}

impl Owned {
    /// Whether what is of this server belongs here. Nothing is known of an archive in which nothing says whose it is.
    #[must_use]
    pub fn is_of(self, system_identifier: u64) -> bool {
        self.system_identifier.is_none_or(|own| own == system_identifier)
    }

    /// The owner's system identifier.
    #[must_use]
    pub fn system_identifier(self) -> Option<u64> {
        self.system_identifier
    }
}

/// Why an archive is not known to be one's own.
#[derive(Debug, thiserror::Error)]
pub enum NotOwned {
    /// The store did not answer, or refused.
    #[error("cannot read whose archive it is")]
    Store(#[from] store::Error),
    /// It is another's, or may be; in words, with what to do.
    #[error("{0}")]
    Others(String),
    /// A later leader, or another of the same term, writes to it: perhaps only later than this was known here.
    #[error("{0}")]
    Later(String),
    /// It is nobody's yet, or an earlier leader's of the same cluster. In words.
    #[error("{0}")]
    Unclaimed(String),
}

/// Proves that the archive is that of the cluster which this leader leads: its claim stands there.
///
/// # Errors
/// When it does not; after [`NotOwned::Unclaimed`] and [`NotOwned::Later`] it may soon.
pub async fn prove(store: &dyn Store, layout: &Layout, leader: Leader<'_>) -> Result<Owned, NotOwned> {
    let url = format!("{}/{}", store.url(), layout.writer());
    let Leader { system_identifier, term, member } = leader;
    let Some((text, _)) = read_writer(store, layout).await? else {
        if let Some((found, source)) = by_content(store, layout, SegmentSize::DEFAULT).await?
            && found != system_identifier
        {
            return Err(NotOwned::Others(belongs_to_another(&found.to_string(), system_identifier, &source)));
        }
        return Err(NotOwned::Unclaimed(format!(
            "the leader {member} (term {term}) has not claimed the archive: {url} is not there"
        )));
    };
    match judge(&text, leader, &url) {
        Judgement::Ours => Ok(Owned { system_identifier: Some(system_identifier) }),
        Judgement::Earlier => Err(NotOwned::Unclaimed(format!(
            "the leader {member} (term {term}) has not claimed the archive yet: {url} still names the writer of an earlier term"
        ))),
        Judgement::Later(text) => Err(NotOwned::Later(text)),
        Judgement::Others(text) => Err(NotOwned::Others(text)),
    }
}

/// Proves by hand that the archive is that of the server with the system identifier `own`, and that its writer is not of a later
/// term than the cluster's own, where that is known.
///
/// # Errors
/// When it is another's, or when it has an owner and `own` is not known.
pub async fn prove_by_hand(
    store: &dyn Store,
    layout: &Layout,
    own: Option<u64>,
    term: Option<u64>,
) -> Result<Owned, NotOwned> {
    let url = format!("{}/{}", store.url(), layout.writer());
    let (owner, source) = match read_writer(store, layout).await? {
        None => match by_content(store, layout, SegmentSize::DEFAULT).await? {
            None => return Ok(Owned { system_identifier: own }),
            Some(found) => found,
        },
        Some((text, _)) => {
            let writer = parsed(&text, &url).map_err(NotOwned::Others)?;
            let Ok(owner) = writer.system_identifier.parse::<u64>() else {
                return Err(NotOwned::Others(unreadable(&url, "its system identifier is not a number")));
            };
            if let Some(term) = term.filter(|term| owner == own.unwrap_or(owner) && writer.term > *term) {
                let leader = Leader { system_identifier: owner, term, member: "this cluster" };
                return Err(NotOwned::Later(later(
                    "a later leader writes to this archive",
                    &writer,
                    leader,
                    &url,
                )));
            }
            (owner, format!("{url}, written by {} at {}, says so", writer.member, writer.claimed_at))
        }
    };
    match own {
        Some(own) if own == owner => Ok(Owned { system_identifier: Some(owner) }),
        Some(own) => Err(NotOwned::Others(belongs_to_another(&owner.to_string(), own, &source))),
        None => Err(NotOwned::Others(format!(
            "nothing proves that this archive, whose system identifier is {owner} ({source}), is this cluster's own"
        ))),
    }
}

/// The system identifier of the cluster that an archive belongs to, by its writer's own word; `None` when there is none that
/// can be read.
pub(crate) async fn by_writer(store: &dyn Store, layout: &Layout) -> Result<Option<u64>, store::Error> {
    let Some((text, _)) = read_writer(store, layout).await? else { return Ok(None) };
    let writer = serde_json::from_slice::<Writer>(&text).ok();
    Ok(writer.and_then(|writer| writer.system_identifier.parse().ok()))
}

/// The object and its version; at most [`WRITER_MAX`] bytes of it.
pub(crate) async fn read_writer(
    store: &dyn Store,
    layout: &Layout,
) -> Result<Option<(Vec<u8>, Option<Version>)>, store::Error> {
    read(store, &layout.writer()).await
}

pub(crate) enum Judgement {
    /// The claim is that leader's.
    Ours,
    /// It is an earlier leader's of the same cluster.
    Earlier,
    /// It is a later leader's of the same cluster, or of another with the same term. In words.
    Later(String),
    /// It is another cluster's, or nobody can tell. In words.
    Others(String),
}

/// Whether what the object says is this leader's claim.
pub(crate) fn judge(text: &[u8], leader: Leader<'_>, url: &str) -> Judgement {
    let writer = match parsed(text, url) {
        Ok(writer) => writer,
        Err(text) => return Judgement::Others(text),
    };
    if writer.system_identifier != leader.system_identifier.to_string() {
        let source = format!("{url}, written by {} at {}, says so", writer.member, writer.claimed_at);
        let text = belongs_to_another(&writer.system_identifier, leader.system_identifier, &source);
        return Judgement::Others(text);
    }
    match writer.term.cmp(&leader.term) {
        Ordering::Less => Judgement::Earlier,
        Ordering::Equal if writer.member == leader.member => Judgement::Ours,
        Ordering::Equal => {
            let why = "another member writes to this archive with the same term";
            Judgement::Later(later(why, &writer, leader, url))
        }
        Ordering::Greater => {
            Judgement::Later(later("a later leader writes to this archive", &writer, leader, url))
        }
    }
}

fn parsed(text: &[u8], url: &str) -> Result<Writer, String> {
    serde_json::from_slice(text).map_err(|fault| unreadable(url, &fault.to_string()))
}

fn unreadable(url: &str, fault: &str) -> String {
    format!(
        "{url} does not say who may write to this archive ({fault}); remove it when this cluster alone writes here"
    )
}

fn later(why: &str, writer: &Writer, leader: Leader<'_>, url: &str) -> String {
    let Writer { term, member, claimed_at, .. } = writer;
    format!(
        "{why}: {url} names {member} with term {term} since {claimed_at}, this is {} with term {}; if the DCS of \
            this cluster was recreated, so that its terms restarted, remove that object",
        leader.member, leader.term
    )
}

fn belongs_to_another(theirs: &str, ours: u64, source: &str) -> String {
    format!(
        "this archive belongs to another cluster: its system identifier is {theirs} ({source}), this cluster's is {ours}; \
         nothing is written to it: set archive.server to another name, or archive.store to an empty path"
    )
}

/// Says so when what lies in an archive that nobody has claimed is of another cluster.
pub(crate) async fn foreign_content(
    store: &dyn Store,
    layout: &Layout,
    own: u64,
    size: SegmentSize,
) -> Result<Option<String>, store::Error> {
    let found = by_content(store, layout, size).await?.filter(|(found, _)| *found != own);
    Ok(found.map(|(found, source)| belongs_to_another(&found.to_string(), own, &source)))
}

/// The system identifier in the newest segment, or in the first `backup.info` where that tells none; and where it stands, in
/// words. `None` also when that is gone or not readable: then nothing is known.
pub(crate) async fn by_content(
    store: &dyn Store,
    layout: &Layout,
    size: SegmentSize,
) -> Result<Option<(u64, String)>, store::Error> {
    let found = match by_wal(store, layout, size).await? {
        Some(found) => Some(found),
        None => of_backup(store, layout).await?,
    };
    Ok(found.map(|(found, key)| (found, format!("{}/{key} says so", store.url()))))
}

/// The system identifier in the newest segment, and its key.
pub(crate) async fn by_wal(
    store: &dyn Store,
    layout: &Layout,
    size: SegmentSize,
) -> Result<Option<(u64, String)>, store::Error> {
    let listing = Listing { store, layout, size };
    let Some(newest) = listing.newest().await? else { return Ok(None) };
    of_segment(&listing, newest).await
}

/// The system identifier in the segment's header, and the segment's key.
async fn of_segment(
    listing: &Listing<'_>,
    segment: SegmentName,
) -> Result<Option<(u64, String)>, store::Error> {
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
    // Whatever its size: what is wrong with it otherwise does not make it another's.
    let Some(segment_size) = crate::content::stated_size(&header) else { return Ok(None) };
    let expected = Expected { system_identifier: None, segment_size };
    let sound = check_header(WalFileName::Segment(segment), segment, &header, expected).is_ok();
    Ok(sound.then(|| (system_identifier(&header), key)))
}

/// The system identifier in the first `backup.info`, where barman writes it, and its key.
async fn of_backup(store: &dyn Store, layout: &Layout) -> Result<Option<(u64, String)>, store::Error> {
    let page = store.list(&layout.backups(), None, BACKUP_KEYS).await?;
    let mut keys = page.objects.into_iter().map(|object| object.key);
    let Some(key) = keys.find(|key| key.ends_with("/backup.info")) else { return Ok(None) };
    let Some((text, _)) = read(store, &key).await? else { return Ok(None) };
    let text = String::from_utf8_lossy(&text).into_owned();
    let identifier = text.lines().find_map(|line| line.strip_prefix("systemid="));
    Ok(identifier.and_then(|identifier| identifier.trim().parse().ok()).map(|found| (found, key)))
}

async fn read(store: &dyn Store, key: &str) -> Result<Option<(Vec<u8>, Option<Version>)>, store::Error> {
    let Some(mut download) = store.get(key).await? else { return Ok(None) };
    let mut text = Vec::new();
    while let Some(piece) = download.body.next().await? {
        let room = WRITER_MAX - text.len();
        text.extend_from_slice(&piece[..piece.len().min(room)]);
        if text.len() == WRITER_MAX {
            break;
        }
    }
    Ok(Some((text, download.info.version)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::MemoryStore;

    const LEADER: Leader<'_> = Leader { system_identifier: 42, term: 5, member: "a" };

    fn layout() -> Layout {
        Layout::new("s").unwrap()
    }

    #[tokio::test]
    async fn an_archive_is_ones_own_when_the_leader_has_claimed_it_and_only_then() {
        let proof = async |store: MemoryStore| prove(&store, &layout(), LEADER).await;
        let owned = proof(MemoryStore::claimed(5, "42", "a")).await.unwrap();
        assert!(owned.is_of(42) && !owned.is_of(43));
        for earlier in
            [MemoryStore::default(), MemoryStore::claimed(4, "42", "a"), MemoryStore::claimed(4, "42", "b")]
        {
            let fault = proof(earlier).await.unwrap_err();
            assert!(matches!(fault, NotOwned::Unclaimed(_)), "{fault:?}");
        }
        for later in [MemoryStore::claimed(6, "42", "a"), MemoryStore::claimed(5, "42", "b")] {
            let fault = proof(later).await.unwrap_err();
            assert!(matches!(fault, NotOwned::Later(_)), "{fault:?}");
        }
        let unreadable = MemoryStore::default();
        unreadable.add("s/outrider/writer.json", b"{");
        let unclaimed = MemoryStore::default();
        unclaimed.add("s/base/20261124T100000/backup.info", b"systemid=43\n");
        for others in
            [MemoryStore::claimed(1, "43", "a"), MemoryStore::claimed(9, "43", "a"), unreadable, unclaimed]
        {
            let fault = proof(others).await.unwrap_err();
            assert!(matches!(fault, NotOwned::Others(_)), "{fault:?}");
        }
    }

    #[tokio::test]
    async fn by_hand_the_owner_must_be_known_and_no_later_leader_writes() {
        let proof = async |store: &MemoryStore, own, term| prove_by_hand(store, &layout(), own, term).await;
        let claimed = MemoryStore::claimed(5, "42", "b");
        for term in [None, Some(5), Some(6)] {
            assert!(proof(&claimed, Some(42), term).await.is_ok(), "{term:?}");
        }
        assert!(matches!(proof(&claimed, Some(42), Some(4)).await, Err(NotOwned::Later(_))));
        for (own, term) in [(Some(43), None), (Some(43), Some(4)), (None, None), (None, Some(9))] {
            assert!(matches!(proof(&claimed, own, term).await, Err(NotOwned::Others(_))), "{own:?} {term:?}");
        }
        let empty = MemoryStore::default();
        assert!(proof(&empty, None, None).await.unwrap().is_of(7));
        assert!(!proof(&empty, Some(42), None).await.unwrap().is_of(7));
    }
}
