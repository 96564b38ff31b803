//! Which policy is in force, for whom, and may it be for more?
//!
//! The panels of the rollout and of the configuration. They read what `spillway rollout` and `spillway config` read, and
//! never wait for the disk. Going back to an older policy stays on the command line: it is decided with its text in view.

use std::fmt::Write as _;

use super::html::{Table, clock, day, e, span, thousands};
use super::look::Look;
use crate::admin::wire_change::{PolicyView, RolloutView};

/// Policies that are shown; `spillway config history` has all.
const POLICIES_SHOWN_MAX: usize = 6;
/// Findings of a refused file that are shown; the rest is counted.
const FINDINGS_SHOWN_MAX: usize = 4;
/// Names of files that are shown.
const FILES_SHOWN_MAX: usize = 4;

/// Is it safe to refuse more?
pub(super) fn rollout(look: &Look) -> String {
    let enforcement = &look.status.enforcement;
    let rollout = &enforcement.rollout;
    let (mark, class, text) = match (enforcement.mode.as_str(), enforcement.percent) {
        ("Enforce", 100..) => ("●", "ok", "for everybody".to_owned()),
        ("Enforce", percent) => ("◔", "warn", format!("for {percent} % of the identities")),
        ("Shadow", _) => ("○", "warn", "nothing is refused; what would be is counted".to_owned()),
        ("Disabled", _) => ("○", "warn", "nothing is decided".to_owned()),
        _ => ("○", "dim", "not known".to_owned()),
    };
    let mut html = format!(
        "<h2>Rollout</h2><p><b class=\"{class}\">{mark} {}</b> {text}</p>{}",
        e(&enforcement.mode),
        way(rollout)
    );
    if !rollout.checks.is_empty() {
        html.push_str(&guard(rollout));
    }
    html.push_str(&shadow(look));
    html.push_str(&next(look));
    html
}

/// The steps, where it is on them, and when it goes on.
fn way(rollout: &RolloutView) -> String {
    if rollout.steps.is_empty() {
        return "<p class=\"dim\">The policy has no steps: enforcement.steps.</p>".to_owned();
    }
    let mut steps = String::new();
    for (at, step) in rollout.steps.iter().enumerate() {
        let is_here = at + 1 == rollout.step;
        let (open, close) = if is_here { ("<b aria-current=\"step\">", "</b>") } else { ("", "") };
        let arrow = if at > 0 { " → " } else { "" };
        let _ = write!(steps, "{arrow}{open}{step} %{close}");
    }
    let mut html = format!(
        "<dl class=\"pairs\"><div><dt>stage</dt><dd>{}</dd></div><div><dt>steps</dt><dd>{steps}</dd></div>",
        stage(&rollout.stage)
    );
    if matches!(rollout.stage.as_str(), "running" | "paused") {
        let when = match rollout.stage.as_str() {
            "paused" => "not while it is paused".to_owned(),
            _ => format!("after {} more that are good", span(left(rollout))),
        };
        let _ = write!(
            html,
            "<div><dt>next step</dt><dd>{when}</dd></div><div><dt>bad in a row</dt><dd>{} of {}</dd></div>",
            rollout.failures, rollout.failure_threshold
        );
    }
    html + "</dl>"
}

/// Seconds that have to be judged good before the next step.
const fn left(rollout: &RolloutView) -> u64 {
    rollout.step_seconds.saturating_sub(rollout.passed_seconds)
}

fn stage(stage: &str) -> String {
    let (class, text) = match stage {
        "running" => ("ok", "● running"),
        "paused" => ("warn", "◆ paused by hand"),
        "done" => ("ok", "● done"),
        "aborted" => ("warn", "◆ aborted by hand"),
        "fell-back" => ("bad", "■ FELL BACK to Shadow"),
        "idle" => ("dim", "○ not started"),
        _ => ("dim", "○ not known"),
    };
    format!("<b class=\"{class}\">{text}</b>")
}

fn judged(judgement: &str) -> &'static str {
    match judgement {
        "pass" => "<b class=\"ok\">● pass</b>",
        "fail" => "<b class=\"bad\">■ FAIL</b>",
        "inconclusive" => "<b class=\"warn\">○ too little to say</b>",
        _ => "<span class=\"dim\">○ not judged</span>",
    }
}

/// What the guard measured, check by check.
fn guard(rollout: &RolloutView) -> String {
    let mut table = Table::new(
        "The guard's last interval",
        &[("check", "name"), ("judged", "fate"), ("measured, and allowed", "why")],
    );
    for check in &rollout.checks {
        let cells =
            [e(&check.check).to_string(), judged(&check.judgement).to_owned(), e(&check.text).to_string()];
        table.row(&format!("check-{}", check.check), "", &cells);
    }
    format!("{}<p>All together: {}</p>", table.end(), judged(&rollout.judgement))
}

