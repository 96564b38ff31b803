//! What is not as the policy's files say, or not in force yet?

use crate::admin::wire::Status;
use crate::admin::wire_change::ShadowLane;

/// Findings, each with the next command.
pub(super) fn of(status: &Status) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let config = &status.config;
    if let Some(problem) = &config.problem {
        let first = problem.findings.first().map_or("", String::as_str);
        let finding =
            format!("changed files cannot be used, policy {} stays: {first}", config.policy.generation);
        found.push((finding, format!("spillway validate {}", config.files.join(" "))));
    }
    if config.withdrawn {
        let finding =
            format!("policy {} is in force by rollback, not what the files say", config.policy.generation);
        found.push((finding, "spillway config show".to_owned()));
    }
    if !config.restart.is_empty() {
        let finding = format!("changed in the files, waits for a restart: {}", config.restart.join(", "));
        found.push((
            finding,
            "systemctl restart spillway, or the static pod's manifest away and back".to_owned(),
        ));
    }
    let enforcement = &status.enforcement;
    let would = || -> String {
        let lanes: Vec<String> = enforcement.shadow.iter().map(lane).collect();
        if lanes.is_empty() { "nothing so far".to_owned() } else { lanes.join(", ") }
    };
    match enforcement.mode.as_str() {
        "Disabled" => found.push((
            "the policy is Disabled: everything is let in, and nothing brakes".to_owned(),
            "set enforcement.mode: Shadow in the policy's file".to_owned(),
        )),
        "Shadow" => found.push((
            format!("Shadow: nothing is refused; would have been, since the start: {}", would()),
            "spillway rollout status".to_owned(),
        )),
        "Enforce" if enforcement.rollout.stage == "running" => {}
        "Enforce" if enforcement.percent < 100 => found.push((
            format!(
                "enforced for {} % of the identities; would have been refused of the others: {}",
                enforcement.percent,
                would()
            ),
            "raise enforcement.percent in the policy's file".to_owned(),
        )),
        _ => {}
    }
    let rollout = &enforcement.rollout;
    match rollout.stage.as_str() {
        "running" | "paused" => found.push((
            format!(
                "rollout {}: enforced for {} % of the identities, step {} of {}; of the others would have been refused: {}",
                rollout.stage,
                rollout.percent,
                rollout.step,
                rollout.steps.len(),
                would()
            ),
            "spillway rollout status".to_owned(),
        )),
        "fell-back" => {
            found.push(("the rollout's guard went back to Shadow".to_owned(), "spillway rollout status".to_owned()));
        }
        _ => {}
    }
    found
}

fn lane(shadow: &ShadowLane) -> String {
    let waits =
        if shadow.would_wait > 0 { format!(" (and {} waited)", shadow.would_wait) } else { String::new() };
    format!("{} {}{waits}", shadow.lane, shadow.would_shed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::wire_change::{ConfigView, EnforcementView, PolicyView, ReloadProblem, RolloutView};
    use crate::cli::golden;

    #[test]
    fn what_is_not_right_is_its_golden_text() {
        let status = Status {
            config: ConfigView {
                policy: PolicyView { generation: 12, ..PolicyView::default() },
                files: vec!["/etc/spillway/spillway.yaml".into(), "/etc/spillway/policy.yaml".into()],
                problem: Some(ReloadProblem {
                    at: 1,
                    findings: vec!["policy.yaml:5:3: error[SPW0204]: …".into()],
                }),
                restart: vec!["listeners".into()],
                withdrawn: true,
                ..ConfigView::default()
            },
            enforcement: EnforcementView {
                mode: "Shadow".into(),
                percent: 100,
                rollout: RolloutView { stage: "fell-back".into(), ..RolloutView::default() },
                shadow: vec![
                    ShadowLane { lane: "operators".into(), would_shed: 0, would_wait: 3 },
                    ShadowLane { lane: "telemetry".into(), would_shed: 12_345, would_wait: 0 },
                ],
            },
            ..Status::default()
        };
        let half = Status {
            enforcement: EnforcementView {
                mode: "Enforce".into(),
                percent: 50,
                ..EnforcementView::default()
            },
            ..Status::default()
        };
        let lines =
            of(&status).into_iter().chain(of(&half)).map(|(what, next)| format!("! {what}\n  → {next}\n"));
        golden::compare("status-changes", &lines.collect::<String>());
        let whole = EnforcementView { mode: "Enforce".into(), percent: 100, ..EnforcementView::default() };
        assert!(of(&Status { enforcement: whole, ..Status::default() }).is_empty(), "all is well");
    }
}
