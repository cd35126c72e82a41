//! A section of the configuration file, read key by key. Each wrong value is recorded as an error, and reading continues.

use std::path::{Path, PathBuf};
use std::time::Duration;

use outrider_store::Secret;
use serde_json::{Map, Value};

use super::error::Findings;
use crate::log::causes;

/// What a duration looks like.
pub(crate) const DURATION_RULE: &str =
    "expected seconds, or a number with ms, s, min, h, d or w, such as 7d or 7 days";

/// A mapping in the document, or an absent one.
pub(super) struct Section<'document> {
    path: String,
    map: Option<&'document Map<String, Value>>,
}

impl<'document> Section<'document> {
    /// The whole document.
    pub(super) fn root(document: &'document Map<String, Value>) -> Self {
        Section { path: String::new(), map: Some(document) }
    }

    /// A section of this one; empty when absent.
    pub(super) fn section(&self, key: &str, findings: &mut Findings) -> Section<'document> {
        let path = self.name(key);
        match self.get(key) {
            None => Section { path, map: None },
            Some(Value::Object(map)) => Section { path, map: Some(map) },
            Some(other) => {
                findings.wrong(&path, &shown(other), "expected a section with keys of its own");
                Section { path, map: None }
            }
        }
    }

    /// Whether the section is in the file.
    pub(super) fn is_present(&self) -> bool {
        self.map.is_some()
    }

    /// The full name of one of its keys.
    pub(super) fn name(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    /// The value as written; `null` counts as absent.
    pub(super) fn get(&self, key: &str) -> Option<&'document Value> {
        self.map?.get(key).filter(|value| !value.is_null())
    }

    /// Its keys and values.
    pub(super) fn entries(&self) -> impl Iterator<Item = (&'document String, &'document Value)> {
        self.map.into_iter().flatten()
    }

    /// A non-empty text. A number is taken as its digits.
    pub(super) fn text(&self, key: &str, findings: &mut Findings) -> Option<String> {
        self.parsed(key, "expected a non-empty text", findings, |text| {
            (!text.trim().is_empty()).then(|| text.to_owned())
        })
    }

    /// A required text; empty when it is missing, which is recorded as an error.
    pub(super) fn required(&self, key: &str, meaning: &str, findings: &mut Findings) -> String {
        if self.get(key).is_none() {
            findings.missing(self.name(key), format!("is missing: {meaning}"));
        }
        self.text(key, findings).unwrap_or_default()
    }

    /// An absolute path.
    pub(super) fn path(&self, key: &str, findings: &mut Findings) -> Option<PathBuf> {
        self.parsed(key, "expected an absolute path", findings, |text| {
            Path::new(text).is_absolute().then(|| PathBuf::from(text))
        })
    }

    /// A scalar as text, parsed; an error with this rule when it cannot be parsed.
    pub(super) fn parsed<T>(
        &self,
        key: &str,
        rule: &str,
        findings: &mut Findings,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Option<T> {
        let value = self.get(key)?;
        let parsed = scalar(value).and_then(|text| parse(&text));
        if parsed.is_none() {
            findings.wrong(self.name(key), &shown(value), rule);
        }
        parsed
    }

    /// `true` or `false`; also `on` and `off`.
    pub(super) fn boolean(&self, key: &str, findings: &mut Findings) -> Option<bool> {
        self.parsed(key, "expected true or false", findings, boolean)
    }

    /// A duration: seconds, or a number with a unit.
    pub(super) fn duration(&self, key: &str, findings: &mut Findings) -> Option<Duration> {
        self.parsed(key, DURATION_RULE, findings, duration)
    }

    /// A secret: in `key`, or in a file named in `key_file`.
    pub(super) fn secret(&self, key: &str, findings: &mut Findings) -> Option<Secret> {
        let file_key = format!("{key}_file");
        match (self.get(key), self.get(&file_key)) {
            (Some(_), Some(_)) => {
                findings.missing(self.name(key), format!("is given twice, here and in {file_key}; keep one"));
                None
            }
            (Some(value), None) => match scalar(value).filter(|text| !text.is_empty()) {
                Some(text) => Some(Secret::new(&text)),
                None => {
                    findings.missing(self.name(key), "expected a non-empty text");
                    None
                }
            },
            (None, Some(_)) => {
                let path = self.path(&file_key, findings)?;
                Secret::from_file(&path)
                    .map_err(|fault| findings.missing(self.name(&file_key), causes(&fault)))
                    .ok()
            }
            (None, None) => None,
        }
    }

    /// A list of texts, or one text with commas between them.
    pub(super) fn list(&self, key: &str, findings: &mut Findings) -> Option<Vec<String>> {
        let value = self.get(key)?;
        let items: Option<Vec<String>> = match value {
            Value::Array(items) => items.iter().map(scalar).collect(),
            other => scalar(other).map(|text| text.split(',').map(|item| item.trim().to_owned()).collect()),
        };
        if items.is_none() {
            findings.wrong(self.name(key), &shown(value), "expected a list of texts");
        }
        items.map(|items| items.into_iter().filter(|item| !item.is_empty()).collect())
    }
}