/// What would have been refused.
fn shadow(look: &Look) -> String {
    let shadow = &look.status.enforcement.shadow;
    if shadow.is_empty() {
        return String::new();
    }
    let mut table = Table::new(
        "Let in although the policy would not have, since the start",
        &[("lane", "name"), ("would be refused", "num"), ("would wait", "num")],
    );
    for lane in shadow {
        let cells = [e(&lane.lane).to_string(), thousands(lane.would_shed), thousands(lane.would_wait)];
        table.row(&format!("shadow-{}", lane.lane), "", &cells);
    }
    table.end()
}

/// The orders that make sense now.
fn next(look: &Look) -> String {
    let (rollout, mode) = (&look.status.enforcement.rollout, look.status.enforcement.mode.as_str());
    let is_all = mode == "Enforce" && look.status.enforcement.percent >= 100;
    let orders: &[(&str, &str, &str)] = match rollout.stage.as_str() {
        "running" => &[
            ("promote", "Advance", "The next step is taken now, whatever the guard says."),
            ("pause", "Pause", "It stays at this step; the guard still falls back."),
            ABORT,
        ],
        "paused" => &[
            ("resume", "Resume", "It goes on from this step, as the guard judges."),
            ("promote", "Advance", "The next step is taken now, and it goes on from there."),
            ABORT,
        ],
        "done" => &[ABORT],
        _ if rollout.steps.is_empty() || mode == "Disabled" || is_all => &[],
        _ => &[("start", "Start", "The first step comes into force, and the guard judges it.")],
    };
    let mut buttons = String::new();
    for (order, title, effect) in orders {
        let _ = write!(
            buttons,
            " <button type=\"button\" class=\"act\" data-act=\"do\" data-title=\"{title} the rollout\" data-text=\"{effect}\" \
             data-path=\"v1/rollout\" data-body=\"{{&quot;order&quot;:&quot;{order}&quot;}}\" data-command=\"spillway rollout {order}\">{title}…</button>"
        );
    }
    let command = match orders {
        [] => "spillway rollout status".to_owned(),
        [(order, ..), ..] if rollout.stage != "done" => format!("spillway rollout {order}"),
        _ => "spillway rollout status".to_owned(),
    };
    format!("<p class=\"next\"><code>{command}</code>{buttons}</p>")
}

const ABORT: (&str, &str, &str) = ("abort", "Abort", "Back to Shadow at once: nothing is refused any more.");

/// Which policy is it, who brought it, and is it what stands in the files?
pub(super) fn config(look: &Look) -> String {
    let config = &look.status.config;
    let policy = &config.policy;
    let mut html = "<h2>Configuration</h2>".to_owned();
    match &config.problem {
        Some(problem) => {
            let _ = write!(
                html,
                "<p class=\"bad\"><b>■ REFUSED</b> the files have changed and cannot be used, since {}; what was in force stays:</p><ul class=\"plain\">",
                moment(problem.at)
            );
            for finding in problem.findings.iter().take(FINDINGS_SHOWN_MAX) {
                let _ = write!(html, "<li><code>{}</code></li>", e(finding));
            }
            html.push_str("</ul>");
            let more = problem.findings.len().saturating_sub(FINDINGS_SHOWN_MAX);
            if more > 0 {
                let _ = write!(html, "<p>and {more} more: <code>spillway config show</code></p>");
            }
        }
        None if config.withdrawn => html.push_str(
            "<p><b class=\"warn\">◆ WENT BACK</b> the files still have the policy that somebody went back from.</p>",
        ),
        None if config.files.is_empty() => {
            html.push_str("<p><b class=\"dim\">○ no files</b> it was started without any.</p>");
        }
        None => html.push_str("<p><b class=\"ok\">● as in the files</b> none was refused since.</p>"),
    }
    if !config.restart.is_empty() {
        let _ = write!(
            html,
            "<p><b class=\"warn\">▲ RESTART</b> changed, and in force after a restart: {}</p>",
            e(config.restart.join(", "))
        );
    }
    let mut files = config.files.iter().take(FILES_SHOWN_MAX).cloned().collect::<Vec<_>>().join(", ");
    let more = config.files.len().saturating_sub(FILES_SHOWN_MAX);
    if more > 0 {
        let _ = write!(files, " and {more} more");
    }
    let _ = write!(
        html,
        "<dl class=\"pairs\"><div><dt>policy in force</dt><dd>{} <code>{}</code></dd></div>\
         <div><dt>since</dt><dd>{}</dd></div><div><dt>brought by</dt><dd>{}</dd></div><div><dt>followed</dt><dd>{}</dd></div></dl>",
        policy.generation,
        e(&policy.hash),
        moment(policy.at),
        e(&policy.by),
        if files.is_empty() { "nothing".to_owned() } else { e(files).to_string() },
    );
    html.push_str(&policies(&look.policies, policy.generation));
    html
}

