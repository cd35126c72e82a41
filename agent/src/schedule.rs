//! When a base backup is due: a cron expression, and what became of the last one. Reads no clock: now is given.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use jiff::Timestamp;
use jiff_cron::jiff::{Timestamp as CronTimestamp, tz::TimeZone};
use outrider_dcs::BackupOutcome;

/// Who asked, when it was the schedule.
pub(crate) const BY_SCHEDULE: &str = "schedule";

/// A scheduled backup that failed is tried again after this, and after twice as long each time.
const RETRY_FIRST: Duration = Duration::from_secs(60);
/// But not later than this.
const RETRY_LAST: Duration = Duration::from_secs(3600);

/// Cron's days of the week, from 0 on; 7 is Sunday too.
const DAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

/// A cron expression in a time zone.
#[derive(Clone)]
pub(crate) struct Schedule {
    text: String,
    /// Two when it names days of the month and of the week: then it is due on either, as in crontab(5).
    crons: Vec<jiff_cron::Schedule>,
    zone: TimeZone,
}

/// The text is no schedule.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum BadSchedule {
    /// The cron expression.
    #[error(
        "expected a cron expression of five fields (minute, hour, day of month, month, day of week), such as \
         0 */6 * * *, or of six with the seconds before them; TZ=Area/City may stand in front; never for none: {0}"
    )]
    Expression(String),
    /// The time zone in front of it.
    #[error("{zone} is not a time zone that this machine knows, such as Europe/Berlin")]
    Zone {
        /// Its name.
        zone: String,
    },
}

impl Schedule {
    /// Whether one is due now.
    ///
    /// A cluster that never had one gets its first at once: without a base backup its WAL is worth nothing. What was missed
    /// while nobody was there is made up for once.
    pub(crate) fn is_due(&self, last: Option<&BackupOutcome>, now: Timestamp) -> bool {
        let Some(last) = last else { return true };
        let failed = last.error.is_some() && !last.cancelled && last.by == BY_SCHEDULE;
        if failed && last.finished.parse().is_ok_and(|finished| now >= again(finished, last.failures)) {
            return true;
        }
        // A record without a time was written by nobody who took a backup.
        let asked = last.asked.parse().unwrap_or(Timestamp::UNIX_EPOCH);
        self.next(asked).is_some_and(|next| next <= now)
    }

    /// The first time after this one.
    pub(crate) fn next(&self, after: Timestamp) -> Option<Timestamp> {
        // The cron library has an older version of the same time library.
        let after = CronTimestamp::from_second(after.as_second()).ok()?.to_zoned(self.zone.clone());
        let next = self.crons.iter().filter_map(|cron| cron.after(after.clone()).next()).min()?;
        Timestamp::from_second(next.timestamp().as_second()).ok()
    }
}

/// When a failed one is tried again.
fn again(finished: Timestamp, failures: u32) -> Timestamp {
    let doublings = failures.saturating_sub(1).min(16);
    let pause = RETRY_FIRST.saturating_mul(1 << doublings).min(RETRY_LAST);
    finished.checked_add(pause).unwrap_or(Timestamp::MAX)
}

/// The field as the library reads it, which counts the days from 1 where cron counts from 0: by their names.
fn days_of_week(field: &str) -> Result<String, BadSchedule> {
    let items: Result<Vec<String>, BadSchedule> = field.split(',').map(some_days_of_week).collect();
    Ok(items?.join(","))
}

/// One of `1`, `1-5`, `1-5/2`; names and asterisks are the library's to read.
fn some_days_of_week(item: &str) -> Result<String, BadSchedule> {
    if !item.starts_with(|first: char| first.is_ascii_digit()) {
        return Ok(item.to_owned());
    }
    let refused = || {
        let fault = format!("{item} as day of the week: expected 0 to 7 (0 and 7 are Sunday), or sun to sat");
        BadSchedule::Expression(fault)
    };
    let (range, step) = item.split_once('/').unwrap_or((item, "1"));
    let (first, last) = range.split_once('-').unwrap_or((range, range));
    let number = |text: &str| text.parse::<usize>().ok().filter(|number| *number <= 7).ok_or_else(refused);
    let (first, last, step) = (number(first)?, number(last)?, number(step)?);
    if first > last || step == 0 {
        return Err(refused());
    }
    let days = (first..=last).step_by(step).map(|number| DAYS[number % DAYS.len()]);
    Ok(days.collect::<Vec<_>>().join(","))
}

