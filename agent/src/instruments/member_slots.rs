//! Keeps on this member the WAL that others will ask for, whoever leads then: a standby holds the slots that the leader publishes, where
//! they stand there, and the leader keeps those of members that are away for `member_slots_ttl`. A task of its own: no round waits for it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use outrider_dcs::Snapshot;
use outrider_postgres::{ARCHIVE_SLOT, Error, HeldSlots, KeptSlots, Observation, Postgres, slot_name};
use outrider_wal::Lsn;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tracing::info;

use super::archive_slot::tell;
use crate::clock;
use crate::log::LastLogged;
use crate::state::State;

/// What the round does not see.
const LOOK_INTERVAL: Duration = Duration::from_secs(600);
/// While this server has not replayed as far as its slots are to stand.
const BEHIND_INTERVAL: Duration = Duration::from_secs(10);
/// From one that did not work to the next.
const AGAIN_INTERVAL: Duration = Duration::from_secs(5);

/// The task. It ends when this is dropped.
pub(crate) struct MemberSlots {
    postgres: Postgres,
    wanted: watch::Sender<Option<Wanted>>,
    task: JoinHandle<()>,
}

/// What the slots are to be on the Postgres that runs.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Wanted {
    /// Names the run of the server.
    started: String,
    /// The slots that were there when the round looked: somebody may drop one.
    found: BTreeSet<String>,
    duty: Duty,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Duty {
    /// Of a standby.
    Hold(HeldSlots),
    /// Of the leader, which makes those of members itself.
    Keep(KeptSlots),
}

impl Drop for MemberSlots {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl MemberSlots {
    pub(crate) fn start(postgres: Postgres) -> Self {
        let (wanted, seen) = watch::channel(None);
        let task = tokio::spawn(keep(postgres.clone(), seen));
        MemberSlots { postgres, wanted, task }
    }

    /// Takes in what the round saw.
    pub(crate) fn follow(&self, state: &mut State, me: &str) {
        let wanted = self.wanted(state, me);
        self.wanted.send_if_modified(|current| {
            let changed = *current != wanted;
            *current = wanted;
            changed
        });
    }

