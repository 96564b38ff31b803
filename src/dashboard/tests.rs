use http_body_util::BodyExt as _;

use super::*;
use crate::admin::explained::{DecisionLines, Explain, Explained};
use crate::admin::tapped::{TapFilter, Tapped};
use crate::admin::wire::newcomers::{Approve, Approved, NewcomerView, Newcomers};
use crate::admin::wire::{
    ClientView, Clients, EventView, Events, HoldLimit, Isolate, Isolated, IsolationView, Kept, LaneStatus,
    LeverView, Lock, Release, Status,
};
use crate::admin::wire_change::{
    CheckView, ConfigView, EnforcementView, PolicyView, ReloadProblem, RolloutView, ShadowLane,
};
use crate::policy::Lane;
use crate::telemetry::Asker;

const EVIL: &str = "<script>alert(1)</script>\"'&\u{202e}";

/// A proxy in trouble, whose every name is hostile; `wide` makes everything as large as it can be.
struct Proxy {
    wide: bool,
}

impl Proxy {
    fn name(&self) -> String {
        if self.wide { format!("{}{EVIL}", "<".repeat(1_000)) } else { EVIL.to_owned() }
    }
}

/// A rollout with a word of everything.
fn enforcement(name: &str) -> EnforcementView {
    let name = name.to_owned();
    let check = CheckView { check: name.clone(), judgement: name.clone(), text: name.clone() };
    let rollout = RolloutView {
        stage: name.clone(),
        steps: vec![100; 20],
        judgement: name.clone(),
        checks: vec![check; 12],
        ..RolloutView::default()
    };
    let shadow = vec![ShadowLane { lane: name.clone(), ..ShadowLane::default() }; Lane::COUNT];
    EnforcementView { mode: name, rollout, shadow, ..EnforcementView::default() }
}

impl Operations for Proxy {
    fn status(&self) -> Status {
        let name = self.name();
        let lanes = Lane::ALL.into_iter().map(|lane| LaneStatus {
            name: lane.as_str().to_owned(),
            open: true,
            seats: 1,
            ceiling: 40,
            served_per_second: 12.0,
            shed_per_second: 1.0,
            ..LaneStatus::default()
        });
        let isolation = IsolationView {
            name: name.clone(),
            reason: name.clone(),
            by: name.clone(),
            ..IsolationView::default()
        };
        Status {
            ready: true,
            state: "brown".into(),
            cause: "client".into(),
            diagnosis: name.clone(),
            client: Some(name.clone()),
            limit: 40,
            upstream_up: true,
            lanes: lanes.collect(),
            isolations: vec![isolation; 64],
            lockdown: Some(LeverView { what: name.clone(), reason: name.clone(), ..LeverView::default() }),
            held: Some(LeverView { what: name.clone(), reason: name.clone(), ..LeverView::default() }),
            enforcement: enforcement(&name),
            config: ConfigView {
                policy: PolicyView { hash: name.clone(), by: name.clone(), ..PolicyView::default() },
                files: vec![name.clone(); 64],
                problem: Some(ReloadProblem { at: 1, findings: vec![name.clone(); 64] }),
                restart: vec![name; 64],
                ..ConfigView::default()
            },
            ..Status::default()
        }
    }

    fn clients(&self, by: &str, _like: &str) -> Clients {
        let client = |at: usize| ClientView {
            user: format!("{}{by}{at}", self.name()),
            lanes: vec![self.name()],
            shed_per_second: 3.0,
            ..ClientView::default()
        };
        Clients { clients: (0..20).map(client).collect(), known: 2_048 }
    }

    fn events(&self, after: u64) -> Events {
        let event =
            |number| EventView { number, kind: self.name(), text: self.name(), ..EventView::default() };
        Events { events: (after + 1..=256).map(event).collect(), last: 256 }
    }

    fn decision(&self, _: &str) -> Result<Explained, Problem> {
        let name = Some(self.name());
        Ok(Explained { id: name.clone(), user: self.name(), told: name, ..Explained::default() })
    }

    fn decisions(&self, _: Option<&str>) -> DecisionLines {
        DecisionLines::default()
    }

    fn explain(&self, _: &Explain) -> Result<Explained, Problem> {
        Ok(Explained::default())
    }

    fn newcomers(&self) -> Newcomers {
        let one =
            NewcomerView { user: self.name(), program: self.name(), warned: true, ..NewcomerView::default() };
        Newcomers { guard: true, newcomers: vec![one; 64], ..Newcomers::default() }
    }

