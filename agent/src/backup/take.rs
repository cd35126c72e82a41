//! Takes a base backup of the local Postgres with the archive's own means: connects the two, ends the last WAL segment on
//! whoever is the primary, and lets go what retention allows when it is done.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use async_trait::async_trait;
use outrider_archive::catalog::Catalog;
use outrider_archive::{
    BackupError, BackupOptions, BackupReport, Begun, Ended, Phase, Source, SourceError, StoredWal,
    WalArchived, WalMissing, sweep_abandoned, take_backup,
};
use outrider_archive::{Layout, Leader, NotOwned, Owned, Tablespace, prove, retention};
use outrider_postgres::{BackupSession, Postgres, Upstream};
use outrider_store::Store;
use outrider_wal::{SegmentName, SegmentSize};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{BackupOrder, BackupProgress, FinishedBackup, TakeError, Taker};
use crate::apart::apart;
use crate::clock;
use crate::config::Config;
use crate::log::causes;
use crate::report::ReportReceiver;

/// For the WAL of a backup to come into the archive: what waits there may be much, and the backup is as good as done.
const WAL_LIMIT: Duration = Duration::from_secs(3600);
/// Between two tries to end the segment: a new primary takes over within seconds.
const SWITCH_INTERVAL: Duration = Duration::from_secs(1);
/// Between two looks at why WAL is waited for.
const REASON_INTERVAL: Duration = Duration::from_secs(1);
/// For what retention removes: the next backup goes on with what is left.
const RETENTION_LIMIT: Duration = Duration::from_secs(1800);
/// For the leader to claim the archive, which a new one does within seconds. Until then nothing is written to it.
const CLAIM_LIMIT: Duration = Duration::from_secs(60);
/// Between two looks whether it has.
const CLAIM_INTERVAL: Duration = Duration::from_millis(500);
/// What a killed agent left of a backup is removed by the next one.
const ABANDONED_AGE: Duration = Duration::from_secs(60);

/// The archive and the Postgres of this member.
pub(crate) struct ArchiveTaker {
    config: Arc<Config>,
    postgres: Postgres,
    reports: ReportReceiver,
}

impl ArchiveTaker {
    /// Nothing is asked of either yet.
    pub(crate) fn new(config: Arc<Config>, postgres: Postgres, reports: ReportReceiver) -> Self {
        ArchiveTaker { config, postgres, reports }
    }
}

#[async_trait]
impl Taker for ArchiveTaker {
    async fn take(
        &self,
        order: BackupOrder,
        progress: watch::Sender<BackupProgress>,
        cancel: CancellationToken,
    ) -> Result<FinishedBackup, TakeError> {
        let (config, postgres, reports) = (self.config.clone(), self.postgres.clone(), self.reports.clone());
        // What works hard must not hold up the rounds, which have one thread.
        apart("backup", move || async move {
            take(&config, &postgres, &reports, &order, &progress, &cancel).await
        })
        .await
        .unwrap_or_else(|broken| Err(TakeError::Here(broken.to_string())))
    }
}

