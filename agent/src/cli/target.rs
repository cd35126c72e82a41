//! The recovery target on the command line, for `outrider restore` and `outrider rollback`.

use clap::Args;
use outrider_restore::{BadTarget, Goal, Target, TargetTimeline};
use outrider_wal::Lsn;

use super::exit::Refusal;
use crate::clock;

/// Up to where.
#[derive(Args)]
pub(super) struct TargetOptions {
    #[command(flatten)]
    pub(super) point: PointOptions,
    /// Stop just before the time, position or transaction
    #[arg(long)]
    pub(super) exclusive: bool,
    /// Along this timeline: latest, current (that of the backup), or its number
    #[arg(long, value_name = "TIMELINE", default_value = "latest")]
    pub(super) timeline: TargetTimeline,
}

/// One of them.
#[derive(Args)]
#[group(id = "target", multiple = false)]
pub(super) struct PointOptions {
    /// To this time: with a zone, or as "5 minutes ago"
    #[arg(long, value_name = "TIME", alias = "target-time")]
    to: Option<String>,
    /// To the record at this position, such as 0/3000148
    #[arg(long, value_name = "LSN", alias = "target-lsn")]
    lsn: Option<Lsn>,
    /// To the commit of this transaction
    #[arg(long, value_name = "NUMBER", alias = "target-xid")]
    xid: Option<u32>,
    /// To a point that pg_create_restore_point made
    #[arg(long, value_name = "NAME", alias = "target-name")]
    name: Option<String>,
    /// As soon as the base backup is consistent
    #[arg(long)]
    immediate: bool,
    /// To the end of the archive [the default of a restore]
    #[arg(long)]
    latest: bool,
}

impl TargetOptions {
    /// The goal: this target, then a primary.
    pub(super) fn goal(&self) -> Result<Goal, Refusal> {
        let target = self.point.target()?.unwrap_or(Target::Latest);
        if self.exclusive && !matches!(target, Target::Time(_) | Target::Lsn(_) | Target::Xid(_)) {
            return Err(Refusal::Usage("--exclusive goes with --to, --lsn or --xid".to_owned()));
        }
        let goal = Goal::to(target);
        Ok(Goal { inclusive: !self.exclusive, timeline: self.timeline, ..goal })
    }
}

impl PointOptions {
    /// The target that was given, if any.
    pub(super) fn target(&self) -> Result<Option<Target>, Refusal> {
        let usage = |fault: BadTarget| Refusal::Usage(fault.to_string());
        Ok(if let Some(time) = &self.to {
            Some(Target::time(time, clock::wall()).map_err(usage)?)
        } else if let Some(lsn) = self.lsn {
            Some(Target::Lsn(lsn))
        } else if let Some(xid) = self.xid {
            Some(Target::Xid(xid))
        } else if let Some(name) = &self.name {
            Some(Target::name(name).map_err(usage)?)
        } else if self.immediate {
            Some(Target::Immediate)
        } else {
            self.latest.then_some(Target::Latest)
        })
    }
}
