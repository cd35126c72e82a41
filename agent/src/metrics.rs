//! `GET /metrics`: what the last round said, as OpenMetrics text. One table of families; nothing is counted here.

mod backups;
mod cnpg;
mod family;
mod outrider;
mod patroni;
mod rollbacks;

use std::borrow::Cow;

use prometheus_client::encoding::text;
use prometheus_client::registry::Registry;

use self::family::Families;
use crate::backup::Shelf;
use crate::config::Config;
use crate::report::Report;

/// The type of the text.
pub(crate) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// All metrics of this member; each sample has the labels `scope` and `name`.
///
/// # Errors
/// When a metric cannot be written, which is a defect.
pub(crate) fn encode(
    report: &Report,
    config: &Config,
    shelf: Option<&Shelf>,
) -> Result<String, std::fmt::Error> {
    let mut families = Families::default();
    patroni::add(report, config, &mut families);
    cnpg::add(report, config, &mut families);
    outrider::add(report, &mut families);
    rollbacks::add(report.cluster.as_ref(), &mut families);
    backups::add(report.cluster.as_ref(), shelf, &mut families);
    let labels = [("scope", &config.scope), ("name", &config.name)];
    let labels = labels.map(|(label, value)| (Cow::Borrowed(label), Cow::Owned(value.clone())));
    let mut registry = Registry::with_labels(labels.into_iter());
    registry.register_collector(Box::new(families));
    let mut written = String::new();
    text::encode(&mut written, &registry)?;
    Ok(written)
}