    /// `None` while nobody knows: who leads, or what the leader says.
    fn wanted(&self, state: &mut State, me: &str) -> Option<Wanted> {
        let State { cluster, postgres, lease, retained, rules, .. } = state;
        let (snapshot, seen) = (cluster.snapshot()?, postgres.seen()?);
        let leads = lease.held().is_some() && seen.is_primary();
        if !leads {
            retained.forget();
        }
        let duty = if leads {
            let present = present(snapshot, me);
            let before = || {
                let mut before = self.postgres.member_slots().unwrap_or_default();
                let recorded = snapshot.status.iter().flat_map(|status| &status.value.retain_slots);
                before.extend(recorded.cloned());
                before.remove(&slot_name(me));
                before
            };
            retained.follow(&needed(seen, &present), before, rules.member_slots_ttl(), clock::monotonic());
            let mut declared = rules.declared_slots().clone();
            declared.remove(&slot_name(me));
            Duty::Keep(KeptSlots { present, retained: retained.slots(), declared })
        } else if seen.is_primary() {
            return None;
        } else if rules.policy().tags.may_lead() {
            Duty::Hold(held(seen, snapshot, me)?)
        } else {
            // It never becomes the one who is asked.
            Duty::Hold(HeldSlots::default())
        };
        let found = seen.slots.iter().map(|slot| slot.name.clone()).collect();
        Some(Wanted { started: seen.postmaster_start_time.clone(), found, duty })
    }
}

/// The slots of the other members that are in the DCS.
fn present(snapshot: &Snapshot, me: &str) -> BTreeSet<String> {
    let others = snapshot.members.iter().filter(|member| member.name != me);
    others.map(|member| slot_name(&member.name)).collect()
}

/// Those, and the slots of members without an agent whose Postgres streams all the same.
fn needed(seen: &Observation, present: &BTreeSet<String>) -> BTreeSet<String> {
    let streams = |name: &str| seen.slots.iter().any(|slot| slot.name == name && slot.active);
    let without = seen.walsenders.iter().map(|sender| slot_name(&sender.application_name));
    present.iter().cloned().chain(without.filter(|name| streams(name))).collect()
}

/// What a standby holds: the slots that the leader publishes, and one for each other member. Positions by whole segments, which is
/// how WAL is kept: they change seldom.
fn held(seen: &Observation, snapshot: &Snapshot, me: &str) -> Option<HeldSlots> {
    let leader = snapshot.leader.as_ref().filter(|leader| !leader.mine)?;
    let status = &snapshot.status.as_ref()?.value;
    let size = seen.wal_segment_size.max(1);
    let whole =
        |position: Lsn| Some(position.get() - position.get() % size).filter(|at| *at > 0).map(Lsn::new);
    let own = slot_name(me);
    let mut of_members = present(snapshot, me);
    of_members.extend(status.retain_slots.iter().cloned());
    of_members.remove(&own);
    let mut slots: BTreeMap<String, Option<Lsn>> =
        present(snapshot, me).into_iter().map(|name| (name, None)).collect();
    slots.extend(status.slots.iter().map(|(name, position)| (name.clone(), whole(*position))));
    // The leader streams from nobody; whatever it lacks when it comes back begins after this.
    slots.insert(slot_name(&leader.name), whole(status.optime));
    slots.retain(|name, _| *name != own && name != ARCHIVE_SLOT);
    of_members.retain(|name| slots.contains_key(name));
    Some(HeldSlots { slots, of_members })
}

async fn keep(postgres: Postgres, mut wanted: watch::Receiver<Option<Wanted>>) {
    let mut fault = LastLogged::default();
    loop {
        let now = wanted.borrow_and_update().clone();
        let mut wait = LOOK_INTERVAL;
        if let Some(now) = now {
            match tend(&postgres, &now.duty).await {
                Ok(behind) => {
                    fault.forget();
                    if behind {
                        wait = BEHIND_INTERVAL;
                    }
                }
                Err(error) => {
                    wait = AGAIN_INTERVAL;
                    tell(&error, &mut fault, "the replication slots of the others as they are to be");
                }
            }
        }
        match timeout(wait, wanted.changed()).await {
            Ok(Ok(())) | Err(_) => {}
            Ok(Err(_)) => return,
        }
    }
}

/// Whether some keep more than is needed until this server has come further.
async fn tend(postgres: &Postgres, duty: &Duty) -> Result<bool, Error> {
    let (dropped, behind) = match duty {
        Duty::Hold(held) => {
            let held = postgres.hold_slots(held).await?;
            (held.dropped, held.behind)
        }
        Duty::Keep(kept) => (postgres.keep_slots(kept).await?, false),
    };
    for slot in dropped {
        info!(slot, "dropped a replication slot that nobody needs any more");
    }
    Ok(behind)
}

#[cfg(test)]
mod tests {
    use outrider_dcs::{Entry, Leader, Status};
    use serde_json::json;

    use super::*;
    use crate::sample::{entry, observation};

    const SEGMENT: u64 = 16 << 20;

    fn names(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn a_standby_holds_what_the_leader_publishes_and_a_slot_for_every_member() {
        let at = |segments: u64| Lsn::new(segments * SEGMENT);
        let slots =
            [("p_3", at(3).advanced(5)), ("of_a_person", Lsn::INVALID), ("p1", at(1)), (ARCHIVE_SLOT, at(1))];
        let status = Status {
            optime: at(9).advanced(1),
            slots: slots.map(|(name, at)| (name.to_owned(), at)).into(),
            retain_slots: vec!["p1".into(), "p_3".into()],
            ..Status::default()
        };
        let snapshot = Snapshot {
            leader: Some(Leader { name: "P2".into(), term: 1, revision: 1, lease: 1, mine: false }),
            members: ["p1", "P2", "p4"].map(|name| entry(name, json!({}))).into(),
            status: Some(Entry { value: status, revision: 1 }),
            ..Snapshot::default()
        };
        let seen = Observation { wal_segment_size: SEGMENT, ..observation() };
        let held = held(&seen, &snapshot, "p1").unwrap();
        let wanted = [("of_a_person", None), ("p2", Some(at(9))), ("p4", None), ("p_3", Some(at(3)))];
        assert_eq!(held.slots, wanted.map(|(name, at)| (name.to_owned(), at)).into());
        assert_eq!(held.of_members, names(&["p2", "p4", "p_3"]));
        let silent = Snapshot { leader: None, ..snapshot };
        assert_eq!(super::held(&seen, &silent, "p1"), None);
    }
}
