//! `outrider replay`: what a member saw, what it decided and why, from its flight recorder; and whether this version would
//! decide the same. Changes nothing.

mod seen;
mod steps;
mod story;

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use jiff::{SignedDuration, Timestamp};
use outrider_ha::{Plan, Reason, decide};
use outrider_restore::Target;

use self::story::Story;
use super::exit::{self, Refusal};
use crate::clock;
use crate::report::recorder::Record;

/// Show what a member saw and decided, and why, from its flight recorder; checks that this version decides the same
#[derive(Args)]
pub(super) struct Replay {
    /// The file rounds.jsonl from a member's state directory; rounds.jsonl.1 beside it is read first
    #[arg(value_name = "ROUNDS.jsonl")]
    file: PathBuf,
    /// Only the rounds around this time: with a zone, or as "5 minutes ago"
    #[arg(long, value_name = "TIME")]
    around: Option<String>,
    /// How long before and after that time, such as 30s or "10 minutes"
    #[arg(long, value_name = "TIME", value_parser = exit::duration, default_value = "2min", requires = "around")]
    within: Duration,
    /// Only the rounds with this reason, such as `promoting`; may be given several times
    #[arg(long, value_name = "REASON")]
    reason: Vec<String>,
    /// Also quiet rounds, in which nothing changed
    #[arg(long)]
    all: bool,
    /// As one JSON array of objects
    #[arg(long)]
    json: bool,
}

/// A parsed line.
enum RecordedLine {
    /// A round, and what would be decided now if that differs.
    Round(Box<Record>, Option<Plan>),
    /// Not a round.
    Odd(String),
}

pub(super) fn run(replay: &Replay) -> Result<ExitCode, Refusal> {
    let wanted = Wanted::of(replay)?;
    let mut story = Story::new(replay.all);
    let mut odd = Vec::new();
    let mut rounds = 0_u64;
    for file in files(&replay.file) {
        let cannot_read = || format!("cannot read the recorded rounds in {}", file.display());
        let lines = BufReader::new(File::open(&file).with_context(cannot_read)?).split(b'\n');
        for (index, line) in lines.enumerate() {
            rounds += 1;
            match read(&line.with_context(cannot_read)?) {
                RecordedLine::Odd(fault) => {
                    odd.push(format!("{} line {}: {fault}", file.display(), index + 1))
                }
                RecordedLine::Round(record, now) => {
                    if let Some(now) = &now {
                        odd.push(difference(&file, index + 1, &record, now));
                    }
                    let shown = wanted.holds(&record);
                    story.tell(&record, now.as_ref(), shown);
                }
            }
        }
    }
    if replay.json {
        exit::print(&story.json()?)?;
    } else {
        exit::print(&story.table())?;
        odd.iter().try_for_each(|odd| exit::print(&format!("{odd}\n")).map(drop))?;
        exit::print(&summary(&replay.file, rounds, odd.len(), story.told()))?;
    }
    Ok(if odd.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Which rounds are shown.
struct Wanted {
    from: Option<Timestamp>,
    to: Option<Timestamp>,
    reasons: Vec<String>,
}

impl Wanted {
    fn of(replay: &Replay) -> Result<Self, Refusal> {
        let reasons: Vec<String> = replay.reason.iter().map(|reason| reason.replace('-', "_")).collect();
        if let Some(unknown) = reasons.iter().find(|reason| !Reason::LABELS.contains(&reason.as_str())) {
            let words = format!("no round has the reason {unknown}; there are {}", Reason::LABELS.join(", "));
            return Err(Refusal::Usage(words));
        }
        let Some(around) = &replay.around else { return Ok(Wanted { from: None, to: None, reasons }) };
        let at = match Target::time(around, clock::wall()) {
            Ok(Target::Time(at)) => at,
            Ok(_) => return Err(Refusal::Usage(format!("{around} is not a time"))),
            Err(fault) => return Err(Refusal::Usage(fault.to_string())),
        };
        let within = SignedDuration::try_from(replay.within).unwrap_or(SignedDuration::MAX);
        let (from, to) = (at.saturating_sub(within).ok(), at.saturating_add(within).ok());
        Ok(Wanted { from, to, reasons })
    }

    fn holds(&self, record: &Record) -> bool {
        self.from.is_none_or(|from| record.at >= from)
            && self.to.is_none_or(|to| record.at <= to)
            && (self.reasons.is_empty()
                || self.reasons.iter().any(|reason| reason == record.plan.reason.label()))
    }
}

/// Oldest first.
fn files(newest: &Path) -> Vec<PathBuf> {
    let mut aside = newest.as_os_str().to_owned();
    aside.push(".1");
    let aside = PathBuf::from(aside);
    if aside.is_file() { vec![aside, newest.to_owned()] } else { vec![newest.to_owned()] }
}

fn read(line: &[u8]) -> RecordedLine {
    match serde_json::from_slice::<Record>(line) {
        Err(fault) => RecordedLine::Odd(format!("not a recorded round: {fault}")),
        Ok(record) => {
            let plan = decide(&record.view);
            let now = (plan != record.plan).then_some(plan);
            RecordedLine::Round(Box::new(record), now)
        }
    }
}

fn difference(file: &Path, line: usize, record: &Record, now: &Plan) -> String {
    let told = |plan: &Plan| format!("{} [{}]", plan.reason, steps::all(&plan.steps).join(", "));
    format!(
        "{} line {line}: at {} version {} decided: {}\n  and this version decides: {}",
        file.display(),
        record.at,
        record.version,
        told(&record.plan),
        told(now)
    )
}

fn summary(file: &Path, rounds: u64, odd: usize, told: usize) -> String {
    let version = env!("CARGO_PKG_VERSION");
    let decided = match odd {
        0 => format!("this version ({version}) decides every one of them as recorded"),
        odd => format!("{odd} of them are not decided as recorded by this version ({version})"),
    };
    format!("{}: {rounds} rounds, {told} shown; {decided}\n", file.display())
}