fn policies(policies: &[PolicyView], in_force: u64) -> String {
    if policies.is_empty() {
        return String::new();
    }
    let mut table = Table::new(
        "What was in force, newest first",
        &[("number", "name"), ("hash", "name"), ("since, UTC", "num"), ("by", "name")],
    );
    for policy in policies.iter().rev().take(POLICIES_SHOWN_MAX) {
        let mark = if policy.generation == in_force { "● " } else { "" };
        let cells = [
            format!("{mark}{}", policy.generation),
            format!("<code>{}</code>", e(&policy.hash)),
            format!("{} {}", day(policy.at), clock(policy.at)),
            e(&policy.by).to_string(),
        ];
        table.row(&format!("policy-{}", policy.generation), "", &cells);
    }
    let before = policies.iter().rev().find(|policy| policy.generation != in_force);
    let back = before.map_or_else(String::new, |before| {
        format!(
            "<p class=\"next\"><span>Back, on the command line:</span> <code>spillway config rollback {}</code></p>",
            before.generation
        )
    });
    let shown = policies.len().min(POLICIES_SHOWN_MAX);
    format!(
        "{}<p class=\"dim\">{shown} of {} · <code>spillway config history</code></p>{back}",
        table.end(),
        policies.len()
    )
}

/// `2026-11-26 14:05:07 UTC`; nothing was never.
fn moment(at: u64) -> String {
    if at == 0 { "–".to_owned() } else { format!("{} {} UTC", day(at), clock(at)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::wire_change::{CheckView, ConfigView, EnforcementView, ReloadProblem, ShadowLane};

    fn look(stage: &str, mode: &str, percent: u32) -> Look {
        let check = |check: &str, judgement: &str| CheckView {
            check: check.into(),
            judgement: judgement.into(),
            text: "3 errors of 81,204, at most 1 %".into(),
        };
        let rollout = RolloutView {
            stage: stage.into(),
            mode: mode.into(),
            percent,
            steps: vec![1, 5, 25, 50, 100],
            step: 3,
            passed_seconds: 1_140,
            step_seconds: 1_800,
            failures: 1,
            failure_threshold: 3,
            judgement: "fail".into(),
            checks: vec![check("UpstreamErrorRatio", "pass"), check("ReadObjectP99", "fail")],
        };
        let shadow = vec![ShadowLane { lane: "telemetry".into(), would_shed: 12_345, would_wait: 7 }];
        let mut look = Look::default();
        look.status.enforcement = EnforcementView { mode: mode.into(), percent, rollout, shadow };
        look
    }

    #[test]
    fn the_rollout_says_where_it_is_when_it_goes_on_and_what_judges_it() {
        let html = rollout(&look("running", "Enforce", 25));
        for part in [
            "Enforce</b> for 25 % of the identities",
            "<b aria-current=\"step\">25 %</b>",
            "after 11m00s more that are good",
            "1 of 3",
            "3 errors of 81,204, at most 1 %",
            "■ FAIL",
            "12,345",
            "spillway rollout promote",
        ] {
            assert!(html.contains(part), "{part}: {html}");
        }
    }

    #[test]
    fn only_orders_that_make_sense_are_offered() {
        let offered = |stage: &str, mode: &str, percent: u32| {
            let html = rollout(&look(stage, mode, percent));
            ["start", "pause", "resume", "promote", "abort"]
                .into_iter()
                .filter(|order| html.contains(&format!("&quot;{order}&quot;}}")))
                .collect::<Vec<_>>()
        };
        assert_eq!(offered("idle", "Shadow", 0), ["start"]);
        assert_eq!(offered("idle", "Enforce", 100), [""; 0]);
        assert_eq!(offered("idle", "Disabled", 0), [""; 0]);
        assert_eq!(offered("running", "Enforce", 25), ["pause", "promote", "abort"]);
        assert_eq!(offered("paused", "Enforce", 25), ["resume", "promote", "abort"]);
        assert_eq!(offered("done", "Enforce", 100), ["abort"]);
        assert_eq!(offered("fell-back", "Shadow", 0), ["start"]);
    }

    #[test]
    fn a_refused_file_is_told_with_its_place_and_the_way_back_is_a_command() {
        let policy = |generation: u64| PolicyView {
            generation,
            hash: format!("hash{generation}"),
            at: 1_733_954_707,
            by: "uid 0".into(),
            file: "policy.yaml".into(),
            text: None,
        };
        let mut look = Look::default();
        look.policies = (1..=9).map(policy).collect();
        let findings = (0..6).map(|line| format!("policy.yaml:{line}:3: error[SPW0204]: <b>")).collect();
        look.status.config = ConfigView {
            policy: policy(9),
            files: vec!["policy.yaml".into()],
            problem: Some(ReloadProblem { at: 1_733_954_707, findings }),
            ..ConfigView::default()
        };
        let html = config(&look);
        for part in [
            "■ REFUSED",
            "policy.yaml:3:3: error[SPW0204]: &lt;b&gt;",
            "and 2 more",
            "2024-12-11 22:05:07 UTC",
            "● 9",
            "6 of 9",
            "spillway config rollback 8",
        ] {
            assert!(html.contains(part), "{part}: {html}");
        }
        assert!(!html.contains("policy-3"), "the oldest are left to the command line");
    }
}
