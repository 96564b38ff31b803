use std::time::Duration;

use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::buffer::Buffer;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use ratatui::style::{Color, Modifier};

use super::super::status;
use super::super::top::By;
use super::asker::{News, Question, Seen};
use super::draw;
use super::model::{Act, Model, View};
use crate::admin::wire::{
    ClientView, Clients, EventView, Isolated, IsolationView, Kept, Preview, Problem, Status,
};
use crate::config::Colour;
use crate::units::Instant;

const AGENT: &str = "system:serviceaccount:observability:opentelemetry-node-agent";

fn at(seconds: u64) -> Instant {
    Instant::ORIGIN + Duration::from_secs(seconds)
}

fn client(user: &str, cost: f64, served: f64, shed: f64) -> ClientView {
    ClientView {
        user: user.into(),
        lanes: vec!["telemetry".into()],
        served_per_second: served,
        shed_per_second: shed,
        cost_percent: cost,
        idle_seconds: 0,
        addresses: 16,
    }
}

fn storm() -> Seen {
    let clients = vec![
        client(AGENT, 61.4, 12.0, 1_790.4),
        client("system:serviceaccount:kube-system:coredns", 4.0, 80.0, 0.0),
        client("system:kube-scheduler", 3.1, 41.5, 0.0),
        client("alice\u{1b}[2J", 0.4, 0.2, 0.0),
        client("system:node:n-1", 0.1, 1.1, 0.0),
        client("system:node:n-2", 0.1, 1.1, 0.0),
        client("system:serviceaccount:ci:runner", 0.0, 0.0, 40.0),
    ];
    let event = |number: u64, kind: &str, text: &str| EventView {
        number,
        at: 1_790_000_000 + number,
        kind: kind.into(),
        text: text.into(),
    };
    let mut status = status::tests::storm();
    let of = |name: &str| IsolationView {
        name: name.into(),
        kind: "serviceaccount".into(),
        ..status.isolations[0].clone()
    };
    status.isolations = vec![of("ci/runner")];
    for (at, lane) in status.lanes.iter_mut().enumerate() {
        lane.shed_per_second = if lane.name == "telemetry" { 1_830.2 } else { 0.0 };
        lane.seats = (at as u32 * 6).min(40);
    }
    Seen {
        at: 1_790_000_042,
        status,
        clients: Clients { clients, known: 812 },
        events: vec![
            event(1, "overload", "normal -> brown, limit 64: obs/node-agent takes 94 % of the work"),
            event(
                2,
                "lever",
                "isolate iso-3f2a serviceaccount ci/runner: penalty; a runaway pipeline (uid 0)",
            ),
            event(3, "newcomer", "observability/opentelemetry-node-agent was never here before"),
        ],
        is_new: false,
    }
}

fn calm() -> Seen {
    let seen = storm();
    let lanes = seen.status.lanes.into_iter().map(|mut lane| {
        (lane.open, lane.shed_per_second, lane.waiting) = (true, 0.0, 0);
        lane
    });
    let status = Status {
        version: "0.1.0".into(),
        uptime_seconds: 4_000,
        ready: true,
        state: "normal".into(),
        diagnosis: "nothing presses kube-apiserver".into(),
        limit: 1_000,
        limit_min: 10,
        limit_max: 1_000,
        seats: 31,
        pressure: 1.02,
        upstream_up: true,
        served_per_second: 1_319.6,
        lanes: lanes.collect(),
        ..Status::default()
    };
    let clients = vec![client("system:kube-scheduler", 31.0, 41.5, 0.0)];
    Seen { status, clients: Clients { clients, known: 12 }, events: vec![], ..seen }
}

fn seen(seen: Seen, colour: Colour) -> Model {
    let mut model = Model::new(String::new(), By::Cost, colour, at(100));
    model.hear(News::Seen(Box::new(seen)), at(100));
    model
}

fn drawn(model: &Model, now: u64, width: u16, height: u16) -> Buffer {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| draw::draw(model, at(now), frame)).unwrap();
    terminal.backend().buffer().clone()
}

fn text_of(buffer: &Buffer) -> String {
    let width = usize::from(buffer.area.width);
    let rows = buffer.content().chunks(width);
    rows.map(|row| row.iter().map(|cell| cell.symbol()).collect::<String>().trim_end().to_owned() + "\n")
        .collect()
}

fn press(model: &mut Model, keys: &str) -> Act {
    let mut act = Act::Nothing;
    for c in keys.chars() {
        let code = match c {
            '\n' => KeyCode::Enter,
            '\t' => KeyCode::Tab,
            '\u{1b}' => KeyCode::Esc,
            '\u{8}' => KeyCode::Backspace,
            '→' => KeyCode::Right,
            c => KeyCode::Char(c),
        };
        act = model.key(KeyEvent::new(code, KeyModifiers::NONE), at(100));
    }
    act
}

