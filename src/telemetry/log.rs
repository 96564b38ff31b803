//! How does a log line look? One JSON object a line for machines, one readable line for people.
//!
//! Key names are kube-apiserver's where it has one (`verb`, `URI`, `resp`, `audit-ID`, `srcIP`), so that both logs
//! can be read side by side. Values are JSON-escaped, so a client cannot forge a line with a line feed in a header;
//! what a client chose is shown by `text` besides. Only our own lines go below `Info`: a library's may hold a token.

use std::fmt;
use std::io::IsTerminal;
use std::str::FromStr;

use serde_json::{Map, Value};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::Layer as _;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::registry::LookupSpan;

use super::lines::Lines;
use super::text::shown;
use crate::clock;

/// Which requests get a line of their own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AccessLog {
    /// None.
    None,
    /// Those that spillway answered itself: refused or failed.
    #[default]
    Shed,
    /// Every request.
    All,
}

/// How lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object a line.
    #[default]
    Json,
    /// `time level message key=value …`.
    Text,
}

/// What other crates may say at most: below this they show headers and bytes of frames, and with them credentials.
const OTHERS: LevelFilter = LevelFilter::INFO;

/// Writes what was logged before it is dropped.
#[must_use = "the last lines are written when it is dropped"]
pub struct Flush(Lines);

impl Drop for Flush {
    fn drop(&mut self) {
        self.0.flush();
    }
}

/// Sends log lines of `level` and above to standard error. Only the first call in a process has an effect: tests
/// and the demo start several proxies in one process.
pub fn install(format: LogFormat, level: &str) -> Flush {
    let level = LevelFilter::from_str(level).unwrap_or(LevelFilter::INFO);
    let lines = Lines::start(std::io::stderr());
    let filter = Targets::new().with_target("spillway", level).with_default(level.min(OTHERS));
    let layer = tracing_subscriber::fmt::layer().with_writer(lines.clone());
    let outcome = match format {
        LogFormat::Json => {
            let layer = layer.event_format(Json).with_filter(filter);
            tracing::subscriber::set_global_default(tracing_subscriber::registry().with(layer))
        }
        LogFormat::Text => {
            let layer = layer
                .with_ansi(std::io::stderr().is_terminal())
                .with_target(false)
                .event_format(tracing_subscriber::fmt::format().compact())
                .with_filter(filter);
            tracing::subscriber::set_global_default(tracing_subscriber::registry().with(layer))
        }
    };
    if outcome.is_ok() {
        // The default hook writes to standard error itself, and would stand still with it.
        std::panic::set_hook(Box::new(|panic| {
            let place = panic.location().map(ToString::to_string).unwrap_or_default();
            let payload = panic.payload();
            let text = payload.downcast_ref::<&str>().copied();
            let text =
                text.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or_default();
            tracing::error!(place, text = &*shown(text), "spillway has a defect: a task panicked");
        }));
    }
    Flush(lines)
}

struct Json;

impl<S, N> FormatEvent<S, N> for Json
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut line = Map::new();
        let now = OffsetDateTime::from(clock::wall());
        line.insert("ts".to_owned(), now.format(&Rfc3339).unwrap_or_default().into());
        line.insert("level".to_owned(), event.metadata().level().as_str().to_ascii_lowercase().into());
        event.record(&mut Fields(&mut line));
        writeln!(writer, "{}", Value::Object(line))
    }
}

struct Fields<'a>(&'a mut Map<String, Value>);

impl Fields<'_> {
    fn set(&mut self, field: &Field, value: Value) {
        let name = if field.name() == "message" { "msg" } else { field.name() };
        self.0.insert(name.to_owned(), value);
    }
}

impl Visit for Fields<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.set(field, format!("{value:?}").into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.set(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.set(field, value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.set(field, value.into());
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.set(field, value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.set(field, value.into());
    }
}
