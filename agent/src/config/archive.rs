//! `archive`: where WAL is shipped to, and how.

use std::num::{NonZeroU64, NonZeroUsize};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use outrider_archive::retention::RetentionPolicy;
use outrider_archive::{Compression, Layout, ShipOptions};
use outrider_store::{CredentialFiles, DirectoryStore, Location, S3Options, S3Store, Secret, Store};

use super::error::Findings;
use super::section::{self, Section};
use crate::schedule::Schedule;

/// Four backups a day.
const SCHEDULE: &str = "0 */6 * * *";
const FETCH_AHEAD: usize = 8;
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
const STREAM_INTERVAL: Duration = Duration::from_secs(1);
/// Minimum `stream_interval`: below it requests cost more than they save.
const STREAM_INTERVAL_MIN: Duration = Duration::from_millis(100);

/// The archive of one cluster.
#[derive(Clone, Debug)]
pub(crate) struct Archive {
    /// Where it is.
    pub(crate) location: Location,
    /// How to reach it, when it is S3.
    pub(crate) s3: Option<S3Options>,
    /// The keys in it.
    pub(crate) layout: Layout,
    /// How files are compressed.
    pub(crate) compression: Compression,
    /// Segments fetched before a recovery asks for them; 0 for none.
    pub(crate) fetch_ahead: usize,
    /// Files in flight at one time.
    pub(crate) parallelism: NonZeroUsize,
    /// When base backups are due; `None`: on request only.
    pub(crate) schedule: Option<Schedule>,
    /// When to verify by restoring a backup; `None`: only by `outrider verify --drill`.
    pub(crate) drill: Option<Schedule>,
    /// Where the scratch directory for that is created; beside the data directory when absent.
    pub(crate) drill_directory: Option<PathBuf>,
    /// Maximum rate at which a backup reads the data directory, in bytes per second.
    pub(crate) backup_rate: Option<NonZeroU64>,
    /// Interval between looks for new WAL in the unfinished segment; `None` when it is not streamed.
    pub(crate) stream_interval: Option<Duration>,
    /// Which base backups are kept.
    pub(crate) retention: RetentionPolicy,
    /// The socket for `wal-push` and `wal-fetch`.
    pub(crate) socket: PathBuf,
}

impl Archive {
    /// The server's name in the archive.
    pub(crate) fn server(&self) -> &str {
        self.layout.server()
    }

    /// The store. Sends no request yet.
    ///
    /// # Errors
    /// When one of its options is unusable.
    pub(crate) fn open_store(&self) -> anyhow::Result<Arc<dyn Store>> {
        match &self.location {
            Location::Directory { path } => Ok(Arc::new(DirectoryStore::new(path.clone()))),
            Location::S3 { .. } => {
                let options = self.s3.as_ref().context("an archive in S3 without its options")?;
                Ok(Arc::new(S3Store::open(options).context("cannot open the archive")?))
            }
        }
    }
}

impl Archive {
    /// Another archive reached with the same options, or another server's part of this one. For reading only.
    ///
    /// # Errors
    /// When this archive's options cannot reach it, or the name is not a valid server name.
    pub(crate) fn elsewhere(
        &self,
        location: Option<&Location>,
        server: Option<&str>,
    ) -> anyhow::Result<Archive> {
        let mut other = self.clone();
        if let Some(server) = server {
            other.layout = Layout::new(server)?;
        }
        let Some(location) = location else { return Ok(other) };
        if let Location::S3 { bucket, path } = location {
            let s3 = other
                .s3
                .as_mut()
                .context("the configured archive is a directory, which has no key for S3")?;
            (s3.bucket, s3.path) = (bucket.clone(), path.clone());
        }
        other.location = location.clone();
        Ok(other)
    }
}

/// The name of its socket, beside the supervisor's.
pub(crate) const SOCKET: &str = "archive.sock";

/// `None` when there is none, or it has an error.
pub(super) fn read(
    root: &Section<'_>,
    scope: &str,
    supervisor_socket: &Path,
    findings: &mut Findings,
) -> Option<Archive> {
    let section = root.section("archive", findings);
    if !section.is_present() {
        return None;
    }
    let location = location(&section, findings);
    let server = section.text("server", findings).unwrap_or_else(|| scope.to_owned());
    // A missing scope is already reported.
    let layout = match Layout::new(server.as_str()) {
        Ok(layout) => Some(layout),
        Err(_) if server.is_empty() => None,
        Err(fault) => {
            findings.missing(section.name("server"), fault.to_string());
            None
        }
    };
    let compression = compression(&section, findings);
    let parallelism = section
        .parsed("parallelism", "expected a whole number from 1 to 32", findings, |text| {
            text.parse::<NonZeroUsize>().ok().filter(|number| number.get() <= 32)
        })
        .unwrap_or_else(ShipOptions::default_parallelism);
    let backups = schedule(&section, "schedule", SCHEDULE, findings);
    let drill = schedule(&section, "drill", "never", findings);
    let drill_directory = section.path("drill_directory", findings);
    let rule =
        "expected bytes per second, such as 50MB (kB, MB and GB are powers of 1024, as PostgreSQL's are)";
    let backup_rate =
        section.parsed("backup_rate", rule, findings, |text| section::bytes(text).and_then(NonZeroU64::new));
    let fetch_ahead = section
        .parsed("fetch_ahead", "expected a whole number from 0 to 32", findings, |text| {
            text.parse::<usize>().ok().filter(|number| *number <= 32)
        })
        .unwrap_or(FETCH_AHEAD);
    let stream_interval = stream_interval(&section, findings);
    let s3 = match &location {
        Some(Location::S3 { bucket, path }) => s3(&section, bucket, path, findings),
        Some(Location::Directory { .. }) | None => None,
    };
    let retention = super::retention::read(&section, findings);
    let socket = supervisor_socket.parent().unwrap_or(Path::new("/")).join(SOCKET);
    Some(Archive {
        location: location?,
        s3,
        layout: layout?,
        compression,
        fetch_ahead,
        parallelism,
        stream_interval,
        schedule: backups,
        drill,
        drill_directory,
        backup_rate,
        retention,
        socket,
    })
}

