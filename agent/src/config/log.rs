//! `log`: how much the agent writes, and in which form.

use tracing::level_filters::LevelFilter;

use super::error::Findings;
use super::section::Section;

/// What is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Log {
    /// The least important that is still written.
    pub(crate) level: LevelFilter,
    /// How a line looks.
    pub(crate) format: LogFormat,
}

/// How a line of the log looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LogFormat {
    /// For people.
    Plain,
    /// One JSON object a line.
    Json,
}

pub(super) fn read(root: &Section<'_>, findings: &mut Findings) -> Log {
    let section = root.section("log", findings);
    let level =
        section.parsed("level", "expected DEBUG, INFO, WARNING or ERROR", findings, |text| {
            match text.to_ascii_lowercase().as_str() {
                "trace" => Some(LevelFilter::TRACE),
                "debug" => Some(LevelFilter::DEBUG),
                "info" => Some(LevelFilter::INFO),
                "warning" | "warn" => Some(LevelFilter::WARN),
                "error" | "critical" | "fatal" => Some(LevelFilter::ERROR),
                _ => None,
            }
        });
    let format = match section.get("format").and_then(serde_json::Value::as_str) {
        Some(pattern) if pattern.contains("%(") => {
            findings
                .warnings
                .push("log.format has no effect here: a Python pattern; use plain or json".to_owned());
            None
        }
        _ => section.parsed("format", "expected plain or json", findings, |text| match text {
            "plain" => Some(LogFormat::Plain),
            "json" => Some(LogFormat::Json),
            _ => None,
        }),
    };
    Log { level: level.unwrap_or(LevelFilter::INFO), format: format.unwrap_or(LogFormat::Plain) }
}
