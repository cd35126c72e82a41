//! What a running Postgres says about itself, by one query over its unix socket. Draws no conclusions.

use std::collections::BTreeMap;
use std::fmt;

use outrider_wal::{Lsn, TimelineId};

/// One observation of a Postgres that accepts connections.
#[derive(Clone, Debug, PartialEq)]
pub struct Observation {
    /// `pg_control_system().system_identifier`.
    pub system_identifier: u64,
    /// `server_version_num`, such as 150016.
    pub server_version: u32,
    /// `pg_postmaster_start_time()` as text, such as `2026-11-24 10:09:32.123456+00:00`.
    pub postmaster_start_time: String,
    /// The timeline of its WAL position, as far as known.
    pub timeline: TimelineId,
    /// The timeline of the last checkpoint in its control file: behind `timeline` until the checkpoint after a promotion.
    pub checkpoint_timeline: TimelineId,
    /// Its role.
    pub role: Role,
    /// Who streams from it, by application name ascending.
    pub walsenders: Vec<WalSender>,
    /// Its permanent physical replication slots, except those that have lost their WAL; by name ascending.
    pub slots: Vec<Slot>,
    /// `synchronous_standby_names`.
    pub synchronous_standby_names: String,
    /// Parameters that wait for a restart, by name ascending.
    pub pending_restart: Vec<PendingRestart>,
    /// Errors in the files that it read last, or would read: each prevents a successful restart.
    pub file_faults: Vec<FileFault>,
    /// `pg_conf_load_time()`, in the session that reports it.
    pub loaded: String,
    /// The values in effect of the parameters that a standby must not have less of than its primary.
    pub limits: BTreeMap<String, u32>,
    /// Client backends.
    pub connections: u32,
    /// Size of a WAL segment in bytes.
    pub wal_segment_size: u64,
    /// Why it accepts no new connection, though it answers in the open one. Not tried in every observation.
    pub shut_out: Option<String>,
}

/// A physical replication slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slot {
    /// Its name.
    pub name: String,
    /// Whether somebody streams from it.
    pub active: bool,
    /// All WAL from here on is kept; `None` when it keeps nothing.
    pub restart: Option<Lsn>,
}

/// A parameter whose new value waits for a restart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PendingRestart {
    /// Its name.
    pub name: String,
    /// The value in effect, with its unit.
    pub old_value: String,
    /// The value in the files, as written; PostgreSQL's default when no file sets it.
    pub new_value: String,
}

impl fmt::Display for PendingRestart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} -> {}", self.name, self.old_value, self.new_value)
    }
}

/// A line of `postgresql.conf`, `pg_hba.conf`, `pg_ident.conf` or an included file that Postgres cannot use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileFault {
    /// The parameter, if it is one.
    pub name: Option<String>,
    /// Its value there.
    pub value: Option<String>,
    /// The file.
    pub file: String,
    /// The line in it.
    pub line: i32,
    /// What Postgres says.
    pub error: String,
}

impl fmt::Display for FileFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} line {}: ", self.file, self.line)?;
        if let Some(name) = &self.name {
            write!(f, "{name} = {:?}: ", self.value.as_deref().unwrap_or_default())?;
        }
        f.write_str(&self.error)
    }
}

/// Primary or standby, with positions.
#[derive(Clone, Debug, PartialEq)]
pub enum Role {
    /// Accepts writes.
    Primary {
        /// `pg_current_wal_flush_lsn()`.
        flushed: Lsn,
    },
    /// In recovery.
    Standby {
        /// `pg_last_wal_receive_lsn()`; invalid when it never streamed.
        received: Lsn,
        /// `pg_last_wal_replay_lsn()`.
        replayed: Lsn,
        /// How far its primary had flushed when it last said so (`latest_end_lsn` of the WAL receiver); invalid when it does not
        /// stream.
        latest_end: Lsn,
        /// `pg_last_xact_replay_timestamp()` as text.
        replayed_timestamp: Option<String>,
        /// Seconds since that; 0 when everything received is replayed.
        replay_lag_seconds: f64,
        /// `pg_is_wal_replay_paused()`: paused by somebody, or by itself because it lacks something.
        replay_paused: bool,
        /// The parameters of which it has less than its primary had; only checked while replay is paused.
        lacking: Vec<Lacking>,
        /// `status` of the WAL receiver is `streaming`.
        streaming: bool,
        /// `primary_conninfo`'s host and port; `None` when it streams from nobody.
        upstream: Option<(String, u16)>,
        /// `restore_command` is set.
        archive_recovery: bool,
        /// `recovery_min_apply_delay` in seconds.
        apply_delay_seconds: f64,
        /// The sessions that replay waits for, oldest first; only checked while something received is not yet replayed.
        blockers: Vec<Blocker>,
    },
}

/// A parameter of which a standby has less than its primary: replay does not continue before a restart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lacking {
    /// Its name.
    pub name: String,
    /// In effect here.
    pub here: u32,
    /// The primary's value, from the control file.
    pub primary: u32,
}

/// A session that blocks replay (a recovery conflict).
#[derive(Clone, Debug, PartialEq)]
pub struct Blocker {
    /// The server process.
    pub pid: i32,
    /// How long its transaction has lasted, in seconds.
    pub age_seconds: f64,
}

impl Observation {
    /// Whether it accepts writes.
    #[must_use]
    pub fn is_primary(&self) -> bool {
        matches!(self.role, Role::Primary { .. })
    }

    /// Flushed by a primary; the further of received and replayed by a standby.
    #[must_use]
    pub fn position(&self) -> Lsn {
        match &self.role {
            Role::Primary { flushed } => *flushed,
            Role::Standby { received, replayed, .. } => (*received).max(*replayed),
        }
    }

    /// Patroni's `replication_state`.
    #[must_use]
    pub fn replication_state(&self) -> Option<&'static str> {
        match &self.role {
            Role::Primary { .. } => None,
            Role::Standby { streaming: true, .. } => Some("streaming"),
            Role::Standby { archive_recovery: true, .. } => Some("in archive recovery"),
            Role::Standby { .. } => None,
        }
    }
}

/// A row of `pg_stat_replication`.
#[derive(Clone, Debug, PartialEq)]
pub struct WalSender {
    /// The server process.
    pub pid: i32,
    /// `usename`.
    pub usename: String,
    /// `application_name`: the member's name.
    pub application_name: String,
    /// `client_addr`; `None` for a unix socket.
    pub client_addr: Option<String>,
    /// `state`, such as `streaming`.
    pub state: String,
    /// `sync_state`: `async`, `potential`, `sync` or `quorum`.
    pub sync_state: String,
    /// `sync_priority`; 0 when it is not in `synchronous_standby_names`.
    pub sync_priority: i32,
    /// `sent_lsn`.
    pub sent: Lsn,
    /// `flush_lsn`.
    pub flushed: Lsn,
    /// `replay_lsn`.
    pub replayed: Lsn,
    /// `replay_lag` in seconds; 0 when there is none.
    pub replay_lag_seconds: f64,
}
