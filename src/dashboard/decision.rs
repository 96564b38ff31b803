//! Why was this request refused? What `spillway explain` says, as a page.

use std::fmt::Write as _;

use super::html::{Table, clock, e, query};
use crate::admin::Operations;
use crate::admin::explained::Explained;

/// Refusals in a list.
const SHOWN_MAX: usize = 8;

/// The latest refusals of a client.
pub(super) fn list(operations: &dyn Operations, user: &str) -> String {
    let known = operations.decisions(Some(user));
    if known.decisions.is_empty() {
        return "<h2>Its latest refusals</h2><p>None is kept.</p>".to_owned();
    }
    let mut table = Table::new(
        "Its latest refusals",
        &[("id", "name"), ("time", "num"), ("reason", "name"), ("request", "name")],
    );
    for line in known.decisions.iter().take(SHOWN_MAX) {
        let row = [
            format!("<a data-view href=\"?decision={}\"><code>{}</code></a>", query(&line.id), e(&line.id)),
            clock(line.at_ms / 1_000),
            e(&line.reason).to_string(),
            e(&line.request).to_string(),
        ];
        table.row(&format!("decision-{}", line.id), "", &row);
    }
    table.end()
}

/// One decision: the whole walk.
pub(super) fn page(operations: &dyn Operations, id: &str) -> String {
    let head = "<p class=\"crumb\"><a data-view href=\"?\">← overview</a></p>";
    match operations.decision(id) {
        Ok(explained) => format!("{head}{}", walk(&explained)),
        Err(problem) => format!(
            "{head}<h2>Decision {}</h2><p>[{}] {}</p><p class=\"next\">{}</p>",
            e(id),
            e(&problem.code),
            e(&problem.message),
            e(&problem.help)
        ),
    }
}

fn walk(explained: &Explained) -> String {
    let Explained { id, user, lane, rule, reason, request, told, numbers, .. } = explained;
    let id = id.as_deref().unwrap_or_default();
    let known = |text: &Option<String>| e(text.as_deref().unwrap_or("–")).to_string();
    let mut html = format!(
        "<h2>Decision {}</h2><dl class=\"pairs\"><div><dt>who</dt><dd><a data-view href=\"?client={}\">{}</a></dd></div>\
         <div><dt>request</dt><dd><code>{}</code></dd></div><div><dt>lane, by rule</dt><dd>{}, {}</dd></div>\
         <div><dt>outcome</dt><dd><b class=\"warn\">▲ {}</b> {}</dd></div>\
         <div><dt>numbers at that moment</dt><dd>{}</dd></div><div><dt>what the client was told</dt><dd>{}</dd></div>\
         <div><dt>what its owner can do</dt><dd>{}</dd></div><div><dt>what you can do</dt><dd>{}</dd></div></dl>",
        e(id),
        query(user),
        e(user),
        e(request),
        e(lane),
        e(rule),
        e(&explained.outcome),
        known(reason),
        known(numbers),
        known(told),
        known(&explained.client_can),
        known(&explained.operator_can),
    );
    let mut table =
        Table::new("Gates, in order", &[("gate", "name"), ("answer", "name"), ("numbers", "name")]);
    for gate in &explained.gates {
        let answer = match gate.answer.as_str() {
            "pass" => "<b class=\"ok\">● pass</b>".to_owned(),
            "stop" => format!("<b class=\"bad\">■ stop</b> {}", known(&gate.reason)),
            "full" => format!("<b class=\"warn\">▲ full</b> {}", known(&gate.reason)),
            other => format!("<span class=\"dim\">○ {}</span>", e(other)),
        };
        table.row(
            &format!("gate-{}", gate.name),
            "",
            &[e(&gate.name).to_string(), answer, e(&gate.detail).to_string()],
        );
    }
    html.push_str(&table.end());
    let _ = write!(
        html,
        "<p class=\"next\"><span>With every rule:</span> <code>spillway explain {}</code></p>",
        e(id)
    );
    html
}