impl FromStr for Schedule {
    type Err = BadSchedule;

    fn from_str(text: &str) -> Result<Self, BadSchedule> {
        let text = text.trim();
        let (zone, expression) = match text.strip_prefix("TZ=").or_else(|| text.strip_prefix("CRON_TZ=")) {
            None => (TimeZone::UTC, text),
            Some(rest) => {
                let (name, expression) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
                let zone = TimeZone::get(name).map_err(|_| BadSchedule::Zone { zone: name.to_owned() })?;
                (zone, expression)
            }
        };
        let fields: Vec<&str> = expression.split_whitespace().collect();
        // The library wants seconds in front; cron has none.
        let [seconds, minutes, hours, days, months, weekdays] = match *fields.as_slice() {
            [minutes, hours, days, months, weekdays] => ["0", minutes, hours, days, months, weekdays],
            [seconds, minutes, hours, days, months, weekdays] => {
                [seconds, minutes, hours, days, months, weekdays]
            }
            _ => return Err(BadSchedule::Expression(format!("it has {} fields", fields.len()))),
        };
        let weekdays = &days_of_week(weekdays)?;
        let is_any = |field: &str| field.starts_with(['*', '?']);
        let either = match is_any(days) || is_any(weekdays) {
            true => vec![(days, weekdays.as_str())],
            false => vec![(days, "*"), ("*", weekdays)],
        };
        let cron = |(days, weekdays)| {
            jiff_cron::Schedule::from_str(&format!("{seconds} {minutes} {hours} {days} {months} {weekdays}"))
                .map_err(|fault| BadSchedule::Expression(fault.to_string()))
        };
        let crons = either.into_iter().map(cron).collect::<Result<_, _>>()?;
        Ok(Schedule { text: text.to_owned(), crons, zone })
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Schedule({})", self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(text: &str) -> Schedule {
        text.parse().unwrap()
    }

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn asked(at: &str) -> BackupOutcome {
        BackupOutcome { asked: at.to_owned(), by: BY_SCHEDULE.to_owned(), ..BackupOutcome::default() }
    }

    #[test]
    fn the_usual_schedule_is_every_six_hours() {
        let next = schedule("0 */6 * * *").next(at("2026-01-01T05:59:59.5Z"));
        assert_eq!(next, Some(at("2026-01-01T06:00:00Z")));
        assert_eq!(schedule("0 */6 * * *").next(next.unwrap()), Some(at("2026-01-01T12:00:00Z")));
    }

    #[test]
    fn seconds_may_stand_in_front_and_a_zone_before_them() {
        assert_eq!(
            schedule("*/10 * * * * *").next(at("2026-01-01T00:00:01Z")),
            Some(at("2026-01-01T00:00:10Z"))
        );
        let night = schedule("TZ=Europe/Berlin 0 3 * * *");
        assert_eq!(night.next(at("2026-07-01T00:00:00Z")), Some(at("2026-07-01T01:00:00Z")));
        assert_eq!(night.to_string(), "TZ=Europe/Berlin 0 3 * * *");
    }

