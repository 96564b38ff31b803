//! A state file, or the body of one that gets a good checksum: it is believed whole or not at all, and what is believed
//! cannot mislead beyond the scheduler's bounds.

use std::time::{Duration, SystemTime};

use aws_lc_rs::digest;
use spillway::app::state_file;
use spillway::flow::{Scheduler, Settings};
use spillway::units::Instant;

const NOW_S: u64 = 2_000_000_000;

pub fn run(input: &[u8]) {
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(NOW_S);
    let whole = input.starts_with(b"{\"layout\"");
    let file = if whole { input.to_vec() } else { with_head(input) };
    let Ok((remembered, age)) = state_file::read(&file, now) else { return };
    assert!(age <= Duration::from_secs(NOW_S));
    let settings = Settings::default();
    let mut scheduler = Scheduler::new(settings.clone(), 1, Instant::ORIGIN);
    let taken = scheduler.recall(&remembered, age);
    assert!(taken <= remembered.calls.len());
    let limit = scheduler.snapshot(Instant::ORIGIN).limit;
    assert!(limit >= settings.limit.min && limit <= settings.limit.max, "{limit} seats");

    // What the scheduler took over is what it would write, and what anybody would read.
    let kept = scheduler.remember();
    assert!(kept.calls.len() <= taken);
    let (back, age) = state_file::read(&state_file::write(&kept, now), now).expect("its own file");
    assert_eq!((&back, age), (&kept, Duration::ZERO));
    let mut other = Scheduler::new(settings, 1, Instant::ORIGIN);
    assert_eq!(other.recall(&back, age), kept.calls.len(), "nothing is lost by writing it down");
}

/// The file with this body, written a minute ago.
fn with_head(body: &[u8]) -> Vec<u8> {
    let sum: String =
        digest::digest(&digest::SHA256, body).as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    let head = format!("{{\"layout\":1,\"writtenAt\":{},\"sha256\":\"{sum}\"}}\n", NOW_S - 60);
    [head.as_bytes(), body, b"\n"].concat()
}
