//! What a reader of the test's output sees: the two halves side by side.

use std::{fmt::Write, sync::atomic::Ordering, time::Duration};

use super::{Half, Scene};

/// The table, one column a half, and below it what explains it.
pub(crate) fn render(halves: &[&Half]) -> String {
    let mut text = String::new();
    let mut row = |name: &str, cell: &dyn Fn(&Half) -> String| {
        let cells: String = halves.iter().map(|half| format!(" {:>16}", cell(half))).collect();
        let _ = writeln!(text, "  {name:<42}{cells}");
    };
    row("", &|half| (if half.proxy.is_some() { "with spillway" } else { "without" }).into());
    for (name, scene) in [("calm", (|half| &half.calm) as fn(&Half) -> &Scene), ("storm", |half| &half.storm)]
    {
        row(&format!("{name}: seconds"), &|half| seconds(Some(scene(half).lasted)));
        row(&format!("{name}: apiserver + etcd, share of core 0"), &|half| percent(scene(half).server_share));
        row(&format!("{name}: apiserver, most memory so far"), &|half| {
            format!("{} MB", scene(half).memory_mb)
        });
        row(&format!("{name}: leases renewed by writers"), &|half| scene(half).writers.renewed.to_string());
        row(&format!("{name}: ... failed"), &|half| scene(half).writers.failed.to_string());
        row(&format!("{name}: ... longest gap"), &|half| seconds(Some(scene(half).writers.longest_gap)));
        row(&format!("{name}: leases renewed by kubelets"), &|half| scene(half).kubelets.renewed.to_string());
        row(&format!("{name}: ... tries they report as failed"), &|half| {
            scene(half).kubelets.failed.to_string()
        });
        row(&format!("{name}: ... longest gap"), &|half| seconds(Some(scene(half).kubelets.longest_gap)));
        row(&format!("{name}: operator, answered of asked"), &|half| {
            let work = &scene(half).operator;
            format!("{} of {}", work.answered.len(), work.asked)
        });
        row(&format!("{name}: operator, p50"), &|half| seconds(scene(half).operator.quantile(0.5)));
        row(&format!("{name}: operator, p99"), &|half| seconds(scene(half).operator.quantile(0.99)));
    }
    row("one LIST of all pods, processor time", &|half| seconds(Some(half.list_cost)));
    row("from DELETE to the last agent's end", &|half| {
        half.removal.map_or("never".into(), |time| seconds(Some(time)))
    });
    row("controllers or scheduler lost their lease", &|half| half.restarts.to_string());
    let count = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed).to_string();
    row("telemetry: agents", &|half| count(&half.agents.agents));
    row("telemetry: requests", &|half| count(&half.agents.asked));
    row("telemetry: ... answered", &|half| count(&half.agents.answered));
    row("telemetry: ... told to come back", &|half| count(&half.agents.refused));
    row("telemetry: ... failed", &|half| count(&half.agents.failed));
    row("telemetry: megabytes", &|half| (half.agents.bytes.load(Ordering::Relaxed) / 1_000_000).to_string());
    for half in halves {
        explain(half, &mut text);
    }
    text
}

fn explain(half: &Half, text: &mut String) {
    let scene = &half.storm;
    let failures =
        [&scene.operator.first_failure, &scene.writers.first_failure, &scene.kubelets.first_failure];
    let title = if half.proxy.is_some() { "with" } else { "without" };
    for failure in failures.into_iter().flatten() {
        let _ = writeln!(text, "  {title}, a first failure: {failure}");
    }
    let Some(proxy) = &half.proxy else { return };
    for (labels, number) in &proxy.shed {
        let _ = writeln!(text, "  spillway refused {number:6} {labels}");
    }
    for line in &proxy.timeline {
        let _ = writeln!(text, "  {line}");
    }
}

fn seconds(time: Option<Duration>) -> String {
    time.map_or("-".into(), |time| format!("{:.3} s", time.as_secs_f64()))
}

fn percent(share: f64) -> String {
    format!("{:.0} %", share * 100.0)
}
