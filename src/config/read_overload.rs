//! How does `overload:` become its type, and can what it asks for be had?
//!
//! Ranges stand here beside the key they belong to; what they mean stands in [`super::traffic`].

use std::ops::RangeInclusive;
use std::time::Duration;

use super::diagnostic::{Code, Diagnostic};
use super::quantity::{show_duration, show_size};
use super::read_traffic::{rate, unknown_lane};
use super::section::{Field, Section};
use super::traffic::{LimitBounds, Objectives, OverloadSettings};
use crate::flow::{HoldSettings, MemorySettings, ResponseBytes, WatchSettings};
use crate::policy::Lane;

/// Range of the objectives.
const OBJECTIVE: RangeInclusive<Duration> = Duration::from_millis(10)..=Duration::from_secs(120);
/// What may be asked of a hold before it is judged.
const HOLD: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(3_600);
/// Kubelets give up a heartbeat after 10 s: a refusal that comes later is a failure, not a brake.
const HOLD_MAX: Duration = Duration::from_secs(10);
/// A page of 500 pods, which is what informers ask for: with less, none of them would ever go beside another.
const PAGE_BYTES: u64 = 1 << 20;

pub(super) fn overload(section: &mut Section<'_>) -> Option<OverloadSettings> {
    let default = OverloadSettings::default();
    Some(OverloadSettings {
        limit: section.or("limit", default.limit, |field| field.section(limit)),
        objectives: section.or("objectives", default.objectives, |field| field.section(objectives)),
        memory: section.or("memory", default.memory, |field| field.section(memory)),
        watches: section.or("watches", default.watches, |field| field.section(watches)),
        hold: section.or("hold", default.hold, |field| field.section(hold)),
        cancel_worst: section.or("laws", default.cancel_worst, |field| {
            field.section(|section| Some(section.or("cancelWorst", default.cancel_worst, Field::boolean)))
        }),
    })
}

fn limit(section: &mut Section<'_>) -> Option<LimitBounds> {
    let default = LimitBounds::default();
    let read = LimitBounds {
        min: section.or("min", default.min, |field| field.integer(1..=10_000)),
        max: section.or("max", default.max, |field| field.integer(1..=10_000)),
        initial: section.or("initial", default.initial, |field| field.integer(1..=10_000)),
    };
    let ordered = read.min <= read.initial && read.initial <= read.max;
    if !ordered {
        let LimitBounds { min, max, initial } = read;
        section.report(
            Diagnostic::new(
                Code::Contradiction,
                format!("the limit must start between its bounds: min {min}, initial {initial}, max {max}"),
            )
            .label("expected min <= initial <= max"),
        );
    }
    Some(read)
}

fn objectives(section: &mut Section<'_>) -> Option<Objectives> {
    let default = Objectives::default();
    let read = Objectives {
        object: section.or("object", default.object, |field| field.duration(OBJECTIVE)),
        namespace: section.or("namespace", default.namespace, |field| field.duration(OBJECTIVE)),
        cluster: section.or("cluster", default.cluster, |field| field.duration(OBJECTIVE)),
    };
    if read.object > read.namespace || read.namespace > read.cluster {
        let [object, namespace, cluster] = [read.object, read.namespace, read.cluster].map(show_duration);
        let message =
            "a call about one object may not take longer than a LIST, nor a namespace than the cluster";
        section.report(
            Diagnostic::new(Code::ObjectivesOutOfOrder, message)
                .label("expected object <= namespace <= cluster")
                .note(format!(
                    "defaults included: object {object}, namespace {namespace}, cluster {cluster}"
                )),
        );
    }
    Some(read)
}

fn memory(section: &mut Section<'_>) -> Option<MemorySettings> {
    let field = section.field("responseBytes");
    let response_bytes = field.clone().and_then(response_bytes).unwrap_or_default();
    if let (Some(field), ResponseBytes::Fixed(bytes)) = (field, response_bytes)
        && (1..PAGE_BYTES).contains(&bytes)
    {
        let size = show_size(bytes);
        let message = format!("`{}` of {size} is less than one ordinary page of a LIST takes", field.path());
        let label = format!("expected at least {}, or 0 for no bound", show_size(PAGE_BYTES));
        field.report(Code::MemoryBelowPage, message, label);
    }
    Some(MemorySettings { response_bytes, server: None })
}

/// A size, or the word that leaves it to the server's memory.
fn response_bytes(field: Field<'_>) -> Option<ResponseBytes> {
    const WORDS: &[(&str, ResponseBytes)] = &[("auto", ResponseBytes::Auto)];
    if field.is_word() || field.is_learnt() {
        let word = field.clone().choice(WORDS);
        if !field.is_learnt() {
            return word;
        }
    }
    field.bytes(0..=1 << 40).map(ResponseBytes::Fixed)
}

fn watches(section: &mut Section<'_>) -> Option<WatchSettings> {
    let mut read = WatchSettings::default();
    read.per_flow = section.or("perIdentity", read.per_flow, |field| field.integer(0..=100_000));
    let Some(lanes) = section.field("lanes") else { return Some(read) };
    for (field, name, place) in lanes.entries()? {
        match name.parse() {
            // Break-glass watches are counted by its own listener, against `breakGlass.seats`.
            Ok(lane) if lane != Lane::BreakGlass => {
                field.section(|section| {
                    lane_watches(section, lane, &mut read);
                    Some(())
                });
            }
            _ => field.report_at(unknown_lane(name), place),
        }
    }
    Some(read)
}

fn lane_watches(section: &mut Section<'_>, lane: Lane, read: &mut WatchSettings) {
    let live = &mut read.per_lane[lane.index()];
    *live = section.or("live", *live, |field| field.integer(0..=1_000_000));
    if let Some(field) = section.field("starts") {
        read.starts[lane.index()] = field.section(|section| Some(rate(section))).flatten();
    }
}

fn hold(section: &mut Section<'_>) -> Option<HoldSettings> {
    let default = HoldSettings::default();
    let field = section.field("longest");
    let longest = field.clone().and_then(|field| field.duration(HOLD)).unwrap_or(default.longest);
    if let Some(field) = field
        && longest > HOLD_MAX
    {
        let longest = show_duration(longest);
        let message = format!("`{}` of {longest} is longer than clients wait for an answer", field.path());
        let label = format!("expected at most {}", show_duration(HOLD_MAX));
        field.report_with(Code::HoldTooLong, message, label, |diagnostic| {
            diagnostic.note("a kubelet's heartbeat gives up after 10 s, a leader election after 5 s")
        });
    }
    Some(HoldSettings { longest, most: section.or("most", default.most, |field| field.integer(0..=100_000)) })
}
