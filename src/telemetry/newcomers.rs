//! Who is new here, in numbers and in the log?
//!
//! Names stand in the log alone: labels are of a closed set.

use prometheus::{Gauge, GaugeVec, IntCounter};

use super::register::Register;
use crate::flow::newcomers::Counts;

/// Something about a newcomer.
#[derive(Debug)]
pub struct NewcomerSeen<'a> {
    /// `came`, `warning`, `over`, `settled` or `operator`.
    pub what: &'static str,
    /// Who it is.
    pub who: &'a str,
    /// What there is to say.
    pub text: &'a str,
}

impl NewcomerSeen<'_> {
    /// One line; a warning when it would press the apiserver.
    pub fn emit(&self) {
        let Self { what, who, text } = *self;
        if what == "warning" {
            tracing::warn!(
                event = "newcomer",
                what,
                who,
                text,
                "a newcomer would take too much of kube-apiserver"
            );
        } else {
            tracing::info!(event = "newcomer", what, who, text, "newcomer");
        }
    }
}

/// The numbers of a scrape.
pub struct Newcomers {
    newcomers: GaugeVec,
    known: Gauge,
    nodes: Gauge,
    warnings: IntCounter,
}

impl Newcomers {
    pub(super) fn register(register: &Register<'_>) -> Result<Self, prometheus::Error> {
        Ok(Self {
            newcomers: register.gauges(
                "newcomers_active",
                "identities and programs never seen before: `measured`, `warned` (what they would cost on \
                 all nodes is too much)",
                &["standing"],
            )?,
            known: register.gauge("identities_known", "identities and programs that are not new")?,
            nodes: register
                .gauge("cluster_nodes", "nodes that were heard of in the last quarter of an hour")?,
            warnings: register.counter("newcomer_warnings_total", "warnings about newcomers")?,
        })
    }

    /// One was warned of.
    pub fn warned(&self) {
        self.warnings.inc();
    }

    pub(super) fn set(&self, counts: Counts) {
        let measured = counts.new - counts.warned.min(counts.new);
        for (standing, count) in [("measured", measured), ("warned", counts.warned)] {
            self.newcomers.with_label_values(&[standing]).set(count as f64);
        }
        self.known.set(counts.known as f64);
        self.nodes.set(counts.nodes as f64);
    }
}