fn stream_interval(section: &Section<'_>, findings: &mut Findings) -> Option<Duration> {
    let expected = "expected 0 for never, or at least 100ms";
    let interval = section.parsed("stream_interval", expected, findings, |text| {
        section::duration(text).filter(|interval| interval.is_zero() || *interval >= STREAM_INTERVAL_MIN)
    });
    Some(interval.unwrap_or(STREAM_INTERVAL)).filter(|interval| !interval.is_zero())
}

pub(super) fn location(section: &Section<'_>, findings: &mut Findings) -> Option<Location> {
    let text = section.required("store", "s3://bucket/path or file:///path", findings);
    if text.is_empty() {
        return None;
    }
    text.parse::<Location>().map_err(|fault| findings.missing(section.name("store"), fault.to_string())).ok()
}

/// `never`, or YAML's `off` and `false`, is none.
fn schedule(section: &Section<'_>, key: &str, usual: &str, findings: &mut Findings) -> Option<Schedule> {
    let text = section.text(key, findings).unwrap_or_else(|| usual.to_owned());
    if matches!(text.trim(), "never" | "off" | "false") {
        return None;
    }
    text.parse::<Schedule>()
        .map_err(|fault| findings.missing(section.name(key), format!("{text}: {fault}")))
        .ok()
}

fn compression(section: &Section<'_>, findings: &mut Findings) -> Compression {
    let compression = section
        .parsed("compression", "expected gzip, zstd or none", findings, |text| match text {
            "gzip" => Some(Compression::GZIP),
            "zstd" => Some(Compression::ZSTD),
            "none" => Some(Compression::None),
            _ => None,
        })
        .unwrap_or(Compression::GZIP);
    let (most, what) = match compression {
        Compression::Zstd { .. } => (19, "expected a whole number from 1 to 19"),
        Compression::Gzip { .. } | Compression::None => (9, "expected a whole number from 1 to 9"),
    };
    let level = section.parsed("compression_level", what, findings, |text| {
        text.parse::<u32>().ok().filter(|level| (1..=most).contains(level))
    });
    match (compression, level) {
        (Compression::Gzip { .. }, Some(level)) => Compression::Gzip { level },
        (Compression::Zstd { .. }, Some(level)) => Compression::Zstd { level },
        (compression, None) | (compression @ Compression::None, Some(_)) => compression,
    }
}

pub(super) fn s3(
    section: &Section<'_>,
    bucket: &str,
    path: &str,
    findings: &mut Findings,
) -> Option<S3Options> {
    let shared = section.path("credentials_file", findings);
    let profile = section.text("profile", findings);
    if let (None, Some(_)) = (&shared, &profile) {
        findings.missing(section.name("profile"), "goes with credentials_file".to_owned());
    }
    let mut key = |name: &str| {
        let file = format!("{name}_file");
        if shared.is_none() && section.get(name).is_none() && section.get(&file).is_none() {
            findings.missing(
                section.name(name),
                format!("is missing: an archive in S3 needs it, or {file} with a path"),
            );
        }
        section.secret(name, findings)
    };
    let (id, secret) = (key("access_key_id"), key("secret_access_key"));
    let session_token = section.secret("session_token", findings);
    let credential_files = CredentialFiles {
        access_key_id: section.path("access_key_id_file", findings),
        secret_access_key: section.path("secret_access_key_file", findings),
        session_token: section.path("session_token_file", findings),
        shared: shared.map(|path| (path, profile.unwrap_or_else(|| "default".to_owned()))),
    };
    let endpoint =
        section.parsed("endpoint", "expected a URL that begins with http:// or https://", findings, |text| {
            let host = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"))?;
            (!host.is_empty()).then(|| text.to_owned())
        });
    let path_style = section.boolean("path_style", findings);
    let create_bucket = section.boolean("create_bucket", findings);
    let request_timeout = section.duration("request_timeout", findings);
    let hidden = || Secret::new("");
    Some(S3Options {
        bucket: bucket.to_owned(),
        create_bucket: create_bucket.unwrap_or(false),
        path: path.to_owned(),
        // A store at a custom address rarely has a host name for each bucket.
        path_style: path_style.unwrap_or(endpoint.is_some()),
        endpoint,
        region: section.text("region", findings).unwrap_or_else(|| "us-east-1".to_owned()),
        access_key_id: id.unwrap_or_else(hidden),
        secret_access_key: secret.unwrap_or_else(hidden),
        session_token,
        credential_files,
        ca_file: section.path("ca_file", findings),
        request_timeout: request_timeout.unwrap_or(REQUEST_TIMEOUT),
    })
}
