//! `bootstrap.method` and `postgresql.create_replica_methods`: where a new cluster, and a new member, gets its data from.

use outrider_archive::{BackupId, Layout};
use outrider_restore::{Goal, Target, TargetTimeline};
use outrider_store::Location;
use outrider_wal::Lsn;
use serde_json::{Value, json};

use super::archive::{self, Archive};
use super::error::Findings;
use super::section::Section;
use crate::clock;
use crate::log::causes;

/// How a cluster that does not exist yet is created.
#[derive(Clone, Debug)]
pub(crate) enum Origin {
    /// By initdb, empty.
    Initdb,
    /// From a base backup and the WAL after it.
    Archive(Box<ArchiveOrigin>),
}

/// The archive that a cluster starts from. It is only read.
#[derive(Clone, Debug)]
pub(crate) struct ArchiveOrigin {
    /// The cluster's own archive or another's.
    pub(crate) archive: Archive,
    /// Whether it is another's.
    pub(crate) foreign: bool,
    /// Recovery target.
    pub(crate) goal: Goal,
    /// The backup to start from; the best one when absent.
    pub(crate) backup: Option<BackupId>,
}

/// How a new member gets its data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReplicaMethod {
    /// From the archive, without load on the primary.
    Archive,
    /// By pg_basebackup, from the primary.
    BaseBackup,
}

impl ReplicaMethod {
    /// Its name in the configuration.
    pub(super) fn name(self) -> &'static str {
        match self {
            ReplicaMethod::Archive => "archive",
            ReplicaMethod::BaseBackup => "basebackup",
        }
    }
}

/// The keys of `bootstrap.archive` that set the target; at most one of them may be given.
const TARGETS: [&str; 5] = ["target", "target_time", "target_lsn", "target_xid", "target_name"];

/// `own`: the archive of this cluster.
pub(super) fn read(root: &Section<'_>, own: Option<&Archive>, findings: &mut Findings) -> Origin {
    let bootstrap = root.section("bootstrap", findings);
    let rule = "expected initdb or archive; other methods of Patroni's are not supported here";
    let from_archive = bootstrap.parsed("method", rule, findings, |text| match text {
        "initdb" => Some(false),
        "archive" => Some(true),
        _ => None,
    });
    let section = bootstrap.section("archive", findings);
    if from_archive != Some(true) {
        if section.is_present() {
            findings.warnings.push(format!(
                "{} has no effect without bootstrap.method archive",
                bootstrap.name("archive")
            ));
        }
        return Origin::Initdb;
    }
    let Some(own) = own else {
        findings.missing(
            bootstrap.name("method"),
            "archive needs an archive for the WAL of the new cluster: set archive.store, and archive.server when it is \
             to be another than the one that is read",
        );
        return Origin::Initdb;
    };
    let goal = goal(&section, findings);
    let backup = section.parsed(
        "backup",
        "expected the name of a backup, such as 20261124T150000",
        findings,
        |text| text.parse().ok(),
    );
    let Some(read) = source(&section, own, findings) else { return Origin::Initdb };
    let foreign = read.location != own.location || read.layout != own.layout;
    Origin::Archive(Box::new(ArchiveOrigin { archive: read, foreign, goal, backup }))
}

/// `postgresql.create_replica_methods`, in order. Patroni's others are programs that are not run here.
pub(super) fn replica_methods(
    postgresql: &Section<'_>,
    own: Option<&Archive>,
    findings: &mut Findings,
) -> Vec<ReplicaMethod> {
    let key = "create_replica_methods";
    let Some(names) = postgresql.list(key, findings) else { return vec![ReplicaMethod::BaseBackup] };
    let mut methods = Vec::new();
    for name in &names {
        match name.as_str() {
            "archive" if own.is_some() => methods.push(ReplicaMethod::Archive),
            "archive" => {
                findings.missing(postgresql.name(key), "archive needs an archive: set archive.store")
            }
            "basebackup" => methods.push(ReplicaMethod::BaseBackup),
            other => findings.warnings.push(format!(
                "{}: {other} has no effect here; archive and basebackup have",
                postgresql.name(key)
            )),
        }
    }
    if methods.is_empty() {
        methods.push(ReplicaMethod::BaseBackup);
    }
    methods
}

/// As shown by `check-config`.
pub(super) fn shown(origin: &Origin) -> Value {
    match origin {
        Origin::Initdb => json!({"method": "initdb"}),
        Origin::Archive(origin) => json!({
            "method": "archive",
            "archive": {
                "store": origin.archive.location.to_string(),
                "server": origin.archive.server(),
                "target": origin.goal.target.to_string(),
                "backup": origin.backup.as_ref().map(ToString::to_string),
            },
        }),
    }
}

/// The archive to read: unset keys are those of the cluster's own archive.
fn source(section: &Section<'_>, own: &Archive, findings: &mut Findings) -> Option<Archive> {
    let mut read = own.clone();
    if let Some(server) = section.text("server", findings) {
        match Layout::new(server) {
            Ok(layout) => read.layout = layout,
            Err(fault) => findings.missing(section.name("server"), fault.to_string()),
        }
    }
    if section.get("store").is_none() {
        return Some(read);
    }
    let location = archive::location(section, findings)?;
    let has_key = ["access_key_id", "access_key_id_file", "credentials_file"]
        .iter()
        .any(|key| section.get(key).is_some());
    read.s3 = match &location {
        Location::Directory { .. } => None,
        Location::S3 { bucket, path } => match (&own.s3, has_key) {
            (Some(own), false) => {
                let mut same = own.clone();
                (same.bucket, same.path) = (bucket.clone(), path.clone());
                Some(same)
            }
            (Some(_) | None, _) => archive::s3(section, bucket, path, findings),
        },
    };
    read.location = location;
    Some(read)
}

fn goal(section: &Section<'_>, findings: &mut Findings) -> Goal {
    let given: Vec<&str> = TARGETS.into_iter().filter(|key| section.get(key).is_some()).collect();
    if given.len() > 1 {
        findings.missing(section.name(given[1]), format!("is given beside {}; keep one", given[0]));
    }
    let target = given.first().and_then(|key| target(section, key, findings)).unwrap_or(Target::Latest);
    let mut goal = Goal::to(target);
    goal.inclusive = section.boolean("target_inclusive", findings).unwrap_or(true);
    let rule = "expected latest, current, or the number of a timeline";
    goal.timeline = section
        .parsed("target_timeline", rule, findings, |text| text.parse::<TargetTimeline>().ok())
        .unwrap_or_default();
    goal
}

fn target(section: &Section<'_>, key: &str, findings: &mut Findings) -> Option<Target> {
    match key {
        "target" => section.parsed(key, "expected latest or immediate", findings, |text| match text {
            "latest" => Some(Target::Latest),
            "immediate" => Some(Target::Immediate),
            _ => None,
        }),
        "target_lsn" => section.parsed(key, "expected an LSN such as 0/3000060", findings, |text| {
            text.parse::<Lsn>().ok().map(Target::Lsn)
        }),
        "target_xid" => section.parsed(key, "expected the number of a transaction", findings, |text| {
            text.parse().ok().map(Target::Xid)
        }),
        _ => {
            let text = section.text(key, findings)?;
            let read =
                if key == "target_time" { Target::time(&text, clock::wall()) } else { Target::name(&text) };
            read.map_err(|fault| findings.missing(section.name(key), causes(&fault))).ok()
        }
    }
}
