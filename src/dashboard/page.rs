//! Which panels does an address show, and what surrounds them?
//!
//! Addresses differ in their query alone (`?lane=telemetry`), so that links work under any prefix that a tunnel or a
//! gateway puts in front.

use super::access::Role;
use super::html::e;
use super::look::Look;
use super::{change, code, decision, detail, newcomers, panels};
use crate::admin::Operations;
use crate::policy::Lane;

/// Bytes of a client's name in an address; longer ones are nobody's.
const NAME_BYTES_MAX: usize = 1_024;
/// Bytes of one panel: what a page weighs is bounded, and so is what is pushed.
const PANEL_BYTES_MAX: usize = 64 << 10;

/// What an address shows.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum View {
    Overview,
    Lane(Lane),
    Client(String),
    Decision(String),
    Help,
}

/// A part of a page.
#[derive(Clone, Debug)]
pub(super) struct Panel {
    pub(super) id: &'static str,
    /// Classes: how wide it is.
    pub(super) class: &'static str,
    pub(super) html: String,
}

/// What draws one.
type Drawn = fn(&Look) -> String;

/// The overview, in the order in which one asks at three in the morning.
const OVERVIEW: [(&str, &str, Drawn); 13] = [
    ("verdict", "wide", panels::verdict),
    ("glass", "wide", panels::glass),
    ("levers", "wide", panels::levers),
    ("requests", "third", panels::requests),
    ("seats", "third", panels::seats),
    ("slowness", "third", panels::slowness),
    ("lanes", "two", panels::lanes),
    ("health", "one", panels::health),
    ("talkers", "wide", panels::talkers),
    ("newcomers", "wide", newcomers::newcomers),
    ("rollout", "half", change::rollout),
    ("config", "half", change::config),
    ("timeline", "wide", panels::timeline),
];

impl View {
    /// What a query asks for; nothing when there is no such page.
    pub(super) fn of(query: Option<&str>) -> Option<Self> {
        let Some((key, value)) = query.and_then(|query| query.split('&').next()?.split_once('=')) else {
            return Some(Self::Overview);
        };
        let value = percent_encoding::percent_decode_str(value).decode_utf8().ok()?;
        match key {
            "lane" => value.parse().ok().map(Self::Lane),
            "client" => (value.len() <= NAME_BYTES_MAX).then(|| Self::Client(value.into_owned())),
            "decision" => (value.len() <= NAME_BYTES_MAX).then(|| Self::Decision(value.into_owned())),
            "help" => Some(Self::Help),
            _ => Some(Self::Overview),
        }
    }

    fn title(&self) -> String {
        match self {
            Self::Overview => "overview".to_owned(),
            Self::Lane(lane) => format!("lane {lane}"),
            Self::Client(user) => user.clone(),
            Self::Decision(id) => format!("decision {id}"),
            Self::Help => "help".to_owned(),
        }
    }

    /// Its panels.
    pub(super) fn panels(&self, look: &Look, operations: &dyn Operations) -> Vec<Panel> {
        let verdict = panel("verdict", "wide", panels::verdict(look));
        match self {
            Self::Overview => {
                OVERVIEW.iter().map(|(id, class, drawn)| panel(id, class, drawn(look))).collect()
            }
            Self::Lane(lane) => {
                let parts = detail::lane(look, *lane);
                [vec![verdict], parts.map(|(id, class, html)| panel(id, class, html)).into()].concat()
            }
            Self::Client(user) => {
                let parts = detail::client(look, user);
                let why = panel("client-refusals", "wide", decision::list(operations, user));
                [vec![verdict], parts.map(|(id, class, html)| panel(id, class, html)).into(), vec![why]]
                    .concat()
            }
            Self::Decision(id) => vec![verdict, panel("decision", "wide", decision::page(operations, id))],
            Self::Help => vec![verdict, panel("help", "wide", include_str!("assets/help.html").to_owned())],
        }
    }
}

fn panel(id: &'static str, class: &'static str, html: String) -> Panel {
    if html.len() <= PANEL_BYTES_MAX {
        return Panel { id, class, html };
    }
    let html = format!(
        "<p class=\"bad\">[{}] this panel has {} bytes and is not shown: at most {PANEL_BYTES_MAX}. <code>spillway status -o json</code> has everything.</p>",
        code::PANEL,
        html.len()
    );
    Panel { id, class, html }
}

/// Whether a page comes with what it shows, or is empty until somebody has shown a token.
pub(super) enum Content<'a> {
    Here(&'a [Panel]),
    Later,
}

/// The document.
pub(super) fn document(view: &View, (who, role): (&str, Role), look: &Look, content: &Content<'_>) -> String {
    let (door, main) = match content {
        Content::Here(panels) => ("open", panels.iter().map(section).collect::<String>()),
        Content::Later => (
            "token",
            "<p class=\"wide note\">Connecting… <noscript>This link needs JavaScript. <code>spillway dashboard</code> prints another one that does not.</noscript></p>"
                .to_owned(),
        ),
    };
    let host = if matches!(content, Content::Later) { "" } else { &look.figures.host };
    include_str!("assets/page.html")
        .replace("{{title}}", &e(format!("{} {host}", view.title())).to_string())
        .replace("{{host}}", &e(host).to_string())
        .replace("{{version}}", env!("CARGO_PKG_VERSION"))
        .replace("{{who}}", &e(who).to_string())
        .replace("{{role}}", role.as_str())
        .replace("{{door}}", door)
        .replace(
            "{{refresh}}",
            if door == "open" {
                "<noscript><meta http-equiv=\"refresh\" content=\"5\"></noscript>"
            } else {
                ""
            },
        )
        .replace("{{main}}", &main)
}

fn section(panel: &Panel) -> String {
    format!("<section id=\"{}\" class=\"panel {}\">{}</section>", panel.id, panel.class, panel.html)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_names_a_page_and_nothing_else() {
        assert_eq!(View::of(None), Some(View::Overview));
        assert_eq!(View::of(Some("lane=telemetry")), Some(View::Lane(Lane::Telemetry)));
        assert_eq!(View::of(Some("lane=nosuch")), None);
        assert_eq!(View::of(Some("client=a%3Cb")), Some(View::Client("a<b".to_owned())));
        assert_eq!(View::of(Some(&format!("client={}", "x".repeat(2_000)))), None);
        assert_eq!(View::of(Some("client=%ff")), None);
        assert_eq!(View::of(Some("utm=x")), Some(View::Overview));
    }

    #[test]
    fn no_panel_has_the_id_of_something_around_it() {
        let around = include_str!("assets/page.html");
        for (id, ..) in OVERVIEW {
            assert!(!around.contains(&format!("id=\"{id}\"")), "{id}: the script would draw into it");
        }
    }

    #[test]
    fn a_panel_that_is_too_large_says_so() {
        let panel = panel("x", "wide", "x".repeat(PANEL_BYTES_MAX + 1));
        assert!(panel.html.len() < 300 && panel.html.contains(code::PANEL));
    }
}
