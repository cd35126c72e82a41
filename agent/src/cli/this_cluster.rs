//! Whether the archive that a command changes belongs to this cluster: by the member's data directory, or by what a running
//! member says. Changes nothing.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};
use outrider_archive::{Layout, NotOwned, Owned, prove_by_hand};
use outrider_store::Store;
use serde_json::Value;

use super::exit::Refusal;
use super::member::Member;
use crate::config::Config;

/// Advice for when nothing here knows whose archive it is.
const HINT: &str = "; run this where the member's data directory lies or a member answers, or name the archive's system \
                    identifier with --system-identifier";

/// This cluster, as far as a command can know it.
pub(super) struct ThisCluster {
    data_directory: PathBuf,
    member: Member,
    /// The system identifier given on the command line.
    named: Option<u64>,
}

impl ThisCluster {
    /// The cluster of the member with this configuration. Sends no request yet.
    pub(super) fn of(config: &Config, named: Option<u64>) -> Result<Self, Refusal> {
        let data_directory = config.postgres.data_directory.clone();
        Ok(ThisCluster { data_directory, member: Member::configured(config)?, named })
    }

    /// The system identifier of this cluster, if anything here knows it; the command line comes last and must not
    /// contradict the rest.
    ///
    /// # Errors
    /// When it does, or when the data directory cannot be read.
    pub(super) async fn system_identifier(&self) -> anyhow::Result<Option<u64>> {
        let own = match control_file(&self.data_directory)? {
            Some(own) => Some(own),
            None => self.told().await,
        };
        match (own, self.named) {
            (Some(own), Some(named)) if own != named => Err(anyhow!(
                "--system-identifier {named} is not that of this cluster, which is {own}: nothing was changed"
            )),
            (own, named) => Ok(own.or(named)),
        }
    }

    /// Proves that the archive belongs to this cluster.
    ///
    /// # Errors
    /// When it does not, or nobody can tell.
    pub(super) async fn prove(&self, store: &dyn Store, layout: &Layout) -> anyhow::Result<Owned> {
        let own = self.system_identifier().await?;
        let term = self.term().await;
        match prove_by_hand(store, layout, own, term).await {
            Ok(owned) => {
                if term.is_none() && self.named.is_none() && owned.system_identifier().is_some() {
                    // Without a standard error nobody reads it.
                    let _ = writeln!(
                        io::stderr(),
                        "outrider: warning: this member does not answer, so nobody compared the term of the archive's writer"
                    );
                }
                Ok(owned)
            }
            Err(NotOwned::Others(why)) if own.is_none() => Err(anyhow!("nothing was changed: {why}{HINT}")),
            Err(fault) => Err(anyhow::Error::new(fault).context("nothing was changed")),
        }
    }

    /// As told by the running member.
    async fn told(&self) -> Option<u64> {
        let document = self.member.get("/patroni").await.ok()?;
        document["database_system_identifier"].as_str()?.parse().ok()
    }

    async fn term(&self) -> Option<u64> {
        let document: Value = self.member.get("/cluster").await.ok()?;
        document["outrider"]["term"].as_u64()
    }
}

/// The system identifier of the server with this data directory: the first field of its control file (`ControlFileData`, in
/// the machine's byte order). `None` when there is no such file.
pub(super) fn control_file(data_directory: &Path) -> anyhow::Result<Option<u64>> {
    let path = data_directory.join("global/pg_control");
    let failed = || format!("cannot read {}", path.display());
    let mut file = match std::fs::File::open(&path) {
        Ok(file) => file,
        Err(fault) if fault.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(fault) => return Err(fault).with_context(failed),
    };
    let mut first = [0; 8];
    io::Read::read_exact(&mut file, &mut first).with_context(failed)?;
    Ok(Some(u64::from_ne_bytes(first)))
}
