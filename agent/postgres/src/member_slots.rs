//! The physical replication slots with which this member keeps WAL for the others, so that they find it whoever leads. Does
//! not know who is away. Slots made by somebody else are never dropped.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use outrider_wal::Lsn;
use serde::{Deserialize, Serialize};

use crate::archive_slot::ARCHIVE_SLOT;
use crate::error::Error;
use crate::file;
use crate::instrument::Postgres;
use crate::session::Session;
use crate::settings::Settings;

/// In the state directory: the slots that may be dropped some day.
const FILE: &str = "slots.json";
/// Time limit for each statement; none waits for anybody.
const LIMIT: Duration = Duration::from_secs(5);

/// The slots that a standby holds for others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeldSlots {
    /// The wanted slots, each with the position before which WAL is no longer needed; `None` for one that keeps nothing.
    pub slots: BTreeMap<String, Option<Lsn>>,
    /// Those of members, which are ours whoever made them.
    pub of_members: BTreeSet<String>,
}

/// The slots that the leader keeps for others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeptSlots {
    /// Slots of members that are here, which are ours from now on.
    pub present: BTreeSet<String>,
    /// Those, and the slots of members that have not been away for too long.
    pub retained: BTreeSet<String>,
    /// Slots declared in the rules of the cluster.
    pub declared: BTreeSet<String>,
}

/// The result of an update.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SlotsHeld {
    /// Slots dropped because nobody needs them.
    pub dropped: Vec<String>,
    /// Whether some keep more than is needed until this server has replayed as much.
    pub behind: bool,
}

/// The slots that this member made, or uses for members.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
struct Ours {
    members: BTreeSet<String>,
    /// Copies of others that the primary had.
    copies: BTreeSet<String>,
    /// Slots made because the rules of the cluster declare them.
    declared: BTreeSet<String>,
}

/// A slot as it is.
struct Found {
    active: bool,
    lost: bool,
    restart: Option<Lsn>,
}

impl Postgres {
    /// Makes a standby's slots as wanted: missing ones keep WAL from the last restart point on, each is advanced as far as this
    /// server has replayed, never back, and unwanted ones that this member made are dropped. Does nothing on a primary.
    ///
    /// # Errors
    /// When Postgres does not do it, or a file cannot be read or written.
    pub async fn hold_slots(&self, wanted: &HeldSlots) -> Result<SlotsHeld, Error> {
        let session = Session::open(&self.settings).await?;
        let Some((replayed, found)) = find(&session).await? else { return Ok(SlotsHeld::default()) };
        let before = read(&self.settings)?;
        let mut ours = before.clone();
        ours.members.extend(wanted.of_members.iter().cloned());
        let missing = wanted.slots.keys().filter(|name| !found.contains_key(*name));
        ours.copies.extend(missing.filter(|name| !wanted.of_members.contains(*name)).cloned());
        ours.copies.retain(|name| !ours.members.contains(name) && !ours.declared.contains(name));
        // Before they are made: one that is not recorded would be kept forever.
        write(&self.settings, &ours, &before)?;
        let mut held = SlotsHeld::default();
        let named = ours.clone();
        for name in named.all().filter(|name| !wanted.slots.contains_key(*name)) {
            match found.get(name) {
                // Somebody streams from it.
                Some(slot) if slot.active => continue,
                Some(_) => {
                    drop_slot(&session, name).await?;
                    held.dropped.push(name.clone());
                }
                None => {}
            }
            ours.forget(name);
        }
        write(&self.settings, &ours, &named)?;
        // When there is no room for all, the members come first.
        let of_members = |of_one: bool| {
            wanted.slots.iter().filter(move |(name, _)| wanted.of_members.contains(*name) == of_one)
        };
        for (name, needed) in of_members(true).chain(of_members(false)) {
            let slot = found.get(name);
            let anew = slot.is_some_and(|slot| slot.is_to_be_made_anew(*needed)) && ours.has(name);
            if anew {
                drop_slot(&session, name).await?;
            }
            if slot.is_none() || anew {
                create(&session, name, needed.is_some()).await?;
            }
            if let Some(needed) = needed {
                advance(&session, name, (*needed).min(replayed)).await?;
                held.behind |= *needed > replayed;
            }
        }
        Ok(held)
    }