async fn take(
    config: &Config,
    postgres: &Postgres,
    reports: &ReportReceiver,
    order: &BackupOrder,
    progress: &watch::Sender<BackupProgress>,
    cancel: &CancellationToken,
) -> Result<FinishedBackup, TakeError> {
    let failed = |fault: anyhow::Error| TakeError::Failed(format!("{fault:#}"));
    let archive = config.archive.as_ref().context("this member has no archive").map_err(failed)?;
    if let Some(why) = no_wal_comes(reports) {
        return Err(TakeError::Failed(format!("the WAL of a backup would never reach the archive: {why}")));
    }
    let store = archive.open_store().map_err(failed)?;
    let proving = proven(&*store, &archive.layout, reports);
    let owned = cancel.run_until_cancelled(proving).await.ok_or(TakeError::Cancelled)?;
    let owned = owned.map_err(TakeError::Failed)?;
    match sweep_abandoned(&*store, &archive.layout, owned, None, ABANDONED_AGE).await {
        Ok(swept) if swept.is_empty() => {}
        Ok(swept) => info!(?swept, "removed remains of interrupted backups"),
        Err(fault) => warn!(fault = %causes(&fault), "cannot remove remains of earlier backups"),
    }
    let session = BackupSession::open(postgres.settings()).await;
    let session = session.map_err(|fault| TakeError::Here(causes(&fault)))?;
    let source = PostgresSource { session, data_directory: postgres.settings().data_directory.clone() };
    let stored = StoredWal { store: store.clone(), layout: archive.layout.clone(), limit: WAL_LIMIT };
    let wal = SwitchedWal { stored, postgres, reports, me: &config.name };
    let options = BackupOptions {
        name: None,
        rate_limit: archive.backup_rate,
        ..BackupOptions::new(archive.layout.clone())
    };
    let (told, mut heard) = watch::channel(outrider_archive::BackupProgress::default());
    let taking = take_backup(store.clone(), Box::new(source), &wal, (&options, owned), &told, cancel);
    let telling = async {
        loop {
            // The reason for a wait may come while nothing else changes.
            if let Ok(Err(_)) = timeout(REASON_INTERVAL, heard.changed()).await {
                // The sender lives as long as the taking.
                std::future::pending::<()>().await;
            }
            let now = shown(&heard.borrow_and_update(), reports);
            progress.send_if_modified(|before| std::mem::replace(before, now.clone()) != now);
        }
    };
    let report = tokio::select! {
        report = taking => report.map_err(|fault| sorted(&fault))?,
        () = telling => unreachable!("it never ends"),
    };
    info!(request = order.label, backup = %report.info.id, files = report.files, "the base backup is complete");
    progress.send_modify(|progress| {
        progress.phase = "retention".to_owned();
        progress.backup = Some(report.info.id.to_string());
    });
    forget_old(config, &store, reports, cancel).await;
    Ok(taken(&report))
}

/// Waits until the archive is proven to be that of this cluster, by the claim of its leader.
///
/// # Errors
/// In words: it is another's, or its leader does not claim it.
async fn proven(store: &dyn Store, layout: &Layout, reports: &ReportReceiver) -> Result<Owned, String> {
    let begun = clock::monotonic();
    loop {
        let report = reports.borrow().clone();
        let system = report.as_ref().and_then(|report| Some(report.postgres.as_ref()?.system_identifier));
        let leader = report.as_ref().and_then(|report| report.cluster.as_ref()?.leader.as_ref());
        let why = match (system, leader) {
            (Some(system_identifier), Some(leader)) => {
                let leader = Leader { system_identifier, term: leader.term, member: &leader.name };
                match prove(store, layout, leader).await {
                    Ok(owned) => return Ok(owned),
                    Err(NotOwned::Unclaimed(why) | NotOwned::Later(why)) => why,
                    Err(fault @ (NotOwned::Others(_) | NotOwned::Store(_))) => return Err(causes(&fault)),
                }
            }
            (_, None) => "nobody leads".to_owned(),
            (None, Some(_)) => "the Postgres of this member does not answer".to_owned(),
        };
        if begun.elapsed() >= CLAIM_LIMIT {
            return Err(format!("this archive is not known to be this cluster's own: {why}"));
        }
        sleep(CLAIM_INTERVAL).await;
    }
}

