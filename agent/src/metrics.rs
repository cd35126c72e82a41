//! `GET /metrics`: the report of the last round, as OpenMetrics or in the older text format. One table of families; nothing
//! is counted here.

mod backups;
mod cnpg;
mod family;
mod outrider;
mod patroni;
mod rollbacks;
mod text;

use std::borrow::Cow;

use prometheus_client::encoding::text as open_metrics;
use prometheus_client::registry::Registry;

use self::family::Families;
use crate::backup::CatalogCache;
use crate::config::Config;
use crate::report::Report;

/// How the metrics are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exposition {
    /// OpenMetrics 1.0.0.
    OpenMetrics,
    /// Prometheus' text format 0.0.4.
    Text,
}

impl Exposition {
    /// The format for a request with this `Accept`: OpenMetrics only if it asks for it.
    pub(crate) fn asked_for(accept: Option<&str>) -> Self {
        let wants = |part: &str| {
            let mut parameters = part.split(';').map(str::trim);
            let kind = parameters.next().unwrap_or_default();
            let refused = parameters.any(|parameter| {
                parameter
                    .strip_prefix("q=")
                    .is_some_and(|weight| weight.parse::<f64>().is_ok_and(|weight| weight <= 0.0))
            });
            kind.eq_ignore_ascii_case("application/openmetrics-text") && !refused
        };
        let wanted = accept.is_some_and(|accept| accept.split(',').any(wants));
        if wanted { Exposition::OpenMetrics } else { Exposition::Text }
    }

    /// Its `Content-Type`.
    pub(crate) const fn content_type(self) -> &'static str {
        match self {
            Exposition::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Exposition::Text => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

/// All metrics of this member; each sample has the labels `scope` and `name`.
///
/// # Errors
/// When a metric cannot be written, which is a bug.
pub(crate) fn encode(
    report: &Report,
    config: &Config,
    catalog: Option<&CatalogCache>,
    exposition: Exposition,
) -> Result<String, std::fmt::Error> {
    let mut families = Families::default();
    patroni::add(report, config, &mut families);
    cnpg::add(report, config, &mut families);
    outrider::add(report, &mut families);
    rollbacks::add(report.cluster.as_ref(), &mut families);
    backups::add(report.cluster.as_ref(), catalog, &mut families);
    let labels = [("scope", config.scope.as_str()), ("name", config.name.as_str())];
    if exposition == Exposition::Text {
        return text::encode(&families, &labels);
    }
    let labels = labels.map(|(label, value)| (Cow::Borrowed(label), Cow::Owned(value.to_owned())));
    let mut registry = Registry::with_labels(labels.into_iter());
    registry.register_collector(Box::new(families));
    let mut written = String::new();
    open_metrics::encode(&mut written, &registry)?;
    Ok(written)
}