    /// 2026-01-04 is a Sunday.
    #[test]
    fn days_of_the_week_count_as_in_cron() {
        for (field, days) in [
            ("0", vec![4, 11]),
            ("7", vec![4, 11]),
            ("1", vec![5, 12]),
            ("mon", vec![5, 12]),
            ("1-5", vec![5, 6, 7, 8, 9, 12]),
            ("mon-fri", vec![5, 6, 7, 8, 9, 12]),
            ("5-7", vec![4, 9, 10, 11]),
            ("1-5/2", vec![5, 7, 9, 12]),
            ("*/2", vec![4, 6, 8, 10, 11]),
            ("0,3,sat", vec![4, 7, 10, 11]),
        ] {
            let schedule = schedule(&format!("0 3 * * {field}"));
            let mut at = at("2026-01-03T12:00:00Z");
            let days: Vec<String> =
                days.into_iter().map(|day| format!("2026-01-{day:02}T03:00:00Z")).collect();
            for day in days {
                at = schedule.next(at).unwrap();
                assert_eq!(at.to_string(), day, "{field}");
            }
        }
    }

    #[test]
    fn a_day_of_the_month_or_of_the_week_is_enough() {
        let schedule = schedule("0 3 13 * 5");
        let mut at = at("2026-01-10T00:00:00Z");
        for day in ["2026-01-13", "2026-01-16", "2026-01-23", "2026-01-30", "2026-02-06", "2026-02-13"] {
            at = schedule.next(at).unwrap();
            assert_eq!(at.to_string(), format!("{day}T03:00:00Z"));
        }
    }

    #[test]
    fn what_is_no_schedule_is_told_why() {
        assert_eq!(
            "TZ=Nowhere/Atall 0 3 * * *".parse::<Schedule>().unwrap_err(),
            BadSchedule::Zone { zone: "Nowhere/Atall".into() }
        );
        let bad = ["", "0 3 * *", "0 25 * * *", "0 3 * * 8", "0 3 * * 5-1", "0 3 * * 1/0", "a b c d e"];
        for text in bad.into_iter().chain(["every night now and then"]) {
            assert!(matches!(text.parse::<Schedule>(), Err(BadSchedule::Expression(_))), "{text}");
        }
    }

    #[test]
    fn the_first_is_due_at_once_and_a_missed_one_once() {
        let schedule = schedule("0 */6 * * *");
        assert!(schedule.is_due(None, at("2026-01-01T01:00:00Z")));
        let before = asked("2026-01-01T00:00:00Z");
        assert!(!schedule.is_due(Some(&before), at("2026-01-01T05:59:59Z")));
        assert!(schedule.is_due(Some(&before), at("2026-01-01T06:00:00Z")));
        // Three were missed; the one that was made up for at 19:00 answers all of them.
        assert!(schedule.is_due(Some(&before), at("2026-01-01T19:00:00Z")));
        assert!(!schedule.is_due(Some(&asked("2026-01-01T19:00:00Z")), at("2026-01-01T23:00:00Z")));
    }

    #[test]
    fn a_failed_one_is_tried_again_with_growing_pauses() {
        let schedule = schedule("0 0 * * *");
        let failed = |failures| BackupOutcome {
            finished: "2026-01-01T00:10:00Z".to_owned(),
            error: Some("the store is full".to_owned()),
            failures,
            ..asked("2026-01-01T00:00:00Z")
        };
        assert!(!schedule.is_due(Some(&failed(1)), at("2026-01-01T00:10:59Z")));
        assert!(schedule.is_due(Some(&failed(1)), at("2026-01-01T00:11:00Z")));
        assert!(!schedule.is_due(Some(&failed(3)), at("2026-01-01T00:13:59Z")));
        assert!(schedule.is_due(Some(&failed(3)), at("2026-01-01T00:14:00Z")));
        assert!(schedule.is_due(Some(&failed(900)), at("2026-01-01T01:10:00Z")));
        // What somebody asked for by hand, or took back, is not tried again.
        let by_hand = BackupOutcome { by: "p1".to_owned(), ..failed(1) };
        let cancelled = BackupOutcome { cancelled: true, ..failed(1) };
        for outcome in [by_hand, cancelled] {
            assert!(!schedule.is_due(Some(&outcome), at("2026-01-01T09:00:00Z")));
        }
    }
}