/// Removes what retention lets go. The backup is good whatever becomes of this.
async fn forget_old(
    config: &Config,
    store: &Arc<dyn Store>,
    reports: &ReportReceiver,
    cancel: &CancellationToken,
) {
    let Some(archive) = &config.archive else { return };
    let forgetting = async {
        // Hours may have passed since the backup began.
        let owned = proven(&**store, &archive.layout, reports).await?;
        let told = |fault| causes(&fault);
        let catalog = Catalog::read(&**store, &archive.layout).await.map_err(told)?;
        let newest_commit = outrider_restore::newest_commit(store, &archive.layout, &catalog.wal);
        let now = clock::wall();
        let plan = retention::trusted_plan(&**store, &catalog, now, &archive.retention, newest_commit);
        let plan = plan.await.map_err(told)?;
        if let Some(doubt) = &plan.doubt {
            warn!(%doubt, "retention removes nothing");
        }
        let size = catalog.wal.segment_size();
        retention::remove_obsolete(&**store, &archive.layout, owned, &plan, size).await.map_err(told)
    };
    match cancel.run_until_cancelled(timeout(RETENTION_LIMIT, forgetting)).await {
        // A backup that is done is not cancelled any more; the next one goes on with what is left.
        None => {}
        Some(Ok(Ok(removed))) => info!(?removed, "retention"),
        Some(Ok(Err(fault))) => warn!(%fault, "cannot remove what retention no longer keeps"),
        Some(Err(_)) => {
            warn!(limit = ?RETENTION_LIMIT, "retention did not finish in time; the next backup continues it")
        }
    }
}

fn taken(report: &BackupReport) -> FinishedBackup {
    FinishedBackup {
        backup: report.info.id.to_string(),
        bytes: report.file_bytes,
        bytes_stored: report.stored,
    }
}

fn shown(progress: &outrider_archive::BackupProgress, reports: &ReportReceiver) -> BackupProgress {
    let why = if progress.phase == Phase::WaitingForWal { why_wal_waits(reports) } else { None };
    BackupProgress {
        backup: None,
        phase: why.unwrap_or_else(|| words(progress.phase).to_owned()),
        bytes_done: progress.done,
        bytes_total: progress.total,
        bytes_stored: progress.stored,
        rate: progress.rate,
        seconds_left: progress.left.filter(|_| progress.phase == Phase::Copying).map(|left| left.as_secs()),
    }
}

/// Why the leader archives nothing, as it publishes itself.
fn no_wal_comes(reports: &ReportReceiver) -> Option<String> {
    let report = reports.borrow().clone()?;
    let cluster = report.cluster.as_ref()?;
    let leader = cluster.member(&cluster.leader.as_ref()?.name)?;
    let (name, entry) = (&leader.name, &leader.value);
    if entry["pending_restart_reason"]["archive_mode"]["old_value"] == "off" {
        return Some(format!("archive_mode of {name} is off until its Postgres is restarted"));
    }
    // Patroni's members have no entry of ours.
    let ours = entry.get("outrider")?;
    ours.get("archive_waiting")
        .is_none()
        .then(|| format!("the leader {name} has no archive in its configuration"))
}

/// Why the WAL of a backup is not in the archive yet.
fn why_wal_waits(reports: &ReportReceiver) -> Option<String> {
    let report = reports.borrow().clone()?;
    let cluster = report.cluster.as_ref()?;
    let leader = cluster.member(&cluster.leader.as_ref()?.name)?;
    let failing = leader.value["outrider"]["archive_failing"] == serde_json::Value::Bool(true);
    failing
        .then(|| format!("waiting for WAL: the archive does not accept that of {}; see its log", leader.name))
}

fn words(phase: Phase) -> &'static str {
    match phase {
        Phase::Checking => "checking the archive",
        Phase::Starting => "waiting for a checkpoint",
        Phase::Copying => "copying",
        Phase::Finishing => "finishing",
        Phase::WaitingForWal => "waiting for WAL",
        Phase::Done => "done",
    }
}

/// Whether another member could do better.
fn sorted(fault: &BackupError) -> TakeError {
    match fault {
        BackupError::Cancelled => TakeError::Cancelled,
        BackupError::Source { .. }
        | BackupError::SessionLost
        | BackupError::TimelineChanged { .. }
        | BackupError::WalMissing(WalMissing::TimelineLeft { .. })
        | BackupError::Read { .. }
        | BackupError::Thread { .. } => TakeError::Here(causes(fault)),
        BackupError::Store { .. }
        | BackupError::Newer { .. }
        | BackupError::Foreign { .. }
        | BackupError::Compress { .. }
        | BackupError::Checksums { .. }
        | BackupError::WalMissing(WalMissing::Late { .. } | WalMissing::NotArchived { .. })
        | BackupError::Swept { .. }
        | BackupError::Unknown { .. } => TakeError::Failed(causes(fault)),
    }
}