    fn approve(&self, _: &Approve, _: bool, _: Asker) -> Result<Approved, Problem> {
        Ok(Approved::default())
    }

    fn keep_known(&self) -> futures_util::future::BoxFuture<'_, Kept> {
        Box::pin(async { Kept::default() })
    }

    fn tap(&self, _: &TapFilter) -> Tapped {
        Tapped::default()
    }

    fn isolations(&self) -> Vec<IsolationView> {
        vec![]
    }

    fn isolate(&self, _: &Isolate, _: Asker) -> Result<Isolated, Problem> {
        Ok(Isolated::default())
    }

    fn release(&self, _: &Release, _: Asker) -> Result<IsolationView, Problem> {
        Ok(IsolationView::default())
    }

    fn lock(&self, _: &Lock, _: Asker) -> Result<LeverView, Problem> {
        Ok(LeverView::default())
    }

    fn unlock(&self, _: Asker) -> Result<LeverView, Problem> {
        Ok(LeverView::default())
    }

    fn hold_limit(&self, _: &HoldLimit, _: Asker) -> Result<LeverView, Problem> {
        Ok(LeverView::default())
    }

    fn free_limit(&self, _: Asker) -> Result<LeverView, Problem> {
        Ok(LeverView::default())
    }

    fn keep(&self) -> futures_util::future::BoxFuture<'_, Kept> {
        Box::pin(async { Kept::default() })
    }
}

fn dashboard(wide: bool, looks: usize) -> Arc<Dashboard> {
    let dashboard = Dashboard::new(Arc::new(Proxy { wide }), Box::new(Figures::default));
    (0..looks).for_each(|_| dashboard.look_again());
    dashboard
}

async fn ask(
    dashboard: &Arc<Dashboard>,
    method: Method,
    path: &str,
    headers: &[(&str, &str)],
    role: Role,
) -> Response {
    let mut request = Request::builder().method(method).uri(path).header("host", "localhost:8700");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let body = r#"{"kind":"user","name":"x","to":"deny","forSeconds":60,"reason":"x"}"#;
    let guest = Guest { by: Asker::default(), role, roles: None };
    Arc::clone(dashboard).respond(request.body(Body::from(body)).unwrap(), guest, Place::default()).await
}

async fn text(response: Response) -> String {
    String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
}

const OURS: [(&str, &str); 2] = [("origin", "http://localhost:8700"), ("x-spillway-act", "1")];