/// What the proxy says to a dry run, and to the real one.
fn answer(model: &mut Model, protected: &[&str], is_done: bool) {
    let isolated = Isolated {
        isolation: IsolationView {
            id: if is_done { "iso-1a2b".into() } else { String::new() },
            action: "penalty".into(),
            remaining_seconds: 1_800,
            reason: "lists all pods".into(),
            ..IsolationView::default()
        },
        preview: Preview {
            clients: vec![client(AGENT, 61.4, 12.0, 1_790.4)],
            matching: 1,
            near: None,
            protected: protected.iter().map(|&text| text.to_owned()).collect(),
        },
        kept: Kept { on_disk: true, problem: String::new() },
    };
    let answer = Ok(Box::new(isolated));
    model.hear(if is_done { News::Isolated(answer) } else { News::Previewed(answer) }, at(101));
}

const SIZES: [(u16, u16); 3] = [(80, 24), (120, 40), (40, 24)];

fn golden(name: &str, model: &Model, now: u64) {
    let mut text = String::new();
    for (width, height) in SIZES {
        text += &format!("--- {width}x{height}\n{}", text_of(&drawn(model, now, width, height)));
    }
    super::super::golden::compare(name, &text);
}

#[test]
fn a_storm_a_calm_and_a_proxy_that_is_gone_are_their_golden_screens() {
    golden("screen-storm", &seen(storm(), Colour::Never), 103);
    golden("screen-calm", &seen(calm(), Colour::Never), 102);
    let mut model = seen(storm(), Colour::Never);
    model.hear(News::Lost("nobody answers at /run/spillway/admin.sock: connection refused".into()), at(101));
    golden("screen-lost", &model, 112);
}

#[test]
fn the_other_pages_are_their_golden_screens() {
    let mut model = seen(storm(), Colour::Never);
    press(&mut model, "?");
    golden("screen-keys", &model, 101);
    press(&mut model, "x\n");
    golden("screen-detail", &model, 101);
    press(&mut model, "i\t\tlists all pods");
    golden("screen-isolate-form", &model, 101);
    press(&mut model, "\n");
    answer(&mut model, &[], false);
    press(&mut model, "ye");
    golden("screen-isolate-sure", &model, 101);
    press(&mut model, "s\n");
    answer(&mut model, &[], true);
    golden("screen-isolate-done", &model, 103);
}

/// Every cell is looked at: a terminal obeys what is in a name as much as what is in a heading.
#[test]
fn nothing_is_obeyed_and_without_colours_there_are_none() {
    for (colour, has_colours) in [(Colour::Never, false), (Colour::Always, true)] {
        let mut model = seen(storm(), colour);
        model.hear(News::Lost("\u{1b}]0;x\u{7}".into()), at(101));
        for keys in ["", "?", "\u{1b}\n", "\u{1b}i"] {
            press(&mut model, keys);
            let buffer = drawn(&model, 101, 80, 24);
            assert!(!text_of(&buffer).replace('\n', "").chars().any(char::is_control));
            let coloured =
                buffer.content().iter().any(|cell| cell.fg != Color::Reset || cell.bg != Color::Reset);
            assert!(has_colours || !coloured, "{keys:?}");
        }
        let lost = drawn(&model, 101, 80, 24);
        assert_eq!(lost.content().iter().any(|cell| cell.fg == Color::Red), has_colours);
    }
}

#[test]
fn what_may_not_be_true_any_more_is_grey_and_has_an_age() {
    let mut model = seen(storm(), Colour::Never);
    let is_dim = |buffer: &Buffer, row: u16| buffer[(0, row)].modifier.contains(Modifier::DIM);
    assert!(!is_dim(&drawn(&model, 103, 80, 24), 0));
    // A proxy that hangs has not failed yet, and its figures are old all the same.
    let hangs = drawn(&model, 106, 80, 24);
    assert!(text_of(&hangs).starts_with("✕ NO ANSWER for 6s"), "{}", text_of(&hangs));
    assert!(!is_dim(&hangs, 0) && (3..23).all(|row| is_dim(&hangs, row) || hangs[(0, row)].symbol() == " "));
    model.hear(News::Lost("gone".into()), at(107));
    model.hear(News::Seen(Box::new(calm())), at(108));
    let back = drawn(&model, 109, 80, 24);
    assert!(text_of(&back).starts_with("● OK 1s"), "{}", text_of(&back));
}

#[test]
fn every_size_can_be_drawn() {
    let mut model = seen(storm(), Colour::Always);
    for keys in ["", "?", "x\n", "i"] {
        press(&mut model, keys);
        for (width, height) in [(1, 1), (3, 50), (10, 3), (40, 8), (400, 200)] {
            drawn(&model, 101, width, height);
        }
    }
    drawn(&Model::new(String::new(), By::Asked, Colour::Never, at(0)), 1, 80, 24);
}

