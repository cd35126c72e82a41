//! `outrider restore`: restores a server from the archive, to any second, or says beforehand why that is not possible. Needs
//! no agent and no DCS: it works when the cluster is dead.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use indicatif::{HumanBytes, HumanDuration};
use outrider_archive::BackupId;
use outrider_restore::{Goal, Plan, Point, RestoreOptions, Restored, Restorer, TargetAction};
use outrider_store::Location;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::exit::{self, Refusal};
use super::format::{Format, Rows, json as as_json, yaml};
use super::progress::{say, watched};
use super::target::TargetOptions;
use crate::config::{self, Archive, Config};

/// For how long pg_ctl is told to wait for a recovery, in seconds; its own 60 are over before many are.
const PATIENT_SECONDS: u32 = 86_400;

/// Restore a server from the archive into a fresh directory, to any point the archive covers
///
/// The base backup is chosen, checked file by file, and Postgres is told to recover to the target when it is started. A target
/// that cannot be reached is refused before anything is touched, with the nearest one that can. Nothing is ever written to the
/// archive, and nothing is restored over existing data.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Restore {
    /// The member's YAML file, which says where the archive is
    #[arg(short, long, value_name = "FILE", env = "OUTRIDER_CONFIG")]
    config: PathBuf,
    #[command(flatten)]
    target: TargetOptions,
    /// What Postgres does at the target
    #[arg(long, value_enum, default_value_t = Action::Promote)]
    then: Action,
    /// From this backup; the newest that ended before the target unless given
    #[arg(long, value_name = "ID")]
    backup: Option<BackupId>,
    /// Another server's part of the archive; read only
    #[arg(long, value_name = "NAME")]
    from_server: Option<String>,
    /// Another archive, with the same credentials; only read
    #[arg(long, value_name = "URL")]
    archive: Option<Location>,
    /// Where to; the member's data directory unless given. Absent or empty
    #[arg(long, value_name = "DIRECTORY")]
    into: Option<PathBuf>,
    /// A tablespace that goes elsewhere; may be given several times
    #[arg(long, value_name = "OLD=NEW", value_parser = mapping)]
    tablespace: Vec<(String, PathBuf)>,
    /// Show what would be done, and touch nothing
    #[arg(long)]
    plan: bool,
    /// Make a standby that follows the archive
    #[arg(long, conflicts_with_all = ["target", "exclusive", "then"])]
    standby: bool,
    /// The owner of the files when root runs this; by default the owner of the directory, or of its parent
    #[arg(long, value_name = "USER:GROUP", value_parser = owner)]
    owner: Option<(u32, u32)>,
    /// First remove what an unfinished restore left
    #[arg(long)]
    overwrite_half: bool,
    /// Do not wait for the disk: for a temporary copy, which a crash of the machine may ruin
    #[arg(long)]
    no_sync: bool,
    /// The form of the plan and of the result
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    format: Format,
}

/// What Postgres does at the target
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Action {
    /// Become a primary
    Promote,
    /// Wait and answer queries, until pg_wal_replay_resume()
    Pause,
    /// Stop
    Shutdown,
}

const EXAMPLES: &str = "\
Examples:
  outrider restore -c member.yml --plan                         what can be had, and from what
  outrider restore -c member.yml --to \"5 minutes ago\" --plan    is that second covered?
  outrider restore -c member.yml --to 2026-11-24T15:04:05+01:00 --into /srv/pg/restored
  outrider restore -c member.yml --name before_migration --then pause --into /srv/pg/look
  outrider restore -c member.yml --into /srv/pg/copy --tablespace /srv/fast=/srv/pg/copy_fast
  outrider restore -c member.yml --from-server other --into /srv/pg/other

Then start Postgres in that directory: it recovers by itself, and restore_command is set.";

