//! What a reader of the test's output sees: the two halves side by side.

use std::{
    fmt::Write,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use super::{Half, Scene};

/// The table, one column a half, and below it what explains it.
pub(crate) fn render(halves: &[&Half]) -> String {
    let mut table = Table { halves, text: String::new() };
    table.row("", |half| (if half.proxy.is_some() { "with spillway" } else { "without" }).into());
    table.scene("calm", |half| &half.calm);
    table.scene("storm", |half| &half.storm);
    table.row("one LIST of all pods, processor time", |half| seconds(Some(half.list_cost)));
    table.row("from DELETE to the last agent's end", |half| {
        half.removal.map_or("never".into(), |time| seconds(Some(time)))
    });
    table.row("controllers or scheduler lost their lease", |half| half.restarts.to_string());
    let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed).to_string();
    table.row("telemetry: agents", |half| count(&half.agents.agents));
    table.row("telemetry: requests", |half| count(&half.agents.asked));
    table.row("telemetry: ... answered", |half| count(&half.agents.answered));
    table.row("telemetry: ... told to come back", |half| count(&half.agents.refused));
    table.row("telemetry: ... failed", |half| count(&half.agents.failed));
    table.row("telemetry: megabytes", |half| {
        (half.agents.bytes.load(Ordering::Relaxed) / 1_000_000).to_string()
    });
    for half in halves {
        explain(half, &mut table.text);
    }
    table.text
}

struct Table<'a> {
    halves: &'a [&'a Half],
    text: String,
}

impl Table<'_> {
    fn row(&mut self, name: &str, cell: impl Fn(&Half) -> String) {
        let cells: String = self.halves.iter().map(|half| format!(" {:>16}", cell(half))).collect();
        let _ = writeln!(self.text, "  {name:<42}{cells}");
    }

    fn scene(&mut self, name: &str, scene: impl Fn(&Half) -> &Scene) {
        let mut row = |what: &str, cell: &dyn Fn(&Scene) -> String| {
            self.row(&format!("{name}: {what}"), |half| cell(scene(half)));
        };
        row("seconds", &|scene| seconds(Some(scene.lasted)));
        row("apiserver + etcd, share of core 0", &|scene| format!("{:.0} %", scene.server_share * 100.0));
        row("apiserver, most memory so far", &|scene| format!("{} MB", scene.memory_mb));
        row("leases renewed by writers", &|scene| of(scene.writers.renewed, scene.written_renewals()));
        row("... failed", &|scene| scene.writers.failed.to_string());
        row("... longest gap", &|scene| seconds(Some(scene.writers.longest_gap)));
        row("leases renewed by kubelets", &|scene| {
            format!("{} (>= {})", scene.kubelets.renewed, scene.kubelet_renewals())
        });
        row("... tries they report as failed", &|scene| scene.kubelets.failed.to_string());
        row("... longest gap", &|scene| seconds(Some(scene.kubelets.longest_gap)));
        row("operator, answered of asked", &|scene| {
            of(scene.operator.answered.len() as u64, scene.operator.asked)
        });
        row("operator, p50", &|scene| seconds(scene.operator.quantile(0.5)));
        row("operator, p99", &|scene| seconds(scene.operator.quantile(0.99)));
    }
}

fn of(seen: u64, expected: u64) -> String {
    format!("{seen} of {expected}")
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
