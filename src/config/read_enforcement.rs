//! How does `enforcement:` become its type, and can its steps be taken?

use std::ops::RangeInclusive;
use std::time::Duration;

use super::diagnostic::{Code, Diagnostic};
use super::quantity;
use super::read_traffic::unknown_lane;
use super::section::{Field, Section};
use crate::policy::rollout::{Check, Guard, RolloutSettings, STEPS_MAX};
use crate::policy::{Enforcement, Lane, Mode};

/// Range of a step's length.
const STEP: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(7 * 24 * 3_600);
/// Range of the time between two judgements.
const INTERVAL: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(3_600);
/// Range of a time that is allowed.
const TIME: RangeInclusive<Duration> = Duration::from_micros(100)..=Duration::from_secs(60);
/// Each check once, and one to spare for a second set of lanes each.
const CHECKS_MAX: usize = 8;

pub(super) fn enforcement(section: &mut Section<'_>) -> Option<(Enforcement, RolloutSettings)> {
    let (default, rollout) = (Enforcement::default(), RolloutSettings::default());
    let enforcement = Enforcement {
        mode: section.or("mode", default.mode, mode),
        percent: section.or("percent", default.percent, |field| field.integer(0..=100)),
    };
    let steps_field = section.field("steps");
    let interval_field = section.field("stepInterval");
    let rollout = RolloutSettings {
        steps: section.or("steps", vec![], |field| field.list(0..=STEPS_MAX, |entry| entry.integer(1..=100))),
        step_interval: section.or("stepInterval", rollout.step_interval, |field| field.duration(STEP)),
        guard: section.or("guard", rollout.guard, |field| field.section(guard)),
    };
    if let Some(field) = steps_field
        && !rollout.steps.is_sorted_by(|one, next| one < next)
    {
        let message = format!("the steps do not rise: {:?}", rollout.steps);
        field.report_with(
            Code::StepsNotRising,
            message,
            "each step must be more than the one before",
            |found| found.help("for example steps: [1, 5, 25, 50, 100]"),
        );
    }
    if let Some(field) = interval_field
        && rollout.step_interval < rollout.guard.interval
    {
        let (step, guard) = (rollout.step_interval, rollout.guard.interval);
        let message = format!(
            "a step of {} would be over before the guard, every {}, has judged it",
            quantity::show_duration(step),
            quantity::show_duration(guard)
        );
        field.report_with(Code::StepUnjudged, message, "shorter than guard.interval", |found| {
            found.help("make stepInterval several times guard.interval")
        });
    }
    Some((enforcement, rollout))
}

/// A mode, of the whole policy or of one rule.
pub(super) fn mode(field: Field<'_>) -> Option<Mode> {
    field.choice(&Mode::ALL.map(|mode| (mode.as_str(), mode)))
}

fn guard(section: &mut Section<'_>) -> Option<Guard> {
    let default = Guard::default();
    Some(Guard {
        interval: section.or("interval", default.interval, |field| field.duration(INTERVAL)),
        failure_threshold: section
            .or("failureThreshold", default.failure_threshold, |field| field.integer(1..=100)),
        checks: section.or("checks", default.checks, |field| field.list(1..=CHECKS_MAX, check)),
    })
}

#[derive(Clone, Copy)]
enum Metric {
    UpstreamErrorRatio,
    ReadObjectP99,
    ShedInLane,
    ProxyOverheadP99,
}

const METRICS: [(&str, Metric); 4] = [
    ("UpstreamErrorRatio", Metric::UpstreamErrorRatio),
    ("ReadObjectP99", Metric::ReadObjectP99),
    ("ShedInLane", Metric::ShedInLane),
    ("ProxyOverheadP99", Metric::ProxyOverheadP99),
];

fn check(field: Field<'_>) -> Option<Check> {
    field.section(|section| {
        Some(match section.need("metric", |field| field.choice(&METRICS)) {
            None => {
                // Whoever asks which keys there are hears of these two as well.
                let _ = (section.field("max"), section.field("lanes"));
                section.leave_unread();
                return None;
            }
            Some(Metric::UpstreamErrorRatio) => Check::UpstreamErrorRatio(section.need("max", percentage)?),
            Some(Metric::ReadObjectP99) => {
                Check::ReadObjectP99(section.need("max", |field| field.duration(TIME))?)
            }
            Some(Metric::ProxyOverheadP99) => {
                Check::ProxyOverheadP99(section.need("max", |field| field.duration(TIME))?)
            }
            Some(Metric::ShedInLane) => {
                let lanes = section.need("lanes", |field| field.list(1..=Lane::COUNT, lane));
                let max = section.need("max", |field| field.integer(0..=1_000_000));
                Check::ShedInLane(lanes?, max?)
            }
        })
    })
}

fn lane(field: Field<'_>) -> Option<Lane> {
    let text = field.clone().text()?;
    let lane = text.parse().ok().filter(|lane| *lane != Lane::BreakGlass);
    if lane.is_none() {
        let found: Diagnostic = unknown_lane(text);
        field.report_at(found, field.place());
    }
    lane
}

/// Hundredths of a percent: `1%`, `0.5%`.
fn percentage(field: Field<'_>) -> Option<u32> {
    field.parsed("a percentage such as 1% or 0.25%", |text| {
        let number = text.strip_suffix('%')?.trim();
        let (whole, part) = number.split_once('.').unwrap_or((number, ""));
        let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        if whole.is_empty() || whole.len() > 3 || part.len() > 2 || !digits(whole) || !digits(part) {
            return None;
        }
        let value = format!("{whole}{part:0<2}").parse::<u32>().ok()?;
        (value <= 10_000).then_some(value)
    })
}
