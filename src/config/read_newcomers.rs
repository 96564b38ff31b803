//! How does `newcomers:` become its type?

use std::time::Duration;

use super::section::{Field, Section};
use crate::flow::newcomers::NewcomerSettings;

pub(super) fn newcomers(section: &mut Section<'_>) -> Option<NewcomerSettings> {
    let default = NewcomerSettings::default();
    let most = Duration::from_secs(30 * 86_400);
    Some(NewcomerSettings {
        guard: section.or("guard", default.guard, Field::boolean),
        learning: section.or("learning", default.learning, |field| field.duration(Duration::ZERO..=most)),
        known_after: section
            .or("knownAfter", default.known_after, |field| field.duration(Duration::from_secs(60)..=most)),
        seats: section.or("seats", default.seats, |field| field.integer(1..=1_000)),
        warn_percent: section.or("warnPercent", default.warn_percent, |field| field.integer(1..=1_000)),
    })
}
