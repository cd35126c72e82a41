//! `archive.retention`: which base backups are kept. The archive crate says what that means.

use std::time::Duration;

use outrider_archive::retention::RetentionPolicy;

use super::error::Findings;
use super::section::{Section, duration};

const WINDOW_RULE: &str = "expected a time such as 7d or 36h, or none";
const COUNT_RULE: &str = "expected a whole number from 1 to 1000";

/// Without a window, a count alone decides.
pub(super) fn read(archive: &Section<'_>, findings: &mut Findings) -> RetentionPolicy {
    let section = archive.section("retention", findings);
    let mut number = |key: &str| {
        section.parsed(key, COUNT_RULE, findings, |text| {
            text.parse::<usize>().ok().filter(|number| (1..=1000).contains(number))
        })
    };
    let (minimum, count) = (number("minimum"), number("count"));
    let window = section.parsed("window", WINDOW_RULE, findings, |text| match text {
        "none" => Some(None),
        text => duration(text).filter(|window| !window.is_zero()).map(Some),
    });
    let default = RetentionPolicy::default();
    let window = window.unwrap_or(if count.is_some() { None } else { default.window });
    RetentionPolicy { window, minimum: minimum.unwrap_or(default.minimum), count }
}

/// As `check-config` shows it.
pub(super) fn shown(policy: &RetentionPolicy) -> serde_json::Value {
    serde_json::json!({
        "window": policy.window.map_or_else(|| "none".to_owned(), days),
        "minimum": policy.minimum,
        "count": policy.count,
    })
}

/// In the largest unit that gives a whole number.
fn days(window: Duration) -> String {
    let seconds = window.as_secs();
    match seconds {
        _ if seconds.is_multiple_of(86400) => format!("{}d", seconds / 86400),
        _ if seconds.is_multiple_of(3600) => format!("{}h", seconds / 3600),
        _ => format!("{seconds}s"),
    }
}