/// The local Postgres as the archive wants it.
struct PostgresSource {
    session: BackupSession,
    data_directory: std::path::PathBuf,
}

#[async_trait]
impl Source for PostgresSource {
    async fn begin(&mut self, label: &str) -> Result<Begun, SourceError> {
        let begun = self.session.begin(label).await?;
        let tablespaces = begun.tablespaces.iter().map(|tablespace| Tablespace {
            name: tablespace.name.clone(),
            oid: tablespace.oid,
            location: tablespace.location.clone(),
        });
        Ok(Begun {
            start: begun.start,
            data_directory: self.data_directory.clone(),
            tablespaces: tablespaces.collect(),
            version_directory: begun.version_directory(),
            version: begun.version,
            system_identifier: begun.system_identifier,
            segment_size: begun.segment_size,
            page_size: begun.page_size,
            pages_per_file: begun.pages_per_file,
            data_checksums: begun.data_checksums,
        })
    }

    async fn end(&mut self) -> Result<Ended, SourceError> {
        let ended = self.session.end().await?;
        Ok(Ended {
            stop: ended.stop,
            start_timeline: ended.start_timeline,
            stop_timeline: ended.stop_timeline,
            label: ended.label,
        })
    }

    fn is_alive(&self) -> bool {
        self.session.is_alive()
    }
}

/// Ends the segment in which the backup ended, so that it need not wait until it is full.
struct SwitchedWal<'take> {
    stored: StoredWal,
    postgres: &'take Postgres,
    reports: &'take ReportReceiver,
    me: &'take str,
}

#[async_trait]
impl WalArchived for SwitchedWal<'_> {
    async fn wait(&self, first: SegmentName, last: SegmentName, size: SegmentSize) -> Result<(), WalMissing> {
        tokio::select! {
            there = self.stored.wait(first, last, size) => there,
            why = self.hopeless() => Err(WalMissing::NotArchived { why }),
            never = self.switch() => never,
        }
    }
}

/// So many looks in a row show that the leader archives nothing, before it is believed: a new one publishes itself first.
const HOPELESS_LOOKS: u32 = 5;

impl SwitchedWal<'_> {
    /// Ends when nobody archives the WAL that is waited for.
    async fn hopeless(&self) -> String {
        let mut looks = 0;
        loop {
            sleep(REASON_INTERVAL).await;
            let Some(why) = no_wal_comes(self.reports) else {
                looks = 0;
                continue;
            };
            looks += 1;
            if looks == HOPELESS_LOOKS {
                return why;
            }
        }
    }

    /// Once, on whoever is the primary now; then it only waits.
    async fn switch<Never>(&self) -> Never {
        let mut last = String::new();
        loop {
            let primary = self.primary();
            let outcome = match &primary {
                None => Err("nobody leads".to_owned()),
                Some(at) => self.postgres.switch_wal(at.as_ref()).await.map_err(|fault| causes(&fault)),
            };
            match outcome {
                Ok(end) => {
                    info!(%end, "ended the WAL segment in which the backup ended");
                    return std::future::pending().await;
                }
                Err(fault) if fault != last => {
                    warn!(%fault, "cannot end the WAL segment on the primary; trying again");
                    last = fault;
                }
                Err(_) => {}
            }
            sleep(SWITCH_INTERVAL).await;
        }
    }

    /// `Some(None)` when it is the local one.
    fn primary(&self) -> Option<Option<Upstream>> {
        let report = self.reports.borrow().clone()?;
        let cluster = report.cluster.as_ref()?;
        let leader = cluster.leader.as_ref()?;
        if leader.name == self.me {
            return Some(None);
        }
        let url = cluster.member(&leader.name)?.conn_url()?;
        Upstream::from_url(url).map(Some)
    }
}