#[test]
fn keys_move_sort_filter_and_pause() {
    let mut model = seen(storm(), Colour::Never);
    assert_eq!(model.row_marked(), 0);
    press(&mut model, "jjk");
    assert_eq!(model.rows()[model.row_marked()].user, "system:serviceaccount:kube-system:coredns");
    // The rows turn over, the mark stays on whom it was on.
    let mut other = storm();
    other.clients.clients.reverse();
    model.hear(News::Seen(Box::new(other)), at(101));
    assert_eq!(model.rows()[model.row_marked()].user, "system:serviceaccount:kube-system:coredns");
    press(&mut model, "G");
    assert_eq!(model.rows()[model.row_marked()].user, AGENT);
    assert_eq!(press(&mut model, "s"), Act::Ask(Question::Clients(By::Asked, String::new())));
    assert_eq!(press(&mut model, "sss"), Act::Ask(Question::Clients(By::Cost, String::new())));
    assert_eq!(press(&mut model, "/NODEx\u{8}"), Act::Ask(Question::Clients(By::Cost, "NODE".into())));
    assert_eq!(press(&mut model, "\n"), Act::Ask(Question::Clients(By::Cost, "NODE".into())));
    let users: Vec<&str> = model.rows().iter().map(|client| client.user.as_str()).collect();
    assert_eq!(users, ["system:node:n-2", "system:node:n-1", AGENT]);
    assert_eq!(press(&mut model, "\u{1b}"), Act::Ask(Question::Clients(By::Cost, String::new())));
    assert_eq!(model.rows().len(), 7);
    press(&mut model, "p");
    model.hear(News::Seen(Box::new(calm())), at(101));
    assert_eq!(model.status.state, "brown");
    press(&mut model, "p");
    model.hear(News::Seen(Box::new(calm())), at(102));
    assert_eq!((model.status.state.as_str(), model.rows().len()), ("normal", 1));
    assert_eq!(press(&mut model, "q"), Act::Quit);
    let interrupt = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
    press(&mut model, "/");
    assert_eq!(model.key(interrupt, at(103)), Act::Quit, "also in the middle of a word");
}

#[test]
fn no_key_alone_isolates_anybody() {
    let keys = ["i", "\n", "y", "d", " ", "\t", "p", "q", "→", "x"];
    // Whatever is pressed twice, nothing but a look is asked for: a change needs a reason and a word.
    for first in keys {
        for second in keys {
            let mut model = seen(storm(), Colour::Never);
            for act in [press(&mut model, first), press(&mut model, second)] {
                assert!(!matches!(act, Act::Ask(Question::Isolate(_))), "{first}{second}");
            }
        }
    }
}

#[test]
fn an_isolation_needs_a_reason_a_look_and_a_word() {
    let mut model = seen(storm(), Colour::Never);
    assert_eq!(press(&mut model, "i\n\n\n"), Act::Nothing);
    let View::Isolate(dialog) = &model.view else { panic!("{:?}", model.view) };
    assert!(dialog.wrong.contains("a reason is needed"), "{}", dialog.wrong);
    let Act::Ask(Question::Preview(wanted)) = press(&mut model, "lists all pods\n") else {
        panic!("no look")
    };
    assert!(wanted.dry_run && !wanted.force_protected);
    assert_eq!(
        (wanted.kind.as_str(), wanted.for_seconds, wanted.to.as_str()),
        ("serviceaccount", 1_800, "penalty")
    );
    assert_eq!(wanted.name, "observability/opentelemetry-node-agent");
    answer(&mut model, &[], false);
    assert_eq!(press(&mut model, "y\n"), Act::Nothing);
    let Act::Ask(Question::Isolate(wanted)) = press(&mut model, "es\n") else { panic!("not done") };
    assert!(!wanted.dry_run);
    answer(&mut model, &[], true);
    assert!(text_of(&drawn(&model, 101, 80, 24)).contains("spillway release iso-1a2b"));
    press(&mut model, "\n");
    assert_eq!(model.view, View::Overview);
}

#[test]
fn a_denial_is_confirmed_by_name_and_what_is_protected_not_at_all() {
    let mut model = seen(storm(), Colour::Never);
    press(&mut model, "i→\t\tINC-481\n");
    answer(&mut model, &[], false);
    assert_eq!(press(&mut model, "yes\n"), Act::Nothing);
    let typed = "\u{8}\u{8}\u{8}opentelemetry-node-agent\n";
    let Act::Ask(Question::Isolate(wanted)) = press(&mut model, typed) else { panic!("{:?}", model.view) };
    assert_eq!(wanted.to, "deny");
    let mut model = seen(storm(), Colour::Never);
    press(&mut model, "i\t\tx\n");
    answer(&mut model, &["group system:nodes is every kubelet"], false);
    assert_eq!(press(&mut model, "yes\n"), Act::Nothing);
    assert!(text_of(&drawn(&model, 101, 80, 24)).contains("--force-protected"));
    // What the proxy refuses is told, and the form is there again to mend it.
    let mut model = seen(storm(), Colour::Never);
    press(&mut model, "i\t\tx\n");
    model.hear(News::Previewed(Err(Problem::new("SPW0547", "64 are in force", "release one"))), at(101));
    let screen = text_of(&drawn(&model, 101, 80, 24));
    assert!(
        screen.contains("! SPW0547: 64 are in force (release one)") && screen.contains("reason"),
        "{screen}"
    );
}
