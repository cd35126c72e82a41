//! The text format 0.0.4, for whoever does not ask for OpenMetrics. In it the name of a counter's family ends in `_total`
//! like its samples, and every family needs its own help.

use std::fmt::{self, Write as _};

use super::family::{Families, Samples};

/// All families; each sample has these labels before its own.
pub(super) fn encode(families: &Families, labels: &[(&str, &str)]) -> Result<String, fmt::Error> {
    let mut text = String::new();
    let common: String =
        labels.iter().map(|(name, value)| format!("{name}=\"{}\",", escaped(value, true))).collect();
    let common = common.trim_end_matches(',');
    for family in families.iter() {
        let (suffix, kind) = match &family.samples {
            Samples::Gauge(_) => ("", "gauge"),
            Samples::Counter(_) => ("_total", "counter"),
            Samples::OldCounter(_) => ("", "counter"),
            Samples::Histogram { .. } => ("", "histogram"),
        };
        let name = format!("{}{suffix}", family.name);
        writeln!(text, "# HELP {name} {}.", escaped(family.help, false))?;
        writeln!(text, "# TYPE {name} {kind}")?;
        match &family.samples {
            Samples::Gauge(samples) | Samples::Counter(samples) | Samples::OldCounter(samples) => {
                for sample in samples {
                    let own = sample.label.as_ref();
                    let own = own.map(|(label, value)| format!(",{label}=\"{}\"", escaped(value, true)));
                    writeln!(text, "{name}{{{common}{}}} {}", own.unwrap_or_default(), number(sample.value))?;
                }
            }
            Samples::Histogram { sum, buckets } => {
                let mut within = 0;
                for (bound, count) in buckets {
                    within += count;
                    writeln!(text, "{name}_bucket{{{common},le=\"{}\"}} {within}", number(*bound))?;
                }
                writeln!(text, "{name}_sum{{{common}}} {}", number(*sum))?;
                writeln!(text, "{name}_count{{{common}}} {within}")?;
            }
        }
    }
    Ok(text)
}

fn number(value: f64) -> String {
    if value == f64::INFINITY {
        "+Inf".to_owned()
    } else if value == f64::NEG_INFINITY {
        "-Inf".to_owned()
    } else {
        value.to_string()
    }
}

fn escaped(text: &str, quotes: bool) -> String {
    let text = text.replace('\\', "\\\\").replace('\n', "\\n");
    if quotes { text.replace('"', "\\\"") } else { text }
}