    /// On a primary: makes missing declared slots, and drops those made for members or declared that are no longer wanted and that
    /// nobody streams from. Returns the dropped ones.
    ///
    /// # Errors
    /// As for [`Postgres::hold_slots`].
    pub async fn keep_slots(&self, wanted: &KeptSlots) -> Result<Vec<String>, Error> {
        const SLOTS: &str =
            "SELECT slot_name::text, active FROM pg_replication_slots WHERE NOT pg_is_in_recovery()";
        let before = read(&self.settings)?;
        let mut ours = before.clone();
        ours.members.extend(wanted.present.iter().cloned());
        ours.copies.retain(|name| !ours.members.contains(name));
        let is_kept = |name: &String| wanted.retained.contains(name) || wanted.declared.contains(name);
        let spare: Vec<String> =
            ours.members.iter().chain(&ours.declared).filter(|name| !is_kept(name)).cloned().collect();
        if spare.is_empty() && wanted.declared.is_empty() {
            write(&self.settings, &ours, &before)?;
            return Ok(Vec::new());
        }
        let session = Session::open(&self.settings).await?;
        let act = "show its replication slots";
        let rows = session.within(act, LIMIT, session.client().query(SLOTS, &[])).await?;
        let found: BTreeMap<String, bool> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
        let missing: Vec<String> =
            wanted.declared.iter().filter(|name| !found.contains_key(*name)).cloned().collect();
        ours.declared.extend(missing.iter().cloned());
        // Recorded before they are made, and until they are dropped.
        write(&self.settings, &ours, &before)?;
        let mut dropped = Vec::new();
        for name in spare {
            match found.get(&name) {
                // Somebody streams from it.
                Some(true) => continue,
                Some(false) => {
                    drop_slot(&session, &name).await?;
                    dropped.push(name.clone());
                }
                None => {}
            }
            ours.forget(&name);
        }
        for name in missing {
            create(&session, &name, true).await?;
        }
        write(&self.settings, &ours, &before)?;
        Ok(dropped)
    }

    /// The slots of members that this one has held.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn member_slots(&self) -> Result<BTreeSet<String>, Error> {
        read(&self.settings).map(|ours| ours.members)
    }
}

impl Ours {
    fn has(&self, name: &str) -> bool {
        self.all().any(|own| own == name)
    }

    fn all(&self) -> impl Iterator<Item = &String> {
        self.members.iter().chain(&self.copies).chain(&self.declared)
    }

    fn forget(&mut self, name: &str) {
        self.members.remove(name);
        self.copies.remove(name);
        self.declared.remove(name);
    }
}

impl Found {
    /// Whether it cannot be changed into what is needed.
    fn is_to_be_made_anew(&self, needed: Option<Lsn>) -> bool {
        !self.active && (self.lost || self.restart.is_some() != needed.is_some())
    }
}

fn path(settings: &Settings) -> PathBuf {
    settings.state_directory.join(FILE)
}

fn read(settings: &Settings) -> Result<Ours, Error> {
    let text = file::read_if_there(&path(settings))?;
    // An unreadable file counts as empty: keeping a slot too long is better than dropping somebody else's.
    Ok(text.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default())
}

fn write(settings: &Settings, ours: &Ours, before: &Ours) -> Result<(), Error> {
    if ours == before {
        return Ok(());
    }
    let path = path(settings);
    let text = serde_json::to_string(ours)
        .map_err(|fault| Error::Write { path: path.clone(), source: std::io::Error::other(fault) })?;
    file::replace(&path, &text, 0o600)
}

/// How far a standby has replayed, and its slots; `None` for a primary.
async fn find(session: &Session) -> Result<Option<(Lsn, BTreeMap<String, Found>)>, Error> {
    const FIND: &str = "SELECT pg_wal_lsn_diff(replayed, '0/0')::bigint, slot_name::text, active, \
        coalesce(wal_status = 'lost', false), pg_wal_lsn_diff(restart_lsn, '0/0')::bigint \
        FROM pg_last_wal_replay_lsn() AS replayed LEFT JOIN pg_replication_slots \
        ON slot_type = 'physical' AND NOT temporary AND slot_name <> $1 WHERE pg_is_in_recovery()";
    let act = "show its replication slots";
    let rows = session.within(act, LIMIT, session.client().query(FIND, &[&ARCHIVE_SLOT])).await?;
    let lsn = |place: i64| Lsn::new(place.cast_unsigned());
    let Some(first) = rows.first() else { return Ok(None) };
    let replayed = first.get::<_, Option<i64>>(0).map_or(Lsn::INVALID, lsn);
    let found = rows.iter().filter_map(|row| {
        let restart = row.get::<_, Option<i64>>(4).map(lsn);
        Some((row.get::<_, Option<String>>(1)?, Found { active: row.get(2), lost: row.get(3), restart }))
    });
    Ok(Some((replayed, found.collect())))
}

async fn create(session: &Session, name: &str, keeps: bool) -> Result<(), Error> {
    const CREATE: &str = "SELECT pg_create_physical_replication_slot($1, $2)";
    let act = "create a replication slot";
    session.within(act, LIMIT, session.client().execute(CREATE, &[&name, &keeps])).await.map(drop)
}

async fn advance(session: &Session, name: &str, to: Lsn) -> Result<(), Error> {
    const ADVANCE: &str = "SELECT pg_replication_slot_advance(slot_name, $2::text::pg_lsn) FROM pg_replication_slots \
        WHERE slot_name = $1 AND NOT active AND restart_lsn < $2::text::pg_lsn";
    let act = "advance a replication slot";
    let to = to.to_string();
    session.within(act, LIMIT, session.client().execute(ADVANCE, &[&name, &to])).await.map(drop)
}

async fn drop_slot(session: &Session, name: &str) -> Result<(), Error> {
    const DROP: &str = "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots \
        WHERE slot_name = $1 AND NOT active";
    let act = "drop a replication slot";
    session.within(act, LIMIT, session.client().execute(DROP, &[&name])).await.map(drop)
}
