//! Where a recovery shall end: what a person may ask for, and PostgreSQL's settings for it. Looks into no archive.

use std::fmt;
use std::str::FromStr;

use jiff::{SignedDuration, Timestamp, ZonedDateTime};
use outrider_wal::{Lsn, TimelineId};

/// Where the recovery ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// At the end of the WAL that the archive has.
    Latest,
    /// As soon as the base backup is consistent.
    Immediate,
    /// With the last transaction that was committed by then.
    Time(Timestamp),
    /// With the record that begins here or, when none does, the next one.
    Lsn(Lsn),
    /// With the commit of this transaction.
    Xid(u32),
    /// At a point that `pg_create_restore_point` made.
    Name(String),
}

/// On which timeline the recovery goes on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TargetTimeline {
    /// The newest of the archive.
    #[default]
    Latest,
    /// That of the base backup.
    Current,
    /// This one.
    Number(TimelineId),
}

/// What PostgreSQL does at the target.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TargetAction {
    /// It becomes a primary, on a timeline of its own.
    #[default]
    Promote,
    /// It waits and answers queries, so that a person can look around before `pg_wal_replay_resume()`.
    Pause,
    /// It stops, and goes on from there when it is started again.
    Shutdown,
}

/// The whole wish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Goal {
    /// Where the recovery ends.
    pub target: Target,
    /// Whether what lies exactly at the target is still replayed. Means nothing for `Latest`, `Immediate` and `Name`.
    pub inclusive: bool,
    /// On which timeline.
    pub timeline: TargetTimeline,
    /// What happens then.
    pub action: TargetAction,
}

impl Goal {
    /// The target on the newest timeline, and then a primary.
    #[must_use]
    pub fn to(target: Target) -> Self {
        Goal { target, inclusive: true, timeline: TargetTimeline::default(), action: TargetAction::default() }
    }

    /// The settings of a recovery along `timeline`, for `postgresql.auto.conf` or as arguments.
    #[must_use]
    pub fn settings(&self, timeline: TimelineId) -> Vec<(&'static str, String)> {
        let mut settings = Vec::new();
        match &self.target {
            Target::Latest => {}
            Target::Immediate => settings.push(("recovery_target", "immediate".to_owned())),
            // In UTC, since a zone by name would depend on the machine (PostgreSQL, timestamptz_in).
            Target::Time(time) => {
                let text = time.strftime("%Y-%m-%d %H:%M:%S%.6f+00").to_string();
                settings.push(("recovery_target_time", text));
            }
            Target::Lsn(lsn) => settings.push(("recovery_target_lsn", lsn.to_string())),
            Target::Xid(xid) => settings.push(("recovery_target_xid", xid.to_string())),
            Target::Name(name) => settings.push(("recovery_target_name", name.clone())),
        }
        if matches!(self.target, Target::Time(_) | Target::Lsn(_) | Target::Xid(_)) {
            let inclusive = if self.inclusive { "on" } else { "off" };
            settings.push(("recovery_target_inclusive", inclusive.to_owned()));
        }
        let timeline = match self.timeline {
            TargetTimeline::Current => "current".to_owned(),
            // The plan was made for this one: a newer one that comes meanwhile must not change where it leads.
            TargetTimeline::Latest | TargetTimeline::Number(_) => timeline.to_string(),
        };
        settings.push(("recovery_target_timeline", timeline));
        let action = match self.action {
            TargetAction::Promote => "promote",
            TargetAction::Pause => "pause",
            TargetAction::Shutdown => "shutdown",
        };
        settings.push(("recovery_target_action", action.to_owned()));
        settings
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Latest => f.write_str("the end of the archive"),
            Target::Immediate => f.write_str("the end of the base backup"),
            Target::Time(time) => write!(f, "the time {time}"),
            Target::Lsn(lsn) => write!(f, "the LSN {lsn}"),
            Target::Xid(xid) => write!(f, "the transaction {xid}"),
            Target::Name(name) => write!(f, "the restore point {name:?}"),
        }
    }
}

