//! What the DCS showed last, since when it has been silent, and how long this member has seen what somebody asked for.

use std::time::Duration;

use jiff::Timestamp;
use outrider_dcs::{Failover, Member, Snapshot, SwitchoverIntent};
use outrider_ha::MemberName;
use outrider_postgres::Upstream;
use tokio::time::Instant;
use tracing::{info, warn};

use super::requests::{SwitchoverProgress, TurnSeen};
use crate::clock;
use crate::log::causes;

/// What is remembered of the cluster.
pub(crate) struct Cluster {
    snapshot: Option<Snapshot>,
    last_seen: Option<Timestamp>,
    silent_since: Option<Instant>,
    silence_logged: bool,
    /// The request for another leader that stands in the DCS, by its revision, and when it was first seen.
    request_seen: Option<(i64, Instant)>,
    turn: TurnSeen,
    switchover: Option<SwitchoverProgress>,
}

impl Cluster {
    /// Of an agent to which the DCS has not answered yet.
    pub(super) fn new() -> Self {
        Cluster {
            snapshot: None,
            last_seen: None,
            silent_since: Some(clock::monotonic()),
            silence_logged: false,
            request_seen: None,
            turn: TurnSeen::default(),
            switchover: None,
        }
    }

    /// The DCS answers.
    pub(crate) fn answers(&mut self, snapshot: Snapshot) {
        if self.silence_logged {
            info!(silent_for = ?self.silent_for(), "the DCS answers again");
        }
        self.silence_logged = false;
        self.silent_since = None;
        self.last_seen = Some(clock::wall());
        self.snapshot = Some(snapshot);
    }

    /// It does not.
    pub(crate) fn is_silent(&mut self, fault: &outrider_dcs::Error) {
        if !self.silence_logged {
            warn!(fault = %causes(fault), "the DCS does not answer; waiting for it");
        }
        self.silence_logged = true;
        self.silent_since.get_or_insert_with(clock::monotonic);
    }

    /// How long the DCS has been silent.
    pub(crate) fn silent_for(&self) -> Duration {
        self.silent_since.map(clock::since).unwrap_or_default()
    }

    /// The last answer of the DCS, however old.
    pub(crate) fn snapshot(&self) -> Option<&Snapshot> {
        self.snapshot.as_ref()
    }

    /// When that was.
    pub(crate) fn last_seen(&self) -> Option<Timestamp> {
        self.last_seen
    }

    /// Notes which request for another leader stands in the DCS.
    pub(crate) fn sees_request(&mut self, revision: Option<i64>) {
        if self.request_seen.map(|(seen, _)| seen) != revision {
            self.request_seen = revision.map(|revision| (revision, clock::monotonic()));
        }
    }

    /// How long it has been seen.
    pub(crate) fn request_seen_for(&self, revision: i64) -> Duration {
        let seen = self.request_seen.filter(|(seen, _)| *seen == revision);
        seen.map(|(_, since)| clock::since(since)).unwrap_or_default()
    }

    /// Notes the present turn of a restart; how long it has been seen.
    pub(crate) fn sees_turn(&mut self, snapshot: &Snapshot) -> Duration {
        self.turn.seen(snapshot)
    }

    /// The announced switchover that this member takes part in.
    pub(crate) fn switchover(&self) -> Option<&SwitchoverProgress> {
        self.switchover.as_ref()
    }

    /// This member takes part in the announced switchover `id`, or goes on in it.
    pub(crate) fn takes_part_in(&mut self, id: &str) {
        if self.switchover.as_ref().is_none_or(|progress| progress.id != id) {
            let id = id.to_owned();
            self.switchover = Some(SwitchoverProgress { id, checkpointed: false, stopping_since: None });
        }
    }

    /// It takes part in none.
    pub(crate) fn takes_part_in_none(&mut self) {
        self.switchover = None;
    }

    /// Its own CHECKPOINT for it is done.
    pub(crate) fn has_checkpointed(&mut self) {
        if let Some(progress) = &mut self.switchover {
            progress.checkpointed = true;
        }
    }

    /// Postgres is told to stop. Whether that is for the announced switchover.
    pub(crate) fn stops(&mut self) -> bool {
        let announced = self.snapshot.as_ref().and_then(|snapshot| snapshot.intent.as_ref());
        let (Some(announced), Some(progress)) = (announced, &mut self.switchover) else { return false };
        let is_for_it = progress.id == announced.value.id;
        if is_for_it {
            progress.stopping_since = Some(clock::monotonic());
        }
        is_for_it
    }

    /// The announcement of a switchover, with its revision.
    pub(crate) fn announced(&self) -> Option<(&SwitchoverIntent, i64)> {
        let entry = self.snapshot.as_ref()?.intent.as_ref()?;
        Some((&entry.value, entry.revision))
    }

    /// The request for another leader.
    pub(crate) fn request(&self) -> Option<&Failover> {
        Some(&self.snapshot.as_ref()?.failover.as_ref()?.value)
    }

    /// Whether the DCS names the system identifier of the cluster.
    pub(crate) fn is_made(&self) -> bool {
        let named = self.snapshot.as_ref().and_then(|snapshot| snapshot.initialize.as_ref());
        named.is_some_and(|entry| !entry.value.trim().is_empty())
    }

    /// Where a member's Postgres listens, as it publishes it.
    pub(crate) fn upstream(&self, name: &MemberName) -> Option<Upstream> {
        Upstream::from_url(self.snapshot.as_ref()?.member(name.as_str())?.conn_url()?)
    }

    /// The member that publishes this address for its Postgres.
    pub(crate) fn member_at(&self, host: &str, port: u16) -> Option<MemberName> {
        let here = |member: &&Member| {
            let upstream = member.conn_url().and_then(Upstream::from_url);
            upstream.is_some_and(|upstream| upstream.host == host && upstream.port == port)
        };
        let member = self.snapshot.as_ref()?.members.iter().find(here)?;
        Some(MemberName::from(member.name.as_str()))
    }
}