pub(super) fn run(asked: Restore) -> Result<ExitCode, Refusal> {
    let config = exit::load(&asked.config)?;
    let goal = goal(&asked)?;
    let archive = archive(&asked, &config)?;
    let runtime = exit::runtime()?;
    let _inside = runtime.enter();
    let store = archive.open_store()?;
    let options = RestoreOptions {
        owner: asked.owner,
        tablespaces: asked.tablespace.clone(),
        overwrite_half: asked.overwrite_half,
        standby: asked.standby,
        restore_command: config::wal_fetch_from(&asked.config, asked.archive.as_ref(), archive.server())?,
        no_sync: asked.no_sync,
    };
    let restorer = Restorer::new(store, archive.layout.clone());
    let into = asked.into.clone().unwrap_or_else(|| config.postgres.data_directory.clone());
    runtime.block_on(async {
        let plan = restorer.plan(&goal, asked.backup.as_ref()).await.map_err(anyhow::Error::new)?;
        if asked.plan {
            return exit::print(&show_plan(&plan, asked.format)?);
        }
        say(&format!("restoring the backup {} to {} into {}", plan.id(), plan.goal.target, into.display()));
        let cancel = CancellationToken::new();
        let restored =
            watched(&cancel, async |progress| restorer.run(&plan, &into, &options, progress, &cancel).await);
        let restored = restored.await?.map_err(anyhow::Error::new)?;
        exit::print(&show_result(&restored, &plan, &asked, &config)?)
    })
}

fn goal(asked: &Restore) -> Result<Goal, Refusal> {
    let action = match asked.then {
        Action::Promote => TargetAction::Promote,
        Action::Pause => TargetAction::Pause,
        Action::Shutdown => TargetAction::Shutdown,
    };
    Ok(Goal { action, ..asked.target.goal()? })
}

/// The archive to read: the member's own, or another one reached with the same options.
fn archive(asked: &Restore, config: &Config) -> Result<Archive, Refusal> {
    let Some(own) = &config.archive else {
        return Err(Refusal::Usage(format!("{} names no archive", asked.config.display())));
    };
    own.elsewhere(asked.archive.as_ref(), asked.from_server.as_deref())
        .map_err(|fault| Refusal::Usage(fault.to_string()))
}

fn point(point: &Point) -> String {
    let time = point.time.map(|time| format!("{time}, ")).unwrap_or_default();
    format!("{time}LSN {}", point.lsn)
}

pub(super) fn show_plan(plan: &Plan, format: Format) -> anyhow::Result<String> {
    match format {
        Format::Json => return as_json(&plan.to_json()),
        Format::Yaml => return yaml(&plan.to_json()),
        Format::Table => {}
    }
    let path: Vec<String> = plan.path.iter().map(ToString::to_string).collect();
    let ended = plan.backup.end_time.map(|time| format!(", ended {time}")).unwrap_or_default();
    let plain =
        plan.plain_bytes.map(|bytes| format!(" ({} unpacked)", HumanBytes(bytes))).unwrap_or_default();
    let stop = plan.stop.map(|stop| {
        let time = stop.time.map(|time| format!(", {time}")).unwrap_or_default();
        format!("LSN {}{time}", stop.lsn)
    });
    let estimate = plan.estimate().unsigned_abs();
    let mut rows = vec![
        ("Target", plan.goal.target.to_string()),
        ("Base backup", format!("{}{ended}", plan.id())),
        ("To fetch", format!("{}{plain}", HumanBytes(plan.stored_bytes))),
        ("Timelines", path.join(", ")),
        ("WAL", format!("{} to {}, {} segments", plan.first_wal, plan.last_wal, plan.segments)),
        ("First point", point(&plan.first_point)),
        ("Last point", point(&plan.last_point)),
        ("Takes about", HumanDuration(estimate).to_string()),
    ];
    if let Some(stop) = stop {
        rows.push(("Stops at", stop));
    }
    rows.extend(plan.gaps.iter().map(|gap| ("Missing after it", gap.to_string())));
    rows.extend(plan.clock_skew.iter().map(|skew| ("Clock", skew.clone())));
    rows.extend(plan.passed_over.iter().map(|backup| ("Passed over", backup.clone())));
    let rows = rows.into_iter().map(|(what, text)| vec![json!(what), json!(text)]).collect();
    Rows { columns: vec!["Plan", ""], rows }.show(Format::Table, |_, _, cell| cell)
}

