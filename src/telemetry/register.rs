//! How is a metric made known, and what is there to say about it?
//!
//! Each metric is registered with its type, labels and meaning, and stays in a catalogue: docs/METRICS.md is made of it, so
//! that neither can know a metric that the other does not.

use std::cell::RefCell;

use prometheus::core::Collector;
use prometheus::{
    Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, Opts, Registry,
};

use super::stability;

/// One metric, as its document has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Described {
    /// Without the prefix.
    pub name: String,
    /// `counter`, `gauge` or `histogram`.
    pub kind: &'static str,
    /// Names of its labels.
    pub labels: Vec<String>,
    /// With its promise in front.
    pub help: String,
}

/// Makes metrics known to one registry.
pub(super) struct Register<'a> {
    registry: &'a Registry,
    catalogue: RefCell<Vec<Described>>,
}

impl<'a> Register<'a> {
    pub(super) fn new(registry: &'a Registry) -> Self {
        Self { registry, catalogue: RefCell::default() }
    }

    fn add(&self, kind: &'static str, metric: impl Collector + 'static) -> Result<(), prometheus::Error> {
        let described = metric.desc().into_iter().map(|desc| Described {
            name: desc.fq_name.clone(),
            kind,
            labels: desc.variable_labels.clone(),
            help: desc.help.clone(),
        });
        self.catalogue.borrow_mut().extend(described);
        self.registry.register(Box::new(metric))
    }

    pub(super) fn counters(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
    ) -> Result<IntCounterVec, prometheus::Error> {
        let metric = IntCounterVec::new(Opts::new(name, stability::help(name, help)), labels)?;
        self.add("counter", metric.clone())?;
        Ok(metric)
    }

    pub(super) fn counter(&self, name: &str, help: &str) -> Result<IntCounter, prometheus::Error> {
        let metric = IntCounter::new(name, stability::help(name, help))?;
        self.add("counter", metric.clone())?;
        Ok(metric)
    }

    pub(super) fn gauges(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
    ) -> Result<GaugeVec, prometheus::Error> {
        let metric = GaugeVec::new(Opts::new(name, stability::help(name, help)), labels)?;
        self.add("gauge", metric.clone())?;
        Ok(metric)
    }

    pub(super) fn gauge(&self, name: &str, help: &str) -> Result<Gauge, prometheus::Error> {
        let metric = Gauge::new(name, stability::help(name, help))?;
        self.add("gauge", metric.clone())?;
        Ok(metric)
    }

    pub(super) fn histograms(
        &self,
        name: &str,
        help: &str,
        buckets: &[f64],
    ) -> Result<HistogramVec, prometheus::Error> {
        let metric = HistogramVec::new(
            HistogramOpts::new(name, stability::help(name, help)).buckets(buckets.to_vec()),
            &["lane"],
        )?;
        self.add("histogram", metric.clone())?;
        Ok(metric)
    }

    pub(super) fn histogram(
        &self,
        name: &str,
        help: &str,
        buckets: &[f64],
    ) -> Result<Histogram, prometheus::Error> {
        let metric = Histogram::with_opts(
            HistogramOpts::new(name, stability::help(name, help)).buckets(buckets.to_vec()),
        )?;
        self.add("histogram", metric.clone())?;
        Ok(metric)
    }

    /// What was registered, in that order.
    pub(super) fn catalogue(self) -> Vec<Described> {
        self.catalogue.into_inner()
    }

    pub(super) fn build_info(&self) -> Result<(), prometheus::Error> {
        let info = self.gauges("build_info", "always 1", &["version"])?;
        info.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1.0);
        Ok(())
    }
}
