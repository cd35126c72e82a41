//! One Postgres: start, stop, promote, follow. Long work is in `rebuild`, statements are in `statement`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use outrider_supervisor::protocol::{Event, StopMode, Tool};
use tokio::sync::broadcast::error::RecvError;
use tokio::time::timeout;
use tracing::{info, warn};

use crate::configuration::{self, Configuration};
use crate::control::ControlData;
use crate::directory;
use crate::error::Error;
use crate::observer::Observer;
use crate::settings::Settings;
use crate::special;
use crate::supervisor::{ArmedFuse, News, Supervisor};

/// How long a fast stop waits for a hanging standby to receive everything.
const WALSENDER_LIMIT: Duration = Duration::from_millis(300);
/// Interval between checks for walsenders to be cut off.
const WALSENDER_INTERVAL: Duration = Duration::from_millis(100);
/// Time limit for `pg_controldata`, which reads one small file.
const CONTROL_LIMIT: Duration = Duration::from_secs(5);
/// Time limit for a fast stop, whose shutdown checkpoint takes its time on a large server. An immediate one follows.
const FAST_LIMIT: Duration = Duration::from_secs(60);
/// Time limit for an immediate stop, which writes nothing; then every process is killed.
const IMMEDIATE_LIMIT: Duration = Duration::from_secs(1);

/// One Postgres and its supervisor. Clones refer to the same one.
#[derive(Clone, Debug)]
pub struct Postgres {
    pub(crate) settings: Arc<Settings>,
    pub(crate) supervisor: Supervisor,
}

impl Postgres {
    /// The Postgres with these settings.
    #[must_use]
    pub fn new(settings: Arc<Settings>) -> Self {
        let supervisor = Supervisor::new(settings.supervisor_socket.clone());
        Postgres { settings, supervisor }
    }

    /// Its settings from the member's file.
    #[must_use]
    pub fn settings(&self) -> &Arc<Settings> {
        &self.settings
    }

    /// Its supervisor.
    #[must_use]
    pub fn supervisor(&self) -> &Supervisor {
        &self.supervisor
    }

    /// An observer of it, with a session of its own.
    #[must_use]
    pub fn observer(&self) -> Observer {
        Observer::new(self.settings.clone())
    }

    /// The control file. Only while nothing runs on the data directory.
    ///
    /// # Errors
    /// When `pg_controldata` does not run or its output is not understood.
    pub async fn control_data(&self) -> Result<ControlData, Error> {
        let arguments = vec!["-D".to_owned(), self.settings.data_directory.display().to_string()];
        let environment = vec![("LC_ALL".to_owned(), "C".to_owned())];
        let running = self.supervisor.run_tool(Tool::PgControldata, arguments, environment, false);
        let too_slow = Error::TooSlow { act: "show its control file", limit: CONTROL_LIMIT };
        let run = timeout(CONTROL_LIMIT, running).await.unwrap_or(Err(too_slow))?;
        ControlData::parse(&run.output)
    }

    /// Whether its data is a base backup that was never started: its control file is still the primary's.
    #[must_use]
    pub fn is_fresh_backup(&self) -> bool {
        directory::has_backup_label(&self.settings)
    }

    /// Starts it, accepting writes while the fuse is live. Returns long before it accepts connections.
    ///
    /// # Errors
    /// When a file cannot be written or the supervisor refuses.
    pub async fn start_primary(&self, wanted: &Configuration, _fuse: &ArmedFuse) -> Result<(), Error> {
        special::clear(&self.settings).await;
        let arguments = wanted.write_for_start(&self.settings, &BTreeMap::new())?;
        configuration::set_standby_signal(&self.settings.data_directory, false)?;
        self.supervisor.start(true, arguments).await
    }

    /// Starts it in recovery, with at least the primary's values of the parameters that a standby must not have less of,
    /// current and from the control file. Returns long before it accepts connections.
    ///
    /// # Errors
    /// When a file cannot be written, the control file cannot be read, or the supervisor refuses.
    pub async fn start_standby(&self, wanted: &Configuration) -> Result<(), Error> {
        special::clear(&self.settings).await;
        let control = self.control_data().await?;
        self.forget_skipped(control.timeline())?;
        let mut least = wanted.least.clone();
        for (name, value) in control.hot_standby_minimum {
            let now = least.entry(name).or_default();
            *now = value.max(*now);
        }
        let arguments = wanted.write_for_start(&self.settings, &least)?;
        configuration::set_standby_signal(&self.settings.data_directory, true)?;
        self.supervisor.start(false, arguments).await
    }