fn show_result(restored: &Restored, plan: &Plan, asked: &Restore, config: &Config) -> anyhow::Result<String> {
    let document: Value = json!({
        "directory": restored.directory,
        "backup": plan.id().to_string(),
        "target": plan.goal.target.to_string(),
        "files": restored.files,
        "bytes": restored.bytes,
        "verified": restored.verified,
        "synced": !asked.no_sync,
        "left_out": restored.left_out,
        "seconds": restored.took.as_secs_f64(),
    });
    match asked.format {
        Format::Json => return as_json(&document),
        Format::Yaml => return yaml(&document),
        Format::Table => {}
    }
    let checked = if restored.verified {
        "each compared with its checksum"
    } else {
        "without checksums to compare with: the backup has no manifest"
    };
    let directory = restored.directory.display();
    let mut text = format!(
        "restored {} files, {}, {checked}, in {:.1} s\n",
        restored.files,
        HumanBytes(restored.bytes),
        restored.took.as_secs_f64()
    );
    if asked.no_sync {
        text.push_str("not synced: a crash of this machine in the next minutes may ruin it\n");
    }
    for entry in &restored.left_out {
        text.push_str(&format!("left out: {entry}\n"));
    }
    let pg_ctl = config.postgres.bin_directory.join("pg_ctl");
    let start = format!("{} start -D {directory}", pg_ctl.display());
    // Only such a server reports to pg_ctl that it is up before it has recovered.
    let answers_early = asked.standby || plan.goal.action == TargetAction::Pause;
    let next = if answers_early {
        format!("next: start it, and it recovers by itself: {start}\n")
    } else {
        format!(
            "next: start it, and it recovers by itself, and accepts no connections until then: {start} -t {PATIENT_SECONDS}\n\
             (without -t pg_ctl gives up waiting after 60 s; the recovery goes on all the same)\n"
        )
    };
    text.push_str(&next);
    text.push_str("archiving is off in it (archive_command = 'false') until you decide where its WAL goes\n");
    Ok(text)
}

/// Two absolute paths, so that the sign between them is one before a slash. `\\=` stands for one in a path, as in `pg_basebackup`.
fn mapping(text: &str) -> Result<(String, PathBuf), String> {
    let is_escaped = |at: usize| text[..at].ends_with('\\');
    let signs: Vec<usize> =
        text.match_indices("=/").map(|(at, _)| at).filter(|at| !is_escaped(*at)).collect();
    let plain = |path: &str| path.replace("\\=", "=");
    match signs.as_slice() {
        [at] if text.starts_with('/') => {
            let (old, new) = (plain(&text[..*at]), plain(&text[at + 1..]));
            Ok((old.trim_end_matches('/').to_owned(), PathBuf::from(new)))
        }
        [_, _, ..] => Err(format!("which = separates the paths? Write {} for one in a path", r"\=")),
        [] | [_] => Err("expected OLD=NEW, two absolute paths".to_owned()),
    }
}

/// By number, or by name for a user of this machine.
fn owner(text: &str) -> Result<(u32, u32), String> {
    if let Some((user, group)) = text.split_once(':')
        && let (Ok(user), Ok(group)) = (user.parse(), group.parse())
    {
        return Ok((user, group));
    }
    let users = std::fs::read_to_string("/etc/passwd")
        .map_err(|fault| format!("cannot read /etc/passwd: {fault}"))?;
    let fields = users.lines().map(|line| line.split(':').collect::<Vec<_>>());
    let found = fields.into_iter().find(|fields| fields.len() > 3 && fields[0] == text);
    found
        .and_then(|fields| Some((fields[2].parse().ok()?, fields[3].parse().ok()?)))
        .ok_or_else(|| "expected a user in /etc/passwd, or two numbers such as 999:999".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tablespace_is_mapped_from_path_to_path() {
        assert_eq!(mapping("/a/=/b"), Ok(("/a".to_owned(), PathBuf::from("/b"))));
        let mapped = |old: &str, new: &str| Ok((old.to_owned(), PathBuf::from(new)));
        assert_eq!(mapping("/a=b=/c"), mapped("/a=b", "/c"));
        assert_eq!(mapping("/a=/b=c"), mapped("/a", "/b=c"));
        assert_eq!(mapping(r"/a\=/b=/c"), mapped("/a=/b", "/c"));
        assert_eq!(mapping(r"/a=/b\=/c"), mapped("/a", "/b=/c"));
        assert_eq!(mapping(r"/x\=y=/z"), mapped("/x=y", "/z"));
        assert!(mapping("/a=/b=/c").unwrap_err().contains(r"\="));
        for text in ["/a", "a=/b", "/a=b", "="] {
            assert!(mapping(text).is_err(), "{text}");
        }
    }

    #[test]
    fn an_owner_is_two_numbers_or_a_name() {
        assert_eq!(owner("999:998"), Ok((999, 998)));
        assert_eq!(owner("root"), Ok((0, 0)));
        assert!(owner("nobody of this name").is_err() && owner("1").is_err());
    }
}