/// The text is no target.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadTarget {
    /// A time that means another instant in each zone.
    #[error("the time {text:?} has no zone: write {text}Z for UTC, or an offset such as {text}+02:00")]
    NoZone {
        /// What was given.
        text: String,
    },
    /// No time at all.
    #[error(
        "{text:?} is not a time: expected one such as 2026-11-24T15:04:05+01:00, or one such as \"5 minutes ago\""
    )]
    Time {
        /// What was given.
        text: String,
    },
    /// A time in the future never comes into the archive by itself.
    #[error("the time {time} is in the future")]
    Future {
        /// What was given.
        time: Timestamp,
    },
    /// No timeline.
    #[error("{text:?} is not a timeline: expected latest, current, or its number such as 3 or 0x3")]
    Timeline {
        /// What was given.
        text: String,
    },
    /// A name that PostgreSQL gives to no restore point.
    #[error("{text:?} is not the name of a restore point: it has 1 to 63 bytes on one line")]
    Name {
        /// What was given.
        text: String,
    },
}

impl Target {
    /// A time: RFC 3339 with a zone, or `N seconds|minutes|hours|days ago` before `now`.
    ///
    /// # Errors
    /// For a time without a zone, in the future, or that is none.
    pub fn time(text: &str, now: Timestamp) -> Result<Self, BadTarget> {
        let text = text.trim();
        let bad = || BadTarget::Time { text: text.to_owned() };
        let time = match text.strip_suffix("ago") {
            Some(age) => now.checked_sub(age_of(age).ok_or_else(bad)?).map_err(|_| bad())?,
            None => match (text.parse::<Timestamp>(), text.parse::<ZonedDateTime>()) {
                (Ok(time), _) => time,
                (Err(_), Ok(zoned)) => zoned.timestamp(),
                (Err(_), Err(_)) if text.parse::<jiff::civil::DateTime>().is_ok() => {
                    return Err(BadTarget::NoZone { text: text.to_owned() });
                }
                (Err(_), Err(_)) => return Err(bad()),
            },
        };
        if time > now { Err(BadTarget::Future { time }) } else { Ok(Target::Time(time)) }
    }

    /// A restore point by its name.
    ///
    /// # Errors
    /// For a name that `pg_create_restore_point` refuses, or that could not stand in a configuration file.
    pub fn name(text: &str) -> Result<Self, BadTarget> {
        // MAXFNAMELEN - 1 (PostgreSQL, pg_create_restore_point).
        if (1..=63).contains(&text.len()) && !text.chars().any(char::is_control) {
            Ok(Target::Name(text.to_owned()))
        } else {
            Err(BadTarget::Name { text: text.to_owned() })
        }
    }
}

impl FromStr for TargetTimeline {
    type Err = BadTarget;

    fn from_str(text: &str) -> Result<Self, BadTarget> {
        let number =
            |digits: &str, radix| u32::from_str_radix(digits, radix).ok().filter(|number| *number > 0);
        let number = match text {
            "latest" => return Ok(TargetTimeline::Latest),
            "current" => return Ok(TargetTimeline::Current),
            _ => text.strip_prefix("0x").map_or_else(|| number(text, 10), |digits| number(digits, 16)),
        };
        number
            .map(|number| TargetTimeline::Number(TimelineId::new(number)))
            .ok_or_else(|| BadTarget::Timeline { text: text.to_owned() })
    }
}

