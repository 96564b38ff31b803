//! A configuration file: it is taken whole and can be put to work, or every mistake is shown with its place.

use std::path::PathBuf;
use std::time::Duration;

use spillway::config::{self, Colour, Diagnostics, FileChecks};
use spillway::flow::Scheduler;
use spillway::policy::{Lane, RULES_MAX};
use spillway::units::Instant;

pub fn run(input: &[u8]) {
    let file = std::env::temp_dir().join(format!(
        "spillway-fuzz-{}-{:?}.yaml",
        std::process::id(),
        std::thread::current().id()
    ));
    std::fs::write(&file, input).expect("a temporary file");
    let loaded = config::load_with(&[PathBuf::from(&file)], FileChecks::Off);
    // A quarter of them, as it costs as much again.
    if input.len() % 16 < 4 {
        let again = config::load_with(&[PathBuf::from(&file)], FileChecks::Off);
        assert_eq!(loaded, again, "the same file, the same findings");
    }
    std::fs::remove_file(&file).expect("it was written");
    let loaded = match loaded {
        Ok(loaded) => loaded,
        Err(found) => {
            assert!(found.errors() > 0);
            return show(&found, input);
        }
    };
    assert_eq!(loaded.warnings.errors(), 0);
    show(&loaded.warnings, input);
    assert!(!loaded.documents.is_empty());
    let policy = &loaded.policy;
    assert!(policy.rules.len() <= RULES_MAX);
    let compiled = policy.compile(1).expect("what was accepted can be compiled");
    assert_eq!(compiled.rules().len(), policy.rules.len());
    let mut scheduler = Scheduler::new(spillway::app::flow_settings(policy), 1, Instant::ORIGIN);
    scheduler.tick(Instant::ORIGIN + Duration::from_millis(250), &spillway::flow::Probes::default());
    let snapshot = scheduler.snapshot(Instant::ORIGIN);
    assert!(snapshot.limit.0 >= policy.overload.limit.min && snapshot.limit.0 <= policy.overload.limit.max);
    for lane in Lane::ALL {
        assert!(policy.lanes[lane.index()].floor_percent <= 100, "{lane}");
    }
}

fn show(found: &Diagnostics, input: &[u8]) {
    let text = config::human(found, Colour::Never);
    assert!(!text.chars().any(|c| c.is_control() && c != '\n'), "a file cannot drive the terminal");
    _ = config::human(found, Colour::Always);
    _ = config::json(found);
    let lines = input.split(|byte| *byte == b'\n').count();
    for place in found.0.iter().filter_map(|found| found.place.as_ref()) {
        assert!((1..=lines).contains(&place.line) && place.column >= 1 && place.end_column > place.column);
    }
}