    /// Makes it read changed settings; those that need a restart stay pending.
    ///
    /// # Errors
    /// When a file cannot be written or the supervisor refuses.
    pub async fn configure(&self, wanted: &Configuration) -> Result<(), Error> {
        wanted.write(&self.settings)?;
        self.supervisor.reload().await
    }

    /// Ends recovery. Returns once it has been told.
    ///
    /// # Errors
    /// When the supervisor refuses.
    pub async fn promote(&self, fuse: &ArmedFuse) -> Result<(), Error> {
        self.supervisor.promote(fuse).await
    }

    /// Stops it and waits until all its processes are gone. A fast stop waits for every connected standby: the walsenders in
    /// `cut_off` are ended if they hold it up. If a stop hangs it becomes an immediate one, and then a kill. A postmaster
    /// stopped by a signal hears neither, and is killed.
    ///
    /// # Errors
    /// When the supervisor refuses or goes away.
    pub async fn stop(&self, mode: StopMode, cut_off: &[i32]) -> Result<(), Error> {
        let steps: &[(StopMode, Duration)] = match mode {
            StopMode::Fast => &[(StopMode::Fast, FAST_LIMIT), (StopMode::Immediate, IMMEDIATE_LIMIT)],
            StopMode::Immediate => &[(StopMode::Immediate, IMMEDIATE_LIMIT)],
            StopMode::Kill => &[],
        };
        let running = self.supervisor.status().await?.postmaster;
        let frozen = running.is_some_and(|postmaster| postmaster.frozen_ns.is_some());
        for (mode, limit) in steps.iter().filter(|_| !frozen) {
            let mut news = self.supervisor.news();
            self.supervisor.stop(*mode).await?;
            let gone = async {
                tokio::select! {
                    gone = self.gone(&mut news) => gone,
                    never = self.cut_off(cut_off, *mode) => never,
                }
            };
            match timeout(*limit, gone).await {
                Ok(gone) => return gone,
                Err(_) => warn!(?mode, ?limit, "Postgres does not stop"),
            }
        }
        let mut news = self.supervisor.news();
        self.supervisor.stop(StopMode::Kill).await?;
        self.gone(&mut news).await
    }

    /// Until no process of it is left.
    async fn gone(&self, news: &mut tokio::sync::broadcast::Receiver<News>) -> Result<(), Error> {
        loop {
            if self.supervisor.status().await?.postmaster.is_none() {
                return Ok(());
            }
            match news.recv().await {
                Ok(News::Event(Event::PostmasterExited { .. })) => return Ok(()),
                // Whatever else it was, it may have been the end.
                Ok(News::Event(_) | News::ConnectionLost) | Err(RecvError::Lagged(_) | RecvError::Closed) => {
                }
            }
        }
    }

    /// Ends the walsenders after their time; never ends by itself.
    async fn cut_off<Never>(&self, pids: &[i32], mode: StopMode) -> Never {
        if mode == StopMode::Fast {
            tokio::time::sleep(WALSENDER_LIMIT).await;
            for pid in pids {
                match self.supervisor.terminate_process(*pid).await {
                    Ok(()) => info!(pid, "cut off a standby that held up the stop"),
                    // Already gone, as most of them are by now.
                    Err(Error::SupervisorRefused { .. }) => {}
                    Err(fault) => warn!(pid, %fault, "cannot cut off a standby that holds up the stop"),
                }
                tokio::time::sleep(WALSENDER_INTERVAL).await;
            }
        }
        std::future::pending().await
    }

    /// The ancestors of the timeline of its data.
    ///
    /// # Errors
    /// When the history file exists and cannot be read.
    pub fn history(
        &self,
        timeline: outrider_wal::TimelineId,
    ) -> Result<outrider_wal::TimelineHistory, Error> {
        directory::history(&self.settings, timeline)
    }
}