/// `5 minutes`, in PostgreSQL's and people's words for units.
fn age_of(text: &str) -> Option<SignedDuration> {
    let mut words = text.split_whitespace();
    let (number, unit) = (words.next()?.parse::<u32>().ok()?, words.next()?);
    if words.next().is_some() {
        return None;
    }
    let seconds = match unit {
        "second" | "seconds" => 1,
        "minute" | "minutes" => 60,
        "hour" | "hours" => 3600,
        "day" | "days" => 86_400,
        _ => return None,
    };
    Some(SignedDuration::from_secs(i64::from(number) * seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Timestamp {
        "2026-11-24T12:00:00Z".parse().unwrap()
    }

    fn time(text: &str) -> Result<String, BadTarget> {
        Target::time(text, now()).map(|target| match target {
            Target::Time(time) => time.to_string(),
            other => panic!("{other:?}"),
        })
    }

    #[test]
    fn times_with_a_zone_are_read() {
        for (text, expected) in [
            ("2026-11-24T11:00:00Z", "2026-11-24T11:00:00Z"),
            ("2026-11-24T12:30:00+01:00", "2026-11-24T11:30:00Z"),
            ("2026-11-24 12:30:00.25+01:00", "2026-11-24T11:30:00.25Z"),
            ("2026-11-24T12:30[Europe/Berlin]", "2026-11-24T11:30:00Z"),
            ("5 minutes ago", "2026-11-24T11:55:00Z"),
            ("1 day ago", "2026-11-23T12:00:00Z"),
            (" 90 seconds ago ", "2026-11-24T11:58:30Z"),
            ("0 hours ago", "2026-11-24T12:00:00Z"),
        ] {
            assert_eq!(time(text).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn a_time_without_a_zone_is_refused_with_a_hint() {
        let fault = time("2026-11-24T11:00:00").unwrap_err();
        assert!(matches!(fault, BadTarget::NoZone { .. }), "{fault:?}");
        assert!(fault.to_string().contains("2026-11-24T11:00:00Z"), "{fault}");
    }

    #[test]
    fn what_is_no_time_of_the_past_is_refused() {
        for text in
            ["", "yesterday", "ago", "minutes ago", "-1 hours ago", "5 fortnights ago", "5 5 days ago", "x"]
        {
            assert!(matches!(time(text), Err(BadTarget::Time { .. })), "{text}");
        }
        assert!(matches!(time("2026-11-24T12:00:01Z"), Err(BadTarget::Future { .. })));
    }

    #[test]
    fn timelines_are_read_as_postgres_reads_them() {
        let read = |text: &str| text.parse::<TargetTimeline>();
        assert_eq!(read("latest"), Ok(TargetTimeline::Latest));
        assert_eq!(read("current"), Ok(TargetTimeline::Current));
        assert_eq!(read("0x1F"), Ok(TargetTimeline::Number(TimelineId::new(31))));
        assert_eq!(read("3"), Ok(TargetTimeline::Number(TimelineId::new(3))));
        for text in ["", "0", "0x", "-1", "newest"] {
            assert!(read(text).is_err(), "{text}");
        }
    }

    #[test]
    fn each_target_becomes_the_settings_of_postgres() {
        let settings = |target| {
            let goal = Goal { inclusive: false, ..Goal::to(target) };
            let settings = goal.settings(TimelineId::new(2));
            settings.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" ")
        };
        let tail = "recovery_target_timeline=2 recovery_target_action=promote";
        let off = "recovery_target_inclusive=off";
        for (target, expected) in [
            (Target::Latest, tail.to_owned()),
            (Target::Immediate, format!("recovery_target=immediate {tail}")),
            (
                Target::Time("2026-11-24T11:00:00.5Z".parse().unwrap()),
                format!("recovery_target_time=2026-11-24 11:00:00.500000+00 {off} {tail}"),
            ),
            (Target::Lsn(Lsn::new(0x0300_0148)), format!("recovery_target_lsn=0/3000148 {off} {tail}")),
            (Target::Xid(700), format!("recovery_target_xid=700 {off} {tail}")),
            (Target::name("before_drop").unwrap(), format!("recovery_target_name=before_drop {tail}")),
        ] {
            assert_eq!(settings(target), expected);
        }
    }

    #[test]
    fn a_name_that_postgres_would_refuse_is_refused() {
        for text in ["", "a\nb", &"x".repeat(64)] {
            assert!(Target::name(text).is_err(), "{text:?}");
        }
    }
}