/// A text, number or boolean as text.
pub(super) fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(truth) => Some(truth.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

/// What PostgreSQL and Patroni accept as a boolean.
pub(super) fn boolean(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "on" | "yes" | "1" => Some(true),
        "false" | "off" | "no" | "0" => Some(false),
        _ => None,
    }
}

/// Seconds, or numbers with units, as people write them: `90`, `1.5h`, `7d`, `7 days`, `1 day 12 hours`.
pub(crate) fn duration(text: &str) -> Option<Duration> {
    let mut rest = text.trim();
    let mut sum: Option<f64> = None;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, after) = rest.split_at(digits);
        let after = after.trim_start();
        let letters = after.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(after.len());
        let (unit, after) = after.split_at(letters);
        // A number without a unit must be the only one.
        if unit.is_empty() && (sum.is_some() || !after.is_empty()) {
            return None;
        }
        sum = Some(sum.unwrap_or_default() + number.parse::<f64>().ok()? * seconds_in(unit)?);
        rest = after.trim_start();
    }
    Duration::try_from_secs_f64(sum?).ok()
}

/// Months and years have no fixed length, so they are not accepted.
fn seconds_in(unit: &str) -> Option<f64> {
    Some(match unit.to_ascii_lowercase().as_str() {
        "ms" | "msec" | "msecs" | "millisecond" | "milliseconds" => 0.001,
        "" | "s" | "sec" | "secs" | "second" | "seconds" => 1.0,
        "m" | "min" | "mins" | "minute" | "minutes" => 60.0,
        "h" | "hr" | "hrs" | "hour" | "hours" => 3600.0,
        "d" | "day" | "days" => 86_400.0,
        "w" | "week" | "weeks" => 604_800.0,
        _ => return None,
    })
}

/// A number of bytes, or a number with one of PostgreSQL's units.
pub(super) fn bytes(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor: u64 = match unit.trim() {
        "" | "B" => 1,
        "kB" => 1 << 10,
        "MB" => 1 << 20,
        "GB" => 1 << 30,
        "TB" => 1 << 40,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(factor)
}

/// A section may hold passwords further down, so only its kind is shown.
pub(super) fn shown(value: &Value) -> Value {
    match value {
        Value::Object(_) => Value::from("{...}"),
        Value::Array(_) => Value::from("[...]"),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_people_write_them() {
        let day = 86_400_000;
        for (text, milliseconds) in [
            ("90", 90_000),
            ("1.5", 1500),
            ("250ms", 250),
            ("5 s", 5000),
            ("10 min", 600_000),
            ("2h", 7_200_000),
            ("7d", 7 * day),
            ("7 days", 7 * day),
            ("7 Days", 7 * day),
            ("1 day", day),
            ("2 weeks", 14 * day),
            ("90 minutes", 5_400_000),
            ("1 day 12 hours", day + day / 2),
            ("1h30m", 5_400_000),
        ] {
            assert_eq!(duration(text), Some(Duration::from_millis(milliseconds)), "{text}");
        }
        for text in
            ["", "d", "days", "7 moons", "1 month", "-1s", "1 2", "1d 2", "1,5h", "1..5s", "7 days ago"]
        {
            assert_eq!(duration(text), None, "{text}");
        }
    }
}
