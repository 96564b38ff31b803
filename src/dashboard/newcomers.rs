//! Who was never here before, and what would it cost on every node?
//!
//! The panel reads what `spillway newcomers` reads. Somebody who is new is refused nothing for that; approving it ranks
//! it as the rules say.

use super::html::{Table, e, quoted, span, target_of};
use super::look::Look;
use super::panels::isolate_button;
use crate::admin::wire::newcomers::NewcomerView;

/// Newcomers that are shown; `spillway newcomers` has all.
const SHOWN_MAX: usize = 6;
/// Whoever uses the credentials of nodes: no lever can name it alone.
const NODES: &str = "system:nodes";

/// The panel.
pub(super) fn newcomers(look: &Look) -> String {
    let newcomers = &look.newcomers;
    if !newcomers.guard {
        return "<h2>Newcomers</h2><p><span class=\"dim\">○ off</span> nobody is a newcomer here: newcomers.guard of the policy.</p>".to_owned();
    }
    let learns = match newcomers.learns_for_seconds {
        0 => String::new(),
        left => format!(
            "<p><b class=\"warn\">◔ LEARNS</b> spillway is new here itself: for {} more, everybody who comes is known at once.</p>",
            span(left)
        ),
    };
    if newcomers.newcomers.is_empty() {
        return format!(
            "<h2>Newcomers</h2>{learns}<p><b class=\"ok\">● none</b> nobody is new; {} are known.</p>",
            newcomers.known
        );
    }
    let mut table = Table::new(
        "Newcomers, the dearest first",
        &[
            ("who", "name"),
            ("state", "why"),
            ("nodes", "num"),
            ("more each second", "num"),
            ("seats when everywhere", "num"),
            ("new for", "num"),
            ("idle", "num"),
            ("action", "action"),
        ],
    );
    for one in newcomers.newcomers.iter().take(SHOWN_MAX) {
        let program = match one.program.as_str() {
            "" => String::new(),
            program => format!(" <span class=\"dim\">{}</span>", e(program)),
        };
        let cells = [
            format!("{}{program}", e(&one.user)),
            state(one),
            if one.spreads {
                format!("{} of {}", one.places, newcomers.nodes)
            } else {
                one.places.to_string()
            },
            format!("{:.1}", one.growth_per_second),
            format!("<span><b>{:.1}</b> of {}</span>", one.projected_seats, newcomers.limit),
            span(one.new_for_seconds),
            span(one.idle_seconds),
            buttons(look, one),
        ];
        table.row(&format!("newcomer-{}-{}", one.user, one.program), "", &cells);
    }
    let next = newcomers.newcomers.iter().find(|one| one.warned).map_or_else(String::new, |one| {
        let command = format!("spillway newcomers approve {}", quoted(&target_of(&one.user).1));
        format!("<p class=\"next\"><span>If it may stay:</span> <code>{}</code></p>", e(command))
    });
    let shown = newcomers.newcomers.len().min(SHOWN_MAX);
    format!(
        "{learns}{}<p class=\"dim\">{shown} of {} · {} known · warned of from {:.0} seats on · <code>spillway newcomers</code></p>{next}",
        table.end(),
        newcomers.newcomers.len(),
        newcomers.known,
        newcomers.warned_from,
    )
}

fn state(one: &NewcomerView) -> String {
    let budget =
        if one.over_budget { " <span class=\"dim\">budget used up: as telemetry</span>" } else { "" };
    let each = match one.seats_per_place {
        Some(seats) => format!(", {seats:.2} seats each"),
        None if one.seat_seconds_per_start > 0.0 => {
            format!(", {:.1} seat-seconds a start", one.seat_seconds_per_start)
        }
        None => String::new(),
    };
    let (class, word) = match (one.warned, one.spreads) {
        (true, true) => ("bad", format!("■ TOO MUCH, spreads{each}")),
        (true, false) => ("bad", "■ TOO MUCH".to_owned()),
        (false, true) => ("warn", format!("▲ spreads{each}")),
        (false, false) => ("ok", "● new".to_owned()),
    };
    format!("<span><b class=\"{class}\">{word}</b>{budget}</span>")
}

fn buttons(look: &Look, one: &NewcomerView) -> String {
    let approve = format!(
        "<button type=\"button\" class=\"act\" data-act=\"lever\" data-kind=\"approve\" data-user=\"{}\" data-name=\"{}\" data-program=\"{}\">Approve…</button>",
        e(&one.user),
        e(target_of(&one.user).1),
        e(&one.program),
    );
    if one.user == NODES {
        return approve;
    }
    format!("{approve} {}", isolate_button(look, &one.user, "Isolate…"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::wire::newcomers::Newcomers;

    fn look(newcomers: Newcomers) -> Look {
        let mut look = Look::default();
        look.newcomers = Newcomers { guard: true, known: 212, limit: 64, nodes: 2_000, ..newcomers };
        look
    }

    #[test]
    fn a_roll_out_is_shown_with_its_full_price_and_can_be_approved_or_isolated() {
        let agent = NewcomerView {
            user: "system:serviceaccount:obs:agent".into(),
            program: "otelcol".into(),
            places: 34,
            growth_per_second: 1.9,
            spreads: true,
            seats_per_place: Some(0.36),
            projected_seats: 726.0,
            warned: true,
            ..NewcomerView::default()
        };
        let nodes = NewcomerView { user: NODES.into(), ..NewcomerView::default() };
        let html = newcomers(&look(Newcomers { newcomers: vec![agent, nodes], ..Newcomers::default() }));
        for part in [
            "■ TOO MUCH, spreads, 0.36 seats each",
            "34 of 2000",
            "<b>726.0</b> of 64",
            "data-name=\"obs/agent\" data-program=\"otelcol\"",
            "spillway newcomers approve obs/agent",
        ] {
            assert!(html.contains(part), "{part}: {html}");
        }
        assert_eq!(
            html.matches("data-act=\"isolate\"").count(),
            1,
            "nodes' credentials cannot be isolated as one"
        );
    }

    #[test]
    fn nobody_new_is_said_so_and_the_table_is_bounded() {
        let html = newcomers(&look(Newcomers { learns_for_seconds: 3_000, ..Newcomers::default() }));
        assert!(
            html.contains("LEARNS") && html.contains("50m00s") && html.contains("212 are known"),
            "{html}"
        );
        let many =
            (0..64).map(|at| NewcomerView { user: format!("u{at}"), ..NewcomerView::default() }).collect();
        let html = newcomers(&look(Newcomers { newcomers: many, ..Newcomers::default() }));
        assert_eq!(html.matches("<tr ").count(), SHOWN_MAX + 1);
        assert!(html.contains("6 of 64"), "{html}");
    }
}
