//! Does a changed policy take effect on a running spillway, a broken one not, and is there a way back?
//!
//! Everything is done as an operator does it: files are edited, commands are typed.

// Clippy's own exception for tests ends at the functions marked as tests; what they call are tests too.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use http::StatusCode;
use serde_json::{Value, json};

use crate::{
    client::{Events, Protocol, block_on, get},
    cluster::{Credential, wait_for},
    spillway::{BINARY, CLUSTER, Spillway, needs_spillway},
};

/// For something to happen on a busy machine.
pub(crate) const SEEN: Duration = Duration::from_secs(60);
const OBJECT: &str = "/api/v1/namespaces/kube-system";
const WATCH: &str = "/api/v1/namespaces/default/configmaps?watch=1&resourceVersion=0";

/// How a command ended.
pub(crate) struct Done {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Done {
    #[track_caller]
    pub(crate) fn fine(self) -> String {
        assert_eq!(self.code, 0, "{}{}", self.out, self.err);
        self.out
    }

    #[track_caller]
    pub(crate) fn json(self) -> Value {
        let out = self.fine();
        serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {out}"))
    }
}

/// `spillway ARGS…`.
pub(crate) fn command(args: &[&str], socket: Option<&Path>) -> Done {
    let mut command = Command::new(BINARY);
    command.args(args).stdin(Stdio::null());
    if let Some(socket) = socket {
        command.arg("--socket").arg(socket);
    }
    let output = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Done { code: output.status.code().unwrap_or(-1), out: text(output.stdout), err: text(output.stderr) }
}

/// The policy's file beside the socket of the same proxy.
pub(crate) fn policy_file(spillway: &Spillway) -> PathBuf {
    let name = spillway.socket.file_stem().unwrap().to_str().unwrap();
    spillway.socket.with_file_name(format!("{name}-policy.yaml"))
}

/// A policy in which `user` may ask once, and then once an hour.
fn throttles(user: &str) -> String {
    format!(
        "apiVersion: config.spillway.dev/v1alpha1\nkind: TrafficPolicy\nname: throttles\n\
         lanes:\n  telemetry: {{ identityRate: {{ perSecond: 1, burst: 1 }} }}\n\
         rules:\n  - {{ name: culprit, match: {{ users: [{user}] }}, lane: telemetry }}\n"
    )
}

const NAMES_NOBODY: &str =
    "apiVersion: config.spillway.dev/v1alpha1\nkind: TrafficPolicy\nname: names-nobody\n";

fn generation(spillway: &Spillway) -> u64 {
    let shown = command(&["config", "show", "-o", "json"], Some(&spillway.socket)).json();
    shown["policy"]["generation"].as_u64().unwrap()
}

fn becomes(spillway: &Spillway, wanted: u64) {
    wait_for("another policy", SEEN, || match generation(spillway) {
        now if now == wanted => Ok(()),
        now => Err(format!("policy {now} is in force, not {wanted}\n{}", spillway.log())),
    });
}

#[test]
fn an_edit_takes_effect_on_open_connections_and_a_broken_one_does_not() {
    if !needs_spillway() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let spillway = Spillway::start(&CLUSTER, Some(NAMES_NOBODY), |config| {
        config["state"] = json!({ "dir": folder.path() });
    });
    let file = policy_file(&spillway);
    let who = Credential::Certificate(CLUSTER.pki.client("change-one", "change-one", &["platform-oncall"]));
    let caller = spillway.caller(&who);
    block_on(async {
        let mut connection = caller.connect(Protocol::Http2).await;
        let mut watch = caller.connect(Protocol::Http2).await;
        let mut events = Events::new(watch.start(get(WATCH)).await.unwrap());
        for _ in 0..5 {
            assert_eq!(connection.ask(get(OBJECT)).await.status, StatusCode::OK);
        }
        tokio::task::block_in_place(|| {
            fs::write(&file, throttles("change-one")).unwrap();
            becomes(&spillway, 2);
        });
        let mut statuses = vec![];
        for _ in 0..5 {
            statuses.push(connection.ask(get(OBJECT)).await.status);
        }
        assert!(
            statuses.contains(&StatusCode::TOO_MANY_REQUESTS),
            "the open connection has it: {statuses:?}"
        );
        tokio::task::block_in_place(|| {
            fs::write(&file, throttles("nobody").replace("telemetry", "telemtry")).unwrap();
            wait_for("the failure in the metrics", SEEN, || {
                let (_, page) = spillway.metrics_page("/metrics").unwrap();
                let line = "spillway_config_reloads_total{status=\"failure\"} 1";
                if page.contains(line) { Ok(()) } else { Err(spillway.log()) }
            });
            let asked = command(&["config", "reload"], Some(&spillway.socket));
            assert_eq!(asked.code, 1, "{}", asked.out);
            let place = format!("{}:5:3: error[SPW0204]", file.display());
            assert!(asked.err.contains("error[SPW0740]") && asked.err.contains(&place), "{}", asked.err);
            assert_eq!(generation(&spillway), 2, "the last good one stays");
            fs::write(&file, NAMES_NOBODY).unwrap();
            let mended = command(&["config", "reload"], Some(&spillway.socket)).fine();
            assert!(mended.contains("In force: policy 3"), "{mended}");
        });
        for _ in 0..5 {
            assert_eq!(connection.ask(get(OBJECT)).await.status, StatusCode::OK);
        }
        let quiet = tokio::time::timeout(Duration::from_millis(300), events.next()).await;
        assert!(quiet.is_err(), "the watch of before goes on: {quiet:?}");
    });
    let page = spillway.metrics_page("/metrics").unwrap().1;
    assert!(
        page.contains("generation=\"3\"") && !page.contains("generation=\"2\""),
        "one generation is shown"
    );
}

#[test]
fn an_operator_goes_back_and_a_start_with_a_broken_policy_says_how_to_go_on() {
    if !needs_spillway() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let mut config_text = Value::Null;
    let spillway = Spillway::start(&CLUSTER, Some(NAMES_NOBODY), |config| {
        config["state"] = json!({ "dir": folder.path() });
        config["drain"] = json!({ "gracePeriod": "0s" });
        config_text = config.clone();
    });
    let (file, socket) = (policy_file(&spillway), spillway.socket.clone());
    fs::write(&file, throttles("change-two")).unwrap();
    becomes(&spillway, 2);
    let back = command(&["config", "rollback"], Some(&socket));
    assert!(
        back.out.contains("In force: policy 3") && back.out.contains("instead of policy 2"),
        "{}",
        back.out
    );
    assert!(back.err.contains("config show >"), "it says that the file is not in line: {}", back.err);
    let history = command(&["config", "history"], Some(&socket)).fine();
    assert!(history.contains("rollback to 1 by uid"), "{history}");
    assert_eq!(command(&["config", "show"], Some(&socket)).fine(), NAMES_NOBODY);
    let differs = command(&["config", "diff"], Some(&socket));
    assert_eq!(
        (differs.code, differs.out.contains("--- policy 3 (")),
        (1, true),
        "{} {}",
        differs.out,
        differs.err
    );
    assert!(differs.out.contains("rules["), "what the file would change: {}", differs.out);
    let same = command(&["config", "diff", "--generation", "1"], Some(&socket)).fine();
    assert!(same.contains("No difference."), "1 is in force again, as 3: {same}");
    let events = command(&["events"], Some(&socket)).fine();
    assert!(events.contains("rollback to 1 by uid"), "{events}");
    drop(spillway);

    config_text["admin"]["socket"] = json!(folder.path().join("again.sock"));
    let config = folder.path().join("config.yaml");
    fs::write(&config, config_text.to_string()).unwrap();
    fs::write(&file, "kind: [").unwrap();
    let args = ["run", "--config", config.to_str().unwrap(), "--policy", file.to_str().unwrap()];
    let refused = command(&args, None);
    assert_eq!(refused.code, 3, "{}", refused.err);
    assert!(refused.err.contains("--last-good") && refused.err.contains("Policy 3"), "{}", refused.err);
    let state = folder.path().to_str().unwrap();
    let kept = command(&["config", "show", "--state", state, "--generation", "2"], None).fine();
    assert_eq!(kept, throttles("change-two"), "no proxy has to run");
    let mut running = Command::new(BINARY)
        .args(args)
        .arg("--last-good")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let again = folder.path().join("again.sock");
    wait_for("the last good policy", SEEN, || {
        let shown = command(&["config", "show"], Some(&again));
        if shown.out == NAMES_NOBODY { Ok(()) } else { Err(format!("{}{}", shown.out, shown.err)) }
    });
    running.kill().unwrap();
    running.wait().unwrap();
}

/// A policy that lets each identity ask once, in a mode.
fn strict(enforcement: &str) -> String {
    format!(
        "apiVersion: config.spillway.dev/v1alpha1\nkind: TrafficPolicy\nname: strict\nenforcement: {enforcement}\n\
         lanes:\n  telemetry: {{ identityRate: {{ perSecond: 1, burst: 1 }} }}\n\
         rules:\n  - {{ name: everybody, match: {{ groups: [shadow-storm] }}, lane: telemetry }}\n\
         defaultRules: Omit\n"
    )
}

/// How many of `users` are refused when each asks some times on one connection.
async fn refused(spillway: &Spillway, users: &[String]) -> Vec<String> {
    let mut refused = vec![];
    for user in users {
        let who = Credential::Certificate(CLUSTER.pki.client(user, user, &["shadow-storm"]));
        let mut connection = spillway.caller(&who).connect(Protocol::Http2).await;
        let mut statuses = vec![];
        for _ in 0..4 {
            statuses.push(connection.ask(get("/api/v1/namespaces/shop/pods/none")).await.status);
        }
        if statuses.contains(&StatusCode::TOO_MANY_REQUESTS) {
            refused.push(user.clone());
        }
    }
    refused
}

/// The sum of a metric's series that have all of `labels`.
fn sum(spillway: &Spillway, name: &str, labels: &[&str]) -> f64 {
    let (_, page) = spillway.metrics_page("/metrics").unwrap();
    let series =
        page.lines().filter(|line| line.starts_with(name) && labels.iter().all(|label| line.contains(label)));
    series.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

#[test]
fn a_storm_in_shadow_refuses_nothing_and_is_counted_and_half_of_the_identities_is_the_same_half() {
    if !needs_spillway() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let spillway = Spillway::start(&CLUSTER, Some(&strict("{ mode: Shadow }")), |config| {
        config["state"] = json!({ "dir": folder.path() });
    });
    let users: Vec<String> = (0..24).map(|number| format!("shadow-{number}")).collect();
    let file = policy_file(&spillway);
    block_on(async {
        assert_eq!(refused(&spillway, &users).await, Vec::<String>::new());
        let labels = ["lane=\"telemetry\"", "reason=\"identity_rate\"", "rule=\"everybody\""];
        let counted = sum(&spillway, "spillway_shadow_shed_total{", &labels);
        assert!(counted >= 24.0, "{counted}");
        assert_eq!(sum(&spillway, "spillway_shed_total{", &["lane=\"telemetry\""]), 0.0);
        assert!(spillway.whole_log().contains("would-shed"), "{}", spillway.log());
        let status = command(&["status"], Some(&spillway.socket)).fine();
        assert!(status.contains("Shadow: nothing is refused") && status.contains("telemetry"), "{status}");

        fs::write(&file, strict("{ mode: Enforce, percent: 50 }")).unwrap();
        tokio::task::block_in_place(|| becomes(&spillway, 2));
        let half = refused(&spillway, &users).await;
        assert!((4..=20).contains(&half.len()), "{half:?}");
        assert_eq!(refused(&spillway, &users).await, half, "the same ones");

        fs::write(&file, strict("{ mode: Enforce, percent: 80 }")).unwrap();
        tokio::task::block_in_place(|| becomes(&spillway, 3));
        let more = refused(&spillway, &users).await;
        assert!(half.iter().all(|user| more.contains(user)), "{half:?} are in {more:?}");

        fs::write(&file, strict("{ mode: Enforce }")).unwrap();
        tokio::task::block_in_place(|| becomes(&spillway, 4));
        assert_eq!(refused(&spillway, &users).await, users);

        fs::write(
            &file,
            strict("{ mode: Enforce }")
                .replace("lane: telemetry }", "lane: telemetry, enforcement: Shadow }"),
        )
        .unwrap();
        tokio::task::block_in_place(|| becomes(&spillway, 5));
        assert_eq!(refused(&spillway, &users).await, Vec::<String>::new(), "a rule's own mode wins");
    });
}

/// A policy with quick steps, whose guard allows so many refusals in telemetry.
fn stepped(shed_max: u32) -> String {
    strict(&format!(
        "{{ mode: Shadow, steps: [50, 100], stepInterval: 2s, guard: {{ interval: 1s, failureThreshold: 2, checks: \
         [{{ metric: ShedInLane, lanes: [telemetry], max: {shed_max} }}] }} }}"
    ))
}

fn stage(spillway: &Spillway) -> (String, u64) {
    let status = command(&["rollout", "status", "-o", "json"], Some(&spillway.socket)).json();
    (status["stage"].as_str().unwrap().to_owned(), status["percent"].as_u64().unwrap())
}

fn reaches(spillway: &Spillway, wanted: &str) {
    wait_for(wanted, SEEN, || match stage(spillway) {
        (stage, _) if stage == wanted => Ok(()),
        other => Err(format!("{other:?}\n{}", spillway.log())),
    });
}

#[test]
fn a_rollout_steps_to_its_end_and_a_failing_guard_goes_back_to_shadow() {
    if !needs_spillway() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let spillway = Spillway::start(&CLUSTER, Some(&stepped(0)), |config| {
        config["state"] = json!({ "dir": folder.path() });
    });
    let socket = Some(spillway.socket.as_path());
    let order = |word: &str| command(&["rollout", word], socket);
    assert_eq!(stage(&spillway), ("idle".into(), 0));
    let early = order("pause");
    assert!(early.code == 1 && early.err.contains("SPW0761"), "{}", early.err);
    order("start").fine();
    reaches(&spillway, "done");
    assert_eq!(stage(&spillway).1, 100);
    order("abort").fine();
    assert_eq!(stage(&spillway), ("aborted".into(), 0));

    order("start").fine();
    let users: Vec<String> = (0..8).map(|number| format!("rollout-{number}")).collect();
    block_on(async {
        // Half of them, later all, are refused each second, and the guard allows none.
        for _ in 0..100 {
            if stage(&spillway).0 == "fell-back" {
                break;
            }
            refused(&spillway, &users).await;
        }
        assert_eq!(stage(&spillway).0, "fell-back", "{}", spillway.log());
        assert_eq!(refused(&spillway, &users).await, Vec::<String>::new(), "in shadow again");
    });
    assert!(sum(&spillway, "spillway_rollout_steps_total{result=\"rolled_back\"}", &[]) >= 1.0);
    let events = command(&["events"], socket).fine();
    assert!(events.contains("fell back to Shadow"), "{events}");
    let status = command(&["status"], socket).fine();
    assert!(status.contains("guard went back to Shadow"), "{status}");
    let broken = stepped(0).replace("[50, 100]", "[50, 50]");
    fs::write(policy_file(&spillway), broken).unwrap();
    let refused = command(&["config", "reload"], socket);
    assert!(refused.err.contains("SPW0750"), "{}", refused.err);
}