#[tokio::test]
async fn hostile_names_stay_text_on_every_page() {
    let dashboard = dashboard(false, 3);
    let client = format!(
        "/?client={}",
        percent_encoding::utf8_percent_encode(EVIL, percent_encoding::NON_ALPHANUMERIC)
    );
    for path in ["/", "/?lane=telemetry", &client, "/?decision=x", "/?help=1", "/status.txt"] {
        let response = ask(&dashboard, Method::GET, path, &[], Role::Admin).await;
        assert_eq!(response.status(), StatusCode::OK, "{path}");
        let policy = response.headers()["content-security-policy"].to_str().unwrap().to_owned();
        assert!(policy.contains("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
        assert_eq!(response.headers()["cache-control"], "no-store");
        let kind = response.headers()["content-type"].to_str().unwrap().to_owned();
        let page = text(response).await;
        if kind.starts_with("text/html") {
            assert!(
                !page.contains("<script>") && !page.contains(" style=") && !page.contains('\u{202e}'),
                "{path}: {page}"
            );
            assert!(page.contains("&lt;script&gt;"), "{path}");
        }
    }
}

#[tokio::test]
async fn the_page_is_whole_without_javascript_and_the_shell_tells_nothing() {
    let dashboard = dashboard(false, 2);
    let page = text(ask(&dashboard, Method::GET, "/", &[], Role::Viewer).await).await;
    for part in [
        "SHEDDING",
        "id=\"lane-node-health\"",
        "<caption>Top talkers",
        "<caption>Newcomers",
        "<h2>Rollout",
        "<h2>Configuration",
        "http-equiv=\"refresh\"",
        "<polyline",
        "you are <b id=\"who\">unknown</b> as <b id=\"role\">viewer</b>",
    ] {
        assert!(page.contains(part), "{part}");
    }
    let shell = text(ask(&dashboard, Method::GET, "/shell", &[], Role::Viewer).await).await;
    assert!(!shell.contains("SHEDDING") && !shell.contains("&lt;script"), "{shell}");
    assert!(shell.contains("<noscript>"));
}

#[tokio::test]
async fn a_viewer_who_acts_is_told_no_and_an_operator_may() {
    let dashboard = dashboard(false, 1);
    for (path, role, status) in [
        ("/v1/isolations", Role::Viewer, StatusCode::FORBIDDEN),
        ("/v1/isolations", Role::Operator, StatusCode::OK),
        ("/v1/lockdown/release", Role::Operator, StatusCode::FORBIDDEN),
        ("/v1/lockdown/release", Role::Admin, StatusCode::OK),
        ("/v1/newcomers/approve", Role::Viewer, StatusCode::FORBIDDEN),
        ("/v1/rollout", Role::Viewer, StatusCode::FORBIDDEN),
        ("/v1/lockdown", Role::Operator, StatusCode::FORBIDDEN),
        ("/v1/limit", Role::Operator, StatusCode::FORBIDDEN),
        ("/v1/nothing", Role::Admin, StatusCode::NOT_FOUND),
    ] {
        let response = ask(&dashboard, Method::POST, path, &OURS, role).await;
        assert_eq!(response.status(), status, "{path} {role:?}");
        if status == StatusCode::FORBIDDEN {
            let said = text(response).await;
            assert!(
                said.contains(code::ROLE)
                    && said.contains(role.as_str())
                    && said.contains("nothing was changed"),
                "{said}"
            );
        }
    }
    let foreign = [("origin", "http://evil.example"), ("x-spillway-act", "1")];
    let response = ask(&dashboard, Method::POST, "/v1/isolations", &foreign, Role::Admin).await;
    assert!(text(response).await.contains(code::ORIGIN));
}

#[tokio::test]
async fn what_is_pushed_is_what_changed_and_it_is_bounded() {
    let dashboard = dashboard(true, 700);
    let mut body = ask(&dashboard, Method::GET, "/live", &[], Role::Operator).await.into_body();
    let mut next = async || {
        String::from_utf8(body.frame().await.unwrap().unwrap().into_data().unwrap().to_vec()).unwrap()
    };
    let first = next().await;
    assert!(first.starts_with("data: {") && first.ends_with("}\n\n"), "{}", &first[..100]);
    assert!(first.contains("\"role\":\"operator\"") && first.contains("\"id\":\"talkers\""));
    // Names of a thousand brackets, all tables full: the worst there is.
    assert!(first.len() < 512 << 10, "{} bytes", first.len());
    dashboard.look_again();
    let second = next().await;
    assert!(second.len() < first.len() && !second.contains("\"id\":\"timeline\""), "nothing new happened");
    let page = text(ask(&dashboard, Method::GET, "/", &[], Role::Viewer).await).await;
    assert!(page.len() < 512 << 10, "{} bytes", page.len());
}

#[tokio::test]
async fn an_ordinary_second_costs_little() {
    let dashboard = dashboard(false, 700);
    let mut body = ask(&dashboard, Method::GET, "/live", &[], Role::Viewer).await.into_body();
    body.frame().await.unwrap().unwrap();
    dashboard.look_again();
    let bytes = body.frame().await.unwrap().unwrap().into_data().unwrap().len();
    assert!(bytes < 50_000, "{bytes} bytes a second for each viewer");
}

#[tokio::test]
async fn viewers_are_counted_and_the_place_of_one_that_left_is_free() {
    let dashboard = dashboard(false, 1);
    let mut open = Vec::new();
    for _ in 0..VIEWERS_MAX {
        let response = ask(&dashboard, Method::GET, "/live", &[], Role::Viewer).await;
        assert_eq!(response.status(), StatusCode::OK);
        open.push(response);
    }
    let response = ask(&dashboard, Method::GET, "/live", &[], Role::Viewer).await;
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(text(response).await.contains(code::VIEWERS));
    assert_eq!(
        ask(&dashboard, Method::GET, "/", &[], Role::Viewer).await.status(),
        StatusCode::OK,
        "the page is there"
    );
    open.pop();
    assert_eq!(ask(&dashboard, Method::GET, "/live", &[], Role::Viewer).await.status(), StatusCode::OK);
}

#[test]
fn all_that_is_loaded_is_small_and_names_no_other_place() {
    let files = [
        include_str!("assets/app.js"),
        include_str!("assets/style.css"),
        include_str!("assets/page.html"),
        include_str!("assets/help.html"),
    ];
    let bytes: usize = files.iter().map(|file| file.len()).sum();
    assert!(bytes <= 150_000, "{bytes}");
    for file in files {
        assert!(
            !file.contains("http://") && !file.contains("https://") && !file.contains("//#"),
            "{}",
            &file[..60]
        );
    }
}
