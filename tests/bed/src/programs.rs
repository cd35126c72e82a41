//! Where the programs are that the bed starts: the agent beside us, PostgreSQL's, etcd, MinIO.

use std::path::{Path, PathBuf};

use anyhow::Context as _;

/// The programs, found once.
#[derive(Clone, Debug)]
pub struct Programs {
    /// The agent: `OUTRIDER_BIN`, or `outrider` in a directory above our own binary.
    pub outrider: PathBuf,
    /// PostgreSQL's programs: `OUTRIDER_PG_BIN`, or the newest under `/usr/lib/postgresql`, or on the PATH.
    pub postgres: PathBuf,
    /// etcd.
    pub etcd: PathBuf,
}

impl Programs {
    /// Looks for all of them.
    ///
    /// # Errors
    /// Names the first one that is missing, and what to do.
    pub fn find() -> anyhow::Result<Self> {
        let outrider = agent().context("no outrider beside this program: cargo build -p outrider")?;
        let postgres = postgres_directory().context("no PostgreSQL server: Debian package postgresql")?;
        let etcd = on_path("etcd").context("no etcd: Debian package etcd-server")?;
        Ok(Programs { outrider, postgres, etcd })
    }
}

/// MinIO's binary, when it is there: on the PATH, or in `~/go/bin` where `make minio` puts it.
pub(crate) fn minio() -> Option<PathBuf> {
    let home = std::env::var_os("HOME").map(|home| Path::new(&home).join("go/bin/minio"));
    on_path("minio").or_else(|| home.filter(|path| path.is_file()))
}

fn agent() -> Option<PathBuf> {
    if let Some(named) = std::env::var_os("OUTRIDER_BIN") {
        return Some(named.into());
    }
    let us = std::env::current_exe().ok()?;
    // Tests lie in target/<profile>/deps, the demonstration in target/<profile>.
    us.ancestors().skip(1).take(2).map(|above| above.join("outrider")).find(|path| path.is_file())
}

fn postgres_directory() -> Option<PathBuf> {
    if let Some(named) = std::env::var_os("OUTRIDER_PG_BIN") {
        return Some(named.into());
    }
    let version = |path: &PathBuf| path.parent()?.file_name()?.to_str()?.parse::<u32>().ok();
    let debian = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let debian = debian.map(|entry| entry.path().join("bin")).filter(|bin| bin.join("postgres").is_file());
    debian.max_by_key(version).or_else(|| on_path("postgres")?.parent().map(Path::to_owned))
}

fn on_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|directory| directory.join(program)).find(|found| found.is_file())
}
