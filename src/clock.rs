//! What time is it? The only place outside tests that reads a clock.
//!
//! Monotonic time is counted from the first call in this process; the pure core receives it as an argument.

use std::sync::OnceLock;
use std::time::SystemTime;

use crate::units::Instant;

static ORIGIN: OnceLock<std::time::Instant> = OnceLock::new();

/// Monotonic time since the first call in this process.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "this is where time is read")]
pub fn now() -> Instant {
    let origin = *ORIGIN.get_or_init(std::time::Instant::now);
    Instant::from_nanos(u64::try_from(origin.elapsed().as_nanos()).unwrap_or(u64::MAX))
}

/// Wall-clock time: for certificates, tokens and log lines, never for measuring a duration.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "this is where time is read")]
pub fn wall() -> SystemTime {
    SystemTime::now()
}
