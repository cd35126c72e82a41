//! The table of metric families, and how it is written. Holds no metric itself.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

type NoLabels = [(&'static str, &'static str); 0];
const NO_LABELS: NoLabels = [];

/// Families in the order of the text.
#[derive(Debug, Default)]
pub(super) struct Families(Vec<Family>);

/// One metric with all its samples.
#[derive(Debug)]
pub(super) struct Family {
    pub(super) name: &'static str,
    pub(super) help: &'static str,
    pub(super) samples: Samples,
}

/// Of one kind.
#[derive(Debug)]
pub(super) enum Samples {
    Gauge(Vec<Sample>),
    Counter(Vec<Sample>),
    /// A counter whose name dates from before counters ended in `_total`.
    OldCounter(Vec<Sample>),
    Histogram {
        sum: f64,
        buckets: Vec<(f64, u64)>,
    },
}

/// A value, with at most one label of its own.
#[derive(Debug)]
pub(super) struct Sample {
    pub(super) label: Option<(&'static str, String)>,
    pub(super) value: f64,
}

impl Families {
    /// A value that may fall.
    pub(super) fn gauge(&mut self, name: &'static str, help: &'static str, value: impl Into<Value>) {
        self.add(name, help, Samples::Gauge(vec![Sample { label: None, value: value.into().0 }]));
    }

    /// A value that only grows, under an existing name that does not say so.
    pub(super) fn old_counter(&mut self, name: &'static str, help: &'static str, value: impl Into<Value>) {
        self.add(name, help, Samples::OldCounter(vec![Sample { label: None, value: value.into().0 }]));
    }

    /// A sum since the start; its sample is called `name_total`.
    pub(super) fn counter(&mut self, name: &'static str, help: &'static str, value: impl Into<Value>) {
        self.add(name, help, Samples::Counter(vec![Sample { label: None, value: value.into().0 }]));
    }

    /// One value for each value of a label.
    pub(super) fn gauges<V: Into<Value>>(
        &mut self,
        name: &'static str,
        help: &'static str,
        label: &'static str,
        values: impl IntoIterator<Item = (impl AsRef<str>, V)>,
    ) {
        self.add(name, help, Samples::Gauge(labelled(label, values)));
    }

    /// One sum for each value of a label.
    pub(super) fn counters<V: Into<Value>>(
        &mut self,
        name: &'static str,
        help: &'static str,
        label: &'static str,
        values: impl IntoIterator<Item = (impl AsRef<str>, V)>,
    ) {
        self.add(name, help, Samples::Counter(labelled(label, values)));
    }

    /// How many were within each bound and beyond the one before; the last bound is infinity.
    pub(super) fn histogram(
        &mut self,
        name: &'static str,
        help: &'static str,
        sum: f64,
        buckets: Vec<(f64, u64)>,
    ) {
        self.add(name, help, Samples::Histogram { sum, buckets });
    }

    /// All families.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Family> {
        self.0.iter()
    }

    fn add(&mut self, name: &'static str, help: &'static str, samples: Samples) {
        self.0.push(Family { name, help, samples });
    }
}

/// A number or boolean as the value of a sample. Positions are exact up to 2^53, which is 8 PiB of WAL.
#[derive(Clone, Copy, Debug)]
pub(super) struct Value(f64);

impl From<f64> for Value {
    fn from(number: f64) -> Self {
        Value(number)
    }
}

impl From<u64> for Value {
    fn from(number: u64) -> Self {
        Value(number as f64)
    }
}

impl From<u32> for Value {
    fn from(number: u32) -> Self {
        Value(f64::from(number))
    }
}

impl From<bool> for Value {
    fn from(truth: bool) -> Self {
        Value(f64::from(u8::from(truth)))
    }
}

fn labelled<V: Into<Value>>(
    label: &'static str,
    values: impl IntoIterator<Item = (impl AsRef<str>, V)>,
) -> Vec<Sample> {
    let sample = |(text, value): (_, V)| {
        let text: &str = AsRef::as_ref(&text);
        Sample { label: Some((label, text.to_owned())), value: value.into().0 }
    };
    values.into_iter().map(sample).collect()
}

impl Collector for Families {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        for family in &self.0 {
            let kind = match family.samples {
                Samples::Gauge(_) => MetricType::Gauge,
                // OpenMetrics has no counter without `_total`.
                Samples::OldCounter(_) => MetricType::Unknown,
                Samples::Counter(_) => MetricType::Counter,
                Samples::Histogram { .. } => MetricType::Histogram,
            };
            let mut metric = encoder.encode_descriptor(family.name, family.help, None, kind)?;
            match &family.samples {
                Samples::Gauge(samples) | Samples::OldCounter(samples) => {
                    samples
                        .iter()
                        .try_for_each(|sample| sample.encode(&mut metric, &ConstGauge::new(sample.value)))?;
                }
                Samples::Counter(samples) => {
                    samples.iter().try_for_each(|sample| {
                        sample.encode(&mut metric, &ConstCounter::new(sample.value))
                    })?;
                }
                Samples::Histogram { sum, buckets } => {
                    let count = buckets.iter().map(|(_, count)| count).sum();
                    metric.encode_histogram::<NoLabels>(*sum, count, buckets, None)?;
                }
            }
        }
        Ok(())
    }
}

impl Sample {
    fn encode(&self, metric: &mut MetricEncoder<'_>, value: &impl EncodeMetric) -> Result<(), fmt::Error> {
        match &self.label {
            Some((label, text)) => value.encode(metric.encode_family(&[(*label, text.as_str())])?),
            None => value.encode(metric.encode_family(&NO_LABELS)?),
        }
    }
}
